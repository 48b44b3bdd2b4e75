//! Cross entropy of a vocabulary in shards on a CUDA device: `kernels/schedule/state.cuh`, and states
//! put together by `kernels/batch/states.cu`.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::{CrossEntropyArgs, MergeArgs, ShardArgs};
use crate::code::variants::{Batch as BatchKernel, Entry};
use crate::cuda::loss::cross_entropy::{Batch, Results};
use crate::cuda::schedule::blocks::{RowTensors, placed};
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::{Places, ReadRows, along};
use crate::cuda::schedule::rows::data;
use crate::cuda::stream::Cuda;
use crate::spec::cross_entropy::{CheckedShard, CrossEntropyOut};
use crate::spec::grad_output::GradOutput;
use crate::spec::row_state::{Merge, Record, Vocabulary};
use std::ops::Range;

/// Numbers that are kept of a row from its states to its gradient (`CrossEntropy::Slopes`).
const SLOPES: usize = 4;

impl Cuda {
    pub(crate) fn cross_entropy_partial(
        &self,
        checked: &CheckedShard<'_>,
        logits: TensorRef<'_>,
        state: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.read_rows("logits", logits, along(checked.whole.class_dim))?;
        let state = self.output("state", state, false)?;
        let batch = Batch::new(self, &checked.whole, &GradOutput::default())?;
        let args = CrossEntropyArgs {
            shard: shard(&checked.vocabulary, &checked.record, state.address)?,
            ..batch.args(&checked.whole)?
        };
        let (loss, data) = (batch.loss, data(checked.whole.dtype)?);
        let prepare = |_| {
            Ok(move |places: &Places, part: Range<usize>| {
                let warps = part.len() * args.shard.blocks as usize;
                let args = placed(args, places, part, false);
                // SAFETY: the operands have the rows and the shard's classes, and the state the
                // record's numbers of each row (`CheckedShard`).
                self.laps.around(&*self.driver, || unsafe {
                    self.launch_warps((loss, Entry::State, data), warps, &args)
                })
            })
        };
        let tensors = RowTensors { x: Some(&x), ..RowTensors::default() };
        // SAFETY: a part's arguments name the rows of that part alone.
        unsafe { self.by_blocks(tensors.operands(args.rows.count as usize), prepare)? };
        self.read_back([Some(state)])
    }

    pub(crate) fn cross_entropy_finish(
        &self,
        checked: &CheckedShard<'_>,
        state: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let whole = &checked.whole;
        let CrossEntropyOut { loss, lse, z_loss, .. } = out;
        let mut results = Results::new(self, loss, z_loss, lse)?;
        let state = self.input("state", state)?;
        let batch = Batch::new(self, whole, &GradOutput::default())?;
        let mut args = batch.args(whole)?;
        let rows = whole.target.len();
        args.out = results.of_rows(self, (rows, whole.options.reduction), &args.options)?;
        args.shard = shard(&checked.vocabulary, &checked.record, state.address)?;
        if rows > 0 {
            let kernel = (batch.loss, Entry::StateFinish, data(whole.dtype)?);
            // SAFETY: the state has the record's numbers of each row (`CheckedShard`), and results
            // an element a row.
            unsafe { self.launch_warps(kernel, rows, &args)? };
        }
        let sum = results.sum(&batch.census, &args.out);
        if sum.tickets != 0 {
            self.add_up(sum)?;
        }
        self.read_back(results.outputs())
    }

    pub(crate) fn cross_entropy_shard_backward(
        &self,
        checked: &CheckedShard<'_>,
        logits: TensorRef<'_>,
        state: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.read_rows("logits", logits, along(checked.whole.class_dim))?;
        self.shard_gradient(checked, Some(x), state, &grad_output, grad_logits)
    }

    pub(crate) fn cross_entropy_shard_backward_in_place(
        &self,
        checked: &CheckedShard<'_>,
        logits: TensorMut<'_>,
        state: TensorRef<'_>,
        grad_output: GradOutput<'_>,
    ) -> Result<()> {
        self.shard_gradient(checked, None, state, &grad_output, logits)
    }

