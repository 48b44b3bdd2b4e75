//! Negative log-likelihood on the CPU: one element of each row is read, and a gradient is zeros
//! with one element a row, written as fast as memory takes it.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::numbers::{Scaling, Sums, Upstream, read};
use crate::cpu::batch::targets::{Targets, Weights};
use crate::cpu::processor::{Cpu, each_float, host_f32};
use crate::cpu::simd::Lanes;
use crate::cpu::threads::SyncPtr;
use crate::spec::grad_output::GradOutput;
use crate::spec::nll::{CheckedNll, Positions};

/// A batch as both passes see it.
struct Batch<'a> {
    targets: Targets<'a>,
    weights: Weights<'a>,
    scaling: Scaling<'a>,
    /// The upstream gradient, where all rows have the same one.
    upstream: Option<f64>,
}

impl<'a> Batch<'a> {
    /// Reads targets and weights; an error for what is wrong with them.
    fn new(cpu: &Cpu, checked: &CheckedNll<'a>, upstream: Upstream<'a>) -> Result<Batch<'a>> {
        let (targets, weights) = read(checked.target, &checked.counting)?;
        weights.sum(checked.counting.classes)?;
        let census = targets.census(cpu, &weights)?;
        let scaling = Scaling { reduction: checked.counting.reduction, census, upstream };
        let upstream = scaling.upstream_of_all().map(|(g, _)| g);
        Ok(Batch { targets, weights, scaling, upstream })
    }

    /// −w_t·x_t; a weight of 0 silences −∞.
    fn loss(&self, class: usize, x: f32) -> f64 {
        match self.weights.get(class) {
            0.0 if x == f32::NEG_INFINITY => 0.0,
            weight => -weight * f64::from(x),
        }
    }

    /// The gradient of a row's picked element.
    fn gradient(&self, row: usize, class: usize) -> f32 {
        let g = self.upstream.unwrap_or_else(|| self.scaling.upstream(row).0);
        (-g * self.weights.get(class)) as f32
    }
}

/// Fewer rows than this are picked by the calling thread alone: a miss of the cache each.
const ALONE_ROWS: usize = 1024;
/// More are picked in this many chunks; the sum's order follows from it.
const CHUNKS: usize = 64;
/// Short rows that a thread writes at a time.
const SHORT_ROWS: usize = 256;
/// Elements that a thread clears at a time.
const PIECE: usize = 64 * 1024;
/// Where every position is compared with every class: elements of a run, and most classes. With
/// more of them it is cheaper to come back for one element in so many.
const RUN: usize = 1024;
const COMPARED_CLASSES: usize = 1024;

impl Cpu {
    /// Picks, and adds up; losses of rows go to `out` where that is not null.
    ///
    /// # Safety
    /// The positions lie in memory at `x`, as many as there are targets, and `out` is null or has
    /// an element for each.
    unsafe fn pick<T: Lanes>(
        &self,
        batch: &Batch<'_>,
        x: SyncPtr<T>,
        positions: Positions,
        out: SyncPtr<f32>,
    ) -> Sums {
        let rows = batch.targets.rows;
        let chunk = |range: std::ops::Range<usize>| {
            let mut sum = 0.0;
            batch.targets.each(range, |row, class| {
                let loss = match class {
                    // SAFETY: the caller's contract; the census found the class in range.
                    Some(class) => unsafe {
                        let x = x.get().add(positions.offset(row, class)).read();
                        batch.loss(class, x.to_f32())
                    },
                    None => 0.0,
                };
                if !out.get().is_null() {
                    // SAFETY: the caller's contract; a row belongs to one chunk.
                    unsafe { out.get().add(row).write(loss as f32) };
                }
                sum += loss;
            });
            sum
        };
        let size = rows.div_ceil(CHUNKS).max(1);
        let mut sums = [0.0; CHUNKS];
        let work = |i: usize, sum: &mut f64| {
            *sum = chunk((i * size).min(rows)..((i + 1) * size).min(rows));
        };
        if rows < ALONE_ROWS {
            sums.iter_mut().enumerate().for_each(|(i, sum)| work(i, sum));
        } else {
            self.share_items(&mut sums, work);
        }
        Sums { loss: sums.iter().sum(), z_loss: 0.0 }
    }

