//! Who includes whom among the kernels.

use crate::fault::Fault;
use crate::files;
use crate::order::Arrows;
use std::path::Path;

/// Where the kernels are.
const KERNELS: &str = "kernels";

/// Arrows of `#include "…"`, and includes that lead nowhere.
pub fn read(root: &Path) -> (Arrows, Vec<Fault>) {
    let (mut arrows, mut faults) = (Arrows::new(), Vec::new());
    let kernels = files::under(root, KERNELS);
    for file in &kernels {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        for (i, line) in text.lines().enumerate() {
            let Some(rest) = line.trim_start().strip_prefix("#include \"") else { continue };
            let Some((name, _)) = rest.split_once('"') else { continue };
            match find(file, name, &kernels) {
                Some(to) if to != *file => {
                    arrows.entry((file.clone(), to)).or_default().push((i + 1, name.into()));
                }
                found => {
                    let why = match found {
                        Some(_) => "includes itself".into(),
                        None => format!(
                            "includes {name:?}, which no file of {KERNELS}/ is, or several are"
                        ),
                    };
                    faults.push(Fault::new("include", file, i + 1, name, why));
                }
            }
        }
    }
    (arrows, faults)
}

/// The file that is meant: beside the one that includes it, by its way from the kernels' folder, or
/// the only one of that name.
fn find(from: &str, name: &str, kernels: &[String]) -> Option<String> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let exact = [format!("{folder}/{name}"), format!("{KERNELS}/{name}")];
    if let Some(file) = kernels.iter().find(|file| exact.contains(file)) {
        return Some(file.clone());
    }
    let end = format!("/{}", name.trim_start_matches("../"));
    let mut all = kernels.iter().filter(|file| file.ends_with(&end));
    match (all.next(), all.next()) {
        (Some(file), None) => Some(file.clone()),
        _ => None,
    }
}
