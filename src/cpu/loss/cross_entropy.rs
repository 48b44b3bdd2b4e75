//! Cross entropy on the CPU: the batch's numbers first, then every row by itself.

mod blocks;
mod call;
mod kept;
mod shards;
mod short;
mod tiled;
mod tokens;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::lines::Lines;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{GROUP, Line, LineOp, Sink, Source, each_line, kept};
use crate::cpu::batch::numbers::{Batch, Factors, Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::with_weights;
use crate::cpu::batch::tiles::{each_tile, short};
use crate::cpu::loss::cross_entropy::blocks::Blocks;
use crate::cpu::loss::cross_entropy::call::Call;
use crate::cpu::loss::cross_entropy::kept::{brings, brought};
use crate::cpu::loss::cross_entropy::short::Short;
pub(crate) use crate::cpu::loss::cross_entropy::tiled::States;
use crate::cpu::loss::cross_entropy::tokens::Tokens;
pub(crate) use crate::cpu::loss::cross_entropy::tokens::{TokenResults, TokenUpstream};
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::loss::logsumexp::coarse;
use crate::cpu::matrix::chunks::Logits;
use crate::cpu::processor::{Cpu, each_float, host_f32_ref};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::room::with_room;
use crate::cpu::row::state::RowSum;
use crate::cpu::row::work::{Kept, Normalizer, Row};
use crate::cpu::simd::Lanes;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::grad_output::GradOutput;

/// Cross entropy of a line: forward alone, or with the gradient in the line's output.
struct Forward<'a> {
    call: Call<'a>,
    results: Results,
}

impl LineOp for Forward<'_> {
    type Sum = Sums;

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sums: &mut Sums) {
        let batch = self.call.batch;
        // SAFETY: the caller's contract for the line; results have an element a row; the
        // census found the class in range.
        unsafe {
            let Some(class) = batch.targets.class(line.index) else {
                self.results.put(line.index, (0.0, 0.0), 0.0, sums);
                self.results.ranks.put(line.index, None);
                if !line.y.is_null() {
                    fill(&line, 0.0);
                }
                return;
            };
            let line = if brings(&self.call, &line) { brought(line) } else { line };
            line.ask_for_next(batch.targets.class_after(line.index));
            let row = self.call.row(&line);
            let hole = batch.hole(line.x, class);
            let mut finish = |sum: &RowSum| {
                self.results.put(
                    line.index,
                    batch.loss(&sum.summed(), class),
                    sum.lse() as f32,
                    sums,
                );
                self.results.ranks.put(line.index, Some(&sum.standing));
                (!sum.undefined()).then(|| batch.factors(line.index, class, sum.lse()))
            };
            if line.y.is_null() {
                finish(&row.sum(Some(hole)));
                return;
            }
            let at = (class, &hole);
            let at_target = match (batch.transform, row_of_f32(&row, line.y)) {
                (Transform::Linear(logit), Some(row)) => in_place(&row, logit, at, &mut finish),
                (Transform::Linear(logit), None) if row.narrow() => {
                    with_room(row.len, |room| apart(&row, (line.y, room), logit, at, &mut finish))
                }
                _ => twice(&row, line.y, at, &mut finish),
            };
            let Some(at_target) = at_target else {
                return fill(&line, f32::NAN);
            };
            line.y.add(class).write(Y::from_f32(at_target));
        }
    }

    unsafe fn group<X: Lanes, A: Lanes, Y: Lanes>(
        &self,
        lines: &[Line<X, A, Y>],
        sums: &mut Sums,
    ) -> bool {
        let Some(first) = lines.first() else { return false };
        if !brings(&self.call, first) {
            // SAFETY: the caller's promise.
            return unsafe { self.blocks(lines, sums) };
        }
        let mut own = [*first; GROUP];
        let own = &mut own[..lines.len()];
        for (own, line) in own.iter_mut().zip(lines) {
            // What an ignored row holds is not read.
            let counts = self.call.batch.targets.class(line.index).is_some();
            // SAFETY: the caller's promise; the lines are of one tensor, and so alike.
            *own = if counts { unsafe { brought(*line) } } else { line.at_output() };
        }
        // SAFETY: the caller's promise, of lines that are in place now.
        unsafe {
            if !self.blocks(own, sums) {
                own.iter().for_each(|line| self.line(*line, sums));
            }
        }
        true
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}

