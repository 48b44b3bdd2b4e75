//! The numbers that a batch's rows share, made on the device: census of targets, sums of losses.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::code::args;
use crate::code::args::{BatchArgs, SumArgs, Totals};
use crate::code::variants::Batch;
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::Input;
use crate::cuda::stream::pool::Block;
use crate::spec::counting::Counting;

/// Rows, or classes, of a chunk: one block's work (`WL_CHUNK`).
const CHUNK: usize = 4096;

/// What rows have of their own beside a target: addresses of a number a row (f32); 0: none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowFactors {
    /// What divides a row's logits.
    pub(crate) temperature: u64,
    /// Whether that is a teacher's.
    pub(crate) of_teacher: bool,
    /// What multiplies a row's loss.
    pub(crate) row_weight: u64,
}

/// What a batch's launches share.
#[derive(Debug)]
pub(crate) struct Census<'p> {
    totals: Block<'p>,
    _chunks: Block<'p>,
    sum: SumArgs,
}

impl Census<'_> {
    /// Address of the [`Totals`].
    pub(crate) fn totals(&self) -> u64 {
        self.totals.address()
    }

    /// What the rows' losses are to add up to, and to be divided by where the reduction is a mean.
    ///
    /// `rows` are the addresses of the rows' losses and z-losses, and whether those are f64; `out`
    /// of the results; 0: none.
    pub(crate) fn sum(&self, (rows, wide): ([u64; 2], bool), out: [u64; 2]) -> SumArgs {
        let ([loss, z_loss], [loss_out, z_loss_out]) = (rows, out);
        SumArgs { loss, z_loss, loss_out, z_loss_out, wide: wide.into(), ..self.sum }
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
        self.census_of_rows(counting, (target, weight), RowFactors::default())
    }

    /// The same of rows with factors, the first bad one of which is noted too.
    pub(crate) fn census_of_rows<'p>(
        &'p self,
        counting: &Counting<'_>,
        (target, weight): (Option<&Indices<'_>>, Option<&Input<'_>>),
        factors: RowFactors,
    ) -> Result<Census<'p>> {
        let rows = counting.rows;
        let of_rows = rows.div_ceil(CHUNK);
        let weights = weight.map_or(0, |_| counting.classes.div_ceil(CHUNK));
        let totals = self.pool.take("workspace", size_of::<Totals>())?;
        // Two sums and an index a chunk, then a ticket a chunk of rows, and one.
        let most = of_rows + weights;
        let chunks = self.pool.take("workspace", most * 24 + (of_rows + 1) * 4)?;
        let rows = count(target.map_or("logits", Indices::argument), rows)?;
        let (sums, tickets) = (chunks.address(), chunks.address() + 24 * most as u64);
        let sum = SumArgs {
            chunks: sums,
            tickets,
            totals: totals.address(),
            rows,
            mean: (counting.reduction == Reduction::Mean).into(),
            ..SumArgs::default()
        };
        let args = BatchArgs {
            target: target.map_or(0, Indices::address),
            weight: weight.map_or(0, |w| w.address),
            temperature: factors.temperature,
            row_weight: factors.row_weight,
            chunks: sums,
            bad: sums + 16 * most as u64,
            totals: totals.address(),
            status: self.status()?,
            tickets,
            rows,
            classes: count("logits", counting.classes)?,
            ignore_index: counting.ignore_index.unwrap_or(0),
            ignores: counting.ignore_index.is_some().into(),
            by_rows: counting.by_rows.into(),
            bad_temperature: 10 + u32::from(factors.of_teacher),
            target_kind: target.map_or(0, Indices::kind),
            weight_kind: weight.map_or(0, |w| args::kind(w.dtype)),
            bad_target: target.map_or(0, |t| t.bad(counting.ignore_index.is_some())),
            ..BatchArgs::default()
        };
        let by_rows = target.is_some() || factors.temperature != 0 || factors.row_weight != 0;
        let blocks = weights + if by_rows { of_rows } else { 0 };
        // SAFETY: targets and weights were checked to have the shapes that the arguments say, the
        // workspaces are as long as the chunks need, and the status word's ticket is 0 or becomes so
        // before this launch.
        unsafe { self.launch_batch(Batch::Census, blocks.max(1) as u32, args::bytes(&args))? };
        Ok(Census { totals, _chunks: chunks, sum })
    }

    /// Adds up the rows' losses, where the launch that writes them does not.
    pub(crate) fn add_up(&self, sum: SumArgs) -> Result<()> {
        let args = BatchArgs { sum, ..BatchArgs::default() };
        let blocks = (sum.rows as usize).div_ceil(CHUNK).max(1) as u32;
        // SAFETY: rows have a loss each, and the workspace is the census's, whose tickets nobody has taken.
        unsafe { self.launch_batch(Batch::Sum, blocks, args::bytes(&args)) }
    }
}
