//! Logits that are stored: made once, turned into their gradient in place, and multiplied out.
//!
//! Each step is cut into tiles of its own, one a task: logits by rows and classes, softmaxes by rows, the
//! hidden rows' gradient by rows, features and, if those are few, groups of classes whose sums are added in
//! order, the weights' gradient by classes.

use crate::base::error::Result;
use crate::cpu::matrix::linear_softmax::operands::{Backward, STORED, Softmax, add_up};
use crate::cpu::matrix::linear_softmax::tiles::{self, TASKS, Tiles, piece};
use crate::cpu::matrix::product::{Matrix, Panel, product};
use crate::cpu::matrix::scratch::{with_large, with_scratch, zeros};
use crate::cpu::processor::Cpu;
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Plain};
use crate::cpu::row::work::{Kept, Row, Terms};
use crate::cpu::threads::{Spread, SyncPtr};

/// Rows and features of a tile of the hidden rows' gradient at most.
const ROWS: usize = 256;
const FEATURES: usize = 128;
/// Classes at least of which a group has sums of its own.
const GROUP: usize = 512;
/// Elements of the weights' gradient that one task makes at most.
const WEIGHTS: usize = 64 * 1024;
/// Logits that one task turns into gradients at least.
const TURNED: usize = 16 * 1024;

/// Rows that one task takes: enough for an efficient product, and for many tasks.
pub(crate) fn block(rows: usize) -> usize {
    rows.div_ceil(16).clamp(32, 256)
}

