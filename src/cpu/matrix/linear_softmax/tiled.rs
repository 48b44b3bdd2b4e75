//! Logits that are never all there: made tile by tile in cache, for the sums and for the gradient.

use crate::base::error::Result;
use crate::cpu::matrix::linear_softmax::operands::{Backward, Softmax, add_up};
use crate::cpu::matrix::product::{Matrix, Panel, product};
use crate::cpu::matrix::scratch::{with_scratch, zeros};
use crate::cpu::row::gradient::{GradientTerms, gradient};
use crate::cpu::row::logit::Transform;
use crate::cpu::row::softmax::accumulate;
use crate::cpu::row::state::{RowSum, Running};
use crate::cpu::threads::SyncPtr;
use std::ops::Range;

/// Rows and classes of a tile: 256 KiB, which is half of a second-level cache.
const ROWS: usize = 128;
const CLASSES: usize = 512;
/// Groups of tiles, each of which has sums of its own that are added in order.
const GROUPS: usize = 64;
/// Elements of the groups' sums at most, beyond which groups are fewer.
const SUMS: usize = 16 << 20;

/// How the classes are cut.
#[derive(Clone, Copy)]
struct Cut {
    classes: usize,
    groups: usize,
    /// Tiles of a group.
    tiles: usize,
}

impl Cut {
    fn new(rows: usize, classes: usize, width: usize) -> Cut {
        let tiles = classes.div_ceil(CLASSES).max(1);
        let most = (SUMS / (rows * width).max(1)).clamp(1, GROUPS);
        let tiles_each = tiles.div_ceil(most);
        Cut { classes, groups: tiles.div_ceil(tiles_each), tiles: tiles_each }
    }

    /// The tiles of a group, as classes.
    fn of(self, group: usize) -> impl Iterator<Item = Range<usize>> {
        let first = group * self.tiles * CLASSES;
        let end = (first + self.tiles * CLASSES).min(self.classes);
        (first..end).step_by(CLASSES).map(move |at| at..(at + CLASSES).min(end))
    }
}

