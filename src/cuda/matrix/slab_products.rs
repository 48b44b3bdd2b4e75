//! Products back from logits that never reach memory: their gradient is made of a slab of classes at a time, for all
//! rows (`kernels/tile/linear_gradient.cuh`), and multiplied by the driver, or where a filter makes zeros of tiles, by
//! `block_sparse.rs`. So each row of the classifier's gradient is made at once, of all rows; that of the hidden rows is
//! added up over slabs, in f32.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::LinearTileArgs;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::Sum;
use crate::cuda::matrix::block_sparse::{BlockSparse, tiles};
use crate::cuda::matrix::factors::{Factor, SUM, two_parts};
use crate::cuda::matrix::products::{Places, Workspace, padded};
use crate::cuda::matrix::wide_tiles;
use crate::cuda::matrix::wide_tiles::CLASSES;
use crate::cuda::stream::Cuda;

/// Rows and a classifier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) n: usize,
    pub(crate) features: usize,
    pub(crate) classes: usize,
    /// Of the classifier.
    pub(crate) dtype: DType,
}

impl Extent {
    /// Bytes of a slab of so many classes: the parts of its gradient, flags of its tiles, and the parts of its weights.
    pub(crate) fn of_slab(&self, classes: usize) -> usize {
        if classes == 0 {
            return 0;
        }
        let [down, across] = tiles([self.n, classes]);
        let flags = 4 * down.saturating_mul(across);
        let rows = self.n.saturating_mul(4 * stride(classes)).saturating_add(flags);
        let parts = if self.dtype == DType::F16 { 2 * two_parts(self.features) } else { 0 };
        rows.saturating_add(classes.saturating_mul(parts))
    }

    /// Classes of the longest slab that so many bytes do for: whole tiles, one at the least.
    pub(crate) fn slab(&self, bytes: usize) -> usize {
        let tiles = self.classes.div_ceil(CLASSES);
        let (mut fits, mut too_many) = (1, tiles + 1);
        while fits + 1 < too_many {
            let middle = fits.midpoint(too_many);
            let takes = self.of_slab((middle * CLASSES).min(self.classes));
            if takes <= bytes { fits = middle } else { too_many = middle }
        }
        // Slabs of one length, so that none is much shorter than products like.
        let slabs = tiles.div_ceil(fits).max(1);
        (tiles.div_ceil(slabs) * CLASSES).min(self.classes)
    }
}

/// Elements between rows of a part of a slab's gradient: each begins at a multiple of 16 bytes.
fn stride(classes: usize) -> usize {
    padded(classes.next_multiple_of(8))
}

/// How products are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slab {
    /// Of one.
    pub(crate) classes: usize,
    /// Whether the logits' gradient is rounded to 16 bits.
    pub(crate) round: bool,
    /// Whether pieces of it are left out.
    pub(crate) filter: bool,
    /// Bytes of sums on their way to 16 bits.
    pub(crate) room: usize,
}

/// Where they go.
#[derive(Clone, Copy)]
pub(crate) struct To {
    /// The hidden rows' by slots, f32; undefined before.
    pub(crate) hidden: Option<Panel>,
    /// The classifier's, of hidden rows by slots, which are 0 where they do not count.
    pub(crate) weight: Option<(Factor, Sum)>,
    /// Sums of columns, f32.
    pub(crate) sums: Option<Sum>,
}

/// Memory for them.
pub(crate) struct SlabProducts<'p> {
    cuda: &'p Cuda,
    extent: Extent,
    slab: Slab,
    /// The gradient of a slab's logits.
    logits: Factor,
    /// Of its tiles, where there is a filter.
    flags: u64,
    weight_factor: Panel,
    _memory: [Workspace<'p>; 3],
}

