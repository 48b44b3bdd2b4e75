//! Output tensors: a safetensors file that is there whole or not at all.

use super::failure::Failure;
use super::file::InputFile;
use crate::base::tensor::Tensor;
use crate::loss::io::file;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where the result goes; the path was found fit before anything was computed.
#[derive(Debug)]
pub(super) struct OutputFile {
    option: &'static str,
    path: PathBuf,
}

impl OutputFile {
    /// Checks what can be checked beforehand: the folder is there, and no device or pipe would be
    /// replaced.
    pub(super) fn new(option: &'static str, path: &Path) -> Result<OutputFile, Failure> {
        let fail = |why: &str| Failure::input(format!("{option} {}: {why}", path.display()));
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
                let got = if metadata.is_dir() { "a folder" } else { "something else" };
                return Err(fail(&format!("expected a regular file or none, got {got}")));
            }
            _ => {}
        }
        Ok(OutputFile { option, path: path.to_owned() })
    }

    /// An error where it is the file that is read: the input is kept, whatever it is called.
    pub(super) fn is_not(&self, input: &InputFile) -> Result<(), Failure> {
        let (option, path) = input.named();
        if !same_file(&self.path, path) {
            return Ok(());
        }
        let (ours, here, there) = (self.option, self.path.display(), path.display());
        Err(Failure::input(format!(
            "{ours} {here}: expected another file than {option}, got the same ({there})"
        )))
    }

    /// Writes under a temporary name in the same folder, then renames.
    pub(super) fn write(&self, tensors: &[(String, Tensor)]) -> Result<(), Failure> {
        file::write(&self.path, tensors)
            .map_err(|e| Failure::failed(format!("{} {}: {e}", self.option, self.path.display())))
    }
}

/// Whether two paths lead to one file, through whatever links; not where one of them leads nowhere.
#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    place(a).is_some_and(|a| place(b) == Some(a))
}

/// Whether two paths lead to one file; hard links are not seen through.
#[cfg(not(unix))]
fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
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
