//! What rows have beside their logits: `kernels/batch/linear_rows.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::TensorRef;
use crate::code::args;
use crate::code::args::{LabelArgs, LinearRowsArgs, LossOutputs, UpstreamArgs};
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::blocks;
use crate::cuda::matrix::products::{Places, Workspace};
use crate::cuda::matrix::wide_tiles::Slots;
use crate::cuda::schedule::batch::RowFactors;
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::linear_cross_entropy::CheckedLinear;

/// Bytes of a row: its mark, and three upstream gradients.
pub(in crate::cuda::loss) const BYTES: usize = 8 + 3 * 4;
/// Pieces of memory that those are in.
pub(in crate::cuda::loss) const PIECES: usize = 4;

/// Temperatures and weights of rows, and what they make of upstream gradients.
pub(in crate::cuda::loss) struct RowNumbers<'p> {
    cuda: &'p Cuda,
    temperature: Option<Input<'p>>,
    _row_weight: Option<Input<'p>>,
    args: LinearRowsArgs,
    memory: Workspace<'p>,
}

/// Words of each slot at one address that go to its row at another.
pub(super) struct Written {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) words: usize,
    /// Those of a row that does not count.
    pub(super) missing: u32,
}

impl<'p> RowNumbers<'p> {
    pub(in crate::cuda::loss) fn new(
        cuda: &'p Cuda,
        checked: &CheckedLinear<'p>,
    ) -> Result<RowNumbers<'p>> {
        let of = &checked.input;
        let named = ("temperature", of.temperature);
        let mut numbers = RowNumbers::of(cuda, checked.rows, named, of.row_weight)?;
        numbers.args.positions = checked.positions as i64;
        Ok(numbers)
    }

    /// Of so many rows.
    pub(in crate::cuda::loss) fn of(
        cuda: &'p Cuda,
        rows: usize,
        (argument, temperature): (&'static str, Option<TensorRef<'p>>),
        row_weight: Option<TensorRef<'p>>,
    ) -> Result<RowNumbers<'p>> {
        let temperature = temperature.map(|t| cuda.input(argument, t)).transpose()?;
        let row_weight = row_weight.map(|t| cuda.input("row_weight", t)).transpose()?;
        let address = |input: &Option<Input<'p>>| input.as_ref().map_or(0, |t| t.address);
        let args = LinearRowsArgs {
            temperature: address(&temperature),
            row_weight: address(&row_weight),
            n: count("input", rows)?,
            positions: 1,
            ..LinearRowsArgs::default()
        };
        let memory = Workspace::new(cuda, rows);
        Ok(RowNumbers { cuda, temperature, _row_weight: row_weight, args, memory })
    }

    /// The same rows on another side, with temperatures of their own and these marks.
    pub(in crate::cuda::loss) fn beside(
        &self,
        named: (&'static str, Option<TensorRef<'p>>),
    ) -> Result<RowNumbers<'p>> {
        let mut other = RowNumbers::of(self.cuda, self.args.n as usize, named, None)?;
        other.args.marks = self.args.marks;
        Ok(other)
    }

    /// As the census checks them.
    pub(in crate::cuda::loss) fn factors(&self) -> RowFactors {
        let LinearRowsArgs { temperature, row_weight, .. } = self.args;
        RowFactors { temperature, row_weight, ..RowFactors::default() }
    }

    /// Address of what is below 0 where a row does not count; 0: all do.
    pub(in crate::cuda::loss) fn marks(&self) -> u64 {
        self.args.marks
    }

    /// Has losses multiplied by numbers at this address in the place of the rows' weights.
    pub(in crate::cuda::loss) fn weigh_by(&mut self, factors: u64) {
        self.args.row_weight = factors;
    }

    /// Address of the rows' temperatures; 0: none.
    pub(super) fn temperature(&self) -> u64 {
        self.args.temperature
    }

    pub(in crate::cuda::loss) fn has_temperature(&self) -> bool {
        self.temperature.is_some()
    }

    /// Has what comes from now on name the slots of rows, which those that count come first of.
    pub(super) fn by(&mut self, slots: &Slots<'p>) {
        (self.args.slot_rows, self.args.slot_marks) = (slots.rows, slots.marks);
    }

    /// Address of what is below 0 where a slot holds nothing from the n-th on, and of its row; 0: all do, each its own.
    pub(super) fn places(&self, from: usize) -> Places {
        let LinearRowsArgs { slot_rows, slot_marks, marks, .. } = self.args;
        let at = |address: u64| if address == 0 { 0 } else { address + 8 * from as u64 };
        match slot_rows {
            0 => Places { rows: 0, marks: at(marks) },
            rows => Places { rows: at(rows), marks: at(slot_marks) },
        }
    }

    /// Marks rows of a target of so many classes, and has upstream gradients (of the loss, the log-probability
    /// and the entropy) name those with factors in them.
    ///
    /// # Safety
    /// The call's shapes were checked.
    pub(in crate::cuda::loss) unsafe fn prepare(
        &mut self,
        target: Option<(LabelArgs, i64)>,
        upstream: &mut [&mut UpstreamArgs],
        over_temperature: bool,
    ) -> Result<()> {
        let over_temperature = over_temperature && self.has_temperature();
        if let Some((labels, classes)) = target {
            (self.args.target, self.args.target_kind) = (labels.values, labels.kind);
            (self.args.ignore_index, self.args.classes) = (labels.ignore_index, classes);
            self.args.marks = self.memory.packed(1, DType::I64)?.address;
        }
        let scaled = over_temperature || self.args.row_weight != 0;
        let packed = self.args.slot_rows != 0;
        let args = &mut self.args;
        args.over_temperature = over_temperature.into();
        let named = [
            (&mut args.of_loss, &mut args.given_loss),
            (&mut args.of_logprob, &mut args.given_logprob),
            (&mut args.of_entropy, &mut args.given_entropy),
        ];
        let mut made = target.is_some();
        for ((from, to), given) in named.into_iter().zip(upstream.iter_mut()) {
            let each = given.values != 0 && given.stride != 0;
            if !(scaled || packed && each) {
                continue;
            }
            made = true;
            *from = **given;
            *to = self.memory.packed(1, DType::F32)?.address;
            let kind = args::kind(DType::F32);
            **given = UpstreamArgs { values: *to, stride: 1, kind, number: 0.0 };
        }
        if !made {
            return Ok(());
        }
        let marked = target.map_or(0, |(labels, _)| labels.values);
        let args = LinearRowsArgs { target: marked, ..self.args };
        // SAFETY: targets, temperatures, weights and upstream gradients have a number a row (the caller's
        // promise), and so has the memory.
        unsafe { self.launch(Batch::LinearRows, self.args.n as usize, &args) }
    }

    /// Puts the rows that count before the others, in their order.
    ///
    /// # Safety
    /// Rows have been marked, one at the least.
    pub(super) unsafe fn pack(&self) -> Result<Slots<'p>> {
        // SAFETY: each row has its mark: the caller's promise.
        unsafe { Slots::pack(self.cuda, self.args.marks, self.args.n) }
    }

    /// Divides n rows, from row `from` on, by their temperatures.
    ///
    /// # Safety
    /// The panel is f32 device memory of those rows and columns.
    pub(in crate::cuda::loss) unsafe fn divide(
        &self,
        panel: Panel,
        from: usize,
        [n, columns]: [usize; 2],
    ) -> Result<()> {
        let Some(temperature) = &self.temperature else { return Ok(()) };
        let slot_rows = self.places(from).rows;
        let skipped = if slot_rows == 0 { 4 * from as u64 } else { 0 };
        let args = LinearRowsArgs {
            temperature: temperature.address + skipped,
            slot_rows,
            z: panel.address,
            n: n as i64,
            columns: columns as i64,
            stride: panel.stride as i64,
            ..LinearRowsArgs::default()
        };
        // SAFETY: the panel has these rows, says the caller, and each has its temperature.
        unsafe { self.launch(Batch::LinearDivide, n.saturating_mul(columns), &args) }
    }

    /// Multiplies the losses of all rows by their weights.
    ///
    /// # Safety
    /// The outputs have a number a row, which launches before this one have written.
    pub(in crate::cuda::loss) unsafe fn weigh(&self, out: &LossOutputs) -> Result<()> {
        if self.args.row_weight == 0 || out.loss == 0 {
            return Ok(());
        }
        let LossOutputs { loss, z_loss, wide, .. } = *out;
        let args = LinearRowsArgs { loss, z_loss, wide, ..self.args };
        // SAFETY: losses, weights and marks have a number a row: the caller's promise.
        unsafe { self.launch(Batch::LinearLosses, self.args.n as usize, &args) }
    }

    /// Puts what slots have where their rows have it.
    ///
    /// # Safety
    /// Each row has as many words, and so has each slot that counts, which launches before have written.
    pub(super) unsafe fn put_back(&self, written: &Written) -> Result<()> {
        let Written { from, to, words, missing } = *written;
        let args = LinearRowsArgs { from, to, columns: words as i64, missing, ..self.args };
        let elements = (self.args.n as usize).saturating_mul(words);
        // SAFETY: the caller's promise; slots have been packed.
        unsafe { self.launch(Batch::LinearResults, elements, &args) }
    }

    /// # Safety
    /// The arguments name memory of so many elements.
    unsafe fn launch(&self, kernel: Batch, elements: usize, args: &LinearRowsArgs) -> Result<()> {
        if elements == 0 {
            return Ok(());
        }
        // SAFETY: these are the kernel's own arguments, whose memory is as long: the caller's promise.
        unsafe { self.cuda.launch_batch(kernel, blocks(elements), args::bytes(args)) }
    }
}
