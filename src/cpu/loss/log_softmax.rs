//! Log-softmax on the CPU: a row is summed, then written (or its gradient is).

mod straight;

use crate::base::error::Result;
use crate::base::lines::Lines;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{Line, LineOp, Sink, Source, each_line, host_like};
use crate::cpu::batch::tiles::{Lined, TileOp, each_tile, short};
use crate::cpu::loss::log_softmax::straight::Rows;
use crate::cpu::processor::{Cpu, each_float, host_f32};
use crate::cpu::row::cuts::Segments;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::softmax::Sum;
use crate::cpu::row::tile::{Tile, TileSums};
use crate::cpu::row::work::{Also, Row};
use crate::cpu::simd::{Kernel, Lanes, Level, Simd, exp_nonpositive, load_lanes, store_lanes};
use crate::cpu::threads::SyncPtr;
use crate::spec::log_softmax::CheckedLines;

/// The line's first input as a plain row.
pub(crate) fn row_of<X, A, Y>(level: Level, line: &Line<X, A, Y>) -> Row<X> {
    Row {
        level,
        spread: line.spread,
        transform: Transform::IDENTITY,
        x: line.x,
        len: line.len,
        smoothing: false,
        weights: std::ptr::null(),
        also: Also::default(),
    }
}

/// Fills a line's output.
///
/// # Safety
/// As for [`LineOp::line`].
pub(crate) unsafe fn fill<X, A, Y: Lanes>(line: &Line<X, A, Y>, value: f32) {
    let value = Y::from_f32(value);
    for i in 0..line.len {
        // SAFETY: the output has `len` elements.
        unsafe { line.y.add(i).write(value) };
    }
}

struct Forward {
    level: Level,
}

impl LineOp for Forward {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract, line by line; segments are disjoint columns.
        unsafe {
            let sum = row_of(self.level, &line).sum(None);
            if sum.undefined() {
                return fill(&line, f32::NAN);
            }
            let (x, y) = (SyncPtr(line.x.cast_mut()), SyncPtr(line.y));
            Segments::new(line.len, None).each(line.spread, |_, columns| {
                self.level.run(LogProbability {
                    x: x.get().add(columns.start).cast_const(),
                    out: y.get().add(columns.start),
                    len: columns.len(),
                    max: sum.reference(),
                    log_sum: sum.log_sum as f32,
                });
            });
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

struct Backward {
    level: Level,
}

impl LineOp for Backward {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract, line by line; segments are disjoint columns.
        unsafe {
            let sum = row_of(self.level, &line).sum(None);
            if sum.undefined() {
                return fill(&line, f32::NAN);
            }
            let segments = Segments::new(line.len, None);
            let mut upstream = 0.0;
            for i in 0..segments.count() {
                let columns = segments.range(i);
                let (x, len) = (line.a.add(columns.start), columns.len());
                upstream += f64::from(self.level.run(Sum { x, len }));
            }
            let factor = (upstream / sum.total()) as f32;
            let (x, a) = (SyncPtr(line.x.cast_mut()), SyncPtr(line.a.cast_mut()));
            let y = SyncPtr(line.y);
            segments.each(line.spread, |_, columns| {
                self.level.run(LogSoftmaxGradient {
                    x: x.get().add(columns.start).cast_const(),
                    upstream: a.get().add(columns.start).cast_const(),
                    out: y.get().add(columns.start),
                    len: columns.len(),
                    max: sum.reference(),
                    factor,
                });
            });
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

/// Lines of a tile as plain rows.
pub(crate) fn tile_of(level: Level, lined: Lined<'_>) -> Tile<'_> {
    let Lined { lie, len, ahead, x, .. } = lined;
    let transform = Transform::IDENTITY;
    Tile { level, transform, lie, len, x, ahead, class: None, smoothing: false, weights: None }
}

/// Short lines' log-probabilities.
struct ShortForward {
    level: Level,
}

impl TileOp for ShortForward {
    type Sum = ();
    const APART: bool = true;

    fn tile(&self, tile: Lined<'_>, _: &mut ()) {
        let mut tile = tile_of(self.level, tile);
        let mut sums = TileSums::EMPTY;
        tile.sum(true, &mut sums);
        tile.log_probabilities(&sums);
    }

    fn merge(_: &mut (), _: &()) {}
}

/// Short lines' gradients.
struct ShortBackward {
    level: Level,
}

impl TileOp for ShortBackward {
    type Sum = ();
    const APART: bool = true;

    fn tile(&self, tile: Lined<'_>, _: &mut ()) {
        let (upstream, a) = (&*tile.a, &mut []);
        let mut tile = tile_of(self.level, Lined { a, ..tile });
        let mut sums = TileSums::EMPTY;
        tile.sum(false, &mut sums);
        tile.log_softmax_gradient(upstream, &sums);
    }

    fn merge(_: &mut (), _: &()) {}
}

/// Layout of a tensor's lines.
pub(crate) fn lines_of(checked: CheckedLines, tensor: &TensorRef<'_>) -> Lines {
    Lines::new(&tensor.shape(), tensor.row_stride(), |d| checked.along(d))
}

impl Cpu {
    pub(crate) fn log_softmax_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let lines = lines_of(checked, &output.as_ref());
        each_float!(input.host_data(), "input", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: lines_of(checked, &input) };
            if output.dtype() == input.dtype() {
                let y = host_like(&x, output, "output")?;
                self.write_log_softmax(x, Sink { base: y.as_mut_ptr(), lines });
            } else {
                let y = host_f32(output, "output")?;
                self.write_log_softmax(x, Sink { base: y.as_mut_ptr(), lines });
            }
            Ok(())
        })
    }

    fn write_log_softmax<X: Lanes, Y: Lanes>(&self, x: Source<X>, y: Sink<Y>) {
        if let Some(rows) = Rows::new(&x, None::<&Source<f32>>, &y) {
            // SAFETY: views hold their shapes, which were checked to be equal, and the exclusive
            // borrow of the output keeps it apart from the input.
            return unsafe { rows.log_softmax(self) };
        }
        if short(&x) {
            let op = ShortForward { level: self.level };
            // SAFETY: views hold their shapes, which were checked to be equal, and the exclusive
            // borrow of the output keeps it apart from the input.
            return unsafe { each_tile(self, x, None::<Source<f32>>, Some(y), &op) };
        }
        let op = Forward { level: self.level };
        // SAFETY: views hold their shapes, which were checked to be equal, and the exclusive
        // borrow of the output keeps it apart from the input.
        unsafe { each_line(self, x, None::<Source<f32>>, Some(y), &op) };
    }

    pub(crate) fn log_softmax_backward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        grad_output: TensorRef<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let lines = lines_of(checked, &grad_input.as_ref());
        let op = Backward { level: self.level };
        each_float!(input.host_data(), "input", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: lines_of(checked, &input) };
            let y = host_like(&x, grad_input, "grad_input")?;
            let y = Sink { base: y.as_mut_ptr(), lines };
            each_float!(grad_output.host_data(), "grad_output", HostRef, a => {
                let a = Source { base: a.as_ptr(), lines: lines_of(checked, &grad_output) };
                // SAFETY: views hold their shapes, which were checked to be equal; the output is
                // borrowed exclusively and lies apart from both inputs.
                unsafe {
                    if let Some(rows) = Rows::new(&x, Some(&a), &y) {
                        rows.log_softmax(self);
                    } else if short(&x) {
                        let op = ShortBackward { level: self.level };
                        each_tile(self, x, Some(a), Some(y), &op);
                    } else {
                        each_line(self, x, Some(a), Some(y), &op);
                    }
                }
                Ok(())
            })
        })
    }
}