impl Forward<'_> {
    /// Does lines some at a time, where they are rows of one block, and says whether they are.
    ///
    /// # Safety
    /// As for [`LineOp::group`].
    unsafe fn blocks<X: Lanes, A: Lanes, Y: Lanes>(
        &self,
        lines: &[Line<X, A, Y>],
        sums: &mut Sums,
    ) -> bool {
        let blocks = lines.first().and_then(|line| Blocks::new(&self.call, &self.results, line));
        let Some(blocks) = blocks else { return false };
        // SAFETY: the caller's promise; the lines are of one tensor, and so alike.
        unsafe { blocks.lines(lines, sums, &|line, sums| self.line(line, sums)) };
        true
    }
}

// The ways to a row's gradient: each returns the target's, or `None` of a row without probabilities, and
// asks `finish` for the factors once the row is summed, which such a row has not either. Those with room for the segments of a long row on
// their stack are not inlined, or short rows would pay for it.

/// The target's column, with its number.
type At<'a> = (usize, &'a Hole);
type Finish<'a> = &'a mut dyn FnMut(&RowSum) -> Option<Factors>;

/// In place on f32 the exponentials stay where the logits were: one exponential and one read from memory
/// an element.
///
/// # Safety
/// As for [`LineOp::line`], of the row and the target.
#[inline(never)]
unsafe fn in_place(
    row: &Row<f32>,
    logit: Linear,
    (_, hole): At<'_>,
    finish: Finish<'_>,
) -> Option<f32> {
    let mut kept = Kept::new();
    // SAFETY: the caller's contract for the row.
    unsafe {
        let sum = row.sum_and_keep(logit, *hole, &mut kept);
        let factors = finish(&sum)?;
        row.rescale(&sum, &kept, &factors.terms(row.transform));
        Some(factors.at_target(sum.rest, sum.target, hole.own()))
    }
}

/// 16 bits would round exponentials: they are kept apart, as f32.
///
/// # Safety
/// As for [`LineOp::line`], of the row and the target; there is room for an f32 a class.
#[inline(never)]
unsafe fn apart<X: Lanes, Y: Lanes>(
    row: &Row<X>,
    (out, room): (*mut Y, *mut f32),
    logit: Linear,
    (_, hole): At<'_>,
    finish: Finish<'_>,
) -> Option<f32> {
    let mut kept = Kept::new();
    // SAFETY: the caller's contract for the row and the room.
    unsafe {
        let sum = row.sum_and_keep_apart(logit, *hole, room, &mut kept);
        let factors = finish(&sum)?;
        row.rescale_apart(out, room, logit, (&sum, &kept), &factors.terms(row.transform));
        Some(factors.at_target(sum.rest, sum.target, hole.own()))
    }
}

/// Two visits to the logits, with an exponential each.
///
/// # Safety
/// As for [`LineOp::line`], of the row and the target.
#[inline(never)]
unsafe fn twice<X: Lanes, Y: Lanes>(
    row: &Row<X>,
    out: *mut Y,
    (class, hole): At<'_>,
    finish: Finish<'_>,
) -> Option<f32> {
    // SAFETY: the caller's contract for the row.
    unsafe {
        let sum = row.sum(Some(*hole));
        let factors = finish(&sum)?;
        let terms = factors.terms(row.transform);
        row.gradient(out, Some(class), Normalizer::Sum(&sum), &terms);
        Some(factors.at_target(sum.rest, sum.target, hole.own()))
    }
}

