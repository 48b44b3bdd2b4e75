//! Products of matrices, which are the driver's (cuBLAS on a GPU), and what goes between them:
//! `kernels/batch/panels.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::PanelArgs;
use crate::code::variants::{BATCH_THREADS, Batch};
use crate::cuda::driver::product::{Panel, Product};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::cuda::stream::pool::Block;

/// Blocks of a launch at most: each thread then takes several elements.
const MAX_BLOCKS: usize = 1 << 14;

impl From<&Input<'_>> for Panel {
    fn from(input: &Input<'_>) -> Panel {
        Panel::lines(input.address, input.dtype, (&input.shape, input.row_stride))
    }
}

impl From<&Output<'_, '_>> for Panel {
    fn from(output: &Output<'_, '_>) -> Panel {
        Panel::lines(output.address, output.dtype, (&output.shape, output.row_stride))
    }
}

/// Elements between rows of a panel of workspace are a multiple of this: 128 bytes of 16-bit numbers, by which
/// cuBLAS takes its fastest kernels and schedules of rows whole packs.
const LINE: usize = 64;
/// And of this where a line would be padding for a good part: 16 bytes of 16-bit numbers.
const PACK: usize = 8;
/// Columns that a block adds up.
pub(crate) const BLOCK_COLUMNS: usize = 32;

/// Elements between rows of a panel of workspace of so many columns. What is narrower than a pack lies packed.
pub(crate) fn padded(columns: usize) -> usize {
    match columns {
        0..PACK => columns,
        PACK..512 => columns.next_multiple_of(PACK),
        _ => columns.next_multiple_of(LINE),
    }
}

/// Panels of workspace with as many rows each, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Workspace<'p> {
    cuda: &'p Cuda,
    rows: usize,
    blocks: Vec<Block<'p>>,
}

impl<'p> Workspace<'p> {
    pub(crate) fn new(cuda: &'p Cuda, rows: usize) -> Workspace<'p> {
        Workspace { cuda, rows, blocks: Vec::new() }
    }

    /// One more, undefined, its rows apart as [`padded`] says.
    pub(crate) fn panel(&mut self, columns: usize, dtype: DType) -> Result<Panel> {
        self.packed(padded(columns), dtype)
    }

    /// One more, undefined, its rows next to one another.
    pub(crate) fn packed(&mut self, columns: usize, dtype: DType) -> Result<Panel> {
        let bytes = self.rows.saturating_mul(columns).saturating_mul(dtype.size());
        let block = self.cuda.pool.take("workspace", bytes)?;
        let panel = Panel::packed(block.address(), dtype, columns);
        self.blocks.push(block);
        Ok(panel)
    }
}

/// A layer: `[classes, width]` weights, and a bias a class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) weight: Panel,
    pub(crate) bias: Option<Panel>,
}

/// A bias as who reads f32 logits adds it.
#[derive(Debug)]
pub(crate) struct Bias<'p> {
    /// Of a number a class (f32); 0: there is none.
    pub(crate) address: u64,
    _wide: Option<Workspace<'p>>,
}

/// Which rows of a panel kernel are where.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Places {
    /// Address of their numbers (i64); 0: as they stand.
    pub(crate) rows: u64,
    /// Address of what is below 0 (i64) where a row holds nothing; 0: all do.
    pub(crate) marks: u64,
}

impl Cuda {
    /// Puts a product on the stream. Of no terms it is 0, of no elements nothing.
    ///
    /// # Safety
    /// The panels are device memory of those sizes, those that are read initialised.
    pub(crate) unsafe fn product(&self, product: Product) -> Result<()> {
        let [m, n, k] = product.sizes;
        match (m == 0 || n == 0, k == 0) {
            (true, _) => Ok(()),
            (false, true) if product.add => Ok(()),
            // SAFETY: `c` is device memory of m × n elements: the caller's promise.
            (false, true) => unsafe { self.zeros(product.c, [m, n]) },
            // SAFETY: the panels are device memory of the product's sizes, and those that are read
            // are initialised: the caller's promise.
            (false, false) => unsafe { self.driver.product(&product) },
        }
    }

    /// `to = x·weightᵀ` of n rows.
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn linear(
        &self,
        x: Panel,
        weight: Panel,
        to: Panel,
        sizes: [usize; 3],
    ) -> Result<()> {
        let b = weight.transposed();
        // SAFETY: the panels are device memory of these sizes: the caller's promise.
        unsafe { self.product(Product { a: x, b, c: to, sizes, add: false }) }
    }

