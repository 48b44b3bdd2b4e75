//! Tensors in files of the safetensors format; written whole or not at all.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::{Element, HostRef};
use crate::base::tensor::Tensor;
use crate::base::tensor::safetensors::{dtype_of, file_dtype};
use crate::loss::io::sniff::what_it_is;
use memmap2::Mmap;
use safetensors::SafeTensors;
use std::borrow::{Borrow, Cow};
use std::fs::File;
use std::path::Path;

/// Copies of the tensors whose names are wanted.
pub(crate) fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Tensor)>> {
    let refuse = |expected: &str, got: String| Error::Value {
        argument: "path",
        expected: expected.into(),
        got: format!("{}: {got}", path.display()),
    };
    let unreadable = |e| failed("a file that can be read", path, e);
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: read-only and private. A process that writes to the file meanwhile changes what is
    // copied, for which every bit pattern is a value; one that shortens it can end this process,
    // which no interface without a copy of the whole file prevents.
    let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(&map)
        .map_err(|e| refuse("a safetensors file", what_it_is(&map, &e)))?;
    let names = tensors.names().into_iter().filter(|name| wanted(name)).map(str::to_owned);
    names
        .map(|name| {
            let view = tensors.tensor(&name).map_err(|e| refuse(&name, e.to_string()))?;
            if dtype_of(view.dtype()).is_none() {
                let expected = format!("`{name}` of a dtype that losses take");
                return Err(refuse(&expected, format!("{:?}", view.dtype())));
            }
            let tensor = Tensor::try_from(&view)?;
            Ok((name, tensor))
        })
        .collect()
}

/// What the system says of a file.
pub(crate) fn failed(expected: &'static str, path: &Path, error: std::io::Error) -> Error {
    Error::Io { argument: "path", expected, path: path.into(), source: error.into() }
}

/// Writes under a temporary name in the same folder, then renames.
pub(crate) fn write<T: Borrow<Tensor>>(
    path: &Path,
    tensors: &[(String, T)],
) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(std::io::Error::other("a folder, where a file is expected")),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".warploss-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any new file: the process's mask decides, not the temporary file's 0600.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder)?;
    let views = tensors.iter().map(|(name, tensor)| (name, Bytes::new(tensor.borrow())));
    safetensors::serialize_to_file(views, None, file.path()).map_err(std::io::Error::other)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
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
