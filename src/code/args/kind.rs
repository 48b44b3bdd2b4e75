//! Element types, as kernels number them.

use crate::base::dtype::DType;

/// Bytes of an element of a [`kind`].
pub(super) fn size(number: u32) -> usize {
    DType::ALL.iter().find(|&&dtype| kind(dtype) == number).map_or(0, |dtype| dtype.size())
}

/// The number that stands for a dtype in a kernel (`KIND_*` in dtype.cuh).
pub(crate) fn kind(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::I64 => 3,
        DType::I32 => 4,
        DType::U32 => 5,
        DType::U8 => 6,
    }
}
