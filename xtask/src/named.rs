//! Files that comments and documents send their reader to.

use crate::fault::Fault;
use std::path::Path;

/// Folders that a path from the root begins with.
const ROOTS: [&str; 5] = ["benches", "kernels", "scripts", "src", "tests"];
const ENDINGS: [&str; 4] = ["cu", "cuh", "hpp", "rs"];

/// Paths from the root that are named where nothing is compiled, and lead nowhere.
pub fn faults(root: &Path, file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let said = if file.ends_with(".md") { Some(line) } else { comment(line) };
        for path in said.into_iter().flat_map(paths).filter(|path| !root.join(path).exists()) {
            let message = format!("sends its reader to {path}, which does not exist");
            faults.push(Fault::new("named", file, i + 1, path, message));
        }
    }
    faults
}

/// What a line says to its reader.
fn comment(line: &str) -> Option<&str> {
    let mark = if line.trim_start().starts_with('#') { "#" } else { "//" };
    line.split_once(mark).map(|(_, said)| said)
}

/// The files' paths in a text.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let inside = |c: char| c.is_alphanumeric() || "_-/.".contains(c);
    text.split(move |c| !inside(c)).map(|word| word.trim_end_matches('.')).filter(|word| {
        let root = word.split_once('/').map(|(root, _)| root);
        let ending = word.rsplit_once('.').map(|(_, ending)| ending);
        root.is_some_and(|root| ROOTS.contains(&root))
            && ending.is_some_and(|ending| ENDINGS.contains(&ending))
            // A file of any loss.
            && !word.contains("NAME")
    })
}