impl Softmax<'_> {
    pub(crate) fn tiled(&self, output: &mut [f64], backward: Option<Backward<'_>>) -> Result<()> {
        let rows = self.targets.len();
        let cut = Cut::new(rows, self.weight.rows, self.weight.columns);
        let ends = self.sums(cut);
        for (output, end) in output.iter_mut().zip(&ends) {
            *output = if end.undefined() { f64::NAN } else { -end.nll() };
        }
        match backward {
            Some(backward) => self.gradients(cut, &ends, backward),
            None => Ok(()),
        }
    }

    /// Calls `work(rows, tile)` with the logits of each block of rows.
    ///
    /// # Safety
    /// `weights` are those of the tile's classes.
    unsafe fn tiles(
        &self,
        tile: &Range<usize>,
        weights: Panel,
        memory: &mut [f32],
        mut work: impl FnMut(Range<usize>, Panel),
    ) {
        let (rows, width) = (self.targets.len(), self.weight.columns);
        let logits = Panel::of_mut(memory, tile.len());
        for from in (0..rows).step_by(ROWS) {
            let block = from..(from + ROWS).min(rows);
            let of = [self.hidden_from(from), weights.transposed()];
            // SAFETY: the memory is of a tile's size; the others have as many rows and classes.
            unsafe {
                product(false, logits, of, [block.len(), tile.len(), width]);
                if let Some(bias) = self.bias {
                    for i in 0..block.len() {
                        let z = logits.row(i, tile.len());
                        z.iter_mut().zip(&bias[tile.clone()]).for_each(|(z, bias)| *z += bias);
                    }
                }
            }
            work(block, logits);
        }
    }

    /// Every row's sums.
    fn sums(&self, cut: Cut) -> Vec<RowSum> {
        let rows = self.targets.len();
        let mut running = vec![Running::EMPTY; cut.groups * rows];
        let mut at_target = vec![f32::NAN; rows];
        let (sums, level) = (SyncPtr(running.as_mut_ptr()), self.cpu.level);
        let z_target = SyncPtr(at_target.as_mut_ptr());
        self.cpu.share(cut.groups, 1, &|group| {
            // SAFETY: the group has as many sums of its own.
            let sums =
                unsafe { std::slice::from_raw_parts_mut(sums.get().add(group * rows), rows) };
            let sizes = [ROWS.min(rows) * CLASSES, self.weight.scratch(CLASSES)];
            with_scratch(sizes, |[memory, wide]| {
                for tile in cut.of(group) {
                    let weights = self.weight.panel(tile.clone(), wide);
                    let work = |block: Range<usize>, logits: Panel| {
                        for (i, row) in block.enumerate() {
                            // SAFETY: a row of the tile; each target lies in one tile.
                            let z = unsafe { logits.row(i, tile.len()) };
                            let target = self.targets[row].checked_sub(tile.start);
                            let hole = target.filter(|&t| t < z.len());
                            if let Some(hole) = hole {
                                // SAFETY: there is an element a row, and each target lies in one
                                // tile: nobody else writes it.
                                unsafe { z_target.get().add(row).write(z[hole]) };
                            }
                            for part in around(hole, z.len()) {
                                let (x, len) = (z[part.clone()].as_ptr(), part.len());
                                // SAFETY: the part of the row.
                                let sum = unsafe { accumulate(level, Transform::IDENTITY, x, len) };
                                sums[row].push(Running { max: sum.max, sum: sum.sum.into() });
                            }
                        }
                    };
                    // SAFETY: the weights are the tile's.
                    unsafe { self.tiles(&tile, weights, memory, work) };
                }
            });
        });
        (0..rows)
            .map(|row| {
                let mut sum = Running::EMPTY;
                (0..cut.groups).for_each(|group| sum.push(running[group * rows + row]));
                RowSum::of_running(&sum, at_target[row])
            })
            .collect()
    }

    fn gradients(&self, cut: Cut, ends: &[RowSum], backward: Backward<'_>) -> Result<()> {
        let Softmax { cpu, weight: Matrix { columns: width, .. }, .. } = *self;
        let rows = self.targets.len();
        let wanted = backward.hidden.is_some();
        let mut hidden =
            zeros("hidden gradients", if wanted { cut.groups * rows * width } else { 0 })?;
        let groups = Panel::of_mut(&mut hidden, width);
        let bias = backward.bias.map(|bias| SyncPtr(bias.as_mut_ptr()));
        let (weight, factors) = (backward.weight, backward.factors);
        cpu.share(cut.groups, 1, &|group| {
            let narrow = weight.map_or(0, |weight| weight.scratch(CLASSES));
            let sizes = [ROWS.min(rows) * CLASSES, self.weight.scratch(CLASSES), narrow];
            with_scratch(sizes, |[memory, wide, scratch]| {
                for tile in cut.of(group) {
                    let weights = self.weight.panel(tile.clone(), wide);
                    let mut work = |out: Option<Panel>, add: bool| {
                        let of_block = |block: Range<usize>, logits: Panel| {
                            // SAFETY: rows of the tile, sums of the group, and classes that no
                            // other task has.
                            unsafe {
                                for (i, row) in block.clone().enumerate() {
                                    let z = logits.row(i, tile.len());
                                    self.gradient_row(z, row, &tile, (&ends[row], factors[row]));
                                }
                                let sizes = [block.len(), tile.len()];
                                if let Some(out) = out {
                                    let of = [logits.transposed(), self.hidden_from(block.start)];
                                    let add = add || block.start > 0;
                                    product(add, out, of, [sizes[1], width, sizes[0]]);
                                }
                                if wanted {
                                    let out = groups.at(group * rows + block.start, 0);
                                    product(
                                        true,
                                        out,
                                        [logits, weights],
                                        [sizes[0], width, sizes[1]],
                                    );
                                }
                                if let Some(bias) = bias {
                                    let at = bias.get().add(tile.start);
                                    let sums = std::slice::from_raw_parts_mut(at, tile.len());
                                    if block.start == 0 {
                                        sums.fill(0.0);
                                    }
                                    for i in 0..block.len() {
                                        let g = logits.row(i, tile.len());
                                        sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += *g);
                                    }
                                }
                            }
                        };
                        // SAFETY: the weights are the tile's.
                        unsafe { self.tiles(&tile, weights, memory, of_block) };
                    };
                    match weight {
                        // SAFETY: classes of this task alone.
                        Some(weight) => unsafe {
                            weight.rows(tile.clone(), scratch, |out, add| work(Some(out), add));
                        },
                        None => work(None, false),
                    }
                }
            });
        });
        if let Some(out) = backward.hidden {
            add_up(cpu, &hidden, out);
        }
        Ok(())
    }

    /// A row's logits of a tile become their gradient.
    fn gradient_row(
        &self,
        z: &mut [f32],
        row: usize,
        tile: &Range<usize>,
        (end, factor): (&RowSum, f64),
    ) {
        if end.undefined() {
            return z.fill(f32::NAN);
        }
        let hole = self.targets[row].checked_sub(tile.start).filter(|&t| t < z.len());
        let terms = GradientTerms {
            reference: end.reference(),
            factor: (factor / end.total()) as f32,
            smooth: 0.0,
            summed: true,
        };
        for part in around(hole, z.len()) {
            let x = z[part.clone()].as_mut_ptr();
            let (memory, len) = ((x.cast_const(), x), part.len());
            let weights = std::ptr::null();
            // SAFETY: the part of the row, which is borrowed exclusively.
            unsafe {
                gradient(self.cpu.level, Transform::IDENTITY, memory, weights, len, terms);
            }
        }
        if let Some(hole) = hole {
            z[hole] = (factor * end.target_slope()) as f32;
        }
    }
}

/// The columns before and after the hole, or all.
fn around(hole: Option<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let (before, after) = match hole {
        Some(hole) => (0..hole, hole + 1..len),
        None => (0..len, len..len),
    };
    [before, after].into_iter().filter(|part| !part.is_empty())
}
