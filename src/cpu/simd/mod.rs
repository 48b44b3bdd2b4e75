//! Vectors of f32 on whatever instruction set the machine has.
//!
//! [`Simd`] is the narrow set of operations that the losses need; one implementation an
//! instruction set, one body a loop, written against the trait. [`Level`] is found out once, when
//! a device is made; [`Level::dispatch`] is the outermost branch of a call, so that no inner loop
//! asks again. Loops run inside [`Simd::enter`], where the instruction set may be used.

mod math;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub(crate) use math::{exp, exp_nonpositive, tanh_and_slope};
use half::{bf16, f16};

/// Most lanes that any implementation has.
pub(crate) const MAX_LANES: usize = 16;

/// A vector instruction set.
///
/// Values of an implementing type exist only where the instruction set does (they come from
/// [`Level::dispatch`]), so methods are safe but for those that take pointers. Methods must be
/// inlined into [`Simd::enter`]; called elsewhere they are correct and slow.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`Simd::LANES`] f32.
    type V: Copy;
    const LANES: usize;

    /// Runs `kernel` compiled for this instruction set.
    fn enter<K: Kernel>(self, kernel: K) -> K::Out;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` elements are readable at `p`; no alignment is needed.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load_f16(self, p: *const f16) -> Self::V;
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// # Safety
    /// `LANES` elements are writable at `p`; no alignment is needed.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Rounds to nearest even.
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store_f16(self, p: *mut f16, v: Self::V);
    /// Rounds to nearest even; NaN stays NaN.
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a > b ? a : b` in each lane: `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a < b ? a : b` in each lane: `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// `a == b ? yes : no` in each lane.
    fn select_eq(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `a < b ? yes : no` in each lane.
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The f32 whose bits are those of `a` shifted left by 23: the low byte becomes the exponent.
    fn low_bits_to_exponent(self, a: Self::V) -> Self::V;
    /// Sum of the lanes, in a fixed order.
    fn reduce_add(self, a: Self::V) -> f32;
    /// Largest lane; no lane may be NaN.
    fn reduce_max(self, a: Self::V) -> f32;
}

/// A loop over vectors. `run` must be `#[inline(always)]`, so that it is compiled inside
/// [`Simd::enter`] with the instruction set at hand.
pub(crate) trait Kernel {
    type Out;
    fn run<S: Simd>(self, simd: S) -> Self::Out;
}

/// Work that is generic over the instruction set: the body of a whole call.
pub(crate) trait Task {
    type Out;
    fn run<S: Simd>(self, simd: S) -> Self::Out;
}

/// A float type that vectors can be loaded from and stored to.
pub(crate) trait Lanes: crate::dtype::Float {
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(simd: S, p: *const Self) -> S::V;
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store<S: Simd>(simd: S, p: *mut Self, v: S::V);
}

macro_rules! lanes {
    ($($type:ty, $load:ident, $store:ident;)*) => {$(
        impl Lanes for $type {
            #[inline(always)]
            unsafe fn load<S: Simd>(simd: S, p: *const Self) -> S::V {
                // SAFETY: the caller's contract is the callee's.
                unsafe { simd.$load(p) }
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(simd: S, p: *mut Self, v: S::V) {
                // SAFETY: the caller's contract is the callee's.
                unsafe { simd.$store(p, v) }
            }
        }
    )*};
}

lanes! {
    f32, load, store;
    f16, load_f16, store_f16;
    bf16, load_bf16, store_bf16;
}

/// Which implementation this machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The best level of this machine.
    pub(crate) fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::Avx512::detect().is_some() {
                return Level::Avx512;
            }
            if avx2::Avx2::detect().is_some() {
                return Level::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if neon::Neon::detect().is_some() {
            return Level::Neon;
        }
        Level::Scalar
    }

    /// The levels that this machine can run, best first.
    pub(crate) fn available() -> Vec<Level> {
        match Level::detect() {
            Level::Scalar => vec![Level::Scalar],
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => vec![Level::Avx512, Level::Avx2, Level::Scalar],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => vec![Level::Avx2, Level::Scalar],
            #[cfg(target_arch = "aarch64")]
            Level::Neon => vec![Level::Neon, Level::Scalar],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2+FMA+F16C",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "NEON",
        }
    }

    /// Runs `task` for this level; a level that the machine lacks runs as scalar code.
    pub(crate) fn dispatch<T: Task>(self, task: T) -> T::Out {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                if let Some(simd) = avx512::Avx512::detect() {
                    return task.run(simd);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                if let Some(simd) = avx2::Avx2::detect() {
                    return task.run(simd);
                }
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon => {
                if let Some(simd) = neon::Neon::detect() {
                    return task.run(simd);
                }
            }
            Level::Scalar => {}
        }
        task.run(scalar::Scalar)
    }
}
