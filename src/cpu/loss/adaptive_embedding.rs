//! Adaptive embeddings on the CPU: lookups are grouped by cluster once; those of a cluster are one
//! product with its projection.

use crate::base::error::{Error, Result};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::{Matrix, PIECE, Panel, product};
use crate::cpu::matrix::scratch::{with_scratch, zeros};
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;
use crate::spec::adaptive_embedding::{AdaptiveEmbeddingParameters, CheckedEmbedding};

/// Lookups in one table, the shortlist's or a cluster's.
#[derive(Debug, Default)]
struct Bin {
    /// Which of the index's elements, rising.
    rows: Vec<usize>,
    /// The row of the table.
    classes: Vec<usize>,
}

/// Rows of a product that one task makes.
const BLOCK: usize = 64;

impl Bin {
    /// The lookups by class, those of a class in order whatever the threads.
    fn by_class(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.classes.len()).collect();
        order.sort_by_key(|&at| self.classes[at]);
        order
    }
}

/// The shortlist's lookups and each cluster's. `skip`: an index that is left out.
///
/// # Errors
/// The first index that names no class.
fn bins(checked: &CheckedEmbedding<'_>, skip: Option<i64>) -> Result<Vec<Bin>> {
    let (options, index) = (checked.options, checked.index.on_host()?);
    let cutoffs = &options.cut.cutoffs;
    let mut bins: Vec<Bin> = std::iter::repeat_with(Bin::default).take(cutoffs.len() + 1).collect();
    for row in 0..checked.index.len() {
        let class = index.get(row);
        let Some(place) = options.place(class) else {
            return Err(Error::Value {
                argument: "index",
                expected: format!("a class in [0, {})", options.cut.classes),
                got: format!("{class} at {row}"),
            });
        };
        if Some(class) == skip {
            continue;
        }
        let of = cutoffs.partition_point(|&cutoff| cutoff <= place);
        let begin = of.checked_sub(1).map_or(0, |cluster| cutoffs[cluster]);
        bins[of].rows.push(row);
        bins[of].classes.push(place - begin);
    }
    Ok(bins)
}

impl Cpu {
    pub(crate) fn adaptive_embedding_forward(
        &self,
        checked: &CheckedEmbedding<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let output = Gradient::new(self, "output", output, false)?;
        let parameters = checked.parameters.try_map(|_, p| Matrix::new(self, "parameters", p))?;
        let bins = bins(checked, None)?;
        self.copy_rows(&parameters.shortlist, &bins[0], &output);
        for (bin, tail) in bins[1..].iter().zip(&parameters.tails) {
            self.project(&tail.projection, &tail.weight.gather(self, &bin.classes)?, bin, &output)?;
        }
        Ok(())
    }

    /// The shortlist's embeddings, as they are.
    fn copy_rows(&self, table: &Matrix<'_>, bin: &Bin, output: &Gradient<'_>) {
        let features = output.columns;
        let each = PIECE.div_ceil(features);
        self.share(bin.rows.len().div_ceil(each), 1, &|task| {
            with_scratch([output.scratch(1)], |[scratch]| {
                let lookups = bin.rows.iter().zip(&bin.classes).skip(task * each).take(each);
                for (&row, &class) in lookups {
                    // SAFETY: each row of the output is one lookup's.
                    unsafe {
                        output.rows(row..row + 1, scratch, |out, _| {
                            table.widen(class, out.row(0, features));
                        });
                    }
                }
            });
        });
    }

    /// A cluster's embeddings, projected.
    fn project(
        &self,
        projection: &Matrix<'_>,
        embeddings: &[f32],
        bin: &Bin,
        output: &Gradient<'_>,
    ) -> Result<()> {
        let (width, features, n) = (projection.rows, projection.columns, bin.rows.len());
        let mut wide = zeros("projection in f32", projection.scratch(width))?;
        let projection = projection.panel(0..width, &mut wide);
        let embeddings = Panel::of(embeddings, width);
        self.share(n.div_ceil(BLOCK), 1, &|task| {
            let at = task * BLOCK;
            let n = BLOCK.min(n - at);
            with_scratch([n * features, output.scratch(1)], |[products, scratch]| {
                let products = Panel::of_mut(products, features);
                // SAFETY: rows of this task alone; each row of the output is one lookup's.
                unsafe {
                    let of = [embeddings.at(at, 0), projection];
                    product(false, products, of, [n, features, width]);
                    for (i, &row) in bin.rows[at..at + n].iter().enumerate() {
                        output.rows(row..row + 1, scratch, |out, _| {
                            out.row(0, features).copy_from_slice(products.row(i, features));
                        });
                    }
                }
            });
        });
        Ok(())
    }

