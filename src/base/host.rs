//! Typed host memory: the element types, and what a dtype stands for as slices and vectors.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use half::{bf16, f16};

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
    fn host_ref(slice: &[Self]) -> HostRef<'_>;
    #[doc(hidden)]
    fn host_mut(slice: &mut [Self]) -> HostMut<'_>;
    #[doc(hidden)]
    fn host_vec(vec: Vec<Self>) -> HostVec;
    #[doc(hidden)]
    fn from_host<'a>(host: HostRef<'a>) -> Option<&'a [Self]>;
    #[doc(hidden)]
    fn from_host_mut<'a>(host: HostMut<'a>) -> Option<&'a mut [Self]>;
    /// The vector that `host_vec` took, or the memory as it came.
    #[doc(hidden)]
    fn from_host_vec(host: HostVec) -> Result<Vec<Self>, HostVec>;
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

/// A typed host slice, shared.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum HostRef<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    I64(&'a [i64]),
    I32(&'a [i32]),
    U32(&'a [u32]),
    U8(&'a [u8]),
}

/// A typed host slice, exclusive.
#[doc(hidden)]
#[derive(Debug)]
pub enum HostMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    BF16(&'a mut [bf16]),
    I64(&'a mut [i64]),
    I32(&'a mut [i32]),
    U32(&'a mut [u32]),
    U8(&'a mut [u8]),
}

/// Typed owned host memory.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq)]
pub enum HostVec {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

/// Runs `$body` with `$slice` bound to the typed slice (or vector) inside.
macro_rules! each_dtype {
    ($kind:ident, $host:expr, $slice:pat => $body:expr) => {
        match $host {
            $kind::F32($slice) => $body,
            $kind::F16($slice) => $body,
            $kind::BF16($slice) => $body,
            $kind::I64($slice) => $body,
            $kind::I32($slice) => $body,
            $kind::U32($slice) => $body,
            $kind::U8($slice) => $body,
        }
    };
}

pub(crate) use each_dtype;

/// Runs `$body` with `$type` standing for the type of a dtype's elements.
macro_rules! with_dtype {
    ($dtype:expr, $type:ident => $body:expr) => {
        with_dtype!($dtype, $type => $body; F32 f32, F16 half::f16, BF16 half::bf16, I64 i64, I32 i32, U32 u32, U8 u8)
    };
    ($dtype:expr, $type:ident => $body:expr; $($variant:ident $of:ty),*) => {
        match $dtype {
            $(DType::$variant => {
                type $type = $of;
                $body
            })*
        }
    };
}

pub(crate) use with_dtype;

fn dtype_of<T: Element>(_: &[T]) -> DType {
    T::DTYPE
}

impl HostRef<'_> {
    pub(crate) fn dtype(&self) -> DType {
        each_dtype!(HostRef, self, s => dtype_of(s))
    }
    pub(crate) fn len(&self) -> usize {
        each_dtype!(HostRef, self, s => s.len())
    }
    pub(crate) fn address(&self) -> usize {
        each_dtype!(HostRef, self, s => s.as_ptr() as usize)
    }
}

impl<'a> HostRef<'a> {
    /// Memory at an address; of no elements it may be any address.
    ///
    /// # Safety
    /// Unless `len` is 0, so many elements of `dtype` lie at `data`, which is aligned for them:
    /// initialised, and for `'a` neither freed nor written.
    pub(crate) unsafe fn from_raw(dtype: DType, data: *const u8, len: usize) -> HostRef<'a> {
        with_dtype!(dtype, T => match len {
            0 => T::host_ref(&[]),
            // SAFETY: the caller vouches for `len` elements at an address that is theirs.
            _ => T::host_ref(unsafe { std::slice::from_raw_parts(data.cast::<T>(), len) }),
        })
    }
}

impl<'a> HostMut<'a> {
    /// As [`HostRef::from_raw`], to be written.
    ///
    /// # Safety
    /// As there, and nobody else reads or writes the elements during `'a`.
    pub(crate) unsafe fn from_raw(dtype: DType, data: *mut u8, len: usize) -> HostMut<'a> {
        with_dtype!(dtype, T => match len {
            0 => T::host_mut(&mut []),
            // SAFETY: the caller vouches for `len` elements that are nobody else's.
            _ => T::host_mut(unsafe { std::slice::from_raw_parts_mut(data.cast::<T>(), len) }),
        })
    }
}

impl HostRef<'_> {
    /// Element `i` of float data, widened; NaN for an index dtype, which the checks rule out.
    #[inline]
    pub(crate) fn float(&self, i: usize) -> f32 {
        match self {
            HostRef::F32(s) => s[i],
            HostRef::F16(s) => s[i].to_f32(),
            HostRef::BF16(s) => s[i].to_f32(),
            HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_) => f32::NAN,
        }
    }
}

/// A typed host slice of integers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum IndexRef<'a> {
    I64(&'a [i64]),
    I32(&'a [i32]),
    U32(&'a [u32]),
    U8(&'a [u8]),
}

impl<'a> HostRef<'a> {
    /// Index data; `None` for a float dtype.
    pub(crate) fn indices(self) -> Option<IndexRef<'a>> {
        match self {
            HostRef::I64(s) => Some(IndexRef::I64(s)),
            HostRef::I32(s) => Some(IndexRef::I32(s)),
            HostRef::U32(s) => Some(IndexRef::U32(s)),
            HostRef::U8(s) => Some(IndexRef::U8(s)),
            HostRef::F32(_) | HostRef::F16(_) | HostRef::BF16(_) => None,
        }
    }
}

impl IndexRef<'_> {
    /// Element `i`, widened.
    #[inline]
    pub(crate) fn get(&self, i: usize) -> i64 {
        match self {
            IndexRef::I64(s) => s[i],
            IndexRef::I32(s) => s[i].into(),
            IndexRef::U32(s) => s[i].into(),
            IndexRef::U8(s) => s[i].into(),
        }
    }
}

impl HostMut<'_> {
    pub(crate) fn as_ref(&self) -> HostRef<'_> {
        each_dtype!(HostMut, self, s => Element::host_ref(s))
    }
    pub(crate) fn reborrow(&mut self) -> HostMut<'_> {
        each_dtype!(HostMut, self, s => Element::host_mut(s))
    }
}

