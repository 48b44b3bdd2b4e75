//! Cross entropy of a vocabulary in shards: the same rows, summed shard by shard.

use crate::base::error::Result;
use crate::base::lines::Lines;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{Line, LineOp, Sink, Source, each_line, host_like};
use crate::cpu::batch::numbers::{Batch, Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::with_weights;
use crate::cpu::loss::cross_entropy::rows;
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::processor::{Cpu, each_float, host_f32, host_f32_ref};
use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::row::record;
use crate::cpu::row::state::RowSum;
use crate::cpu::row::work::{Also, Normalizer, Row};
use crate::cpu::simd::Lanes;
use crate::cpu::threads::SyncPtr;
use crate::spec::cross_entropy::CrossEntropyOut;
use crate::spec::cross_entropy::shard::CheckedShard;
use crate::spec::grad_output::GradOutput;
use crate::spec::row_state::{Merge, Record, Vocabulary};

/// A batch, the shard that is worked on, and what its rows are worked on with.
struct Shard<'a> {
    cpu: &'a Cpu,
    batch: &'a Batch<'a>,
    vocabulary: Vocabulary,
    /// Smoothing weights of the whole vocabulary over the batch's unit; null for 1 each.
    weights: SyncPtr<f32>,
}

impl Shard<'_> {
    fn row<X, A, Y>(&self, line: &Line<X, A, Y>) -> Row<X> {
        let first = self.weights.get();
        Row {
            level: self.cpu.level,
            spread: line.spread,
            transform: self.batch.transform,
            x: line.x,
            len: line.len,
            smoothing: self.batch.epsilon > 0.0,
            weights: match first.is_null() {
                true => first,
                // Of the shard's first class; the weights are those of the whole vocabulary.
                false => first.wrapping_add(self.vocabulary.first),
            },
            also: Also::default(),
        }
    }

    /// The column of a class, if it is one of the shard's.
    fn column(&self, class: usize) -> Option<usize> {
        class.checked_sub(self.vocabulary.first).filter(|&column| column < self.vocabulary.len)
    }

    fn segments(&self, hole: Option<usize>) -> Segments {
        Segments::of_blocks(self.vocabulary.len, self.vocabulary.block(), hole)
    }
}

/// The sum of a row from its state; `None` where no shard has had the target.
fn whole(batch: &Batch<'_>, record: &Record, numbers: &[f32], class: usize) -> Option<RowSum> {
    let hole = batch.hole_of(record::logit(record, numbers)?, class, class);
    let mut parts = Slots::new();
    let segments = Segments::new(batch.targets.classes, Some(class));
    let parts = record::parts(record, &segments, numbers, &mut parts);
    Some(RowSum::merge(batch.transform, parts.iter().copied(), Some(hole)))
}

/// The state of a line of a shard.
struct Partial<'a> {
    shard: Shard<'a>,
    record: Record,
    state: SyncPtr<f32>,
}

impl LineOp for Partial<'_> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        let (batch, n) = (self.shard.batch, self.record.numbers());
        // SAFETY: the state has as many numbers a row, and this row's are this call's.
        let numbers = unsafe {
            let first = self.state.get().add(line.index * n);
            first.write_bytes(0, n);
            std::slice::from_raw_parts_mut(first, n)
        };
        let Some(class) = batch.targets.class(line.index) else { return };
        let column = self.shard.column(class);
        // SAFETY: the column is one of the line's.
        let logit = column.map(|column| unsafe { line.x.add(column).read() }.to_f32());
        let hole = column.zip(logit).map(|(column, x)| batch.hole_of(x, column, class));
        let segments = self.shard.segments(column);
        let mut parts = Slots::new();
        // SAFETY: the line's columns are those of the segments, and weights there are one a class.
        let parts = unsafe { self.shard.row(&line).parts(&segments, hole, &mut parts) };
        record::keep(&self.record, &segments, (parts, logit), numbers);
    }

    fn merge(_: &mut (), _: &()) {}
}

