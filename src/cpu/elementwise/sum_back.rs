//! The gradient of a tensor that was broadcast: the sum over all that its elements served.
//!
//! The space is cut along one of its dimensions. Along one that the tensor has (kept), parts have
//! elements of the gradient to themselves; along one that it lacks (summed), each part has partial
//! sums of all of them, which are added in order. Sums are f64.

use crate::cpu::elementwise::pass::TILE;
use crate::cpu::elementwise::tiles::{CHUNK_ELEMENTS, CHUNKS, Job, Only, each_tile};
use crate::cpu::processor::Cpu;
use crate::cpu::simd::Lanes;
use crate::cpu::threads::SyncPtr;
use crate::spec::elementwise::{Operand, Space};
use std::cell::Cell;
use std::mem::MaybeUninit;

/// Most partial sums of all parts together: 8 MiB.
const PARTIALS: usize = 1 << 20;
/// A part of the innermost dimension has at least this many elements, whole cache lines of them.
const INNER_PART: usize = 256;

/// Whose gradient.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Input,
    Target,
    Third,
}

impl Side {
    pub(super) fn argument(self) -> &'static str {
        match self {
            Side::Input => "grad_input",
            Side::Target => "grad_target",
            Side::Third => "grad_variance",
        }
    }

    fn operand(self) -> Operand {
        match self {
            Side::Input => Operand::GradInput,
            Side::Target => Operand::GradTarget,
            Side::Third => Operand::GradThird,
        }
    }
}

/// How a space is cut: along dimension `d`, in parts of `width` indices.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    d: usize,
    width: usize,
    parts: usize,
}

impl Cut {
    /// The dimension that gives most parts; a kept one where several do. No size is 0.
    fn new(space: &Space, kept: impl Fn(usize) -> bool) -> Cut {
        let sizes = space.sizes();
        let outputs: usize = (0..sizes.len()).filter(|&d| kept(d)).map(|d| sizes[d]).product();
        let mut best = Cut { d: 0, width: sizes.first().copied().unwrap_or(1), parts: 1 };
        let mut best_is_kept = false;
        for (d, &size) in sizes.iter().enumerate() {
            let least = if d + 1 == sizes.len() { INNER_PART } else { 1 };
            let most = if kept(d) { CHUNKS } else { (PARTIALS / outputs).clamp(1, CHUNKS) };
            let width = size.div_ceil(most).max(least).min(size);
            let parts = size.div_ceil(width);
            if parts > best.parts || (parts == best.parts && kept(d) && !best_is_kept) {
                best = Cut { d, width, parts };
                best_is_kept = kept(d);
            }
        }
        best
    }
}

