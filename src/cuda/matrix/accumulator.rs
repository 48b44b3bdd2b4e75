//! Gradients on their way: sums of several products, f32 where there is room, rounded at the end.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::Slots;
use crate::cuda::matrix::products::{Places, padded};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::cuda::stream::pool::Block;

/// A gradient that chunks are added to.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub(crate) to: Panel,
    /// Whether what is there counts.
    pub(crate) add: bool,
}

/// A gradient on its way: f32 where it is of another type and made of several parts, if that fits.
pub(crate) struct Growing<'p> {
    sum: Sum,
    sizes: [usize; 2],
    /// The f32 sum, which is rounded at the end.
    wide: Option<(Panel, Block<'p>)>,
    /// Where what that leaves is kept.
    rest: Option<Panel>,
}

impl<'p> Growing<'p> {
    /// Of so many chunks; the f32 sum takes no more than the budget.
    pub(crate) fn new(
        cuda: &'p Cuda,
        sum: Sum,
        sizes: [usize; 2],
        of: (usize, usize),
    ) -> Result<Growing<'p>> {
        Growing::keeping(cuda, (sum, None), sizes, of)
    }

    /// The same; what rounding leaves is kept where that is told, and the sum then f32 whatever the budget.
    pub(crate) fn keeping(
        cuda: &'p Cuda,
        (sum, rest): (Sum, Option<Panel>),
        sizes: [usize; 2],
        (chunks, budget): (usize, usize),
    ) -> Result<Growing<'p>> {
        let stride = padded(sizes[1]);
        let bytes = sizes[0].saturating_mul(stride).saturating_mul(4);
        let narrow = sum.to.dtype != DType::F32;
        let fits = (chunks > 1 || sum.add) && bytes <= budget;
        let wide = match narrow && (fits || rest.is_some()) {
            true => {
                let block = cuda.pool.take("workspace", bytes)?;
                Some((Panel::packed(block.address(), DType::F32, stride), block))
            }
            false => None,
        };
        Ok(Growing { sum, sizes, wide, rest })
    }

    /// Where a chunk's product goes, and whether it is added.
    pub(crate) fn target(&self, first: bool) -> (Panel, bool) {
        match &self.wide {
            Some((wide, _)) => (*wide, !first),
            None => (self.sum.to, self.sum.add || !first),
        }
    }

    /// Writes what is there after so many chunks.
    ///
    /// # Safety
    /// The gradient has the sizes, and each chunk's product was put on the stream.
    pub(crate) unsafe fn settle(&self, cuda: &Cuda, chunks: usize) -> Result<()> {
        let Growing { sum, sizes, wide, rest } = self;
        // SAFETY: the gradient has `sizes`, and so has the f32 sum beside it, which the chunks'
        // products on the stream have initialised: the caller's promise.
        unsafe {
            match (wide, rest) {
                // Nothing was added at all.
                _ if chunks == 0 && sum.add => Ok(()),
                _ if chunks == 0 => {
                    rest.map_or(Ok(()), |rest| cuda.zeros(rest, *sizes))?;
                    cuda.zeros(sum.to, *sizes)
                }
                (Some((wide, _)), Some(rest)) => {
                    cuda.round_keeping([*wide, sum.to, *rest], *sizes, sum.add)
                }
                (Some((wide, _)), None) => {
                    let (panels, places) = ([*wide, sum.to], Places::default());
                    cuda.panel(Batch::PanelRound, panels, *sizes, places, sum.add)
                }
                (None, _) => Ok(()),
            }
        }
    }
}

/// The input's gradient on its way: where products add to it.
pub(crate) struct InputGradient<'p> {
    pub(crate) sum: Panel,
    _wide: Option<Block<'p>>,
}

impl<'p> InputGradient<'p> {
    /// Of rows of the output's shape, f32.
    pub(crate) fn new(
        cuda: &'p Cuda,
        out: &Output<'_, '_>,
        [rows, features]: [usize; 2],
    ) -> Result<InputGradient<'p>> {
        if out.dtype == DType::F32 {
            return Ok(InputGradient { sum: Panel::from(out), _wide: None });
        }
        let stride = padded(features);
        let bytes = rows.saturating_mul(stride).saturating_mul(4);
        let wide = cuda.pool.take("workspace", bytes)?;
        let sum = Panel::packed(wide.address(), DType::F32, stride);
        Ok(InputGradient { sum, _wide: Some(wide) })
    }

    /// The gradient as it was asked for: rounded, and 0 for rows that do not count.
    ///
    /// # Safety
    /// The sizes are those of [`InputGradient::new`]; `rows` are all of them.
    pub(crate) unsafe fn settle(
        &self,
        cuda: &Cuda,
        out: &Output<'_, '_>,
        sizes: [usize; 2],
        rows: Slots,
    ) -> Result<()> {
        let places = Places { rows: 0, marks: rows.marks };
        let panels = [self.sum, Panel::from(out)];
        // SAFETY: sum and output have the sizes that the sum was made with, and `rows` has a mark
        // for each row: the caller's promise.
        unsafe { cuda.panel(Batch::PanelRound, panels, sizes, places, false) }
    }
}