    /// A layer's bias of so many classes.
    ///
    /// # Safety
    /// It is initialised device memory of an element a class.
    pub(crate) unsafe fn bias(&self, bias: Option<Panel>, classes: usize) -> Result<Bias<'_>> {
        let Some(bias) = bias else { return Ok(Bias { address: 0, _wide: None }) };
        if bias.dtype == DType::F32 {
            return Ok(Bias { address: bias.address, _wide: None });
        }
        let mut workspace = Workspace::new(self, 1);
        let wide = workspace.panel(classes, DType::F32)?;
        // SAFETY: the bias has an element a class, says the caller, and so has the row beside it.
        unsafe {
            self.panel(Batch::PanelRound, [bias, wide], [1, classes], Places::default(), false)?;
        }
        Ok(Bias { address: wide.address, _wide: Some(workspace) })
    }

    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn zeros(&self, to: Panel, sizes: [usize; 2]) -> Result<()> {
        let from = Panel { address: 0, ..to };
        // SAFETY: `to` is device memory of these sizes, says the caller; from a null address zeros
        // are taken.
        unsafe { self.panel(Batch::PanelRound, [from, to], sizes, Places::default(), false) }
    }

    /// Puts a kernel on the stream that takes rows `[n, columns]` from one panel to another.
    ///
    /// # Safety
    /// As for [`Cuda::product`]; rows that `places` names are the panels'.
    pub(crate) unsafe fn panel(
        &self,
        kernel: Batch,
        [from, to]: [Panel; 2],
        [n, columns]: [usize; 2],
        places: Places,
        add: bool,
    ) -> Result<()> {
        let args = panel_args([from, to], [n, columns], places, add);
        let elements = n.saturating_mul(columns);
        // SAFETY: the panels are device memory of n rows and as many columns, of which `places`
        // names rows: the caller's promise.
        unsafe { self.launch_panel(kernel, elements, args) }
    }

    /// Rounds rows, or their sums with what two panels hold, to one of them, and keeps in the other what that leaves.
    ///
    /// # Safety
    /// As for [`Cuda::panel`], of all three.
    pub(crate) unsafe fn round_keeping(
        &self,
        [from, to, rest]: [Panel; 3],
        [n, columns]: [usize; 2],
        add: bool,
    ) -> Result<()> {
        let args = panel_args([from, to], [n, columns], Places::default(), add);
        let args = PanelArgs { rest: rest.address, rest_stride: rest.stride as i64, ..args };
        // SAFETY: the panels are device memory of n rows and as many columns: the caller's promise.
        unsafe { self.launch_panel(Batch::PanelCompensate, n.saturating_mul(columns), args) }
    }

    /// # Safety
    /// As for [`Cuda::panel`]; the arguments are of that many elements, or of packs of them.
    pub(crate) unsafe fn launch_panel(
        &self,
        kernel: Batch,
        elements: usize,
        args: PanelArgs,
    ) -> Result<()> {
        if elements == 0 {
            return Ok(());
        }
        let blocks = match kernel {
            Batch::PanelColumnSums => (args.columns as usize).div_ceil(BLOCK_COLUMNS),
            _ => elements.div_ceil(BATCH_THREADS as usize).min(MAX_BLOCKS),
        };
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        // SAFETY: these are the kernel's own arguments, of that many elements of the panels'
        // memory: the caller's promise.
        unsafe { self.launch_batch(kernel, blocks, args::bytes(&args)) }
    }
}

pub(crate) fn panel_args(
    [from, to]: [Panel; 2],
    [n, columns]: [usize; 2],
    places: Places,
    add: bool,
) -> PanelArgs {
    PanelArgs {
        from: from.address,
        to: to.address,
        rows: places.rows,
        marks: places.marks,
        n: n as i64,
        columns: columns as i64,
        from_stride: from.stride as i64,
        to_stride: to.stride as i64,
        from_kind: args::kind(from.dtype),
        to_kind: args::kind(to.dtype),
        add: add.into(),
        ..PanelArgs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn rows_of_workspace_begin_with_a_line_unless_that_is_mostly_padding() {
        let columns = [0, 1, 7, 9, 70, 511, 512, 513, 20003];
        assert_eq!(columns.map(padded), [0, 1, 7, 16, 72, 512, 512, 576, 20032]);
    }
}
