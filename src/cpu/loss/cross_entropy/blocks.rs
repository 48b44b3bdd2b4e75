//! Cross entropy of rows of one block each, some at a time: what a row comes to is a chain of logarithms and
//! divisions, which the processor takes beside those of the other rows.

use crate::base::dtype::DType;
use crate::cpu::batch::lines::{GROUP, Line};
use crate::cpu::batch::numbers::Sums;
use crate::cpu::batch::results::Results;
use crate::cpu::loss::cross_entropy::call::Call;
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::row::blocks::{Block, MOST, Sides, rescale, sum_apart, sum_in_place};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::narrow;
use crate::cpu::row::room::with_room;
use crate::cpu::row::state::{Part, RowSum};
use crate::cpu::simd::Lanes;
use crate::cpu::threads::Spread;
use crate::spec::row_state::block;

const _: () = assert!(GROUP <= MOST);

/// Elements that stay in a cache of 32 KiB as f32 from one visit to the next, beside what is asked for ahead.
const AT_HAND: usize = 4096;

/// Does a line by itself.
type Alone<'f, X, A, Y> = &'f dyn Fn(Line<X, A, Y>, &mut Sums);

/// A call on such rows: of f32 in place, whose exponentials stay where the logits were, or of 16 bits, whose
/// exponentials are kept apart.
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
        let apart = narrow::is::<X>() && call.weights.get().is_null();
        let one = line.spread == Spread::Alone && (1..=block(line.len)).contains(&line.len);
        let plain = call.batch.epsilon == 0.0 && !call.standing && !line.y.is_null();
        match call.batch.transform {
            Transform::Linear(logit) if (in_place || apart) && one && plain => {
                Some(Blocks { call, results, logit })
            }
            _ => None,
        }
    }

    /// Loss and gradient of lines; `alone` does one of them that has to go another way.
    ///
    /// # Safety
    /// As for `LineOp::line`, of each of the lines; they are like the one that this was made for.
    pub(super) unsafe fn lines<X: Lanes, A: Copy, Y: Lanes>(
        &self,
        lines: &[Line<X, A, Y>],
        sums: &mut Sums,
        alone: Alone<'_, X, A, Y>,
    ) {
        let len = lines.first().map_or(1, |line| line.len);
        let some = (AT_HAND / len).clamp(1, GROUP);
        let room = if narrow::is::<X>() { some * len } else { 0 };
        with_room(room, |room| {
            for lines in lines.chunks(some) {
                // SAFETY: the caller's promise, and there is room for so many lines of 16 bits.
                unsafe { self.some(lines, room, sums, alone) };
            }
        });
    }

    /// The same of as many as stay at hand.
    ///
    /// # Safety
    /// As for [`Blocks::lines`]; there is room for the lines' exponentials where they are kept apart.
    unsafe fn some<X: Lanes, A: Copy, Y: Lanes>(
        &self,
        lines: &[Line<X, A, Y>],
        room: *mut f32,
        sums: &mut Sums,
        alone: Alone<'_, X, A, Y>,
    ) {
        let (batch, level) = (self.call.batch, self.call.cpu.level);
        let (len, apart) = (lines.first().map_or(0, |line| line.len), narrow::is::<X>());
        let mut holes = [None::<Hole>; GROUP];
        let mut rows = [Block::<X, Y>::NONE; GROUP];
        let mut kept = 0;
        for (line, hole) in lines.iter().zip(&mut holes) {
            let Some(target) = batch.targets.class(line.index) else { continue };
            // SAFETY: the census found the class in range.
            let of_row = unsafe { batch.hole(line.x, target) };
            *hole = Some(of_row);
            let (x, out, logit) = (line.x, line.y, of_row.logit);
            let room = if apart { room.wrapping_add(kept * len) } else { out.cast() };
            rows[kept] = Block { x, kept: room, out, target, logit };
            kept += 1;
        }
        let mut sides = [None::<Sides>; GROUP];
        let of = (&rows[..kept], len);
        // SAFETY: the caller's promise: of 16 bits there is room, all else is f32 in place.
        unsafe {
            match apart {
                true => sum_apart(level, self.logit, of, &mut sides),
                false => sum_in_place(level, self.logit, of, &mut sides),
            }
        }
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
            let (row, of_row) = (rows[summed], &sides[summed]);
            summed += 1;
            let Some(Sides { parts, relative }) = of_row else {
                alone(*line, sums);
                continue;
            };
            let class = hole.column;
            let sum =
                RowSum::merge(batch.transform, parts.iter().copied().map(Part::of), Some(*hole));
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
            // No row comes after fewer than have been summed.
            rows[defined] = row;
            factors[defined] = match relative {
                Some(relative) => [(scale * relative) as f32; 2],
                None => parts.map(|part| match part.max {
                    f32::NEG_INFINITY => 0.0,
                    max => (scale * sum.share(max)) as f32,
                }),
            };
            at_targets[defined] = of_gradient.at_target(sum.rest, sum.target, hole.own());
            defined += 1;
        }
        // SAFETY: the caller's promise, of rows that were summed.
        unsafe {
            rescale(level, (&rows[..defined], len), &factors[..defined]);
            for (row, at_target) in rows[..defined].iter().zip(at_targets) {
                row.out.add(row.target).write(Y::from_f32(at_target));
            }
        }
    }
}