/// The results of a row from its state, which is the line.
struct Finish<'a> {
    batch: &'a Batch<'a>,
    record: Record,
    state: SyncPtr<f32>,
    results: Results,
}

impl LineOp for Finish<'_> {
    type Sum = Sums;

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sums: &mut Sums) {
        let n = self.record.numbers();
        // SAFETY: the state has as many numbers a row, and is only read; results have an element a
        // row.
        unsafe {
            let numbers = std::slice::from_raw_parts(self.state.get().add(line.index * n), n);
            match self.batch.targets.class(line.index) {
                None => self.results.put(line.index, (0.0, 0.0), 0.0, sums),
                Some(class) => match whole(self.batch, &self.record, numbers, class) {
                    Some(sum) => {
                        let (loss, lse) = (self.batch.loss(&sum.summed(), class), sum.lse() as f32);
                        self.results.put(line.index, loss, lse, sums);
                    }
                    None => self.results.put(line.index, (f64::NAN, f64::NAN), f32::NAN, sums),
                },
            }
        }
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}

/// The gradient of a line of a shard, from the state of its whole row.
struct Backward<'a> {
    shard: Shard<'a>,
    record: Record,
    state: SyncPtr<f32>,
}

impl LineOp for Backward<'_> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        let (batch, n) = (self.shard.batch, self.record.numbers());
        // SAFETY: the state has as many numbers a row, and is only read; the line is as long as the
        // segments' columns, and its output is written by this call alone.
        unsafe {
            let Some(class) = batch.targets.class(line.index) else {
                return fill(&line, 0.0);
            };
            let numbers = std::slice::from_raw_parts(self.state.get().add(line.index * n), n);
            let sum = whole(batch, &self.record, numbers, class).filter(|sum| !sum.undefined());
            let Some(sum) = sum else {
                return fill(&line, f32::NAN);
            };
            let column = self.shard.column(class);
            let factors = batch.factors(line.index, class, sum.lse());
            let terms = factors.terms(batch.transform);
            // Before the row is overwritten.
            let at_target = column.map(|column| {
                let hole = batch.hole_of(line.x.add(column).read().to_f32(), column, class);
                factors.at_target(sum.rest, sum.target, hole.own())
            });
            let segments = self.shard.segments(column);
            let row = self.shard.row(&line);
            row.gradient_in(&segments, line.y, Normalizer::Sum(&sum), &terms);
            if let (Some(column), Some(value)) = (column, at_target) {
                line.y.add(column).write(Y::from_f32(value));
            }
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

impl Cpu {
    pub(crate) fn cross_entropy_partial(
        &self,
        checked: &CheckedShard<'_>,
        logits: TensorRef<'_>,
        state: TensorMut<'_>,
    ) -> Result<()> {
        let CheckedShard { whole, vocabulary, record } = checked;
        let batch = Batch::new(self, whole, Upstream::Number(1.0))?;
        let lines = rows(whole, &logits);
        let state = host_f32(state, "state")?;
        each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines };
            self.on_shard(&batch, *vocabulary, |shard| {
                let op = Partial { shard, record: *record, state: SyncPtr(state.as_mut_ptr()) };
                // SAFETY: the view holds its shape, whose lines are the state's rows.
                unsafe { each_line(self, x, None::<Source<f32>>, None::<Sink<f32>>, &op) };
            });
            Ok(())
        })
    }

    /// Calls `work` with the shard and its weights.
    fn on_shard(&self, batch: &Batch<'_>, vocabulary: Vocabulary, work: impl FnOnce(Shard<'_>)) {
        let classes = (batch.targets.classes, batch.unit);
        with_weights(batch.weights, classes, batch.epsilon > 0.0, |weights| {
            work(Shard { cpu: self, batch, vocabulary, weights });
        });
    }

    pub(crate) fn cross_entropy_finish(
        &self,
        checked: &CheckedShard<'_>,
        state: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, &checked.whole, Upstream::Number(1.0))?;
        let lines = Lines::new(&state.shape(), state.row_stride(), |d| d == 1);
        let state = host_f32_ref(state, "state")?;
        let mut buffers = Buffers::new(out)?;
        let results = buffers.results(batch.scaling.reduction);
        let x = Source { base: state.as_ptr(), lines };
        let state = SyncPtr(state.as_ptr().cast_mut());
        let op = Finish { batch: &batch, record: checked.record, state, results };
        // SAFETY: the view holds its shape, which was checked: a row for each result.
        let sums = unsafe { each_line(self, x, None::<Source<f32>>, None::<Sink<f32>>, &op) };
        buffers.finish(&batch.scaling, &sums, batch.lambda > 0.0);
        Ok(())
    }

    pub(crate) fn cross_entropy_shard_backward(
        &self,
        checked: &CheckedShard<'_>,
        logits: TensorRef<'_>,
        state: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, &checked.whole, Upstream::new(&grad_output)?)?;
        let (x_lines, y_lines) =
            (rows(&checked.whole, &logits), rows(&checked.whole, &grad_logits.as_ref()));
        let state = host_f32_ref(state, "state")?;
        each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: x_lines };
            let y = host_like(&x, grad_logits, "grad_logits")?;
            let y = Sink { base: y.as_mut_ptr(), lines: y_lines };
            self.shard_gradient(checked, &batch, state, x, y);
            Ok(())
        })
    }

    pub(crate) fn cross_entropy_shard_backward_in_place(
        &self,
        checked: &CheckedShard<'_>,
        logits: TensorMut<'_>,
        state: TensorRef<'_>,
        grad_output: GradOutput<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, &checked.whole, Upstream::new(&grad_output)?)?;
        let lines = rows(&checked.whole, &logits.as_ref());
        let state = host_f32_ref(state, "state")?;
        each_float!(logits.into_host_data(), "logits", HostMut, x => {
            let base = x.as_mut_ptr();
            let x = Source { base: base.cast_const(), lines };
            self.shard_gradient(checked, &batch, state, x, Sink { base, lines });
            Ok(())
        })
    }

    fn shard_gradient<X: Lanes>(
        &self,
        checked: &CheckedShard<'_>,
        batch: &Batch<'_>,
        state: &[f32],
        x: Source<X>,
        y: Sink<X>,
    ) {
        // The state is the whole vocabulary's, the lines are the shard's.
        let record =
            Record { blocks: Vocabulary::all(batch.targets.classes).blocks(), ..checked.record };
        self.on_shard(batch, checked.vocabulary, |shard| {
            let op = Backward { shard, record, state: SyncPtr(state.as_ptr().cast_mut()) };
            // SAFETY: views hold their shapes, which were checked to agree; the output is borrowed
            // exclusively, and in place it is the input itself.
            unsafe { each_line(self, x, None::<Source<f32>>, Some(y), &op) };
        });
    }

    /// Puts the numbers of parts side by side; the target's are those of the part that has it.
    pub(crate) fn merge_states(&self, merge: &Merge<'_>, out: TensorMut<'_>) -> Result<()> {
        let out = host_f32(out, "state")?;
        let Merge { rows, record, parts } = merge;
        let parts: Vec<(&[f32], Record)> = (parts.iter())
            .map(|&(part, blocks)| Ok((host_f32_ref(part, "parts")?, Record { blocks, ..*record })))
            .collect::<Result<_>>()?;
        for (row, numbers) in out.chunks_exact_mut(record.numbers()).take(*rows).enumerate() {
            let (mut blocks, target) = numbers.split_at_mut(record.target());
            target.fill(0.0);
            for (part, own) in &parts {
                let part = &part[row * own.numbers()..][..own.numbers()];
                let (from, at) = part.split_at(own.target());
                let (to, rest) = blocks.split_at_mut(own.target());
                to.copy_from_slice(from);
                blocks = rest;
                if at[0] == 1.0 {
                    target.copy_from_slice(at);
                }
            }
        }
        Ok(())
    }
}
