//! Rows to work on, and how results are compared.

use warploss::{Element, TensorMut, TensorRef, bf16, f16};

/// Element types of logits.
pub(crate) trait Data: Element + PartialEq {
    /// Relative error of a result that was rounded to this type.
    const TOLERANCE: f64;
    fn of(x: f32) -> Self;
    fn f64(self) -> f64;
}

impl Data for f32 {
    const TOLERANCE: f64 = 1e-5;
    fn of(x: f32) -> f32 {
        x
    }
    fn f64(self) -> f64 {
        self.into()
    }
}

impl Data for f16 {
    const TOLERANCE: f64 = 1e-3;
    fn of(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn f64(self) -> f64 {
        self.into()
    }
}

impl Data for bf16 {
    const TOLERANCE: f64 = 8e-3;
    fn of(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn f64(self) -> f64 {
        self.into()
    }
}

/// What stands between rows, and must stay there.
pub(crate) const PADDING: f32 = 777.0;

/// A small generator; the same numbers everywhere.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// In [-width / 2, width / 2).
    pub(crate) fn next(&mut self, width: f32) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5) * width
    }
}

/// The shape of rows in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    /// Elements between rows, or between images.
    pub(crate) stride: usize,
    /// Pixels of an image, of which each is a row: `[rows / pixels, classes, pixels]`; 0: rows in one piece.
    pub(crate) pixels: usize,
}

impl Layout {
    /// Rows one after another.
    pub(crate) fn rows(rows: usize, classes: usize) -> Layout {
        Layout { rows, classes, stride: classes, pixels: 0 }
    }

    /// The same rows without padding.
    pub(crate) fn dense(self) -> Layout {
        Layout { stride: self.classes * self.pixels.max(1), ..self }
    }

    /// Elements from the first to the last.
    pub(crate) fn reach(&self) -> usize {
        let pixels = self.pixels.max(1);
        (self.rows / pixels - 1) * self.stride + self.classes * pixels
    }

    /// Where the elements of a row lie.
    fn row(&self, r: usize) -> impl Iterator<Item = usize> {
        let pixels = self.pixels.max(1);
        let first = r / pixels * self.stride + r % pixels;
        (0..self.classes).map(move |c| first + c * pixels)
    }

    /// The shape of what has an element a row.
    pub(crate) fn batch(&self) -> Vec<usize> {
        match self.pixels {
            0 => vec![self.rows],
            n => vec![self.rows / n, n],
        }
    }

    fn shape(&self) -> Vec<usize> {
        let mut shape = self.batch();
        shape.insert(1, self.classes);
        shape
    }

    pub(crate) fn view<'a, T: Element>(&self, memory: &'a [T]) -> TensorRef<'a> {
        TensorRef::with_row_stride(memory, &self.shape(), self.stride).unwrap()
    }

    pub(crate) fn view_mut<'a, T: Element>(&self, memory: &'a mut [T]) -> TensorMut<'a> {
        TensorMut::with_row_stride(memory, &self.shape(), self.stride).unwrap()
    }

    /// The rows, one after another.
    pub(crate) fn gather<T: Copy>(&self, memory: &[T]) -> Vec<T> {
        (0..self.rows).flat_map(|r| self.row(r)).map(|at| memory[at]).collect()
    }

    /// Brings rows, one after another, to where they belong.
    pub(crate) fn scatter<T: Copy>(&self, rows: &[T], memory: &mut [T]) {
        for (r, row) in rows.chunks_exact(self.classes).enumerate() {
            self.row(r).zip(row).for_each(|(at, &x)| memory[at] = x);
        }
    }

    /// Whether nothing but rows was written. Looks at all of memory.
    pub(crate) fn padding_stands<T: Data>(&self, memory: &[T]) -> bool {
        let used = self.classes * self.pixels.max(1);
        let between = memory.chunks(self.stride).flat_map(|r| r.iter().skip(used));
        between.into_iter().all(|&x| x == T::of(PADDING))
    }
}

/// Logits and what else a loss may ask for. Every eighth row is of each kind: common values, an
/// offset of 1e4, a run of -inf, one NaN, and one that is ignored and full of NaN.
pub(crate) struct Input<'a, T> {
    pub(crate) layout: Layout,
    pub(crate) x: &'a [T],
    /// An upstream gradient for each element, laid out as `x`.
    pub(crate) upstream: &'a [T],
    pub(crate) target: &'a [i64],
    /// An upstream gradient for each row.
    pub(crate) per_row: &'a [f32],
    /// Log-sum-exps of the rows, as another device has them.
    pub(crate) lse: &'a [f32],
}

/// The rows of an [`Input`], one after another.
pub(crate) struct Rows<T> {
    pub(crate) x: Vec<T>,
    pub(crate) upstream: Vec<T>,
    pub(crate) target: Vec<i64>,
    pub(crate) per_row: Vec<f32>,
}

impl<T: Data> Rows<T> {
    /// `tame`: common values alone.
    pub(crate) fn new(rows: usize, classes: usize, tame: bool) -> Rows<T> {
        let mut numbers = Numbers::new((rows * 31 + classes) as u64);
        let mut x: Vec<T> = (0..rows * classes).map(|_| T::of(numbers.next(20.0))).collect();
        let mut target: Vec<i64> = (0..rows).map(|r| (r * 7919 % classes) as i64).collect();
        for r in 0..if tame { 0 } else { rows } {
            let row = &mut x[r * classes..(r + 1) * classes];
            match r % 8 {
                3 => row.iter_mut().for_each(|x| *x = T::of(x.f64() as f32 + 1e4)),
                4 => row[..classes / 2].fill(T::of(f32::NEG_INFINITY)),
                5 => row[classes / 2] = T::of(f32::NAN),
                6 => {
                    row.fill(T::of(f32::NAN));
                    target[r] = -100;
                }
                _ => {}
            }
        }
        Rows {
            x,
            upstream: (0..rows * classes).map(|_| T::of(numbers.next(2.0))).collect(),
            target,
            per_row: (0..rows).map(|_| numbers.next(2.0)).collect(),
        }
    }
}

/// Compares with another device's results: infinities and NaN in the same places.
pub(crate) fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let top = expected.iter().filter(|e| e.is_finite()).fold(0f64, |m, e| m.max(e.abs()));
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        if e.is_finite() {
            let allowed = tolerance * e.abs() + 1e-6 * top + 6e-8;
            assert!((g - e).abs() <= allowed, "{what}: element {i}: {g}, expected {e}");
        } else {
            assert!(g == e || g.is_nan() && e.is_nan(), "{what}: element {i}: {g}, expected {e}");
        }
    }
}
