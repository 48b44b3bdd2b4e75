//! Cross entropy on the CPU: the batch's numbers first, then every row by itself.

use super::lines::{Line, LineOp, Lines, Sink, Source, SyncPtr, each_line};
use super::log_softmax::fill;
use super::logit::Transform;
use super::logsumexp::COARSE_LSE;
use super::row::{Hole, Row, RowSum, Terms};
use super::simd::Lanes;
use super::targets::{Census, Targets, Weights};
use super::{Cpu, each_float, host_data, host_f32, host_f32_ref, host_like};
use crate::loss::{Checked, GradOutput};
use crate::tensor::HostRef;
use crate::{CrossEntropyOut, DType, Reduction, Result, TensorMut, TensorRef};
use std::cell::Cell;

/// Numbers of the batch that every row uses.
struct Batch<'a> {
    targets: Targets<'a>,
    weights: Weights<'a>,
    weight_sum: f64,
    census: Census,
    reduction: Reduction,
    epsilon: f64,
    lambda: f64,
    scale: f64,
    cap: Option<f64>,
    upstream: Upstream<'a>,
}

#[derive(Clone, Copy)]
enum Upstream<'a> {
    Number(f32),
    PerRow(HostRef<'a>),
}

impl<'a> Batch<'a> {
    /// Reads targets and weights; an error for what is wrong with them.
    fn new(cpu: &Cpu, checked: &Checked<'a>, upstream: Upstream<'a>) -> Result<Batch<'a>> {
        let options = checked.options;
        let weights = Weights(options.weight.map(|w| host_data(w, "weight")).transpose()?);
        let weight_sum = weights.sum(checked.classes)?;
        let targets = Targets {
            indices: host_data(checked.target, "target")?,
            rows: checked.target.elements(),
            classes: checked.classes,
            ignore_index: options.ignore_index,
        };
        Ok(Batch {
            targets,
            weights,
            weight_sum,
            census: targets.census(cpu, &weights)?,
            reduction: options.reduction,
            epsilon: options.label_smoothing,
            lambda: options.lse_square_scale,
            scale: f64::from(options.logit_scale),
            cap: options.softcap.map(f64::from),
            upstream,
        })
    }

    /// ε/V.
    fn smooth(&self) -> f64 {
        match self.epsilon {
            0.0 => 0.0,
            epsilon => epsilon / self.targets.classes as f64,
        }
    }

    /// The target's column with its z, slope and smoothing weight.
    ///
    /// # Safety
    /// `class` is a column of the row at `x`.
    unsafe fn hole<X: Lanes>(&self, x: *const X, class: usize) -> Hole {
        // SAFETY: the caller's contract.
        let x = f64::from(unsafe { x.add(class).read() }.to_f32());
        let (z, slope) = match self.cap {
            Some(_) if x == f64::NEG_INFINITY => (x, 0.0),
            Some(cap) => {
                let u = self.scale * x / cap;
                let q = (-2.0 * u.abs()).exp();
                (cap * u.tanh(), self.scale * 4.0 * q / ((1.0 + q) * (1.0 + q)))
            }
            None => (self.scale * x, self.scale),
        };
        let weight = if self.epsilon > 0.0 { self.weights.get(class) } else { 0.0 };
        Hole { column: class, z, slope, weight }
    }

    /// ℓ of section 3 (without z-loss) and the z-loss of a kept row.
    fn loss(&self, sum: &RowSum, class: usize) -> (f64, f64) {
        let hard = (1.0 - self.epsilon) * self.weights.get(class);
        let mut loss = 0.0;
        if hard != 0.0 {
            loss += hard * sum.nll();
        }
        if self.epsilon > 0.0 {
            // Σ w·(lse − z) = (Σ w)·ln Σ + Σ w·(max − z).
            let spread = match self.weight_sum {
                0.0 => 0.0,
                weight_sum => weight_sum * sum.log_sum,
            };
            loss += self.smooth() * (spread + sum.deviation);
        }
        let mut z_loss = 0.0;
        if self.lambda > 0.0 {
            z_loss = self.lambda * sum.lse() * sum.lse();
        }
        if sum.undefined() {
            (f64::NAN, if self.lambda > 0.0 { f64::NAN } else { 0.0 })
        } else {
            (loss, z_loss)
        }
    }

    /// Upstream gradients of a row's ℓ and of its z-loss: the reduction is in them.
    fn upstream(&self, row: usize) -> (f64, f64) {
        let g = match self.upstream {
            Upstream::Number(g) => f64::from(g),
            Upstream::PerRow(g) => f64::from(g.float(row)),
        };
        match self.reduction {
            Reduction::None | Reduction::Sum => (g, g),
            Reduction::Mean if self.census.weight == 0.0 => (f64::NAN, f64::NAN),
            Reduction::Mean => (g / self.census.weight, g / self.census.kept as f64),
        }
    }

    /// Factors of p_j, of w_j and of the target's own term, dz/dx not included.
    fn factors(&self, row: usize, class: usize, lse: f64) -> Factors {
        let (g, g_z) = self.upstream(row);
        let hard = (1.0 - self.epsilon) * self.weights.get(class);
        let soft = self.smooth();
        let z = if self.lambda > 0.0 { g_z * 2.0 * self.lambda * lse } else { 0.0 };
        Factors {
            hard: g * hard,
            prob_without_hard: g * soft * self.weight_sum + z,
            smooth: g * soft,
        }
    }

    /// The result from what the kept rows add up to.
    fn reduce(&self, sum: &Sums) -> (f32, f32) {
        let (loss, z_loss) = match self.reduction {
            Reduction::None | Reduction::Sum => (sum.loss, sum.z_loss),
            Reduction::Mean => {
                let (w, n) = (self.census.weight, self.census.kept as f64);
                // No kept row makes 0/0; no weight makes NaN of whatever the sum is.
                let loss = if w == 0.0 { f64::NAN } else { sum.loss / w };
                (loss, if self.lambda > 0.0 { sum.z_loss / n } else { 0.0 })
            }
        };
        ((loss + z_loss) as f32, z_loss as f32)
    }
}

