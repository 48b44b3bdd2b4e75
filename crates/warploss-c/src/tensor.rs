//! Tensors as DLPack has them.

use crate::status::{Refusal, Result};
use std::ffi::c_void;
use warploss::{DType, GradOutput, TensorMut, TensorRef};

/// Where memory lies: DLPack's `DLDevice`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_place {
    /// 1: the host; 2: a CUDA device; 3: the host, pinned.
    pub device_type: i32,
    /// Which of several.
    pub device_id: i32,
}

/// Type of elements: DLPack's `DLDataType`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct warploss_dtype {
    /// 0: signed integer, 1: unsigned integer, 2: IEEE float, 4: bfloat.
    pub code: u8,
    /// Bits of an element.
    pub bits: u8,
    /// 1.
    pub lanes: u16,
}

/// A tensor: DLPack's `DLTensor`, member by member.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_tensor {
    /// The memory.
    pub data: *mut c_void,
    /// Where it lies.
    pub device: warploss_place,
    /// Dimensions, at most 8.
    pub ndim: i32,
    /// Type of elements.
    pub dtype: warploss_dtype,
    /// Sizes of the dimensions.
    pub shape: *const i64,
    /// Elements between neighbours along each dimension: rows may lie at any distance, what is inside of them in one piece.
    /// Null: all in one piece.
    pub strides: *const i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// What stands for a tensor's memory: address, dtype, sizes and distances, checked as far as numbers can be.
struct Facts {
    dtype: DType,
    address: *mut u8,
    shape: Vec<usize>,
    strides: Option<Vec<isize>>,
    /// On which CUDA device.
    cuda: Option<usize>,
}

/// # Safety
/// Null, or a tensor whose `shape` and `strides` (where not null) have `ndim` numbers.
unsafe fn facts(name: &str, tensor: *const warploss_tensor) -> Result<Facts> {
    // SAFETY: the caller's promise.
    let Some(tensor) = (unsafe { tensor.as_ref() }) else {
        return Err(Refusal::argument(name, "a tensor", "NULL"));
    };
    let warploss_dtype { code, bits, lanes } = tensor.dtype;
    let dtype = match (code, bits, lanes) {
        (2, 32, 1) => DType::F32,
        (2, 16, 1) => DType::F16,
        (4, 16, 1) => DType::BF16,
        (0, 64, 1) => DType::I64,
        (0, 32, 1) => DType::I32,
        (1, 32, 1) => DType::U32,
        (1, 8, 1) => DType::U8,
        _ => {
            let got = format!("code {code}, {bits} bits, {lanes} lanes");
            let expected = "a dtype of f32, f16, bf16, i64, i32, u32 or u8 and one lane";
            return Err(Refusal::argument(name, expected, got));
        }
    };
    let ordinal = || {
        let id = tensor.device.device_id;
        usize::try_from(id).map_err(|_| Refusal::argument(name, "a device_id from 0 on", id))
    };
    let cuda = match tensor.device.device_type {
        1 | 3 => ordinal().map(|_| None)?,
        2 if cfg!(feature = "cuda") => Some(ordinal()?),
        got => {
            let expected = "a device_type of the host (1, 3) or, in a build with cuda, CUDA (2)";
            return Err(Refusal::argument(name, expected, got));
        }
    };
    let rank = usize::try_from(tensor.ndim).ok().filter(|&rank| rank <= warploss::MAX_RANK);
    let Some(rank) = rank else {
        return Err(Refusal::argument(name, "an ndim from 0 to 8", tensor.ndim));
    };
    if rank > 0 && tensor.shape.is_null() {
        return Err(Refusal::argument(name, "a shape", "NULL"));
    }
    // SAFETY: they have so many numbers where they are not null (the caller's promise); none are read of null.
    let numbers = |at: *const i64| unsafe {
        if rank == 0 { &[][..] } else { std::slice::from_raw_parts(at, rank) }
    };
    let shape = numbers(tensor.shape).iter().map(|&size| {
        usize::try_from(size)
            .map_err(|_| Refusal::argument(name, "sizes that are not negative", size))
    });
    let shape = shape.collect::<Result<Vec<usize>>>()?;
    let strides = (!tensor.strides.is_null())
        .then(|| numbers(tensor.strides).iter().map(|&stride| stride as isize).collect());
    let offset = usize::try_from(tensor.byte_offset).unwrap_or(usize::MAX);
    let address = tensor.data.cast::<u8>().wrapping_add(offset);
    Ok(Facts { dtype, address, shape, strides, cuda })
}

fn named(name: &str) -> impl FnOnce(warploss::Error) -> Refusal {
    move |error| {
        // What the library calls data is this tensor.
        let text = error.to_string();
        let text = text.strip_prefix("data: ").unwrap_or(&text).to_owned();
        let expected = text.strip_prefix("expected ").unwrap_or(&text);
        match expected.split_once(", got ") {
            Some((expected, got)) => Refusal::argument(name, expected, got),
            None => Refusal::argument(name, "a tensor that can be", text),
        }
    }
}

