//! Element types: three floating-point types for data, four integer types for class indices.

use half::{bf16, f16};

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Signed 64-bit index.
    I64,
    /// Signed 32-bit index.
    I32,
    /// Unsigned 32-bit index.
    U32,
    /// Unsigned 8-bit index.
    U8,
}

impl DType {
    /// Every dtype, floats first.
    pub const ALL: [DType; 7] =
        [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// Whether elements are floating-point data (f32, f16, bf16).
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Whether elements are class indices (i64, i32, u32, u8).
    pub const fn is_index(self) -> bool {
        !self.is_float()
    }

    /// The name as PyTorch abbreviates it: `f32`, `bf16`, `i64`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a tensor can hold.
pub trait Element:
    Copy + Send + Sync + Default + std::fmt::Debug + sealed::Sealed + 'static
{
    /// The dtype that stands for this type.
    const DTYPE: DType;

    #[doc(hidden)]
    fn host_ref(slice: &[Self]) -> crate::base::host::HostRef<'_>;
    #[doc(hidden)]
    fn host_mut(slice: &mut [Self]) -> crate::base::host::HostMut<'_>;
    #[doc(hidden)]
    fn host_vec(vec: Vec<Self>) -> crate::base::host::HostVec;
    #[doc(hidden)]
    fn from_host<'a>(host: crate::base::host::HostRef<'a>) -> Option<&'a [Self]>;
    #[doc(hidden)]
    fn from_host_mut<'a>(host: crate::base::host::HostMut<'a>) -> Option<&'a mut [Self]>;
}

/// A floating-point element: widened exactly to f32, rounded once (to nearest even) from f32.
pub trait Float: Element {
    /// Widens exactly.
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even; overflow gives an infinity.
    fn from_f32(value: f32) -> Self;
}

/// A class index, widened to i64.
pub trait Index: Element {
    /// Widens exactly.
    fn to_i64(self) -> i64;
}

/// The one list of element types: everything that follows from a type's name is made here.
macro_rules! elements {
    ($($variant:ident $type:ty,)*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn host_ref(slice: &[Self]) -> crate::base::host::HostRef<'_> {
                crate::base::host::HostRef::$variant(slice)
            }
            fn host_mut(slice: &mut [Self]) -> crate::base::host::HostMut<'_> {
                crate::base::host::HostMut::$variant(slice)
            }
            fn host_vec(vec: Vec<Self>) -> crate::base::host::HostVec {
                crate::base::host::HostVec::$variant(vec)
            }
            fn from_host<'a>(host: crate::base::host::HostRef<'a>) -> Option<&'a [Self]> {
                match host {
                    crate::base::host::HostRef::$variant(slice) => Some(slice),
                    _ => None,
                }
            }
            fn from_host_mut<'a>(host: crate::base::host::HostMut<'a>) -> Option<&'a mut [Self]> {
                match host {
                    crate::base::host::HostMut::$variant(slice) => Some(slice),
                    _ => None,
                }
            }
        }
    )*};
}

elements! {
    F32 f32,
    F16 f16,
    BF16 bf16,
    I64 i64,
    I32 i32,
    U32 u32,
    U8 u8,
}

impl Float for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Float for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

macro_rules! indices {
    ($($type:ty),*) => {$(
        impl Index for $type {
            #[inline(always)]
            fn to_i64(self) -> i64 {
                i64::from(self)
            }
        }
    )*};
}

indices!(i64, i32, u32, u8);