/// What a row's gradient is made of, in f64.
#[derive(Clone, Copy)]
struct Factors {
    /// g·(1−ε)·w_t: multiplies p_t − 1 at the target and p_j elsewhere.
    hard: f64,
    /// The rest of what multiplies p_j.
    prob_without_hard: f64,
    /// g·ε/V: multiplies w_j.
    smooth: f64,
}

impl Factors {
    /// For the vector loops: the constant part of dz/dx multiplied in.
    fn terms(&self, transform: Transform) -> Terms {
        let slope = f64::from(transform.slope());
        Terms {
            prob: (self.hard + self.prob_without_hard) * slope,
            smooth: (self.smooth * slope) as f32,
        }
    }

    /// The target's gradient from the exponentials of all other classes and of the target:
    /// p_t − 1 is −rest/total, a sum over classes and not a difference.
    fn at_target(&self, rest: f64, target: f64, hole: &Hole) -> f32 {
        let total = rest + target;
        let g = self.prob_without_hard * (target / total)
            - self.hard * (rest / total)
            - self.smooth * hole.weight;
        (g * hole.slope) as f32
    }
}

/// Losses of kept rows, added up.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    loss: f64,
    z_loss: f64,
}

/// Where the results of rows go; null where nobody asked.
#[derive(Clone, Copy)]
struct Results {
    loss: SyncPtr<f32>,
    z_loss: SyncPtr<f32>,
    lse: SyncPtr<f32>,
}

impl Results {
    /// Writes one row's results and adds them up.
    ///
    /// # Safety
    /// Each pointer is null or good for an element a row; nobody else writes this row's.
    unsafe fn put(&self, row: usize, (loss, z_loss): (f64, f64), lse: f32, sums: &mut Sums) {
        let values =
            [(self.loss, (loss + z_loss) as f32), (self.z_loss, z_loss as f32), (self.lse, lse)];
        for (out, value) in values {
            if !out.get().is_null() {
                // SAFETY: the caller's contract.
                unsafe { out.get().add(row).write(value) };
            }
        }
        sums.loss += loss;
        sums.z_loss += z_loss;
    }
}

/// A batch with what its rows are worked on with.
struct Call<'a> {
    cpu: &'a Cpu,
    batch: &'a Batch<'a>,
    transform: Transform,
    /// Smoothing weights; null for 1 each.
    weights: SyncPtr<f32>,
}

