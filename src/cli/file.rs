//! Input tensors: a safetensors file, memory-mapped, each tensor a checked view of the mapping.
//!
//! The safetensors crate validates the header: sizes, offsets and dtypes agree and lie inside the
//! file. What is left to check is here: shapes that our views can hold, dtypes that we know, and
//! the alignment of the data, which the format recommends and a hostile file may lack.

use super::failure::Failure;
use super::{memory, similar};
use crate::base::dtype::DType;
use crate::base::host::HostRef;
use crate::base::shape::MAX_RANK;
use crate::base::tensor::safetensors::dtype_of;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::typed;
use crate::loss::io::sniff::what_it_is;
use memmap2::Mmap;
use safetensors::SafeTensors;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const FLOATS: &str = "f32, f16 or bf16";
const INDICES: &str = "i64, i32, u32 or u8";
const EITHER: &str = "i64, i32, u32 or u8 (class indices), or f32, f16 or bf16 (probabilities)";

/// A file in memory.
#[derive(Debug)]
pub(super) struct InputFile {
    map: Mmap,
    option: &'static str,
    path: PathBuf,
}

impl InputFile {
    /// The option that named the file, and its path.
    pub(super) fn named(&self) -> (&'static str, &Path) {
        (self.option, &self.path)
    }

    /// Maps the file that `option` names; nothing is read yet.
    pub(super) fn open(option: &'static str, path: &Path) -> Result<InputFile, Failure> {
        let fail = |why: String| Failure::input(format!("{option} {}: {why}", path.display()));
        let metadata = fs::metadata(path).map_err(|e| fail(e.to_string()))?;
        // Opening a pipe would wait for its other end.
        if !metadata.is_file() {
            let got = if metadata.is_dir() { "a folder" } else { "something else" };
            return Err(fail(format!("expected a regular file, got {got}")));
        }
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        // SAFETY: the mapping is private to us and read-only. Another process that writes to the
        // file meanwhile could change what we see, and one that shortens it could end us with
        // SIGBUS; no file interface that avoids a copy prevents that, and every value read is
        // either checked when used (offsets are checked once, by the header, which is parsed into
        // memory of its own) or data for which all bit patterns are legal.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| fail(e.to_string()))?;
        Ok(InputFile { map, option, path: path.to_owned() })
    }

    /// Reads the header; the tensors are the names that begin with `prefix`.
    pub(super) fn inputs<'a>(&'a self, prefix: &'a str) -> Result<Inputs<'a>, Failure> {
        let tensors = SafeTensors::deserialize(&self.map).map_err(|e| {
            Failure::input(format!(
                "{} {}: expected a safetensors file, got {}",
                self.option,
                self.path.display(),
                what_it_is(&self.map, &e)
            ))
        })?;
        Ok(Inputs { tensors, prefix, path: &self.path })
    }
}

/// The tensors of a file, by name.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    tensors: SafeTensors<'a>,
    prefix: &'a str,
    path: &'a Path,
}

impl<'a> Inputs<'a> {
    /// The name in the file of the tensor that a loss calls `name`.
    pub(super) fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A tensor of floats that must be there.
    pub(super) fn floats(&self, name: &str) -> Result<Input<'a>, Failure> {
        self.find(name, FLOATS)?.ok_or_else(|| self.missing(name))
    }

    /// A tensor of floats that may be there.
    pub(super) fn find_floats(&self, name: &str) -> Result<Option<Input<'a>>, Failure> {
        self.find(name, FLOATS)
    }

    /// A tensor of integers that must be there.
    pub(super) fn indices(&self, name: &str) -> Result<Input<'a>, Failure> {
        self.find(name, INDICES)?.ok_or_else(|| self.missing(name))
    }

    /// A tensor of integers that may be there.
    pub(super) fn find_indices(&self, name: &str) -> Result<Option<Input<'a>>, Failure> {
        self.find(name, INDICES)
    }

    /// Class indices or probabilities, which must be there.
    pub(super) fn either(&self, name: &str) -> Result<Input<'a>, Failure> {
        self.find(name, EITHER)?.ok_or_else(|| self.missing(name))
    }

    /// `dtypes` are for an error about one that no tensor of ours has; which of ours is right is
    /// the library's to say.
    fn find(&self, name: &str, dtypes: &str) -> Result<Option<Input<'a>>, Failure> {
        let full = self.full_name(name);
        match self.tensors.tensor(&full) {
            Ok(view) => Input::new(full, view, dtypes).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn missing(&self, name: &str) -> Failure {
        let full = self.full_name(name);
        let meant = self.meant(&full).map_or(String::new(), |meant| format!("; {meant}"));
        let listing = self.listing();
        Failure::input(format!("{full}: expected a tensor of this name, got {listing}{meant}"))
    }

    /// What was meant by a name that is not there.
    fn meant(&self, full: &str) -> Option<String> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        let mut prefixes = names.iter().filter_map(|name| name.strip_suffix(full));
        if let Some(prefix) = prefixes.find(|p| self.prefix.is_empty() && p.ends_with('.')) {
            return Some(format!("did you mean --prefix {prefix}?"));
        }
        similar::closest(full, names).map(|name| format!("did you mean {name}?"))
    }

    /// The names of all tensors, without the prefix, sorted.
    pub(super) fn names(&self) -> Vec<&str> {
        let names = self.tensors.names();
        let mut names: Vec<_> =
            names.into_iter().filter_map(|name| name.strip_prefix(self.prefix)).collect();
        names.sort_unstable();
        names
    }

    /// The first few names, for an error that says what the file has instead.
    fn listing(&self) -> String {
        const SHOWN: usize = 8;
        let mut names = self.tensors.names();
        names.sort_unstable();
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        match names.is_empty() {
            true => format!("no tensors in {}", self.path.display()),
            false => format!("{}{more} in {}", names.join(", "), self.path.display()),
        }
    }
}