/// Logits to log-probabilities: `(x − max) − log_sum`.
pub(crate) struct LogProbability<T, U> {
    pub(crate) x: *const T,
    pub(crate) out: *mut U,
    pub(crate) len: usize,
    pub(crate) max: f32,
    pub(crate) log_sum: f32,
}

impl<T: Lanes, U: Lanes> Kernel for LogProbability<T, U> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogProbability { x, out, len, max, log_sum } = self;
        let (max, log_sum) = (s.splat(max), s.splat(log_sum));
        let mut i = 0;
        // SAFETY: whoever makes a `LogProbability` vouches for `len` elements at `x` and `out`.
        unsafe {
            // A row with NaN does not come here, so that lanes may be stored in pairs.
            while T::DTYPE == U::DTYPE && i + 2 * S::LANES <= len {
                let [a, b] = T::load2(s, x.add(i));
                let [a, b] = [s.sub(s.sub(a, max), log_sum), s.sub(s.sub(b, max), log_sum)];
                U::store2(s, out.add(i), [a, b]);
                i += 2 * S::LANES;
            }
            while i + S::LANES <= len {
                let distance = s.sub(T::load(s, x.add(i)), max);
                U::store(s, out.add(i), s.sub(distance, log_sum));
                i += S::LANES;
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let distance = s.sub(load_lanes(s, x.add(i), n, 0.0), max);
                store_lanes(s, out.add(i), n, s.sub(distance, log_sum));
                i += n;
            }
        }
    }
}

/// Gradient of a log-softmax: `g − e^(x − max)·factor`.
pub(crate) struct LogSoftmaxGradient<T, G, U> {
    pub(crate) x: *const T,
    pub(crate) upstream: *const G,
    pub(crate) out: *mut U,
    pub(crate) len: usize,
    pub(crate) max: f32,
    pub(crate) factor: f32,
}

impl<T: Lanes, G: Lanes, U: Lanes> Kernel for LogSoftmaxGradient<T, G, U> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogSoftmaxGradient { x, upstream, out, len, max, factor } = self;
        let (max, factor) = (s.splat(max), s.splat(-factor));
        let mut i = 0;
        // Pairs need one type; a NaN among its upstream gradients may then be stored in a pair.
        let pairs = T::DTYPE == U::DTYPE && G::DTYPE == U::DTYPE;
        // SAFETY: whoever makes this kernel vouches for `len` elements at all three pointers.
        unsafe {
            while pairs && i + 2 * S::LANES <= len {
                let mut pair = T::load2(s, x.add(i));
                let upstream = G::load2(s, upstream.add(i));
                for (y, g) in pair.iter_mut().zip(upstream) {
                    *y = s.fma(exp_nonpositive(s, s.sub(*y, max)), factor, g);
                }
                U::store2(s, out.add(i), pair);
                i += 2 * S::LANES;
            }
            while i + S::LANES <= len {
                let e = exp_nonpositive(s, s.sub(T::load(s, x.add(i)), max));
                U::store(s, out.add(i), s.fma(e, factor, G::load(s, upstream.add(i))));
                i += S::LANES;
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let v = load_lanes(s, x.add(i), n, 0.0);
                let g = load_lanes(s, upstream.add(i), n, 0.0);
                let y = s.fma(exp_nonpositive(s, s.sub(v, max)), factor, g);
                store_lanes(s, out.add(i), n, y);
                i += n;
            }
        }
    }
}