impl Call<'_> {
    fn row<X, A, Y>(&self, line: &Line<X, A, Y>) -> Row<X> {
        Row {
            level: self.cpu.level,
            spread: line.spread,
            transform: self.transform,
            x: line.x,
            len: line.len,
            smoothing: self.batch.epsilon > 0.0,
            weights: self.weights.get(),
        }
    }
}

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
                if !line.y.is_null() {
                    fill(&line, 0.0);
                }
                return;
            };
            let row = self.call.row(&line);
            let hole = batch.hole(line.x, class);
            let mut finish = |sum: &RowSum| {
                self.results.put(line.index, batch.loss(sum, class), sum.lse() as f32, sums);
                batch.factors(line.index, class, sum.lse())
            };
            if line.y.is_null() {
                finish(&row.sum(Some(hole)));
                return;
            }
            // In place on f32 the exponentials stay where the logits were: one exponential and
            // one read from memory an element. Narrower types would round them.
            let at_target = match (self.call.transform, row_of_f32(&row, line.y)) {
                (Transform::Linear(logit), Some(row)) => {
                    let kept = row.sum_and_keep(logit, hole);
                    let factors = finish(&kept.0);
                    if kept.0.undefined() {
                        return fill(&line, f32::NAN);
                    }
                    row.rescale(&kept, &factors.terms(self.call.transform));
                    factors.at_target(kept.0.rest, kept.0.target, &hole)
                }
                _ => {
                    let sum = row.sum(Some(hole));
                    let factors = finish(&sum);
                    if sum.undefined() {
                        return fill(&line, f32::NAN);
                    }
                    let (from, terms) =
                        ((sum.max, sum.total()), factors.terms(self.call.transform));
                    row.gradient(line.y, Some(class), from, &terms);
                    factors.at_target(sum.rest, sum.target, &hole)
                }
            };
            line.y.add(class).write(Y::from_f32(at_target));
        }
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.loss += part.loss;
        total.z_loss += part.z_loss;
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
            let (reference, total, lse) = if saved.abs() <= COARSE_LSE {
                (saved, 1.0, f64::from(saved))
            } else {
                let sum = row.sum(Some(hole));
                if sum.undefined() {
                    return fill(&line, f32::NAN);
                }
                (sum.max, sum.total(), sum.lse())
            };
            let factors = batch.factors(line.index, class, lse);
            let terms = factors.terms(self.call.transform);
            let rest = row.gradient(line.y, Some(class), (reference, total), &terms);
            let target = (hole.z - f64::from(reference)).exp();
            let at_target = factors.at_target(rest, target, &hole);
            line.y.add(class).write(Y::from_f32(at_target));
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

thread_local! {
    /// Smoothing weights widened to f32, kept so that later calls allocate nothing. Taken out
    /// while in use: a thread that waits for others may meanwhile be handed another call.
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with the smoothing weights as f32; null for 1 each.
fn with_smoothing_weights<R>(batch: &Batch<'_>, work: impl FnOnce(SyncPtr<f32>) -> R) -> R {
    match batch.weights.0 {
        Some(HostRef::F32(w)) => work(SyncPtr(w.as_ptr().cast_mut())),
        Some(w) if batch.epsilon > 0.0 => {
            let mut wide = WIDENED.take();
            wide.clear();
            wide.extend((0..batch.targets.classes).map(|c| w.float(c)));
            let result = work(SyncPtr(wide.as_mut_ptr()));
            WIDENED.set(wide);
            result
        }
        _ => work(SyncPtr(std::ptr::null_mut())),
    }
}

#[derive(Clone, Copy)]
enum Pass<'a> {
    Forward(Results),
    Backward { lse: &'a [f32] },
}

/// Layout of the rows of logits.
fn rows(checked: &Checked<'_>, logits: &TensorRef<'_>) -> Lines {
    Lines::new(&logits.shape(), logits.row_stride(), |d| d == checked.class_dim)
}

fn upstream<'a>(grad_output: &GradOutput<'a>) -> Result<Upstream<'a>> {
    Ok(match grad_output {
        GradOutput::Number(g) => Upstream::Number(*g),
        GradOutput::Tensor(t) => {
            let data = host_data(*t, "grad_output")?;
            match t.elements() {
                1 => Upstream::Number(data.float(0)),
                _ => Upstream::PerRow(data),
            }
        }
    })
}

