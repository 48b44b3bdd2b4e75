//! Cross entropy of rows of one block each, in place on f32, some at a time: what a row comes to is a chain of
//! logarithms and divisions, which the processor takes beside those of the other rows.

use crate::base::dtype::DType;
use crate::cpu::batch::lines::{GROUP, Line};
use crate::cpu::batch::numbers::Sums;
use crate::cpu::batch::results::Results;
use crate::cpu::loss::cross_entropy::call::Call;
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::row::blocks::{Block, rescale, sum_and_keep};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::partial::Partial;
use crate::cpu::row::state::{Part, RowSum};
use crate::cpu::simd::Lanes;
use crate::cpu::threads::Spread;
use crate::spec::row_state::block;

/// Elements that stay in a cache of 32 KiB from one visit to the next, beside what is asked for ahead.
const AT_HAND: usize = 4096;

/// A call on such rows.
pub(super) struct Blocks<'a> {
    call: &'a Call<'a>,
    results: &'a Results,
    logit: Linear,
}

impl<'a> Blocks<'a> {
    /// For lines like this one, where they are such rows and the loss has no smoothing.
    pub(super) fn new<X: Lanes, A, Y: Lanes>(
        call: &'a Call<'a>,
        results: &'a Results,
        line: &Line<X, A, Y>,
    ) -> Option<Blocks<'a>> {
        let f32_both = X::DTYPE == DType::F32 && Y::DTYPE == DType::F32;
        let in_place = f32_both && line.x.cast::<f32>() == line.y.cast_const().cast();
        let one = line.spread == Spread::Alone && line.len <= block(line.len);
        let plain = call.batch.epsilon == 0.0 && !call.standing;
        match call.batch.transform {
            Transform::Linear(logit) if in_place && one && plain => {
                Some(Blocks { call, results, logit })
            }
            _ => None,
        }
    }

    /// Loss and gradient of lines.
    ///
    /// # Safety
    /// As for `LineOp::line`, of each of the lines; they are like the one that this was made for.
    pub(super) unsafe fn lines<X: Lanes, A, Y: Lanes>(
        &self,
        lines: &[Line<X, A, Y>],
        sums: &mut Sums,
    ) {
        let len = lines.first().map_or(1, |line| line.len);
        for lines in lines.chunks((AT_HAND / len).clamp(1, GROUP)) {
            // SAFETY: the caller's promise.
            unsafe { self.some(lines, sums) };
        }
    }

    /// The same of as many as stay at hand.
    ///
    /// # Safety
    /// As for [`Blocks::lines`].
    unsafe fn some<X: Lanes, A, Y: Lanes>(&self, lines: &[Line<X, A, Y>], sums: &mut Sums) {
        let (batch, level) = (self.call.batch, self.call.cpu.level);
        let len = lines.first().map_or(0, |line| line.len);
        let mut holes = [None::<Hole>; GROUP];
        let mut blocks = [Block { x: std::ptr::null_mut(), target: 0 }; GROUP];
        let mut kept = 0;
        for (line, hole) in lines.iter().zip(&mut holes) {
            let Some(target) = batch.targets.class(line.index) else { continue };
            // SAFETY: the census found the class in range.
            *hole = Some(unsafe { batch.hole(line.x, target) });
            blocks[kept] = Block { x: line.y.cast(), target };
            kept += 1;
        }
        let mut parts = [[Partial::EMPTY; 2]; GROUP];
        // SAFETY: the caller's promise; the line's elements are f32.
        unsafe { sum_and_keep(level, self.logit, (&blocks[..kept], len), &mut parts) };
        let (mut factors, mut at_targets) = ([[0.0; 2]; GROUP], [0.0; GROUP]);
        let (mut summed, mut defined) = (0, 0);
        for (line, hole) in lines.iter().zip(&holes) {
            let Some(hole) = hole else {
                // SAFETY: the caller's promise.
                unsafe {
                    self.results.put(line.index, (0.0, 0.0), 0.0, sums);
                    fill(line, 0.0);
                }
                continue;
            };
            let of_row = summed;
            summed += 1;
            let class = hole.column;
            let sides = parts[of_row].into_iter().map(Part::of);
            let sum = RowSum::merge(batch.transform, sides, Some(*hole));
            let loss = batch.loss(&sum.summed(), class);
            // SAFETY: results have an element a row, and this row is this call's.
            unsafe { self.results.put(line.index, loss, sum.lse() as f32, sums) };
            if sum.undefined() {
                // SAFETY: the caller's promise.
                unsafe { fill(line, f32::NAN) };
                continue;
            }
            let of_gradient = batch.factors(line.index, class, sum.lse());
            let scale = of_gradient.terms(batch.transform).prob / sum.total();
            // No row that is defined comes after fewer than have been summed.
            blocks[defined] = blocks[of_row];
            factors[defined] = parts[of_row].map(|part| match part.max {
                f32::NEG_INFINITY => 0.0,
                max => (scale * sum.share(max)) as f32,
            });
            at_targets[defined] = of_gradient.at_target(sum.rest, sum.target, hole.own());
            defined += 1;
        }
        // SAFETY: the caller's promise, of rows that were summed.
        unsafe {
            rescale(level, (&blocks[..defined], len), &factors[..defined]);
            for (block, at_target) in blocks[..defined].iter().zip(at_targets) {
                block.x.add(block.target).write(at_target);
            }
        }
    }
}
