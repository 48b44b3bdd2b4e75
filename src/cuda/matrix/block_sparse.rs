//! Products of a matrix of which tiles are zeros: `kernels/tile/block_sparse.cuh`.

use super::factors::Factor;
use super::products::BLOCK_COLUMNS;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::BlockSparseArgs;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::stream::Cuda;

/// Rows and columns of a tile, and of the sums of a block.
const ROWS: usize = 128;
const COLUMNS: usize = 256;

/// Tiles of so many rows and columns.
pub(crate) fn tiles([rows, columns]: [usize; 2]) -> [usize; 2] {
    [rows.div_ceil(ROWS), columns.div_ceil(COLUMNS)]
}

/// A matrix in bf16 parts, of which pieces are zeros. Tiles of 128 rows and 256 columns that are nothing else need not be
/// written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockSparse {
    pub(crate) factor: Factor,
    /// Address of a number a tile (u32), row by row: a bit for each 32 rows and 64 columns, 0 where zeros are.
    pub(crate) flags: u64,
    /// Of the matrix.
    pub(crate) sizes: [usize; 2],
}

impl BlockSparse {
    fn args(&self) -> BlockSparseArgs {
        let [a, a_rest] = self.factor.addresses();
        let (flags, [_, tiles]) = (self.flags, tiles(self.sizes));
        let a_stride = self.factor.stride() as i64;
        BlockSparseArgs { a, a_rest, flags, a_stride, tiles: tiles as i64, ..Default::default() }
    }

    /// `c = self·b`, or added to it; f32. b has n columns.
    ///
    /// # Safety
    /// The matrix, b and c are device memory of these sizes, those that are read initialised, the matrix where its
    /// tiles are no zeros.
    pub(crate) unsafe fn multiply(
        &self,
        cuda: &Cuda,
        b: Factor,
        c: Panel,
        (n, add): (usize, bool),
    ) -> Result<()> {
        let [m, k] = self.sizes;
        // SAFETY: matrix, b and c are device memory of these sizes, those that are read initialised: the caller's promise.
        unsafe { self.launch(cuda, Batch::BlockSparseF32, b, c, ([m, n, k], add)) }
    }

    /// `c = selfᵀ·b`, or added to it, rounded once; of 16 bits.
    ///
    /// # Safety
    /// As for [`BlockSparse::multiply`].
    pub(crate) unsafe fn multiply_turned(
        &self,
        cuda: &Cuda,
        b: Factor,
        c: Panel,
        (n, add): (usize, bool),
    ) -> Result<()> {
        let [k, m] = self.sizes;
        let kernel = match c.dtype {
            DType::F16 => Batch::BlockSparseTurnedF16,
            _ => Batch::BlockSparseTurnedBf16,
        };
        // SAFETY: matrix, b and c are device memory of these sizes, those that are read initialised: the caller's promise.
        unsafe { self.launch(cuda, kernel, b, c, ([m, n, k], add)) }
    }

    /// # Safety
    /// As for [`BlockSparse::multiply`].
    unsafe fn launch(
        &self,
        cuda: &Cuda,
        kernel: Batch,
        b: Factor,
        c: Panel,
        (sizes, add): ([usize; 3], bool),
    ) -> Result<()> {
        let [m, n, k] = sizes.map(|size| size as i64);
        let ([b_first, b_rest], b_stride) = (b.addresses(), b.stride() as i64);
        let (c_stride, add) = (c.stride as i64, add.into());
        let to = BlockSparseArgs { c: c.address, c_stride, add, ..self.args() };
        let args = BlockSparseArgs { b: b_first, b_rest, b_stride, m, n, k, ..to };
        let blocks = sizes[0].div_ceil(ROWS).saturating_mul(sizes[1].div_ceil(COLUMNS));
        // SAFETY: these are the kernel's own arguments, whose memory has these sizes: the caller's promise.
        unsafe { launch(cuda, kernel, blocks, &args) }
    }

    /// The sums of its columns; f32.
    ///
    /// # Safety
    /// As for [`BlockSparse::multiply`].
    pub(crate) unsafe fn column_sums(&self, cuda: &Cuda, to: Panel) -> Result<()> {
        let [k, m] = self.sizes.map(|size| size as i64);
        let args = BlockSparseArgs { c: to.address, m, k, ..self.args() };
        let blocks = self.sizes[1].div_ceil(BLOCK_COLUMNS);
        // SAFETY: these are the kernel's own arguments, whose memory has these sizes: the caller's promise.
        unsafe { launch(cuda, Batch::BlockSparseSums, blocks, &args) }
    }
}

/// # Safety
/// The arguments name memory that is as long as their sizes say.
unsafe fn launch(cuda: &Cuda, kernel: Batch, blocks: usize, args: &BlockSparseArgs) -> Result<()> {
    if blocks == 0 {
        return Ok(());
    }
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    // SAFETY: these are the kernel's own arguments: the caller's promise for the rest.
    unsafe { cuda.launch_batch(kernel, blocks, args::bytes(args)) }
}