/// The caller's buffers for a forward pass, as slices.
struct Buffers<'o> {
    loss: &'o mut [f32],
    z_loss: Option<&'o mut [f32]>,
    lse: Option<&'o mut [f32]>,
}

impl<'o> Buffers<'o> {
    fn new(out: CrossEntropyOut<'o>) -> Result<Buffers<'o>> {
        Ok(Buffers {
            loss: host_f32(out.loss, "loss")?,
            z_loss: out.z_loss.map(|t| host_f32(t, "z_loss")).transpose()?,
            lse: out.lse.map(|t| host_f32(t, "lse")).transpose()?,
        })
    }

    /// Where rows write: losses only for the reduction none.
    fn results(&mut self, reduction: Reduction) -> Results {
        let pointer = |slice: Option<&mut &'o mut [f32]>| match slice {
            Some(slice) => SyncPtr(slice.as_mut_ptr()),
            None => SyncPtr(std::ptr::null_mut()),
        };
        let per_row = reduction == Reduction::None;
        Results {
            loss: pointer(Some(&mut self.loss).filter(|_| per_row)),
            z_loss: pointer(self.z_loss.as_mut().filter(|_| per_row)),
            lse: pointer(self.lse.as_mut()),
        }
    }

    fn finish(&mut self, batch: &Batch<'_>, sums: &Sums) {
        if batch.reduction == Reduction::None {
            return;
        }
        let (loss, part) = batch.reduce(sums);
        self.loss[0] = loss;
        if let Some(z_loss) = &mut self.z_loss {
            z_loss[0] = part;
        }
    }
}

impl Cpu {
    fn run<X: Lanes, Y: Lanes>(
        &self,
        batch: &Batch<'_>,
        pass: Pass<'_>,
        x: Source<X>,
        y: Option<Sink<Y>>,
    ) -> Sums {
        let transform = Transform::new(batch.scale as f32, batch.cap.map(|cap| cap as f32));
        with_smoothing_weights(batch, |weights| {
            let call = Call { cpu: self, batch, transform, weights };
            let none = None::<Source<f32>>;
            // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
            // exclusively, and in place the output is the input itself.
            unsafe {
                match pass {
                    Pass::Forward(results) => {
                        each_line(self, x, none, y, &Forward { call, results })
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
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, Upstream::Number(1.0))?;
        let lines = rows(checked, &logits);
        let mut buffers = Buffers::new(out)?;
        let pass = Pass::Forward(buffers.results(batch.reduction));
        let sums = each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines };
            Ok(self.run(&batch, pass, x, None::<Sink<f32>>))
        })?;
        buffers.finish(&batch, &sums);
        Ok(())
    }

    pub(crate) fn cross_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        grad_output: GradOutput<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, upstream(&grad_output)?)?;
        let mut buffers = Buffers::new(out)?;
        let pass = Pass::Forward(buffers.results(batch.reduction));
        let sums = self.run_in_place(&batch, pass, checked, logits)?;
        buffers.finish(&batch, &sums);
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
        let batch = Batch::new(self, checked, upstream(&grad_output)?)?;
        let lse = host_f32_ref(lse, "lse")?;
        let x_lines = rows(checked, &logits);
        let y_lines = rows(checked, &grad_logits.as_ref());
        each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: x_lines };
            let y = host_like(&x, grad_logits, "grad_logits")?;
            let y = Sink { base: y.as_mut_ptr(), lines: y_lines };
            self.run(&batch, Pass::Backward { lse }, x, Some(y));
            Ok(())
        })
    }

    pub(crate) fn cross_entropy_backward_in_place(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, checked, upstream(&grad_output)?)?;
        let lse = host_f32_ref(lse, "lse")?;
        self.run_in_place(&batch, Pass::Backward { lse }, checked, logits)?;
        Ok(())
    }

    fn run_in_place(
        &self,
        batch: &Batch<'_>,
        pass: Pass<'_>,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
    ) -> Result<Sums> {
        let lines = rows(checked, &logits.as_ref());
        each_float!(logits.into_host_data(), "logits", HostMut, x => {
            let base = x.as_mut_ptr();
            let x = Source { base: base.cast_const(), lines };
            Ok(self.run(batch, pass, x, Some(Sink { base, lines })))
        })
    }
}
