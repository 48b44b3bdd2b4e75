//! Rows of 16 bits and a classifier whose products are made tile by tile, of any number of features
//! (`kernels/tile/linear.cuh`): sizes of tiles, where results alone are better made so, and the launches.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{LinearRowsArgs, LinearTileArgs};
use crate::code::card::Card;
use crate::code::variants::{Batch, Loss};
use crate::cuda::matrix::clusters::blocks;
use crate::cuda::matrix::products::{Places, Workspace};
use crate::cuda::stream::Cuda;

/// Rows and classes of a tile (`WL_PIPE_OWN`, `WL_PIPE_OTHER`).
const ROWS: usize = 128;
pub(crate) const CLASSES: usize = 256;
/// Parts of the classes at most, and tiles of a part at the least: the classes alone say how many there are, as a
/// row's numbers depend on it. So few rows have blocks enough for a GPU, and many are not held up by what a block
/// begins with.
const SPLITS: usize = 64;
const TILES: usize = 2;
/// Bytes of shared memory that a block of tiles takes: stages of products, and states of its rows.
const SHARED: usize = Batch::LinearFullForwardF16.dynamic_shared() as usize + (13 << 10);
/// Rows of a chunk of which products read the classifier as fast as they multiply: of fewer, a forward pass that
/// reads it once for all rows is ahead. Not measured on a card.
const FEW: usize = 256;
/// The same with a backward pass: by tiles logits are made twice, four products for three. Of chunks in memory each of
/// the three goes through the classifier once a chunk, or its gradient in f32, which is read and written: 12 bytes a
/// weight and chunk, as long as 6 operations a row take of some 300 rows. Not measured on a card.
const FEW_BACK: usize = 128;

/// The kernels of a type, and f32 words of a row's state and of what its gradients are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) forward: Batch,
    pub(crate) finish: Batch,
    pub(crate) gradient: Batch,
    pub(crate) state: usize,
    pub(crate) slopes: usize,
}

impl Kernels {
    /// Those that give what `loss` does, for hidden rows and weights of 16 bits.
    pub(crate) fn of(dtype: DType, loss: Loss) -> Kernels {
        use Batch::*;
        let pick = |f16, bf16| if dtype == DType::F16 { f16 } else { bf16 };
        match loss {
            Loss::CrossEntropy => Kernels {
                forward: pick(LinearForwardF16, LinearForwardBf16),
                finish: LinearFinish,
                gradient: pick(LinearGradientF16, LinearGradientBf16),
                state: loss.words(),
                slopes: 4,
            },
            _ => Kernels {
                forward: pick(LinearFullForwardF16, LinearFullForwardBf16),
                finish: LinearFullFinish,
                gradient: pick(LinearFullGradientF16, LinearFullGradientBf16),
                state: Loss::CrossEntropyTokens.words(),
                slopes: 5,
            },
        }
    }
}

/// Parts that so many classes are gone through in.
pub(crate) fn splits(classes: usize) -> usize {
    classes.div_ceil(TILES * CLASSES).clamp(1, SPLITS)
}

/// Whether a card has room for a block's stages.
pub(crate) fn fit(card: &Card) -> bool {
    card.shared_per_block >= SHARED
}

/// Whether a forward pass is ahead by tiles, of so many rows that go through a library's products a chunk at a time.
/// On sm_90 and sm_100 those are of instructions that tiles here do not use, and stay ahead.
pub(crate) fn lead(card: &Card, [rows, chunk]: [usize; 2]) -> bool {
    let behind = matches!(card.arch, 90..=119);
    !behind && chunk < FEW.min(rows)
}

/// Whether a backward pass is ahead by tiles, of chunks of so many rows with slabs of so many classes. Each slab goes
/// through the hidden rows and their gradient, 12 bytes a feature as well, so slabs are to be longer than chunks of
/// stored logits; and rows of a chunk should fill a tile.
pub(crate) fn lead_back(
    card: &Card,
    [rows, chunk]: [usize; 2],
    [tiled_rows, slab]: [usize; 2],
) -> bool {
    let worth = chunk < FEW_BACK && slab >= 2 * chunk && tiled_rows >= ROWS.min(rows);
    worth && lead(card, [rows, chunk])
}

/// Bytes of a slot.
pub(crate) const SLOT: usize = 16;

/// A call's rows, those that count first.
pub(crate) struct Slots<'p> {
    /// Addresses of each slot's row (i64), and of its mark (i64).
    pub(crate) rows: u64,
    pub(crate) marks: u64,
    /// Address of how many count (i64).
    count: u64,
    _memory: [Workspace<'p>; 2],
}

impl<'p> Slots<'p> {
    /// Puts the rows that count before the others, in their order.
    ///
    /// # Safety
    /// There are n marks (i64) at the address, one at the least.
    pub(crate) unsafe fn pack(cuda: &'p Cuda, marks: u64, n: i64) -> Result<Slots<'p>> {
        let mut memory = Workspace::new(cuda, n as usize);
        let [slot_rows, slot_marks] =
            [memory.packed(1, DType::I64)?.address, memory.packed(1, DType::I64)?.address];
        let mut one = Workspace::new(cuda, 1);
        let count = one.packed(1, DType::I64)?.address;
        let args =
            LinearRowsArgs { marks, slot_rows, slot_marks, count, n, ..LinearRowsArgs::default() };
        // SAFETY: these are the kernel's own arguments, and each row has its mark and its slot.
        unsafe { cuda.launch_batch(Batch::LinearPack, 1, args::bytes(&args))? };
        Ok(Slots { rows: slot_rows, marks: slot_marks, count, _memory: [memory, one] })
    }

    /// Where the slots' rows are, for panels by slots.
    pub(crate) fn places(&self) -> Places {
        Places { rows: self.rows, marks: self.marks }
    }

    /// How many of the n count: waits for that, but takes them all for such while the stream is captured.
    ///
    /// # Safety
    /// They have been packed of n rows.
    pub(crate) unsafe fn counted(&self, cuda: &Cuda, n: usize) -> Result<usize> {
        // SAFETY: packing has written one number, and is on the stream.
        let numbers = unsafe { cuda.numbers(self.count, 1, n)? };
        Ok(numbers.first().copied().unwrap_or(n))
    }
}

/// Blocks that each own some rows and a split of the classes.
///
/// # Safety
/// The arguments name memory that is as long as their sizes say.
pub(crate) unsafe fn launch(cuda: &Cuda, kernel: Batch, args: &LinearTileArgs) -> Result<()> {
    let rows = args.row.rows.count as usize;
    let grid = rows.div_ceil(ROWS).saturating_mul(args.splits as usize);
    let grid = u32::try_from(grid).unwrap_or(u32::MAX);
    // SAFETY: these are the kernel's own arguments: the caller's promise for the rest.
    unsafe { cuda.launch_batch(kernel, grid, args::bytes(args)) }
}

/// A thread a row.
///
/// # Safety
/// As for [`launch`].
pub(crate) unsafe fn finish(cuda: &Cuda, kernel: Batch, args: &LinearTileArgs) -> Result<()> {
    let rows = args.row.rows.count as usize;
    // SAFETY: these are the kernel's own arguments: the caller's promise for the rest.
    unsafe { cuda.launch_batch(kernel, blocks(rows), args::bytes(args)) }
}