    pub(crate) fn adaptive_embedding_backward(
        &self,
        checked: &CheckedEmbedding<'_>,
        grad_output: TensorRef<'_>,
        gradients: AdaptiveEmbeddingParameters<TensorMut<'_>>,
        accumulate: bool,
    ) -> Result<()> {
        let grad_output = Matrix::new(self, "grad_output", &grad_output)?;
        let parameters = checked.parameters.try_map(|_, p| Matrix::new(self, "parameters", p))?;
        let bins = bins(checked, checked.options.padding_idx)?;
        let new = |grad| Gradient::new(self, "grad_parameters", grad, accumulate);
        let shortlist = new(gradients.shortlist)?;
        shortlist.clear(self);
        let rows = grad_output.gather(self, &bins[0].rows)?;
        self.add_rows(&shortlist, &rows, &bins[0]);
        let tails = gradients.tails.into_iter().zip(&parameters.tails);
        for ((gradient, tail), bin) in tails.zip(&bins[1..]) {
            let (of_projection, of_weight) = (new(gradient.projection)?, new(gradient.weight)?);
            of_weight.clear(self);
            if bin.rows.is_empty() {
                of_projection.clear(self);
                continue;
            }
            let n = bin.rows.len();
            let rows = grad_output.gather(self, &bin.rows)?;
            let embeddings = tail.weight.gather(self, &bin.classes)?;
            let of = [&embeddings, &rows].map(|x| Panel::of(x, x.len() / n));
            // SAFETY: both have n rows; the gradient is borrowed.
            unsafe { of_projection.outer(self, of, n) };
            let back = self.back_through(&tail.projection, &rows, n)?;
            self.add_rows(&of_weight, &back, bin);
        }
        Ok(())
    }

    /// `rows · projectionᵀ`: the gradients of a cluster's embeddings, lookup by lookup.
    fn back_through(&self, projection: &Matrix<'_>, rows: &[f32], n: usize) -> Result<Vec<f32>> {
        let (width, features) = (projection.rows, projection.columns);
        let mut wide = zeros("projection in f32", projection.scratch(width))?;
        let projection = projection.panel(0..width, &mut wide).transposed();
        let mut back = zeros("gradients of embeddings", n * width)?;
        let (out, rows) = (Panel::of_mut(&mut back, width), Panel::of(rows, features));
        self.share(n.div_ceil(BLOCK), 1, &|task| {
            let at = task * BLOCK;
            let n = BLOCK.min(n - at);
            // SAFETY: rows of this task alone.
            unsafe {
                product(false, out.at(at, 0), [rows.at(at, 0), projection], [n, width, features])
            };
        });
        Ok(back)
    }

    /// Adds the lookups' rows to those of the table that they came from, each class in order.
    fn add_rows(&self, table: &Gradient<'_>, rows: &[f32], bin: &Bin) {
        let (width, order) = (table.columns, bin.by_class());
        if width == 0 {
            return;
        }
        let same = |a: &usize, b: &usize| bin.classes[*a] == bin.classes[*b];
        let classes: Vec<&[usize]> = order.chunk_by(same).collect();
        let each = PIECE.div_ceil(width);
        let rows = SyncPtr(rows.as_ptr().cast_mut());
        self.share(classes.len().div_ceil(each), 1, &|task| {
            with_scratch([table.scratch(1)], |[scratch]| {
                for lookups in classes.iter().skip(task * each).take(each) {
                    let class = bin.classes[lookups[0]];
                    // SAFETY: each class comes once; a lookup's row is one of `rows`.
                    unsafe {
                        table.rows(class..class + 1, scratch, |out, add| {
                            let out = out.row(0, width);
                            if !add {
                                out.fill(0.0);
                            }
                            for &at in *lookups {
                                let row =
                                    std::slice::from_raw_parts(rows.get().add(at * width), width);
                                out.iter_mut().zip(row).for_each(|(out, row)| *out += row);
                            }
                        });
                    }
                }
            });
        });
    }
}
