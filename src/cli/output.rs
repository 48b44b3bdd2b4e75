//! Output tensors: a safetensors file that is there whole or not at all.

use super::failure::Failure;
use crate::memory::HostRef;
use crate::{DType, Element, Tensor};
use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where the result goes; the path was found fit before anything was computed.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    folder: PathBuf,
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
        Ok(OutputFile { path: path.to_owned(), folder: folder.to_owned() })
    }

    /// Writes under a temporary name in the same folder, then renames.
    pub(super) fn write(&self, tensors: &[(String, Tensor)]) -> Result<(), Failure> {
        let fail =
            |why: String| Failure::failed(format!("--output {}: {why}", self.path.display()));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".warploss-").suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // As any new file: the process's mask decides, not the temporary file's 0600.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(&self.folder).map_err(|e| fail(e.to_string()))?;
        let views = tensors.iter().map(|(name, tensor)| (name, Bytes::new(tensor)));
        safetensors::serialize_to_file(views, None, file.path())
            .map_err(|e| fail(e.to_string()))?;
        file.as_file().sync_all().map_err(|e| fail(e.to_string()))?;
        file.persist(&self.path).map_err(|e| fail(e.error.to_string()))?;
        Ok(())
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

/// The file's dtype for ours.
pub(super) fn file_dtype(dtype: DType) -> safetensors::Dtype {
    match dtype {
        DType::F32 => safetensors::Dtype::F32,
        DType::F16 => safetensors::Dtype::F16,
        DType::BF16 => safetensors::Dtype::BF16,
        DType::I64 => safetensors::Dtype::I64,
        DType::I32 => safetensors::Dtype::I32,
        DType::U32 => safetensors::Dtype::U32,
        DType::U8 => safetensors::Dtype::U8,
    }
}

/// A tensor as the file format wants it; little-endian, as every machine we build for.
#[derive(Debug)]
struct Bytes<'a> {
    dtype: DType,
    shape: Vec<usize>,
    data: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn new(tensor: &'a Tensor) -> Bytes<'a> {
        let data = match tensor.view().host_data() {
            Some(HostRef::F32(s)) => bytes(s),
            Some(HostRef::F16(s)) => bytes(s),
            Some(HostRef::BF16(s)) => bytes(s),
            Some(HostRef::I64(s)) => bytes(s),
            Some(HostRef::I32(s)) => bytes(s),
            Some(HostRef::U32(s)) => bytes(s),
            Some(HostRef::U8(s)) => bytes(s),
            None => &[],
        };
        Bytes { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), data }
    }
}

fn bytes<T: Element>(slice: &[T]) -> &[u8] {
    // SAFETY: `Element` is sealed to numbers, which have no padding; any byte is a u8, and the
    // length is that of the slice.
    unsafe { std::slice::from_raw_parts(slice.as_ptr().cast(), size_of_val(slice)) }
}

impl safetensors::View for Bytes<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        file_dtype(self.dtype)
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}