thread_local! {
    /// Sums of this thread, kept so that calls in the steady state allocate nothing.
    static SCRATCH: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with `n` zeros. The memory is taken out meanwhile: a thread that waits in here may
/// be given other work that comes here too.
fn with_zeros<R>(n: usize, work: impl FnOnce(&mut [f64]) -> R) -> R {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    scratch.resize(n, 0.0);
    let result = work(&mut scratch);
    SCRATCH.set(scratch);
    result
}

impl Cpu {
    /// Writes the gradient of a tensor that was broadcast.
    ///
    /// # Safety
    /// As for [`Job::run`], of what is read; `grad` has the operand's layout, is writable, and lies
    /// apart from it.
    pub(super) unsafe fn sum_back<T: Lanes>(&self, job: &Job<'_, T>, side: Side, grad: *mut T) {
        let (space, count) = (&job.space, job.space.count());
        let kept = |d: usize| space.stride(side.operand(), d) != 0;
        let outputs = |space: &Space| space.project(kept).count();
        let grad = SyncPtr(grad);
        let write = |space: &Space, sums: &[f64]| {
            // SAFETY: the caller's contract; parts that are written are disjoint.
            unsafe { write(&space.project(kept), side.operand(), grad.get(), sums) };
        };
        if count == 0 {
            return with_zeros(outputs(space), |zeros| write(space, zeros));
        }
        let cut = Cut::new(space, kept);
        let whole = 0..space.sizes().get(cut.d).copied().unwrap_or(1);
        let part = |i: usize| match space.sizes() {
            [] => *space,
            _ => {
                let end = ((i + 1) * cut.width).min(whole.end);
                space.part(cut.d, (i * cut.width).min(end)..end)
            }
        };
        let alone = self.threads() == 1 || count < CHUNK_ELEMENTS;
        // SAFETY: the job's pointers are good for their strides over its whole space, as the caller
        // promises, and a part is some of it.
        let sum = |i: usize, sums: &mut [f64]| unsafe { sum_part(job, side, &part(i), sums) };
        if space.sizes().is_empty() || kept(cut.d) {
            let one = |i: usize| {
                let part = part(i);
                with_zeros(outputs(&part), |sums| {
                    sum(i, sums);
                    write(&part, sums);
                });
            };
            match alone {
                true => (0..cut.parts).for_each(one),
                false => self.share(cut.parts, 1, &one),
            }
            return;
        }
        let n = outputs(space);
        with_zeros(n * cut.parts, |all| {
            match alone {
                true => all.chunks_mut(n).enumerate().for_each(|(i, sums)| sum(i, sums)),
                false => {
                    let first = SyncPtr(all.as_mut_ptr());
                    self.share(cut.parts, 1, &|i| {
                        // SAFETY: the part's own sums, of which each number comes once.
                        let sums =
                            unsafe { std::slice::from_raw_parts_mut(first.get().add(i * n), n) };
                        sum(i, sums);
                    });
                }
            }
            let (total, parts) = all.split_at_mut(n);
            for part in parts.chunks(n) {
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            }
            write(space, total);
        });
    }
}

/// Adds the gradients of a part's indices to `sums`, one for each index of its kept dimensions.
///
/// # Safety
/// As for [`Job::gradient`].
unsafe fn sum_part<T: Lanes>(job: &Job<'_, T>, side: Side, part: &Space, sums: &mut [f64]) {
    let job = Job { space: *part, ..*job };
    let operand = side.operand();
    let mut into = *part;
    into.set(operand, &part.contiguous(|d| part.stride(operand, d) != 0));
    let mut gradient = [MaybeUninit::<f32>::uninit(); TILE];
    each_tile(part, 0..part.count(), |tile| {
        let p = gradient.as_mut_ptr().cast::<f32>();
        let only = match side {
            Side::Input => Only::GradX(p),
            Side::Target => Only::GradY(p),
            Side::Third => Only::GradThird(p),
        };
        // SAFETY: the caller's contract; the buffer holds a tile, which the call fills.
        let gradient = unsafe {
            job.gradient(only, &tile);
            std::slice::from_raw_parts(p.cast_const(), tile.len())
        };
        into.runs(operand, tile, |offset, stretch, stride| {
            let gradient = &gradient[stretch];
            match stride {
                0 => sums[offset] += sum(gradient),
                _ => {
                    let sums = &mut sums[offset..offset + gradient.len()];
                    sums.iter_mut().zip(gradient).for_each(|(s, &g)| *s += f64::from(g));
                }
            }
        });
    });
}

/// Sum in f64, in eight interleaved parts.
fn sum(values: &[f32]) -> f64 {
    let mut parts = [0.0; 8];
    let chunks = values.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v)).sum();
    for chunk in chunks {
        parts.iter_mut().zip(chunk).for_each(|(part, &v)| *part += f64::from(v));
    }
    parts.iter().sum::<f64>() + rest
}

/// Rounds sums, one for each index of `space`, into their places.
///
/// # Safety
/// `grad` has the operand's layout and is writable.
unsafe fn write<T: Lanes>(space: &Space, operand: Operand, grad: *mut T, sums: &[f64]) {
    space.runs(operand, 0..sums.len(), |offset, stretch, stride| {
        for (j, i) in stretch.enumerate() {
            // SAFETY: `grad` has the operand's layout and is writable, says the caller; `runs`
            // gives offsets of that layout alone.
            unsafe { grad.add(offset + j * stride).write(T::from_f32(sums[i] as f32)) };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shape::{MAX_RANK, Shape};
    use crate::spec::elementwise::{OPERANDS, Strides};

    fn cut(sizes: &[usize], grad: &[usize]) -> Cut {
        let mut strides: Strides = [[0; MAX_RANK]; OPERANDS];
        strides[Operand::GradTarget as usize][..grad.len()].copy_from_slice(grad);
        let space = Space::new(&Shape::new(sizes).unwrap(), &strides);
        Cut::new(&space, |d| space.stride(Operand::GradTarget, d) != 0)
    }

    #[test]
    fn spaces_are_cut_where_that_gives_most_parts() {
        // A row for all rows: rows are summed. A column for all columns: rows are kept.
        assert_eq!(cut(&[100_000, 64], &[0, 1]).d, 0);
        assert_eq!(cut(&[100_000, 64], &[1, 0]), Cut { d: 0, width: 391, parts: 256 });
        // Eight long rows summed to one: the row is cut, not the sum.
        assert_eq!(cut(&[8, 1 << 20], &[0, 1]), Cut { d: 1, width: 4096, parts: 256 });
        assert_eq!(cut(&[1 << 20], &[0]), Cut { d: 0, width: 4096, parts: 256 });
        assert_eq!(cut(&[], &[]).parts, 1);
    }
}