/// One tensor of the file.
#[derive(Debug)]
pub(super) struct Input<'a> {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    data: Data<'a>,
}

#[derive(Debug)]
enum Data<'a> {
    /// In the mapping.
    Mapped(HostRef<'a>),
    /// Copied, since the file has it at an odd address; one-dimensional.
    Copied(Tensor),
}

impl<'a> Input<'a> {
    fn new(
        name: String,
        view: safetensors::tensor::TensorView<'a>,
        dtypes: &str,
    ) -> Result<Self, Failure> {
        let shape = view.shape().to_vec();
        // A dimension of 0 must not hide that the others exceed the address space.
        let row = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if shape.len() > MAX_RANK || row.is_none_or(|n| n > isize::MAX as usize / 8) {
            return Err(Failure::input(format!(
                "{name}: expected at most {MAX_RANK} dimensions that fit the address space, got shape {shape:?}"
            )));
        }
        let dtype = dtype_of(view.dtype()).ok_or_else(|| {
            let got = view.dtype().to_string().to_lowercase();
            Failure::input(format!("{name}: expected dtype {dtypes}, got {got}"))
        })?;
        let data = Data::new(dtype, view.data(), &name)?;
        Ok(Input { name, dtype, shape, data })
    }

    /// The name in the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The sizes as in the file.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the elements.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements, in order.
    pub(super) fn host(&self) -> HostRef<'_> {
        match &self.data {
            Data::Mapped(host) => *host,
            // An owned tensor is in host memory; the empty slice stands for what cannot be.
            Data::Copied(tensor) => tensor.view().host_data().unwrap_or(HostRef::U8(&[])),
        }
    }

    /// How many of the elements are this class index; none where they are floats.
    pub(super) fn count(&self, label: i64) -> usize {
        let indices = self.host().indices();
        indices.map_or(0, |all| (0..self.elements()).filter(|&i| all.get(i) == label).count())
    }

    /// The tensor as it is.
    pub(super) fn view(&self) -> Result<TensorRef<'_>, Failure> {
        self.view_as(&self.shape)
    }

    /// The first `shape[d]` of each dimension `d > 0`, whose rows stand as far apart as in the file.
    pub(super) fn view_as(&self, shape: &[usize]) -> Result<TensorRef<'_>, Failure> {
        let stride = self.shape.iter().skip(1).product();
        typed::view(self.host(), shape, stride).map_err(|e| {
            let names = [("shape", self.name.clone()), ("row_stride", self.name.clone())];
            Failure::renamed(&e, &names)
        })
    }
}

impl<'a> Data<'a> {
    fn new(dtype: DType, bytes: &'a [u8], name: &str) -> Result<Self, Failure> {
        let n = bytes.len() / dtype.size();
        let lent = TensorRef::from_bytes(dtype, bytes, &[n], None).ok();
        if let Some(mapped) = lent.and_then(|view| view.host_data()) {
            return Ok(Data::Mapped(mapped));
        }
        memory::require(bytes.len() as u128, &format!("a copy of {name}, which is misaligned"))?;
        Ok(Data::Copied(Tensor::copy_bytes(dtype, bytes, &[n], None)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_at_an_odd_address_is_copied() {
        let mut bytes = [0u8; 4 * 4 + 4];
        let start = bytes.as_ptr().align_offset(4) + 1;
        for (i, v) in [1.5f32, -2.0, 3.25].iter().enumerate() {
            bytes[start + 4 * i..][..4].copy_from_slice(&v.to_le_bytes());
        }
        let data = Data::new(DType::F32, &bytes[start..start + 12], "input").unwrap();
        let Data::Copied(tensor) = data else {
            panic!("expected a copy");
        };
        assert_eq!(tensor.as_slice::<f32>(), Some(&[1.5, -2.0, 3.25][..]));
    }
}