    /// Zeros, and each row's one element.
    ///
    /// # Safety
    /// As for [`Cpu::pick`], and nobody else touches the positions.
    unsafe fn spread<T: Lanes>(&self, batch: &Batch<'_>, y: SyncPtr<T>, positions: Positions) {
        let Positions { blocks, stride, classes, class_stride, positions: each } = positions;
        let elements = blocks * classes * each;
        let alone = self.threads() == 1 || elements < PIECE;
        let put_class = |row: usize, class: Option<usize>| {
            if let Some(class) = class {
                let value = T::from_f32(batch.gradient(row, class));
                // SAFETY: the caller's contract; the census found the class in range.
                unsafe { y.get().add(positions.offset(row, class)).write(value) };
            }
        };
        let put = |row: usize| put_class(row, batch.targets.class(row));
        // All bits 0 are +0 in every float type.
        // SAFETY: called for stretches of the positions, each by one thread.
        let clear = |from: usize, len: usize| unsafe { y.get().add(from).write_bytes(0, len) };
        let one_run = class_stride == each;
        if each == 1 && one_run && classes <= PIECE / SHORT_ROWS {
            let some = |i: usize| {
                let rows = i * SHORT_ROWS..((i + 1) * SHORT_ROWS).min(blocks);
                match stride == classes {
                    true => clear(rows.start * stride, rows.len() * classes),
                    false => rows.clone().for_each(|n| clear(n * stride, classes)),
                }
                batch.targets.each(rows, put_class);
            };
            match alone {
                true => (0..blocks.div_ceil(SHORT_ROWS)).for_each(some),
                false => self.share(blocks.div_ceil(SHORT_ROWS), 1, &some),
            }
            return;
        }
        let block = |n: usize| {
            if each > 1 && classes <= COMPARED_CLASSES {
                for from in (0..each).step_by(RUN) {
                    // SAFETY: the run is of this block alone.
                    unsafe { compare(batch, y, positions, n, from..(from + RUN).min(each)) };
                }
                return;
            }
            match one_run {
                true => clear(n * stride, classes * each),
                false => (0..classes).for_each(|c| clear(n * stride + c * class_stride, each)),
            }
            (n * each..(n + 1) * each).for_each(put);
        };
        if alone {
            (0..blocks).for_each(block);
        } else if blocks >= 4 * self.threads() || !one_run {
            self.share(blocks, 1, &block);
        } else if each > 1 && classes <= COMPARED_CLASSES {
            let runs = each.div_ceil(RUN);
            self.share(blocks * runs, 1, &|i| {
                let from = i % runs * RUN;
                // SAFETY: each run belongs to one call.
                unsafe { compare(batch, y, positions, i / runs, from..(from + RUN).min(each)) };
            });
        } else {
            let len = classes * each;
            let pieces = len.div_ceil(PIECE);
            self.share(blocks * pieces, 1, &|i| {
                let from = i % pieces * PIECE;
                clear(i / pieces * stride + from, PIECE.min(len - from));
            });
            self.share(blocks * each, ALONE_ROWS, &put);
        }
    }

    pub(crate) fn nll_forward(
        &self,
        checked: &CheckedNll<'_>,
        input: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::Number(1.0))?;
        let loss = host_f32(loss, "loss")?;
        let (positions, out) = (of(&input), per_row(loss, checked.counting.reduction));
        let sums = each_float!(input.host_data(), "input", HostRef, x => {
            // SAFETY: the view holds its shape, of which the target was checked to have the rows.
            Ok(unsafe { self.pick(&batch, SyncPtr(x.as_ptr().cast_mut()), positions, out) })
        })?;
        finish(&batch, &sums, loss);
        Ok(())
    }

    pub(crate) fn nll_backward(
        &self,
        checked: &CheckedNll<'_>,
        grad_output: GradOutput<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::new(&grad_output)?)?;
        let positions = of(&grad_input.as_ref());
        each_float!(grad_input.into_host_data(), "grad_input", HostMut, y => {
            // SAFETY: as for the forward pass, and the view is borrowed exclusively.
            unsafe { self.spread(&batch, SyncPtr(y.as_mut_ptr()), positions) };
            Ok(())
        })
    }

    pub(crate) fn nll_forward_backward(
        &self,
        checked: &CheckedNll<'_>,
        input: TensorMut<'_>,
        grad_output: GradOutput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::new(&grad_output)?)?;
        let loss = host_f32(loss, "loss")?;
        let (positions, out) = (of(&input.as_ref()), per_row(loss, checked.counting.reduction));
        let sums = each_float!(input.into_host_data(), "input", HostMut, x => {
            let x = SyncPtr(x.as_mut_ptr());
            // SAFETY: as above; all is picked before anything is overwritten.
            unsafe {
                let sums = self.pick(&batch, x, positions, out);
                self.spread(&batch, x, positions);
                Ok(sums)
            }
        })?;
        finish(&batch, &sums, loss);
        Ok(())
    }
}

fn of(tensor: &TensorRef<'_>) -> Positions {
    Positions::new(&tensor.shape(), tensor.row_stride())
}

/// Where rows write their losses: nowhere, where they are reduced.
fn per_row(loss: &mut [f32], reduction: Reduction) -> SyncPtr<f32> {
    match reduction {
        Reduction::None => SyncPtr(loss.as_mut_ptr()),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => SyncPtr(std::ptr::null_mut()),
    }
}

fn finish(batch: &Batch<'_>, sums: &Sums, loss: &mut [f32]) {
    if batch.scaling.reduction != Reduction::None {
        loss[0] = batch.scaling.reduce(sums, false).0;
    }
}

/// One run of positions, for every class: where the position's target is the class its gradient,
/// else 0.
///
/// # Safety
/// As for [`Cpu::spread`]; nobody else works on this run of block `n`, which is not longer than
/// [`RUN`], and there are at most [`COMPARED_CLASSES`] classes.
unsafe fn compare<T: Lanes>(
    batch: &Batch<'_>,
    y: SyncPtr<T>,
    positions: Positions,
    n: usize,
    run: std::ops::Range<usize>,
) {
    const NONE: u32 = u32::MAX;
    let (mut targets, mut values) = ([NONE; RUN], [T::default(); RUN]);
    let (targets, values) = (&mut targets[..run.len()], &mut values[..run.len()]);
    for (i, (target, value)) in targets.iter_mut().zip(&mut *values).enumerate() {
        let row = n * positions.positions + run.start + i;
        if let Some(class) = batch.targets.class(row) {
            // The census found it below the number of classes.
            *target = class as u32;
            *value = T::from_f32(batch.gradient(row, class));
        }
    }
    for class in 0..positions.classes {
        let at = n * positions.stride + class * positions.class_stride + run.start;
        for (i, (&target, &value)) in targets.iter().zip(&*values).enumerate() {
            let value = if target == class as u32 { value } else { T::default() };
            // SAFETY: the run's positions exist for every class of block `n`, and nobody else works
            // on them: the caller's promise.
            unsafe { y.get().add(at + i).write(value) };
        }
    }
}
