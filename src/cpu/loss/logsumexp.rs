//! Log-sum-exp on the CPU, and its gradient from the saved result.

use crate::base::error::Result;
use crate::base::host::HostRef;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{Line, LineOp, Sink, Source, each_line, host_like};
use crate::cpu::batch::tiles::{Lined, TileOp, each_tile, short};
use crate::cpu::loss::log_softmax::{fill, lines_of, row_of, tile_of};
use crate::cpu::processor::{Cpu, each_float, host_data, host_f32, host_f32_ref};
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::tile::{Tile, TileSums, TileTerms};
use crate::cpu::row::work::{Normalizer, Terms};
use crate::cpu::simd::{Lanes, Level};
use crate::cpu::threads::SyncPtr;
use crate::spec::log_softmax::CheckedLines;

/// The least scale that a saved log-sum-exp is divided by (`WL_SMALLEST_SCALE` on a GPU).
const SMALLEST_SCALE: f32 = 1e-30;

/// Whether a saved f32 lse is too coarse to make probabilities of. Half its last place, by which
/// every probability would be off, exceeds 3.8e-6 beyond 64; a scale rounds once more. The row is
/// summed again then, and where there is no finite lse.
pub(crate) fn coarse(lse: f32, transform: Transform) -> bool {
    let limit = match transform {
        // lse over the scale is what logits are compared with: it has to fit f32.
        Transform::Linear(Linear::Scaled(_)) if transform.slope() < SMALLEST_SCALE => return true,
        Transform::Linear(Linear::Scaled(_)) => 32.0,
        Transform::Linear(Linear::Plain(_)) | Transform::Capped(_) => 64.0,
    };
    lse.is_nan() || lse.abs() > limit
}

struct Forward {
    level: Level,
    output: SyncPtr<f32>,
}

impl LineOp for Forward {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract; the output has an element for each line.
        unsafe {
            let sum = row_of(self.level, &line).sum(None);
            *self.output.get().add(line.index) = sum.lse() as f32;
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

/// Of short lines.
struct ShortForward {
    level: Level,
    output: SyncPtr<f32>,
}

impl TileOp for ShortForward {
    type Sum = ();

    fn tile(&self, tile: Lined<'_>, _: &mut ()) {
        let Lined { first, lines, .. } = tile;
        let mut tile = tile_of(self.level, tile);
        let mut sums = TileSums::EMPTY;
        tile.sum(false, &mut sums);
        for i in 0..lines {
            let lse = sums.summed(i, Transform::IDENTITY).lse() as f32;
            // SAFETY: the output has an element for each line, and this line is this call's.
            unsafe { self.output.get().add(first + i).write(lse) };
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

#[derive(Clone, Copy)]
struct Backward<'a> {
    level: Level,
    output: &'a [f32],
    upstream: HostRef<'a>,
}

impl LineOp for Backward<'_> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        let lse = self.output[line.index];
        let g = self.upstream.float(line.index);
        let row = row_of(self.level, &line);
        let terms = Terms { prob: f64::from(g), smooth: 0.0 };
        // SAFETY: the caller's contract, for all of this block.
        unsafe {
            if lse.is_infinite() {
                return self.infinite(line, lse, g);
            }
            if !coarse(lse, Transform::IDENTITY) {
                row.gradient(line.y, None, Normalizer::Lse(lse), &terms);
                return;
            }
            let sum = row.sum(None);
            if sum.undefined() {
                return fill(&line, f32::NAN);
            }
            row.gradient(line.y, None, Normalizer::Sum(&sum), &terms);
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

impl Backward<'_> {
    /// g·e^(x − lse) by IEEE rules: NaN where x is the same infinity, 0 beside a +∞.
    ///
    /// # Safety
    /// As for [`LineOp::line`].
    unsafe fn infinite<X: Lanes, A, Y: Lanes>(&self, line: Line<X, A, Y>, lse: f32, g: f32) {
        for i in 0..line.len {
            // SAFETY: input and output have `len` elements.
            unsafe {
                let x = line.x.add(i).read().to_f32();
                line.y.add(i).write(Y::from_f32(g * (x - lse).exp()));
            }
        }
    }
}

/// Gradients of short lines, from their own sums.
struct ShortBackward<'a>(Backward<'a>);

impl TileOp for ShortBackward<'_> {
    type Sum = ();

    fn tile(&self, tile: Lined<'_>, _: &mut ()) {
        let Backward { level, output, upstream } = self.0;
        let Lined { first, lines, .. } = tile;
        let saved = &output[first..first + lines];
        let infinite = |lse: &f32| lse.is_infinite();
        // By IEEE rules: such lines are taken as they were.
        let mut given = if saved.iter().any(infinite) { tile.x.to_vec() } else { Vec::new() };
        let mut tile = tile_of(level, tile);
        let (mut sums, mut terms) = (TileSums::EMPTY, TileTerms::NONE);
        tile.sum(false, &mut sums);
        for i in 0..lines {
            let g = f64::from(upstream.float(first + i));
            let undefined = sums.summed(i, Transform::IDENTITY).undefined();
            let share = if undefined { f64::NAN } else { g / f64::from(sums.rest.0[i]) };
            (terms.prob.0[i], terms.kept.0[i]) = (share as f32, 1.0);
        }
        tile.gradient(&sums, &terms);
        for (i, lse) in saved.iter().enumerate().filter(|(_, lse)| infinite(lse)) {
            let g = upstream.float(first + i);
            let given = Tile { x: &mut given, ..tile };
            for c in 0..tile.len {
                *tile.at(i, c) = g * (given.get(i, c) - lse).exp();
            }
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

impl Cpu {
    pub(crate) fn logsumexp_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let output = SyncPtr(host_f32(output, "output")?.as_mut_ptr());
        let op = Forward { level: self.level, output };
        let op_of_short = ShortForward { level: self.level, output };
        each_float!(input.host_data(), "input", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: lines_of(checked, &input) };
            // SAFETY: the view holds its shape; the output was checked to have an element for
            // each line, and is borrowed exclusively.
            unsafe {
                let (none, nothing) = (None::<Source<f32>>, None::<Sink<f32>>);
                if short(&x) {
                    each_tile(self, x, none, nothing, &op_of_short);
                } else {
                    each_line(self, x, none, nothing, &op);
                }
            }
            Ok(())
        })
    }

    pub(crate) fn logsumexp_backward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        (output, grad_output): (TensorRef<'_>, TensorRef<'_>),
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let output = host_f32_ref(output, "output")?;
        let upstream = host_data(grad_output, "grad_output")?;
        let op = Backward { level: self.level, output, upstream };
        let lines = lines_of(checked, &grad_input.as_ref());
        each_float!(input.host_data(), "input", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: lines_of(checked, &input) };
            let y = host_like(&x, grad_input, "grad_input")?;
            let y = Sink { base: y.as_mut_ptr(), lines };
            // SAFETY: the views hold their equal shapes; the gradient is borrowed exclusively.
            unsafe {
                let none = None::<Source<f32>>;
                if short(&x) {
                    each_tile(self, x, none, Some(y), &ShortBackward(op));
                } else {
                    each_line(self, x, none, Some(y), &op);
                }
            }
            Ok(())
        })
    }
}
