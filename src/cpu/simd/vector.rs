//! What a loop over vectors is written against: the operations, the loop, the element types.

use half::{bf16, f16};

/// Most lanes that any implementation has.
pub(crate) const MAX_LANES: usize = 16;

/// A vector instruction set.
///
/// Values of an implementing type exist only where the instruction set does (they come from
/// `Level::detect`), so methods are safe but for those that take pointers. Methods must be
/// inlined into [`Simd::enter`]; called elsewhere they are correct and slow.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`Simd::LANES`] f32.
    type V: Copy;
    const LANES: usize;
    /// Whether some lanes of a vector come and go at the cost of all.
    const TAILS: bool = false;
    /// Powers of two that [`Simd::power`] has between one whole exponent and the next.
    const STEPS: f32 = 1.0;
    /// A number in whose f32 neighbourhood numbers are 1/STEPS apart.
    const ROUND: f32 = 12_582_912.0 + 127.0;

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
    /// `2·LANES` elements in an order of this method's own, which [`Simd::store2_bf16`] undoes.
    /// # Safety
    /// `2·LANES` elements are readable at `p`.
    #[inline(always)]
    unsafe fn load2_bf16(self, p: *const bf16) -> [Self::V; 2] {
        // SAFETY: `2·LANES` elements are readable at `p`, so LANES at each half: the caller's
        // promise.
        unsafe { [self.load_bf16(p), self.load_bf16(p.add(Self::LANES))] }
    }
    /// The way back of [`Simd::load2_bf16`]. A NaN must have its low 16 bits clear, as every NaN
    /// that arithmetic makes of bf16 values has: rounding would carry into the sign otherwise.
    /// # Safety
    /// `2·LANES` elements are writable at `p`.
    #[inline(always)]
    unsafe fn store2_bf16(self, p: *mut bf16, [a, b]: [Self::V; 2]) {
        // SAFETY: `2·LANES` elements are writable at `p`, so LANES at each half: the caller's
        // promise.
        unsafe {
            self.store_bf16(p, a);
            self.store_bf16(p.add(Self::LANES), b);
        }
    }
    /// A vector whose first `n` lanes come from `p` and whose others hold `pad`.
    /// # Safety
    /// `n < LANES` elements are readable at `p`.
    #[inline(always)]
    unsafe fn load_tail<T: Lanes>(self, p: *const T, n: usize, pad: f32) -> Self::V {
        let mut lanes = [T::from_f32(pad); MAX_LANES];
        // SAFETY: n < LANES ≤ MAX_LANES, both sides hold n elements, and `lanes` is a full vector.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            T::load(self, lanes.as_ptr())
        }
    }
    /// Stores the first `n` lanes of `v` at `p`.
    /// # Safety
    /// `n < LANES` elements are writable at `p`.
    #[inline(always)]
    unsafe fn store_tail<T: Lanes>(self, p: *mut T, n: usize, v: Self::V) {
        let mut lanes = [T::default(); MAX_LANES];
        // SAFETY: n < LANES ≤ MAX_LANES, both sides hold n elements, and `lanes` is a full vector.
        unsafe {
            T::store(self, lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
    /// Asks for the cache line at `p`, which need not exist.
    #[inline(always)]
    fn prefetch<T>(self, _: *const T) {}
    /// As [`Simd::prefetch`], no nearer than the second cache: of what would drive out what is at hand.
    #[inline(always)]
    fn prefetch_second<T>(self, _: *const T) {}
    /// Stores past the caches, where the machine can; [`settle`](crate::cpu::simd::settle) before others look.
    /// # Safety
    /// As [`Simd::store`], and `p` is aligned to a vector.
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { self.store(p, v) }
    }

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
    /// 2^y of `a` = ROUND + y, y a multiple of 1/STEPS from −127 on; 0 where y is −127.
    #[inline(always)]
    fn power(self, a: Self::V) -> Self::V {
        self.low_bits_to_exponent(a)
    }
    /// n and m of `a` = 2^n·m with √½ ≤ m < √2; `a` is a normal number > 0, or n and m are of no
    /// use.
    fn split(self, a: Self::V) -> (Self::V, Self::V);
    /// Turns the square matrix whose rows are the first LANES vectors of `m`.
    #[inline(always)]
    fn transpose(self, m: &mut [Self::V; MAX_LANES]) {
        let mut rows = [[0.0; MAX_LANES]; MAX_LANES];
        // SAFETY: a row of `rows`, and of `columns`, holds a vector.
        unsafe {
            for (row, v) in rows.iter_mut().zip(*m).take(Self::LANES) {
                self.store(row.as_mut_ptr(), v);
            }
            for (c, v) in m.iter_mut().enumerate().take(Self::LANES) {
                let column: [f32; MAX_LANES] = std::array::from_fn(|r| rows[r][c]);
                *v = self.load(column.as_ptr());
            }
        }
    }
    /// Sum of the lanes, in a fixed order.
    fn reduce_add(self, a: Self::V) -> f32;
    /// Largest lane; no lane may be NaN.
    fn reduce_max(self, a: Self::V) -> f32;
}

/// Bits of √½: what the bits of a number exceed them by has its exponent n on top.
pub(super) const HALF_ROOT: i32 = std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;

/// A loop over vectors. `run` must be `#[inline(always)]`, so that it is compiled inside
/// [`Simd::enter`] with the instruction set at hand.
pub(crate) trait Kernel {
    type Out;
    fn run<S: Simd>(self, simd: S) -> Self::Out;
}

/// A float type that vectors can be loaded from and stored to.
pub(crate) trait Lanes: crate::base::host::Float {
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(simd: S, p: *const Self) -> S::V;
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store<S: Simd>(simd: S, p: *mut Self, v: S::V);
    /// `2·LANES` elements in an order of the type's own, which [`Lanes::store2`] undoes: cheaper
    /// than two loads where lanes need not stand in order.
    /// # Safety
    /// `2·LANES` elements are readable at `p`.
    #[inline(always)]
    unsafe fn load2<S: Simd>(simd: S, p: *const Self) -> [S::V; 2] {
        // SAFETY: `2·LANES` elements are readable at `p`, so LANES at each half: the caller's
        // promise.
        unsafe { [Self::load(simd, p), Self::load(simd, p.add(S::LANES))] }
    }
    /// The way back of [`Lanes::load2`]; NaN as [`Simd::store2_bf16`] says.
    /// # Safety
    /// `2·LANES` elements are writable at `p`.
    #[inline(always)]
    unsafe fn store2<S: Simd>(simd: S, p: *mut Self, [a, b]: [S::V; 2]) {
        // SAFETY: `2·LANES` elements are writable at `p`, so LANES at each half: the caller's
        // promise.
        unsafe {
            Self::store(simd, p, a);
            Self::store(simd, p.add(S::LANES), b);
        }
    }
}

macro_rules! lanes {
    ($($type:ty, $load:ident, $store:ident $(, $load2:ident, $store2:ident)?;)*) => {$(
        impl Lanes for $type {
            #[inline(always)]
            unsafe fn load<S: Simd>(simd: S, p: *const Self) -> S::V {
                // SAFETY: `LANES` elements are readable at `p`: the caller's promise.
                unsafe { simd.$load(p) }
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(simd: S, p: *mut Self, v: S::V) {
                // SAFETY: `LANES` elements are writable at `p`: the caller's promise.
                unsafe { simd.$store(p, v) }
            }
            $(
                #[inline(always)]
                unsafe fn load2<S: Simd>(simd: S, p: *const Self) -> [S::V; 2] {
                    // SAFETY: `2·LANES` elements are readable at `p`: the caller's promise.
                    unsafe { simd.$load2(p) }
                }
                #[inline(always)]
                unsafe fn store2<S: Simd>(simd: S, p: *mut Self, pair: [S::V; 2]) {
                    // SAFETY: `2·LANES` elements are writable at `p`: the caller's promise.
                    unsafe { simd.$store2(p, pair) }
                }
            )?
        }
    )*};
}

lanes! {
    f32, load, store;
    f16, load_f16, store_f16;
    bf16, load_bf16, store_bf16, load2_bf16, store2_bf16;
}

/// A whole vector, or the first `n` lanes of one whose others hold `pad`.
/// # Safety
/// `n ≤ LANES` elements are readable at `p`.
#[inline(always)]
pub(crate) unsafe fn load_lanes<S: Simd, T: Lanes>(s: S, p: *const T, n: usize, pad: f32) -> S::V {
    // SAFETY: `n ≤ LANES` elements are readable at `p`, as the caller promises: a whole vector
    // where n is LANES, else no more than n are read.
    unsafe { if n == S::LANES { T::load(s, p) } else { s.load_tail(p, n, pad) } }
}

/// The way back of [`load_lanes`].
/// # Safety
/// `n ≤ LANES` elements are writable at `p`.
#[inline(always)]
pub(crate) unsafe fn store_lanes<S: Simd, T: Lanes>(s: S, p: *mut T, n: usize, v: S::V) {
    // SAFETY: `n ≤ LANES` elements are writable at `p`, as the caller promises: a whole vector
    // where n is LANES, else no more than n are written.
    unsafe {
        if n == S::LANES {
            T::store(s, p, v);
        } else {
            s.store_tail(p, n, v);
        }
    }
}