/// The row as one of f32 that is worked on in place, if it is that.
fn row_of_f32<X: Lanes, Y: Lanes>(row: &Row<X>, out: *mut Y) -> Option<Row<f32>> {
    let f32_both = X::DTYPE == DType::F32 && Y::DTYPE == DType::F32;
    let x = row.x.cast::<f32>();
    (f32_both && x == out.cast_const().cast()).then_some(Row {
        level: row.level,
        spread: row.spread,
        transform: row.transform,
        x,
        len: row.len,
        smoothing: row.smoothing,
        weights: row.weights,
        also: row.also,
    })
}

/// Gradient of a line from its saved log-sum-exp.
struct Backward<'a> {
    call: Call<'a>,
    lse: &'a [f32],
}

impl LineOp for Backward<'_> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        let batch = self.call.batch;
        // SAFETY: the caller's contract for the line; the census found the class in range.
        unsafe {
            let Some(class) = batch.targets.class(line.index) else {
                return fill(&line, 0.0);
            };
            let row = Row { smoothing: false, ..self.call.row(&line) };
            let hole = batch.hole(line.x, class);
            let saved = self.lse[line.index];
            let at_target = if coarse(saved, batch.transform) {
                let mut finish = |sum: &RowSum| {
                    (!sum.undefined()).then(|| batch.factors(line.index, class, sum.lse()))
                };
                let Some(at_target) = twice(&row, line.y, (class, &hole), &mut finish) else {
                    return fill(&line, f32::NAN);
                };
                at_target
            } else {
                let factors = batch.factors(line.index, class, f64::from(saved));
                let terms = factors.terms(batch.transform);
                let rest = row.gradient(line.y, Some(class), Normalizer::Lse(saved), &terms);
                factors.at_target(rest, (hole.z - f64::from(saved)).exp(), hole.own())
            };
            line.y.add(class).write(Y::from_f32(at_target));
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

#[derive(Clone, Copy)]
pub(crate) enum Pass<'a> {
    Forward(Results),
    /// With more of each row than its loss and ranks.
    Tokens(Results, TokenResults, TokenUpstream<'a>),
    Backward {
        lse: &'a [f32],
    },
}

impl Pass<'_> {
    /// Where losses and ranks of rows go.
    fn results(&self) -> Option<Results> {
        match self {
            Pass::Forward(results) | Pass::Tokens(results, ..) => Some(*results),
            Pass::Backward { .. } => None,
        }
    }
}

/// Layout of the rows of logits.
pub(crate) fn rows(checked: &Checked<'_>, logits: &TensorRef<'_>) -> Lines {
    Lines::new(&logits.shape(), logits.row_stride(), |d| d == checked.class_dim)
}

impl Cpu {
    /// Goes through rows of logits that somebody else has made, whose batch this is; in place with a gradient.
    pub(crate) fn cross_entropy_of_rows(
        &self,
        batch: &Batch<'_>,
        pass: Pass<'_>,
        logits: Logits<'_>,
        gradient: bool,
    ) {
        let lines = logits.lines(batch.targets.classes, logits.stride);
        let base = logits.data.as_mut_ptr();
        let x = Source { base: base.cast_const(), lines };
        self.run(batch, pass, x, gradient.then_some(Sink { base, lines }));
    }