impl Softmax<'_> {
    pub(crate) fn stored(&self, output: &mut [f64], backward: Option<Backward<'_>>) -> Result<()> {
        let (rows, classes) = (self.targets.len(), self.weight.rows);
        let chunk = (STORED / classes.max(1)).max(1).next_multiple_of(block(rows)).min(rows.max(1));
        let grad = backward.as_ref().and_then(|b| b.weight);
        // Narrow gradients are rounded once, when all rows have been added.
        let summed = if chunk < rows { grad.map_or(0, |grad| grad.scratch(classes)) } else { 0 };
        let mut whole = zeros("head gradient in f32", summed)?;
        let wide = self.weight.scratch(classes);
        with_large("logits and weights in f32", chunk * classes + wide, |memory| {
            let (wide, logits) = memory.split_at_mut(wide);
            self.in_chunks(chunk, (wide, logits, &mut whole), output, backward)
        })?
    }

    /// A chunk of rows after another.
    fn in_chunks(
        &self,
        chunk: usize,
        (wide, logits, whole): (&mut [f32], &mut [f32], &mut [f32]),
        output: &mut [f64],
        mut backward: Option<Backward<'_>>,
    ) -> Result<()> {
        let rows = self.targets.len();
        let weight = self.weight.all(self.cpu, wide);
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let part = Part { softmax: self, weight, from, rows: n, first: from == 0 };
            part.logits(logits);
            part.turn(logits, output, backward.as_ref().map(|b| b.factors));
            if let Some(backward) = &mut backward {
                if let Some(hidden) = backward.hidden.as_deref_mut() {
                    part.hidden(logits, hidden)?;
                }
                part.weights(logits, backward, whole);
            }
        }
        match backward.and_then(|b| b.weight) {
            Some(grad) if !whole.is_empty() => {
                grad.scatter(self.cpu, &Vec::from_iter(0..grad.rows), whole);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Some rows, whose logits are there at once.
struct Part<'a> {
    softmax: &'a Softmax<'a>,
    weight: Panel,
    from: usize,
    rows: usize,
    first: bool,
}

impl Part<'_> {
    fn logits(&self, logits: &mut [f32]) {
        let Softmax { cpu, weight: Matrix { rows: classes, columns: width, .. }, bias, .. } =
            *self.softmax;
        let hidden = self.softmax.hidden_from(self.from);
        let out = Panel::of_mut(logits, classes);
        // SAFETY: a row of either for each, and the weights of all classes.
        unsafe { tiles::logits(cpu, [hidden, self.weight], bias, out, [self.rows, classes, width]) }
    }

    /// The outputs; with factors the logits become their gradient.
    fn turn(&self, logits: &mut [f32], output: &mut [f64], factors: Option<&[f64]>) {
        let Softmax { cpu, weight: Matrix { rows: classes, .. }, targets, .. } = *self.softmax;
        let (all, output) = (Panel::of_mut(logits, classes), SyncPtr(output.as_mut_ptr()));
        cpu.share(self.rows, TURNED.div_ceil(classes.max(1)), &|at| {
            let row = self.from + at;
            // SAFETY: a row of this task alone, in buffers with one each.
            unsafe {
                let z = all.row(at, classes);
                output.get().add(row).write(softmax_row(
                    cpu,
                    z,
                    targets[row],
                    factors.map(|f| f[row]),
                ));
            }
        });
    }

    /// The gradient of the hidden rows from that of the logits.
    fn hidden(&self, logits: &[f32], hidden: &mut [f32]) -> Result<()> {
        let Softmax { cpu, weight: Matrix { rows: classes, columns: width, .. }, .. } =
            *self.softmax;
        let hidden = &mut hidden[self.from * width..][..self.rows * width];
        let tiles = Tiles::new([self.rows, width], [ROWS, FEATURES]);
        let groups = (TASKS / tiles.count().max(1)).min(classes / GROUP).max(1);
        let each = classes.div_ceil(groups);
        let all = Panel::of(logits, classes);
        let go = |out: &mut [f32]| {
            let out = Panel::of_mut(out, width);
            cpu.share(groups * tiles.count(), 1, &|task| {
                let (group, [rows, features]) =
                    (task / tiles.count(), tiles.of(task % tiles.count()));
                let of = (group * each).min(classes)..((group + 1) * each).min(classes);
                // SAFETY: rows and features of a group, of this task alone; the logits' gradient
                // is only read.
                unsafe {
                    let out = out.at(group * self.rows + rows.start, features.start);
                    let grad = all.at(rows.start, of.start);
                    let weight = self.weight.at(of.start, features.start);
                    product(false, out, [grad, weight], [rows.len(), features.len(), of.len()]);
                }
            });
        };
        if groups == 1 {
            go(hidden);
            return Ok(());
        }
        with_large("hidden gradients", groups * hidden.len(), |sums| {
            go(sums);
            add_up(cpu, sums, hidden);
        })
    }

    /// The gradient of weights and bias from that of the logits.
    fn weights(&self, logits: &[f32], backward: &mut Backward<'_>, whole: &mut [f32]) {
        let Softmax { cpu, weight: Matrix { rows: classes, columns: width, .. }, .. } =
            *self.softmax;
        let tile = piece(classes, (WEIGHTS / width.max(1)).clamp(128, 1024));
        let tiles = Tiles::new([classes, 1], [tile, 1]);
        let all = Panel::of(logits, classes);
        let hidden = self.softmax.hidden_from(self.from);
        let summed = !whole.is_empty();
        let whole = Panel::of_mut(whole, width);
        let bias = backward.bias.as_deref_mut().map(|bias| SyncPtr(bias.as_mut_ptr()));
        let weight = backward.weight;
        cpu.share(tiles.count(), 1, &|task| {
            let [tile, _] = tiles.of(task);
            // SAFETY: classes of this task alone; the logits' gradient is only read.
            unsafe {
                let grad = all.at(0, tile.start).transposed();
                let make = |out: Panel, add: bool| {
                    let sizes = [tile.len(), width, self.rows];
                    product(add || !self.first, out, [grad, hidden], sizes);
                };
                match weight {
                    Some(_) if summed => make(whole.at(tile.start, 0), false),
                    Some(weight) => with_scratch([weight.scratch(tile.len())], |[scratch]| {
                        weight.rows(tile.clone(), scratch, make);
                    }),
                    None => {}
                }
                if let Some(bias) = bias {
                    let sums =
                        std::slice::from_raw_parts_mut(bias.get().add(tile.start), tile.len());
                    if self.first {
                        sums.fill(0.0);
                    }
                    for row in 0..self.rows {
                        let grad = all.at(row, tile.start).row(0, tile.len());
                        sums.iter_mut().zip(grad).for_each(|(sum, g)| *sum += *g);
                    }
                }
            }
        });
    }
}

/// The log-probability of a row's column; with a factor the row becomes its gradient.
pub(crate) fn softmax_row(cpu: &Cpu, z: &mut [f32], column: usize, factor: Option<f64>) -> f64 {
    let logit = z[column];
    let hole =
        Hole { column, logit, reference: logit, z: f64::from(logit), slope: 1.0, weight: 0.0 };
    let of = Row::plain(cpu.level, Spread::Alone, z);
    let Some(factor) = factor else {
        // SAFETY: the row is `z`, and the hole one of its columns.
        let sum = unsafe { of.sum(Some(hole)) };
        return if sum.undefined() { f64::NAN } else { -sum.nll() };
    };
    let mut kept = Kept::new();
    let of = Row { x: z.as_mut_ptr().cast_const(), ..of };
    // SAFETY: as above, and the row is borrowed exclusively.
    let sum = unsafe { of.sum_and_keep(Linear::Plain(Plain), hole, &mut kept) };
    if sum.undefined() {
        z.fill(f32::NAN);
        return f64::NAN;
    }
    // SAFETY: `sum` and `kept` were made of this row.
    unsafe { of.rescale(&sum, &kept, &Terms { prob: factor, smooth: 0.0 }) };
    z[column] = (-factor * (sum.rest / sum.total())) as f32;
    -sum.nll()
}
