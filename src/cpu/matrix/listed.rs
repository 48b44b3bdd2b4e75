//! Single rows of a matrix: their products with a vector, and multiples of them added to one. In f32 whatever the
//! matrix is of, in an order that the row's length alone decides.

use crate::base::host::HostRef;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::simd::{Kernel, Lanes, Pieces, Simd, load_lanes, store_lanes};

/// Vectors that a product is added up in.
const SUMS: usize = 4;

impl Matrix<'_> {
    /// The product of a row and `x`, which is as long; `next` is the row that comes next, as rows that lie anywhere
    /// are on their way before they are needed.
    pub(crate) fn dot(&self, row: usize, x: &[f32], next: Option<usize>) -> f32 {
        match self.data {
            HostRef::F32(data) => self.dot_in(data, row, x, next),
            HostRef::F16(data) => self.dot_in(data, row, x, next),
            HostRef::BF16(data) => self.dot_in(data, row, x, next),
            HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_) => 0.0,
        }
    }

    fn dot_in<T: Lanes>(&self, data: &[T], row: usize, x: &[f32], next: Option<usize>) -> f32 {
        let w = &data[row * self.stride..][..self.columns];
        self.level.run(Dot { x, w, next: self.ahead(data, next) })
    }

    /// Adds a row times `factor` to `out`, which is as long; `next` as in [`Matrix::dot`].
    pub(crate) fn add_multiple(
        &self,
        row: usize,
        factor: f32,
        out: &mut [f32],
        next: Option<usize>,
    ) {
        match self.data {
            HostRef::F32(data) => self.add_in(data, (row, factor), out, next),
            HostRef::F16(data) => self.add_in(data, (row, factor), out, next),
            HostRef::BF16(data) => self.add_in(data, (row, factor), out, next),
            HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_) => {}
        }
    }

    fn add_in<T: Lanes>(
        &self,
        data: &[T],
        (row, factor): (usize, f32),
        out: &mut [f32],
        next: Option<usize>,
    ) {
        let x = &data[row * self.stride..][..self.columns];
        self.level.run(Add { x, factor, out, next: self.ahead(data, next) });
    }

    /// Where a row begins that is asked for, never read.
    fn ahead<T>(&self, data: &[T], row: Option<usize>) -> *const T {
        row.map_or(data.as_ptr(), |row| data.as_ptr().wrapping_add(row * self.stride))
    }

    /// One element in f32.
    pub(crate) fn element(&self, row: usize, column: usize) -> f32 {
        self.data.float(row * self.stride + column)
    }
}

struct Dot<'a, T> {
    x: &'a [f32],
    w: &'a [T],
    next: *const T,
}

impl<T: Lanes> Kernel for Dot<'_, T> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let len = self.x.len().min(self.w.len());
        let (x, w, zero) = (self.x.as_ptr(), self.w.as_ptr(), s.splat(0.0));
        let mut total = zero;
        for piece in Pieces::of::<S>(len, SUMS) {
            let (mut i, end) = (piece.start, piece.end);
            let mut sums = [zero; SUMS];
            while i + SUMS * S::LANES <= end {
                for (k, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: both have `len` elements, of which this vector's are before `end`.
                    unsafe {
                        let at = i + k * S::LANES;
                        s.prefetch(self.next.wrapping_add(at));
                        *sum = s.fma(s.load(x.add(at)), T::load(s, w.add(at)), *sum);
                    }
                }
                i += SUMS * S::LANES;
            }
            while i < end {
                let n = S::LANES.min(end - i);
                // SAFETY: both have `len` elements, of which these n are before `end`.
                unsafe {
                    let x = load_lanes(s, x.add(i), n, 0.0);
                    sums[0] = s.fma(x, load_lanes(s, w.add(i), n, 0.0), sums[0]);
                }
                i += n;
            }
            let [a, b, c, d] = sums;
            total = s.add(total, s.add(s.add(a, b), s.add(c, d)));
        }
        s.reduce_add(total)
    }
}

struct Add<'a, T> {
    x: &'a [T],
    factor: f32,
    out: &'a mut [f32],
    next: *const T,
}

impl<T: Lanes> Kernel for Add<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.x.len().min(self.out.len());
        let (x, out, factor) = (self.x.as_ptr(), self.out.as_mut_ptr(), s.splat(self.factor));
        let mut i = 0;
        while i < len {
            let n = S::LANES.min(len - i);
            s.prefetch(self.next.wrapping_add(i));
            // SAFETY: both have `len` elements, of which these n are.
            unsafe {
                let sum = load_lanes(s, out.add(i).cast_const(), n, 0.0);
                store_lanes(s, out.add(i), n, s.fma(load_lanes(s, x.add(i), n, 0.0), factor, sum));
            }
            i += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Add, Dot};
    use crate::cpu::simd::{Lanes, Level};
    use half::{bf16, f16};

    fn check<T: Lanes>() {
        let numbers = |n: usize, by: f32| (0..n).map(move |i| ((i * 37 % 101) as f32 - 50.0) * by);
        for level in Level::available() {
            for len in (0..70).chain([513, 4097]) {
                let x: Vec<f32> = numbers(len, 0.03).collect();
                let w: Vec<T> = numbers(len + 7, 0.11).skip(7).map(T::from_f32).collect();
                let terms = || x.iter().zip(&w).map(|(&x, w)| f64::from(x) * f64::from(w.to_f32()));
                let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let got = f64::from(level.run(Dot { x: &x, w: &w, next: w.as_ptr() }));
                assert!((got - sum).abs() <= 2e-6 * size, "{} of {len}: {got} {sum}", level.name());
                let mut out = x.clone();
                level.run(Add { x: &w, factor: -1.5, out: &mut out, next: w.as_ptr() });
                for (i, out) in out.iter().enumerate() {
                    let expected = f64::from(x[i]) - 1.5 * f64::from(w[i].to_f32());
                    assert!((f64::from(*out) - expected).abs() < 1e-5, "{i} of {len}");
                }
            }
        }
    }

    #[test]
    fn products_and_multiples_of_rows_agree_with_f64() {
        check::<f32>();
        check::<f16>();
        check::<bf16>();
    }
}