    /// Gradient of a shard from the state of the whole vocabulary: of rows elsewhere, or of those that
    /// it overwrites.
    fn shard_gradient(
        &self,
        checked: &CheckedShard<'_>,
        from: Option<ReadRows<'_>>,
        state: TensorRef<'_>,
        grad_output: &GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let CheckedShard { whole, vocabulary, record } = checked;
        let in_place = from.is_none();
        let name = if in_place { "logits" } else { "grad_logits" };
        let y = self.write_rows(name, grad_logits, in_place, along(whole.class_dim))?;
        let state = self.input("state", state)?;
        let batch = Batch::new(self, whole, grad_output)?;
        // The state is the whole vocabulary's, the rows are the shard's.
        let listed = Vocabulary::all(vocabulary.whole).blocks();
        let record = Record { blocks: listed, ..*record };
        let args = CrossEntropyArgs {
            shard: shard(vocabulary, &record, state.address)?,
            ..batch.args(whole)?
        };
        let (loss, data) = (batch.loss, data(whole.dtype)?);
        let prepare = |at_once: usize| {
            let slopes = self.pool.take("workspace", at_once * SLOPES * size_of::<f32>())?;
            Ok(move |places: &Places, part: Range<usize>| {
                let rows = part.len();
                let mut args = placed(args, places, part, in_place);
                args.schedule.partials = slopes.address();
                // SAFETY: operands have the rows and the shard's classes, the state the numbers of
                // the whole vocabulary's record (`CheckedShard`), and the workspace those of so many
                // rows at once.
                self.laps.around(&*self.driver, || unsafe {
                    self.launch_warps((loss, Entry::StateSlopes, data), rows, &args)?;
                    let warps = rows * args.shard.blocks as usize;
                    self.launch_warps((loss, Entry::StateGradient, data), warps, &args)
                })
            })
        };
        let tensors = RowTensors { x: from.as_ref(), y: Some(y), ..RowTensors::default() };
        // SAFETY: a part's arguments name the rows of that part alone.
        let [grad, ..] =
            unsafe { self.by_blocks(tensors.operands(args.rows.count as usize), prepare)? };
        self.read_back([grad])
    }

    /// Puts the numbers of parts side by side; the target's are those of the part that has it.
    pub(crate) fn merge_states(&self, merge: &Merge<'_>, out: TensorMut<'_>) -> Result<()> {
        let Merge { rows, record, parts } = merge;
        let state = self.output("state", out, false)?;
        let mut at = 0;
        for (i, &(part, blocks)) in parts.iter().enumerate() {
            let own = Record { blocks, ..*record };
            let part = self.input("parts", part)?;
            let args = MergeArgs {
                part: part.address,
                state: state.address,
                rows: count("parts", *rows)?,
                part_numbers: own.numbers() as i64,
                numbers: record.numbers() as i64,
                at,
                of_target: (own.numbers() - own.target()) as u32,
                is_first: (i == 0).into(),
            };
            at += own.target() as i64;
            let numbers = rows.saturating_mul(own.numbers());
            // SAFETY: a part has the numbers of its record of each row, and the state those of the
            // parts together (`RowState::joined`).
            unsafe { self.launch_over(BatchKernel::MergeStates, numbers, args::bytes(&args))? };
        }
        self.read_back([Some(state)])
    }
}

/// What kernels are told of a shard, and of states whose rows have this record.
fn shard(vocabulary: &Vocabulary, record: &Record, state: u64) -> Result<ShardArgs> {
    Ok(ShardArgs {
        state,
        first: count("vocabulary", vocabulary.first)?,
        len: count("vocabulary", vocabulary.len)?,
        block: count("vocabulary", vocabulary.block())?,
        // A shard without classes has a warp a row too, that says so.
        blocks: vocabulary.blocks().max(1) as u32,
        listed: record.blocks as u32,
        fields: record.fields as u32,
        numbers: record.numbers() as u32,
    })
}
