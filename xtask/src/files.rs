//! The project's files.

use std::path::Path;

/// Files in a folder and its folders, from the root of the project, sorted. Nothing hidden, and no
/// build's output.
pub fn under(root: &Path, folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    collect(root, folder, &mut files);
    files.sort();
    files
}

fn collect(root: &Path, folder: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "__pycache__" {
            continue;
        }
        let path = format!("{folder}/{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(root, &path, files),
            _ => files.push(path),
        }
    }
}