impl HostVec {
    /// So many zeros; memory that cannot be had is an error, not an abort.
    pub(crate) fn zeros(argument: &'static str, dtype: DType, n: usize) -> Result<HostVec> {
        fn zeros<T: Element>(argument: &'static str, n: usize) -> Result<HostVec> {
            let mut data: Vec<T> = Vec::new();
            data.try_reserve_exact(n)
                .map_err(|_| Error::no_memory(argument, n.saturating_mul(T::DTYPE.size())))?;
            data.resize(n, T::default());
            Ok(T::host_vec(data))
        }
        with_dtype!(dtype, T => zeros::<T>(argument, n))
    }

    pub(crate) fn as_ref(&self) -> HostRef<'_> {
        each_dtype!(HostVec, self, v => Element::host_ref(v))
    }
    pub(crate) fn as_mut(&mut self) -> HostMut<'_> {
        each_dtype!(HostVec, self, v => Element::host_mut(v))
    }
}

#[cfg(gpu)]
impl<'a> HostRef<'a> {
    /// The bytes of all elements.
    pub(crate) fn bytes(self) -> &'a [u8] {
        // SAFETY: every element type is plain numbers, which are initialised bytes.
        each_dtype!(HostRef, self, s => unsafe {
            std::slice::from_raw_parts(s.as_ptr().cast(), size_of_val(s))
        })
    }
}

#[cfg(gpu)]
impl HostMut<'_> {
    /// The bytes of all elements, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: every element type is plain numbers, for which any bytes will do.
        each_dtype!(HostMut, self, s => unsafe {
            std::slice::from_raw_parts_mut(s.as_mut_ptr().cast(), size_of_val(*s))
        })
    }
}

#[cfg(gpu)]
impl HostVec {
    /// The bytes of all elements, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: every element type is plain numbers, for which any bytes will do.
        each_dtype!(HostVec, self, v => unsafe {
            std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), size_of_val(&v[..]))
        })
    }
}

/// The one list of element types: everything that follows from a type's name is made here.
macro_rules! elements {
    ($($variant:ident $type:ty,)*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn host_ref(slice: &[Self]) -> HostRef<'_> {
                HostRef::$variant(slice)
            }
            fn host_mut(slice: &mut [Self]) -> HostMut<'_> {
                HostMut::$variant(slice)
            }
            fn host_vec(vec: Vec<Self>) -> HostVec {
                HostVec::$variant(vec)
            }
            fn from_host<'a>(host: HostRef<'a>) -> Option<&'a [Self]> {
                match host {
                    HostRef::$variant(slice) => Some(slice),
                    _ => None,
                }
            }
            fn from_host_mut<'a>(host: HostMut<'a>) -> Option<&'a mut [Self]> {
                match host {
                    HostMut::$variant(slice) => Some(slice),
                    _ => None,
                }
            }
            fn from_host_vec(host: HostVec) -> Result<Vec<Self>, HostVec> {
                match host {
                    HostVec::$variant(vec) => Ok(vec),
                    other => Err(other),
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
