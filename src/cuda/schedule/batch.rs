//! The numbers that a batch's rows share, made on the device: census of targets, sums of losses.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::code::args;
use crate::code::args::{BatchArgs, Totals};
use crate::code::variants::Batch;
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::Input;
use crate::cuda::stream::pool::Block;
use crate::spec::counting::Counting;

/// Rows, or classes, of a chunk: one block's work.
const CHUNK: usize = 4096;

/// What a batch's launches share.
#[derive(Debug)]
pub(crate) struct Census<'p> {
    totals: Block<'p>,
    chunks: Block<'p>,
    args: BatchArgs,
}

impl Census<'_> {
    /// Address of the [`Totals`].
    pub(crate) fn totals(&self) -> u64 {
        self.totals.address()
    }
}

impl Cuda {
    /// Counts and weighs the kept rows, and notes the first bad target or class weight. Without
    /// class indices every row is kept, and weighs 1.
    pub(crate) fn census<'p>(
        &'p self,
        counting: &Counting<'_>,
        target: Option<&Indices<'_>>,
        weight: Option<&Input<'_>>,
    ) -> Result<Census<'p>> {
        let rows = counting.rows;
        let chunks = rows.div_ceil(CHUNK);
        let totals = self.pool.take("workspace", size_of::<Totals>())?;
        // Two sums and an index a chunk.
        let weights = weight.map_or(0, |_| counting.classes.div_ceil(CHUNK));
        let most = chunks.max(weights);
        let sums = self.pool.take("workspace", most * 24)?;
        let args = BatchArgs {
            target: target.map_or(0, Indices::address),
            weight: weight.map_or(0, |w| w.address),
            chunks: sums.address(),
            bad: sums.address() + 16 * most as u64,
            totals: totals.address(),
            status: self.status()?,
            rows: count(target.map_or("logits", Indices::argument), rows)?,
            classes: count("logits", counting.classes)?,
            ignore_index: counting.ignore_index.unwrap_or(0),
            ignores: counting.ignore_index.is_some().into(),
            by_rows: counting.by_rows.into(),
            chunk: CHUNK as i64,
            target_kind: target.map_or(0, Indices::kind),
            weight_kind: weight.map_or(0, |w| args::kind(w.dtype)),
            bad_target: target.map_or(0, |t| t.bad(counting.ignore_index.is_some())),
            mean: (counting.reduction == Reduction::Mean).into(),
            ..BatchArgs::default()
        };
        let census = Census { totals, chunks: sums, args };
        // SAFETY: targets and weights were checked to have the shapes that the arguments say,
        // and the workspaces are as long as the chunks need.
        unsafe {
            if weights > 0 {
                self.launch_batch(Batch::Weights, weights as u32, args::bytes(&args))?;
            }
            if weight.is_some() {
                self.launch_batch(Batch::WeightsTotal, 1, args::bytes(&args))?;
            }
            if chunks > 0 && target.is_some() {
                self.launch_batch(Batch::Census, chunks as u32, args::bytes(&args))?;
            }
            self.launch_batch(Batch::CensusTotal, 1, args::bytes(&args))?;
        }
        Ok(census)
    }

    /// Adds up the rows' losses, and divides where the reduction is a mean.
    ///
    /// `rows` are the addresses of the rows' losses and z-losses, and whether those are f64; `out`
    /// of the results; 0: none.
    pub(crate) fn sum(
        &self,
        census: &Census<'_>,
        (rows, wide): ([u64; 2], bool),
        out: [u64; 2],
    ) -> Result<()> {
        let args = BatchArgs {
            loss: rows[0],
            z_loss: rows[1],
            loss_out: out[0],
            z_loss_out: out[1],
            wide: wide.into(),
            chunks: census.chunks.address(),
            ..census.args
        };
        let chunks = (args.rows as usize).div_ceil(CHUNK);
        // SAFETY: rows have a loss each, and the workspace is the census's.
        unsafe {
            if chunks > 0 {
                self.launch_batch(Batch::Sum, chunks as u32, args::bytes(&args))?;
            }
            self.launch_batch(Batch::SumTotal, 1, args::bytes(&args))
        }
    }
}
