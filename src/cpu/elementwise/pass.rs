//! The loop of every elementwise loss: over tiles that lie in a row, whatever the loss.

use crate::cpu::simd::{Kernel, Lanes, Simd, load_lanes, store_lanes};

/// What is known of one element (of a vector of them).
#[derive(Clone, Copy)]
pub(crate) struct Element<V> {
    pub(crate) x: V,
    pub(crate) y: V,
    /// v, the element's weight.
    pub(crate) weight: V,
    /// r of binary cross entropy.
    pub(crate) pos_weight: V,
}

/// A loss of one element over vectors: its file says what it computes.
pub(crate) trait ElementLoss: Copy + Send + Sync {
    /// x of lanes beyond the end, whose y is 0: its value is 0.
    const PAD: f32 = 0.0;

    /// v·ℓ.
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V;
    /// factor·∂ℓ/∂x, where the factor holds v.
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V;
    /// factor·∂ℓ/∂y.
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V;
}

/// One tile. What is null is 1 where it would be read, and not computed where it would be written.
pub(crate) struct Pass<L, T, const VALUE: bool> {
    pub(crate) loss: L,
    pub(crate) x: *const T,
    pub(crate) y: *const T,
    pub(crate) weight: *const f32,
    pub(crate) pos_weight: *const f32,
    pub(crate) upstream: *const f32,
    /// Multiplies every gradient.
    pub(crate) scale: f32,
    /// Written only with VALUE.
    pub(crate) value: *mut f32,
    pub(crate) grad_x: *mut T,
    pub(crate) grad_y: *mut T,
    pub(crate) len: usize,
}

impl<L: ElementLoss, T: Lanes, const VALUE: bool> Pass<L, T, VALUE> {
    /// Elements `i..i + n`; returns v·ℓ of each, 0 in lanes beyond.
    ///
    /// # Safety
    /// They exist at every pointer that is not null; n ≤ LANES.
    #[inline(always)]
    unsafe fn step<S: Simd>(&self, s: S, i: usize, n: usize) -> S::V {
        // SAFETY: the caller's contract, for every access below.
        unsafe {
            let one = s.splat(1.0);
            let weight = match self.weight.is_null() {
                true => one,
                false => load_lanes(s, self.weight.add(i), n, 0.0),
            };
            let pos_weight = match self.pos_weight.is_null() {
                true => one,
                false => load_lanes(s, self.pos_weight.add(i), n, 0.0),
            };
            let e = Element {
                x: load_lanes(s, self.x.add(i), n, L::PAD),
                y: load_lanes(s, self.y.add(i), n, 0.0),
                weight,
                pos_weight,
            };
            let mut factor = s.splat(self.scale);
            if !self.upstream.is_null() {
                factor = s.mul(factor, load_lanes(s, self.upstream.add(i), n, 0.0));
            }
            if !self.weight.is_null() {
                factor = s.mul(factor, weight);
            }
            let value = if VALUE { self.loss.value(s, e) } else { s.splat(0.0) };
            if VALUE && !self.value.is_null() {
                store_lanes(s, self.value.add(i), n, value);
            }
            if !self.grad_x.is_null() {
                store_lanes(s, self.grad_x.add(i), n, self.loss.grad_x(s, e, factor));
            }
            if !self.grad_y.is_null() {
                store_lanes(s, self.grad_y.add(i), n, self.loss.grad_y(s, e, factor));
            }
            value
        }
    }
}

impl<L: ElementLoss, T: Lanes, const VALUE: bool> Kernel for Pass<L, T, VALUE> {
    /// Σ v·ℓ.
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 4];
        let mut i = 0;
        // SAFETY: whoever makes a `Pass` vouches for `len` elements at its pointers, and that
        // what is written is either x, element by element, or apart from what is read.
        unsafe {
            while i + 4 * S::LANES <= self.len {
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = s.add(*sum, self.step(s, i + k * S::LANES, S::LANES));
                }
                i += 4 * S::LANES;
            }
            while i < self.len {
                let n = S::LANES.min(self.len - i);
                sums[0] = s.add(sums[0], self.step(s, i, n));
                i += n;
            }
        }
        s.reduce_add(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
    }
}