#[cfg(feature = "cuda")]
impl Facts {
    fn device(&self, name: &str, ordinal: usize) -> Result<(warploss::DeviceMemory, usize)> {
        let inner: usize = self.shape.iter().skip(1).product();
        let mut expected = 1;
        for (i, &size) in self.shape.iter().enumerate().rev() {
            let stride = self.strides.as_ref().map_or(expected, |strides| strides[i]);
            if i > 0 && size > 1 && stride != expected {
                return Err(Refusal::argument(name, "rows in one piece each", stride));
            }
            expected = expected.saturating_mul(size as isize);
        }
        let stride = self.strides.as_ref().and_then(|strides| strides.first());
        let stride = stride.map_or(inner, |&stride| usize::try_from(stride).unwrap_or(0));
        let rows = self.shape.first().copied().unwrap_or(1);
        let stride = if rows > 1 { stride } else { inner };
        let len = match rows {
            0 => 0,
            rows => (rows - 1).saturating_mul(stride).saturating_add(inner),
        };
        let Facts { dtype, address, .. } = *self;
        let address = address.addr() as u64;
        Ok((warploss::DeviceMemory { address, len, dtype, ordinal }, stride))
    }
}

/// A view of the tensor's memory, shared or to be written. Unsafe, as [`read`] and [`write`] are.
macro_rules! view {
    ($View:ident, $name:expr, $tensor:expr) => {{
        let facts = facts($name, $tensor)?;
        match facts.cuda {
            #[cfg(feature = "cuda")]
            Some(ordinal) => {
                let (memory, stride) = facts.device($name, ordinal)?;
                $View::from_device(memory, &facts.shape, stride)
            }
            _ => {
                let Facts { dtype, address, shape, strides, .. } = facts;
                $View::from_raw_parts(dtype, address, &shape, strides.as_deref())
            }
        }
        .map_err(named($name))
    }};
}

/// # Safety
/// As for [`facts`]; the memory is what the tensor says, holds numbers, and nobody writes or frees it during the call (on a
/// CUDA device: before what was begun is done).
pub(crate) unsafe fn read<'a>(name: &str, tensor: *const warploss_tensor) -> Result<TensorRef<'a>> {
    // SAFETY: the caller's promise.
    unsafe { view!(TensorRef, name, tensor) }
}

/// # Safety
/// As for [`read`], of a tensor that there may be.
pub(crate) unsafe fn read_some<'a>(
    name: &str,
    tensor: *const warploss_tensor,
) -> Result<Option<TensorRef<'a>>> {
    // SAFETY: the caller's promise.
    (!tensor.is_null()).then(|| unsafe { read(name, tensor) }).transpose()
}

/// # Safety
/// As for [`read`], of memory that nobody else reads or writes meanwhile.
pub(crate) unsafe fn write<'a>(
    name: &str,
    tensor: *const warploss_tensor,
) -> Result<TensorMut<'a>> {
    // SAFETY: the caller's promise.
    unsafe { view!(TensorMut, name, tensor) }
}

/// # Safety
/// As for [`write`], of a tensor that there may be.
pub(crate) unsafe fn write_some<'a>(
    name: &str,
    tensor: *const warploss_tensor,
) -> Result<Option<TensorMut<'a>>> {
    // SAFETY: the caller's promise.
    (!tensor.is_null()).then(|| unsafe { write(name, tensor) }).transpose()
}

/// An upstream gradient: a tensor where there is one, else a number.
///
/// # Safety
/// As for [`read`].
pub(crate) unsafe fn upstream<'a>(
    name: &str,
    (tensor, number): (*const warploss_tensor, f32),
) -> Result<GradOutput<'a>> {
    // SAFETY: the caller's promise.
    let tensor = unsafe { read_some(name, tensor)? };
    Ok(tensor.map_or(GradOutput::from(number), GradOutput::Tensor))
}

/// The bytes from a tensor's first element to its last.
///
/// # Safety
/// As for [`facts`].
unsafe fn reach(name: &str, tensor: *const warploss_tensor) -> Result<std::ops::Range<usize>> {
    // SAFETY: the caller's promise.
    let Facts { dtype, address, shape, strides, .. } = unsafe { facts(name, tensor)? };
    let mut inner: usize = 1;
    let mut elements: usize = 1;
    for (i, &size) in shape.iter().enumerate().rev() {
        let stride = strides.as_ref().map_or(inner, |strides| strides[i].unsigned_abs());
        elements = elements.saturating_add(size.saturating_sub(1).saturating_mul(stride));
        inner = inner.saturating_mul(size);
    }
    let bytes = if inner == 0 { 0 } else { elements.saturating_mul(dtype.size()) };
    let first = address.addr();
    Ok(first..first.saturating_add(bytes))
}

/// Nothing that is written overlaps what else a call is given.
///
/// # Safety
/// As for [`facts`], of each that is not null.
pub(crate) unsafe fn apart(
    written: &[(&str, *const warploss_tensor)],
    read: &[(&str, *const warploss_tensor)],
) -> Result<()> {
    let there = |list: &[(&str, *const warploss_tensor)]| {
        let list = list.iter().filter(|(_, tensor)| !tensor.is_null());
        // SAFETY: the caller's promise.
        list.map(|&(name, tensor)| Ok((name.to_owned(), unsafe { reach(name, tensor)? })))
            .collect::<Result<Vec<_>>>()
    };
    let (written, read) = (there(written)?, there(read)?);
    for (i, (name, to)) in written.iter().enumerate() {
        for (other, of) in written[i + 1..].iter().chain(&read) {
            if to.start < of.end && of.start < to.end {
                let expected = format!("memory apart from {other}");
                return Err(Refusal::argument(name, &expected, "memory that overlaps it"));
            }
        }
    }
    Ok(())
}
