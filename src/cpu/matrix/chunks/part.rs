//! Some rows of hidden states and their logits: how they are cut into tiles, and the logits made.

use crate::base::lines::Lines;
use crate::base::shape::Shape;
use crate::cpu::matrix::bf16::Packed;
use crate::cpu::matrix::by_rows::product_by_rows;
use crate::cpu::matrix::chunks::pairs::Pairs;
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::{Matrix, Panel};
use crate::cpu::matrix::scratch::with_scratch;
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;
use std::ops::Range;

/// Classes of a tile of logits: its weights stay in a second-level cache while rows come by.
pub(super) const CLASSES: usize = 1024;
/// Those of a tile at most: the last takes what is left over.
pub(crate) const TILE: usize = 2 * CLASSES;
/// Rows that a task multiplies, where there are so many.
pub(super) const ROWS: usize = 512;
/// Tasks that a step is cut into at least, where it is large enough.
const TASKS: usize = 16;
/// Rows of a block at most, and bytes of its logits.
const BLOCK: usize = 128;
const BLOCK_BYTES: usize = 64 << 20;
/// Numbers of a cache line: rows of logits begin with one.
const LINE: usize = 16;

/// Rows that gradients of the classifier are added up over at once; so many classes alone decide.
pub(crate) fn block_rows(classes: usize) -> usize {
    let most = BLOCK_BYTES / (4 * stride(classes));
    (1 << most.max(8).ilog2()).min(BLOCK)
}

/// How long pieces of a length are that has as few of them as possible, of so many at most, and all alike.
pub(super) fn even(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most).max(1)).max(1)
}

/// Elements from a row of logits to the next.
pub(crate) fn stride(classes: usize) -> usize {
    classes.next_multiple_of(LINE).max(LINE)
}

/// Hidden rows and a classifier.
pub(crate) struct Chunks<'a> {
    pub(crate) cpu: &'a Cpu,
    /// All rows of the batch, and which of them there are.
    pub(crate) input: Matrix<'a>,
    pub(crate) rows: &'a [usize],
    /// `[V, D]`.
    pub(crate) weight: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    /// What the rows' logits are multiplied by, one for each row that there is.
    pub(crate) scales: Option<&'a [f32]>,
    /// Rows of a chunk.
    pub(crate) chunk: usize,
}

/// Where gradients go.
#[derive(Default)]
pub(crate) struct Gradients<'a> {
    pub(crate) input: Option<Gradient<'a>>,
    pub(crate) weight: Option<Gradient<'a>>,
    pub(crate) bias: Option<Gradient<'a>>,
    /// Whether the classifier's, of 16 bits and from several chunks, has an f32 sum of its own.
    pub(crate) wide: bool,
}

/// Rows of logits, `stride` elements apart.
pub(crate) struct Logits<'l> {
    /// Which of the rows that there are.
    pub(crate) rows: Range<usize>,
    pub(crate) classes: usize,
    pub(crate) stride: usize,
    pub(crate) data: &'l mut [f32],
}

impl Logits<'_> {
    /// The same for a while.
    pub(crate) fn again(&mut self) -> Logits<'_> {
        let Logits { classes, stride, .. } = *self;
        Logits { rows: self.rows.clone(), classes, stride, data: &mut *self.data }
    }

    /// How lines of so many classes lie in rows that are `stride` elements apart: one a row, or several side by side.
    pub(crate) fn lines(&self, classes: usize, stride: usize) -> Lines {
        let sizes = [self.rows.len(), classes, self.classes.checked_div(classes).unwrap_or(1)];
        Lines::new(&Shape::new(&sizes).unwrap_or(Shape::SCALAR), stride, |d| d == 1)
    }
}

impl Chunks<'_> {
    pub(super) fn classes(&self) -> usize {
        self.weight.rows
    }

    pub(super) fn features(&self) -> usize {
        self.weight.columns
    }
}

/// Some rows, whose logits are there at once.
pub(super) struct Part<'a> {
    pub(super) chunks: &'a Chunks<'a>,
    pub(super) rows: Range<usize>,
    pub(super) hidden: Hidden<'a>,
    /// Of the logits.
    pub(super) stride: usize,
}

/// Pieces of a length: the last is up to twice as long, so that none is short.
#[derive(Clone, Copy)]
pub(super) struct Pieces {
    pub(super) len: usize,
    pub(super) each: usize,
}