impl<'p> SlabProducts<'p> {
    /// For gradients of hidden rows and of a bias, if they are wanted.
    pub(crate) fn new(
        cuda: &'p Cuda,
        extent: Extent,
        slab: Slab,
        [hidden, bias]: [bool; 2],
    ) -> Result<SlabProducts<'p>> {
        let Extent { n, features, dtype, .. } = extent;
        let mut of_rows = Workspace::new(cuda, n);
        let mut of_classes = Workspace::new(cuda, slab.classes);
        let width = stride(slab.classes);
        let first = of_rows.packed(width, DType::BF16)?;
        // Sums of columns are no product that rounding would save.
        let rest = if slab.round && !bias { 0 } else { width };
        let rest = of_rows.packed(rest, DType::BF16)?;
        let second = (rest.stride > 0).then_some(rest);
        let [down, across] = tiles([n, slab.classes]);
        let mut of_tiles = Workspace::new(cuda, down);
        let flags = if slab.filter { of_tiles.packed(across, DType::U32)?.address } else { 0 };
        let of_weight = if hidden { features } else { 0 };
        Ok(SlabProducts {
            cuda,
            extent,
            slab,
            logits: Factor::of_parts(first, second),
            flags,
            weight_factor: of_classes.factor(of_weight, dtype, dtype)?,
            _memory: [of_rows, of_classes, of_tiles],
        })
    }

    /// Makes the gradient of each slab's logits by a kernel, and all products of its first n rows; `tiles` is filled but
    /// for slabs, of as many rows as there is memory for, or fewer.
    ///
    /// # Safety
    /// What `tiles` names is as long as its sizes say, and what gradients are made of is on the stream; the weights are
    /// the extent's, and what is written has the sizes of what it is the gradient of.
    pub(crate) unsafe fn run(
        &self,
        (kernel, tiles): (Batch, &LinearTileArgs),
        (n, weight): (usize, Panel),
        to: &To,
    ) -> Result<()> {
        let classes = self.extent.classes;
        let [gradient, gradient_rest] = self.logits.addresses();
        // SAFETY: as the caller says; the buffers have the rows and a slab's classes.
        unsafe {
            if let (Some(hidden), 0) = (to.hidden, classes) {
                self.cuda.zeros(hidden, [n, self.extent.features])?;
            }
            for first in (0..classes).step_by(self.slab.classes.max(1)) {
                let some = self.slab.classes.min(classes - first);
                let slab = LinearTileArgs {
                    gradient,
                    gradient_rest,
                    gradient_stride: self.logits.stride() as i64,
                    flags: self.flags,
                    begin: first as i64,
                    end: (first + some) as i64,
                    splits: some.div_ceil(CLASSES) as i64,
                    ..*tiles
                };
                wide_tiles::launch(self.cuda, kernel, &slab)?;
                self.products(weight, to, [n, first, some])?;
            }
        }
        Ok(())
    }

    /// The gradient of a slab's logits, as products take it.
    fn slopes(&self) -> Factor {
        if self.slab.round { self.logits.rounded() } else { self.logits }
    }

    /// What a slab adds to the rows' gradient, and its share of the others.
    ///
    /// # Safety
    /// As above; the slab's gradient is on the stream.
    unsafe fn products(&self, weight: Panel, to: &To, [n, first, some]: [usize; 3]) -> Result<()> {
        let (cuda, Extent { features, dtype, .. }) = (self.cuda, self.extent);
        let sizes = [n, some];
        // SAFETY: gradients have the sizes of what they belong to, and the buffers all rows and the slab's classes.
        unsafe {
            let weight = weight.starting_at(first);
            let weight = match to.hidden {
                Some(_) => cuda.factor(weight, self.weight_factor, [some, features], dtype)?,
                None => Factor::whole(weight),
            };
            if self.flags == 0 {
                return self.whole_products(weight, to, [n, first, some]);
            }
            let of = |factor| BlockSparse { factor, flags: self.flags, sizes };
            let slopes = of(self.slopes());
            if let Some(sums) = to.sums {
                of(self.logits).column_sums(cuda, sums.to.after_column(first))?;
            }
            if let Some((x, Sum { to, add })) = to.weight {
                slopes.multiply_turned(cuda, x, to.starting_at(first), (features, add))?;
            }
            if let Some(hidden) = to.hidden {
                slopes.multiply(cuda, weight, hidden, (features, first > 0))?;
            }
        }
        Ok(())
    }

    /// The same by the driver's products.
    ///
    /// # Safety
    /// As above; the weights are the slab's.
    unsafe fn whole_products(
        &self,
        weight: Factor,
        to: &To,
        [n, first, some]: [usize; 3],
    ) -> Result<()> {
        let (cuda, features, slopes) = (self.cuda, self.extent.features, self.slopes());
        // SAFETY: gradients have the sizes of what they belong to, and the buffers all rows and the slab's classes.
        unsafe {
            if let Some(Sum { to: sums, add }) = to.sums {
                let (sums, sizes) = (sums.after_column(first), [n, some]);
                for (i, &part) in self.logits.parts().iter().enumerate() {
                    let (panels, places) = ([part, sums], Places::default());
                    cuda.panel(Batch::PanelColumnSums, panels, sizes, places, add || i > 0)?;
                }
            }
            if let Some((x, Sum { to, add })) = to.weight {
                let (factors, sizes) = ([slopes.transposed(), x], [some, features, n]);
                cuda.multiply(factors, to.starting_at(first), (sizes, add), self.slab.room)?;
            }
            if let Some(hidden) = to.hidden {
                let sizes = ([n, features, some], first > 0);
                cuda.multiply([slopes, weight], hidden, sizes, SUM)?;
            }
        }
        Ok(())
    }
}
