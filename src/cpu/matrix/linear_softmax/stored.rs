//! Logits that are stored: made once, turned into their gradient in place, and multiplied out.

use crate::base::error::Result;
use crate::cpu::matrix::linear_softmax::operands::{Backward, STORED, Softmax};
use crate::cpu::matrix::product::{Matrix, Panel, product, with_scratch, zeros};
use crate::cpu::processor::Cpu;
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Plain};
use crate::cpu::row::work::{Kept, Row, Terms};
use crate::cpu::threads::{Spread, SyncPtr};

/// Classes whose weights' gradient one task makes.
const CLASSES: usize = 128;

/// Rows that one task takes: enough for an efficient product, and for many tasks.
pub(crate) fn block(rows: usize) -> usize {
    rows.div_ceil(16).clamp(32, 256)
}

impl Softmax<'_> {
    pub(crate) fn stored(&self, output: &mut [f64], backward: Option<Backward<'_>>) -> Result<()> {
        let (rows, classes, width) = (self.targets.len(), self.weight.rows, self.weight.columns);
        let mut backward = backward;
        let mut wide = zeros("head weights in f32", self.weight.scratch(classes))?;
        let weight = self.weight.panel(0..classes, &mut wide);
        // Narrow gradients are rounded once, when all rows have been added.
        let mut whole = match backward.as_ref().and_then(|b| b.weight) {
            Some(grad) => zeros("head gradient in f32", grad.scratch(classes))?,
            None => Vec::new(),
        };
        let chunk = (STORED / classes.max(1)).max(1).next_multiple_of(block(rows)).min(rows.max(1));
        let mut logits = zeros("logits", chunk * classes)?;
        let mut from = 0;
        while from < rows {
            let n = chunk.min(rows - from);
            let part = Part { softmax: self, weight, from, rows: n, first: from == 0 };
            part.logits(&mut logits, output, backward.as_mut());
            if let Some(backward) = &mut backward {
                part.weights(&logits, backward, &mut whole);
            }
            from += n;
        }
        if !whole.is_empty()
            && let Some(grad) = backward.as_ref().and_then(|b| b.weight)
        {
            let whole = Panel::of(&whole, width);
            self.cpu.share(classes.div_ceil(CLASSES), 1, &|task| {
                let tile = task * CLASSES..((task + 1) * CLASSES).min(classes);
                with_scratch([tile.len() * width], |[scratch]| {
                    // SAFETY: each class comes once; `make` copies a row of each to the other.
                    unsafe {
                        grad.rows(tile.clone(), scratch, |panel, _| {
                            for (to, row) in tile.clone().enumerate() {
                                panel.row(to, width).copy_from_slice(whole.row(row, width));
                            }
                        });
                    }
                });
            });
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
    /// Makes the logits, and of them the outputs; with a backward pass, of them their gradient
    /// and that of the hidden rows.
    fn logits(&self, logits: &mut [f32], output: &mut [f64], backward: Option<&mut Backward<'_>>) {
        let Softmax { cpu, weight: Matrix { rows: classes, columns: width, .. }, .. } =
            *self.softmax;
        let block = block(self.softmax.targets.len());
        let all = Panel::of_mut(logits, classes);
        let output = SyncPtr(output.as_mut_ptr());
        let factors = backward.as_ref().map(|b| b.factors);
        let d_hidden = (backward.and_then(|b| b.hidden.as_deref_mut()))
            .map(|hidden| Panel::of_mut(hidden, width));
        cpu.share(self.rows.div_ceil(block), 1, &|task| {
            let at = task * block;
            let n = block.min(self.rows - at);
            // SAFETY: rows of this task alone, in buffers with a row each.
            unsafe {
                let tile = all.at(at, 0);
                let hidden = self.softmax.hidden_from(self.from + at);
                product(false, tile, [hidden, self.weight.transposed()], [n, classes, width]);
                for i in 0..n {
                    let row = self.from + at + i;
                    let factor = factors.map(|f| f[row]);
                    let z = tile.row(i, classes);
                    output.get().add(row).write(self.row(row, z, factor));
                }
                if let Some(d_hidden) = d_hidden {
                    let out = d_hidden.at(self.from + at, 0);
                    product(false, out, [tile, self.weight], [n, width, classes]);
                }
            }
        });
    }

    /// The output of a row of products; with a factor the row becomes its gradient.
    fn row(&self, row: usize, z: &mut [f32], factor: Option<f64>) -> f64 {
        if let Some(bias) = self.softmax.bias {
            z.iter_mut().zip(bias).for_each(|(z, bias)| *z += bias);
        }
        softmax_row(self.softmax.cpu, z, self.softmax.targets[row], factor)
    }

    /// The gradient of weights and bias from that of the logits.
    fn weights(&self, logits: &[f32], backward: &mut Backward<'_>, whole: &mut [f32]) {
        let Softmax { cpu, weight: Matrix { rows: classes, columns: width, .. }, .. } =
            *self.softmax;
        let all = Panel::of(logits, classes);
        let hidden = self.softmax.hidden_from(self.from);
        let shape = |tile: usize| [tile, width, self.rows];
        let narrow = !whole.is_empty();
        let whole = Panel::of_mut(whole, width);
        let bias = backward.bias.as_deref_mut().map(|bias| SyncPtr(bias.as_mut_ptr()));
        let weight = backward.weight;
        cpu.share(classes.div_ceil(CLASSES), 1, &|task| {
            let tile = task * CLASSES..((task + 1) * CLASSES).min(classes);
            // SAFETY: classes of this task alone; the logits' gradient is only read.
            unsafe {
                let grad = all.at(0, tile.start).transposed();
                if narrow {
                    let out = whole.at(tile.start, 0);
                    product(!self.first, out, [grad, hidden], shape(tile.len()));
                } else if let Some(weight) = weight {
                    weight.rows(tile.clone(), &mut [], |out, add| {
                        product(add || !self.first, out, [grad, hidden], shape(tile.len()));
                    });
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
