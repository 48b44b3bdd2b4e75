//! The hidden rows' gradient from that of the logits.

use crate::base::error::Result;
use crate::cpu::matrix::by_rows::product_by_rows;
use crate::cpu::matrix::chunks::pairs::Pairs;
use crate::cpu::matrix::chunks::part::{Part, Pieces, ROWS, even};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Panel;
use crate::cpu::matrix::scratch::{with_large, with_scratch};

/// Features of a tile.
const FEATURES: usize = 256;
/// Classes that are added up at once, and whose weights are widened once for all rows.
pub(super) const PIECE: usize = 512;
pub(crate) const WIDENED: usize = 3 * PIECE;

impl Part<'_> {
    /// Makes the gradient of the part's rows from that of their logits: by pairs, where that is told.
    pub(super) fn hidden_gradient(
        &self,
        logits: &[f32],
        pairs: Option<Pairs<'_>>,
        to: &Gradient<'_>,
    ) -> Result<()> {
        let (chunks, rows) = (self.chunks, self.rows.len());
        let features = chunks.features();
        with_large("gradient of hidden rows", rows * features, |sums| {
            if chunks.classes() == 0 {
                sums.fill(0.0);
            }
            let (logits, to_sums) = (Panel::of(logits, self.stride), Panel::of_mut(sums, features));
            match pairs {
                Some(pairs) => self.sums_by(pairs, logits, to_sums),
                None => self.sums(logits, to_sums),
            }
            self.write(sums, to);
        })
    }

    /// Adds up the products of all pieces of classes, in their order.
    fn sums(&self, logits: Panel, sums: Panel) {
        let weight = &self.chunks.weight;
        let classes = weight.rows;
        if weight.scratch(1) == 0 {
            let wide = weight.panel(0..classes, &mut []);
            // SAFETY: all classes of both.
            return unsafe { self.some(sums, [logits, wide], [0, classes]) };
        }
        with_scratch([weight.scratch(WIDENED.min(classes))], |[wide]| {
            for from in (0..classes).step_by(WIDENED) {
                let n = WIDENED.min(classes - from);
                let wide = weight.some(self.chunks.cpu, from..from + n, wide);
                // SAFETY: these classes of both.
                unsafe { self.some(sums, [logits.at(0, from), wide], [from, n]) };
            }
        });
    }

    /// Adds the products of `n` classes, from `from` on.
    ///
    /// # Safety
    /// The panels begin with these classes and have as many; nobody else touches the sums.
    unsafe fn some(&self, sums: Panel, [logits, weight]: [Panel; 2], [from, n]: [usize; 2]) {
        let (chunks, rows) = (self.chunks, self.rows.len());
        let across = Pieces { len: chunks.features(), each: FEATURES };
        let of_task = even(rows, ROWS);
        let down = rows.div_ceil(of_task);
        chunks.cpu.share(across.count() * down, 1, &|task| {
            let (features, row) = (across.of(task / down), task % down * of_task);
            let rows = of_task.min(rows - row);
            for at in (0..n).step_by(PIECE) {
                let terms = PIECE.min(n - at);
                // SAFETY: rows and features of this task alone, of classes that there are.
                unsafe {
                    let factors = [logits.at(row, at), weight.at(at, features.start)];
                    let to = sums.at(row, features.start);
                    let sizes = [rows, features.len(), terms];
                    product_by_rows(from + at > 0, to, factors, sizes);
                }
            }
        });
    }

    /// Puts the sums in their rows' places.
    fn write(&self, sums: &[f32], to: &Gradient<'_>) {
        let (chunks, features) = (self.chunks, self.chunks.features());
        chunks.cpu.share(self.rows.len(), 16, &|i| {
            let place = chunks.rows[self.rows.start + i];
            // SAFETY: a row of the batch, each of which comes once.
            unsafe { to.put(place, &sums[i * features..][..features]) };
        });
    }
}
