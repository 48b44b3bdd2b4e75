//! Output tensors: a safetensors file that is there whole or not at all.

use super::failure::Failure;
use crate::{Tensor, file};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where the result goes; the path was found fit before anything was computed.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
}

impl OutputFile {
    /// Checks what can be checked beforehand: the folder is there, and no device or pipe would be
    /// replaced.
    pub(super) fn new(path: &Path) -> Result<OutputFile, Failure> {
        let fail = |why: &str| Failure::input(format!("--output {}: {why}", path.display()));
        let folder = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(fail("expected a file name, got a folder")),
        };
        if !folder.is_dir() {
            return Err(fail("expected a file in a folder that exists, got no such folder"));
        }
        match path.metadata() {
            Ok(metadata) if !metadata.is_file() => {
                return Err(fail("expected a regular file or none, got something else"));
            }
            _ => {}
        }
        Ok(OutputFile { path: path.to_owned() })
    }

    /// Writes under a temporary name in the same folder, then renames.
    pub(super) fn write(&self, tensors: &[(String, Tensor)]) -> Result<(), Failure> {
        file::write(&self.path, tensors)
            .map_err(|e| Failure::failed(format!("--output {}: {e}", self.path.display())))
    }
}

/// Prints what was done as one line; where that fails, takes back the file that was written.
pub(super) fn print(line: &serde_json::Value, written: Option<&OutputFile>) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| {
        if let Some(output) = written {
            // It may be gone already; the failure that led here is what is reported.
            let _ = std::fs::remove_file(&output.path);
        }
        Failure::failed(format!("standard output: {e}"))
    })
}