    fn run<X: Lanes, Y: Lanes>(
        &self,
        batch: &Batch<'_>,
        pass: Pass<'_>,
        x: Source<X>,
        y: Option<Sink<Y>>,
    ) -> Sums {
        let classes = (batch.targets.classes, batch.unit);
        with_weights(batch.weights, classes, batch.epsilon > 0.0, |weights| {
            // Where a gradient is wanted from a saved log-sum-exp, the rows' own sums are at hand, and better.
            let results = pass.results();
            let standing = results.is_some_and(|results| results.ranks.wanted());
            if short(&x) && !matches!(pass, Pass::Tokens(..)) {
                let (level, gradient) = (self.level, y.is_some());
                let upstream = batch.scaling.upstream_of_all();
                let plain = Short::is_plain(batch, upstream);
                let op = Short { level, batch, weights, results, upstream, gradient, plain };
                // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
                // exclusively, and in place the output is the input itself.
                return unsafe { each_tile(self, x, None::<Source<f32>>, y, &op) };
            }
            let call = Call { cpu: self, batch, weights, standing };
            let none = None::<Source<f32>>;
            // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
            // exclusively, and in place the output is the input itself.
            unsafe {
                match pass {
                    Pass::Forward(results) => {
                        each_line(self, x, none, y, &Forward { call, results })
                    }
                    Pass::Tokens(results, tokens, upstream) => {
                        each_line(self, x, none, y, &Tokens { call, results, tokens, upstream })
                    }
                    Pass::Backward { lse } => {
                        each_line(self, x, none, y, &Backward { call, lse });
                        Sums::default()
                    }
                }
            }
        })
    }

    pub(crate) fn cross_entropy_forward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        mut out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::Number(1.0))?;
        let lines = rows(checked, &logits);
        let tokens = TokenResults::of(&mut out)?;
        let mut buffers = Buffers::new(out)?;
        let results = buffers.results(batch.scaling.reduction);
        let pass = match tokens {
            Some(tokens) => Pass::Tokens(results, tokens, TokenUpstream::NOTHING),
            None => Pass::Forward(results),
        };
        let sums = each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines };
            Ok(self.run(&batch, pass, x, None::<Sink<f32>>))
        })?;
        buffers.finish(&batch.scaling, &sums, batch.lambda > 0.0);
        Ok(())
    }

    pub(crate) fn cross_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        logits: (Option<TensorRef<'_>>, TensorMut<'_>),
        upstream: CrossEntropyUpstream<'_>,
        mut out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::new(&upstream.grad_output)?)?;
        let of_tokens = TokenUpstream::new(&upstream)?;
        let tokens = TokenResults::of(&mut out)?;
        let mut buffers = Buffers::new(out)?;
        let results = buffers.results(batch.scaling.reduction);
        let pass = match tokens {
            None if !upstream.of_tokens() => Pass::Forward(results),
            tokens => Pass::Tokens(results, tokens.unwrap_or_default(), of_tokens),
        };
        let sums = self.with_gradient(&batch, pass, checked, logits)?;
        buffers.finish(&batch.scaling, &sums, batch.lambda > 0.0);
        Ok(())
    }

    pub(crate) fn cross_entropy_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::new(&grad_output)?)?;
        let lse = host_f32_ref(lse, "lse")?;
        let logits = (Some(logits), grad_logits);
        self.with_gradient(&batch, Pass::Backward { lse }, checked, logits)?;
        Ok(())
    }

    pub(crate) fn cross_entropy_backward_in_place(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::new(&grad_output)?)?;
        let lse = host_f32_ref(lse, "lse")?;
        self.with_gradient(&batch, Pass::Backward { lse }, checked, (None, logits))?;
        Ok(())
    }

    /// The logits' gradient, of logits that are kept or over them.
    fn with_gradient(
        &self,
        batch: &Batch<'_>,
        pass: Pass<'_>,
        checked: &Checked<'_>,
        (from, grad_logits): (Option<TensorRef<'_>>, TensorMut<'_>),
    ) -> Result<Sums> {
        let lines = rows(checked, &grad_logits.as_ref());
        let named = if from.is_some() { "grad_logits" } else { "logits" };
        each_float!(grad_logits.into_host_data(), named, HostMut, y => {
            let base = y.as_mut_ptr();
            let mut x = Source { base: base.cast_const(), lines };
            if let Some(from) = from {
                x = Source { base: kept(&x, from)?.as_ptr(), lines: rows(checked, &from) };
            }
            Ok(self.run(batch, pass, x, Some(Sink { base, lines })))
        })
    }
}