impl Pieces {
    pub(super) fn count(self) -> usize {
        (self.len / self.each).max(1)
    }

    pub(super) fn of(self, piece: usize) -> Range<usize> {
        let end = if piece + 1 == self.count() { self.len } else { (piece + 1) * self.each };
        piece * self.each..end
    }
}

/// A part's hidden rows, as the products of logits take them.
#[derive(Clone, Copy)]
pub(super) enum Hidden<'a> {
    /// In f32.
    Wide(Panel),
    /// By pairs.
    Pairs(Pairs<'a>, Packed),
}

/// The same, as the products of the classifier's gradient take them.
pub(super) enum Factors<'a> {
    Wide(Panel),
    /// Block by block.
    Pairs(Pairs<'a>, Vec<Packed>),
}

impl Part<'_> {
    pub(super) fn of_classes(&self) -> Pieces {
        Pieces { len: self.chunks.classes(), each: CLASSES }
    }

    /// Hidden rows by the classifier's, with bias and scale.
    pub(super) fn logits(&self, out: &mut [f32]) {
        let (chunks, rows) = (self.chunks, self.rows.len());
        let tiles = self.of_classes();
        // A tile of weights is widened once for all rows of a task.
        let tasks = TASKS.div_ceil(tiles.count()).min(rows.div_ceil(ROWS)).max(1);
        let of_task = rows.div_ceil(tasks).next_multiple_of(16);
        let out = Panel::of_mut(out, self.stride);
        chunks.cpu.share(tiles.count() * tasks, 1, &|task| {
            let classes = tiles.of(task / tasks);
            let first = task % tasks * of_task;
            let last = (first + of_task).min(rows);
            let hidden = match self.hidden {
                Hidden::Wide(hidden) => hidden,
                Hidden::Pairs(pairs, left) => {
                    // SAFETY: rows and classes of this task alone; a task's first row is a multiple of 16.
                    return unsafe { self.logits_to((pairs, left), out, first..last, classes) };
                }
            };
            with_scratch([chunks.weight.scratch(classes.len())], |[wide]| {
                let weight = chunks.weight.panel(classes.clone(), wide).transposed();
                // All at once, as a product brings its weights into their order anew each time.
                let each = even(last.saturating_sub(first), 2 * ROWS);
                for at in (first..last).step_by(each) {
                    let n = each.min(last - at);
                    let sizes = [n, classes.len(), chunks.features()];
                    // SAFETY: rows and classes of this task alone, which all three have.
                    unsafe {
                        let to = out.at(at, classes.start);
                        product_by_rows(false, to, [hidden.at(at, 0), weight], sizes);
                        self.adjust(to, at..at + n, classes.clone());
                    }
                }
            });
        });
    }

    /// Logits of some rows and classes by pairs.
    ///
    /// # Safety
    /// `out` has all of the part's, of which nobody else uses these; the first row is a multiple of 16.
    unsafe fn logits_to(
        &self,
        packs: (Pairs<'_>, Packed),
        out: Panel,
        rows: Range<usize>,
        classes: Range<usize>,
    ) {
        if rows.is_empty() {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            let to = out.at(rows.start, classes.start);
            self.logits_by(packs, to, rows.clone(), classes.clone());
            self.adjust(to, rows, classes);
        }
    }

    /// Adds the bias, and multiplies by the rows' scales.
    ///
    /// # Safety
    /// The tile has those rows and classes, and nobody else uses it.
    pub(super) unsafe fn adjust(&self, tile: Panel, rows: Range<usize>, classes: Range<usize>) {
        let Chunks { bias, scales, .. } = *self.chunks;
        if bias.is_none() && scales.is_none() {
            return;
        }
        for (i, row) in rows.enumerate() {
            // SAFETY: a row of the tile: the caller's promise.
            let z = unsafe { tile.row(i, classes.len()) };
            if let Some(bias) = bias {
                z.iter_mut().zip(&bias[classes.clone()]).for_each(|(z, bias)| *z += bias);
            }
            if let Some(scales) = scales {
                let scale = scales[self.rows.start + row];
                z.iter_mut().for_each(|z| *z *= scale);
            }
        }
    }
}

/// Elements that threads write apart from one another.
pub(super) type Shared = SyncPtr<f32>;
