//! Adaptive log-softmax on the CPU: rows are grouped by cluster once (`bins.rs`); the head and each
//! cluster are a softmax over products (`softmax.rs`, `stored.rs`, `tiled.rs`); what is asked of
//! all classes is in `distribution.rs`.

mod bins;
mod distribution;
mod matrix;
mod softmax;
mod stored;
mod tiled;

use super::batch::Upstream;
use super::lines::SyncPtr;
use super::{Cpu, host_f32};
use crate::loss::{
    AdaptiveGradOut, AdaptiveOut, AdaptiveParameters, AdaptiveTail, CheckedAdaptive, GradOutput,
};
use crate::{Reduction, Result, TensorRef};
use bins::Bins;
use matrix::{Gradient, Matrix, Panel, product, with_scratch, zeros};
use softmax::{Backward, Softmax};
use std::borrow::Cow;

/// The parameters as matrices.
struct Matrices<'a> {
    head: Matrix<'a>,
    bias: Option<Vec<f32>>,
    tails: Vec<AdaptiveTail<Matrix<'a>>>,
}

impl<'a> Matrices<'a> {
    fn new(parameters: &AdaptiveParameters<TensorRef<'a>>) -> Result<Matrices<'a>> {
        let matrix = |tensor: &TensorRef<'a>| Matrix::new("parameters", tensor);
        let bias = match &parameters.head_bias {
            Some(bias) => {
                let mut wide = zeros("head bias in f32", bias.elements())?;
                matrix(bias)?.widen(0, &mut wide);
                Some(wide)
            }
            None => None,
        };
        let tails = parameters.tails.iter().map(|tail| {
            let (projection, weight) = (matrix(&tail.projection)?, matrix(&tail.weight)?);
            Ok(AdaptiveTail { projection, weight })
        });
        let tails = tails.collect::<Result<_>>()?;
        Ok(Matrices { head: matrix(&parameters.head_weight)?, bias, tails })
    }
}

/// The gradients of the parameters, as matrices.
struct Gradients<'a> {
    parameters: AdaptiveParameters<Gradient<'a>>,
}

impl<'a> Gradients<'a> {
    fn new(grads: AdaptiveParameters<crate::TensorMut<'a>>, add: bool) -> Result<Gradients<'a>> {
        let gradient = |tensor| Gradient::new("grad_parameters", tensor, add);
        Ok(Gradients {
            parameters: AdaptiveParameters {
                head_weight: gradient(grads.head_weight)?,
                head_bias: grads.head_bias.map(gradient).transpose()?,
                tails: (grads.tails.into_iter())
                    .map(|tail| {
                        let (projection, weight) =
                            (gradient(tail.projection)?, gradient(tail.weight)?);
                        Ok(AdaptiveTail { projection, weight })
                    })
                    .collect::<Result<_>>()?,
            },
        })
    }
}

/// Elements of rows of the input that one task copies.
const PIECE: usize = 64 * 1024;

/// Some rows of the input, in f32 and next to one another.
fn gather<'a>(cpu: &Cpu, input: &Matrix<'a>, rows: &[usize]) -> Result<Cow<'a, [f32]>> {
    let width = input.columns;
    let all = rows.len() == input.rows;
    if let Some(data) = input.contiguous().filter(|_| all) {
        return Ok(Cow::Borrowed(data));
    }
    let mut wide = zeros("input in f32", rows.len() * width)?;
    let out = Panel::of_mut(&mut wide, width);
    let each = PIECE.div_ceil(width);
    cpu.share(rows.len().div_ceil(each), 1, &|task| {
        for (at, &row) in rows.iter().enumerate().skip(task * each).take(each) {
            // SAFETY: a row of this task alone.
            input.widen(row, unsafe { out.row(at, width) });
        }
    });
    Ok(Cow::Owned(wide))
}

/// `out = rows of x · wᵀ`, a block of rows a task. `rows`: which of x, or all.
fn project(cpu: &Cpu, x: &[f32], rows: Option<&[usize]>, weight: &Matrix<'_>) -> Result<Vec<f32>> {
    let (width, features) = (weight.rows, weight.columns);
    let n = rows.map_or(x.len() / features, <[usize]>::len);
    let mut wide = zeros("projection in f32", weight.scratch(width))?;
    let weight = weight.panel(0..width, &mut wide);
    let mut hidden = zeros("hidden rows", n * width)?;
    let out = Panel::of_mut(&mut hidden, width);
    let block = stored::block(n);
    cpu.share(n.div_ceil(block), 1, &|task| {
        let at = task * block;
        let n = block.min(n - at);
        let gathered = if rows.is_some() { n * features } else { 0 };
        with_scratch([gathered], |[scratch]| {
            let x = match rows {
                Some(rows) => pick(x, features, &rows[at..at + n], scratch),
                None => Panel::of(&x[at * features..], features),
            };
            // SAFETY: rows of this task alone.
            unsafe {
                product(false, out.at(at, 0), [x, weight.transposed()], [n, width, features])
            };
        });
    });
    Ok(hidden)
}

/// Copies some rows into `out`.
fn pick(x: &[f32], features: usize, rows: &[usize], out: &mut [f32]) -> Panel {
    for (&row, out) in rows.iter().zip(out.chunks_exact_mut(features)) {
        out.copy_from_slice(&x[row * features..][..features]);
    }
    Panel::of_mut(out, features)
}

/// A batch with what its results are made of.
struct Batch<'a> {
    cpu: &'a Cpu,
    bins: Bins,
    matrices: Matrices<'a>,
    /// The kept rows of the input.
    x: Cow<'a, [f32]>,
    features: usize,
}

impl<'a> Batch<'a> {
    fn new(cpu: &'a Cpu, checked: &CheckedAdaptive<'a>) -> Result<Batch<'a>> {
        let input = Matrix::new("input", &checked.input)?;
        let matrices = Matrices::new(checked.parameters)?;
        let bins = Bins::new(checked)?;
        let x = gather(cpu, &input, &bins.kept)?;
        Ok(Batch { cpu, bins, matrices, x, features: input.columns })
    }

    fn head(&self) -> Softmax<'_> {
        Softmax {
            cpu: self.cpu,
            hidden: &self.x,
            stride: self.features,
            weight: self.matrices.head,
            bias: self.matrices.bias.as_deref(),
            targets: &self.bins.columns,
        }
    }

    fn cluster<'b>(&'b self, i: usize, hidden: &'b [f32]) -> Softmax<'b> {
        let weight = self.matrices.tails[i].weight;
        let (stride, targets) = (weight.columns, &self.bins.clusters[i].targets);
        Softmax { cpu: self.cpu, hidden, stride, weight, bias: None, targets }
    }

    /// Log-probability of each kept row's target.
    fn forward(&self) -> Result<Vec<f64>> {
        let mut output = vec![0.0; self.bins.kept.len()];
        self.head().run(&mut output, None)?;
        for (i, bin) in self.bins.clusters.iter().enumerate().filter(|(_, b)| !b.rows.is_empty()) {
            let projection = &self.matrices.tails[i].projection;
            let hidden = project(self.cpu, &self.x, Some(&bin.rows), projection)?;
            let mut part = vec![0.0; bin.rows.len()];
            self.cluster(i, &hidden).run(&mut part, None)?;
            bin.rows.iter().zip(&part).for_each(|(&row, part)| output[row] += part);
        }
        Ok(output)
    }

    /// The same with the gradients of the kept rows of the input (if asked for) and of the
    /// parameters. `factors` are the upstream gradients of −output.
    fn backward(
        &self,
        factors: &[f64],
        mut d_x: Option<&mut [f32]>,
        grads: Option<&Gradients<'_>>,
    ) -> Result<Vec<f64>> {
        let grads = grads.map(|g| &g.parameters);
        let mut output = vec![0.0; self.bins.kept.len()];
        let head_bias = grads.and_then(|g| g.head_bias.as_ref());
        let mut bias = zeros("bias gradient", head_bias.map_or(0, |bias| bias.columns))?;
        let weight = grads.map(|g| &g.head_weight);
        let backward = Backward {
            factors,
            hidden: d_x.as_deref_mut(),
            weight,
            bias: head_bias.map(|_| &mut bias[..]),
        };
        self.head().run(&mut output, Some(backward))?;
        if let (Some(weight), true) = (weight, output.is_empty()) {
            weight.clear(self.cpu);
        }
        if let Some(grad) = head_bias {
            write_row(grad, &bias);
        }
        for i in 0..self.bins.clusters.len() {
            self.backward_cluster(i, factors, &mut output, d_x.as_deref_mut(), grads)?;
        }
        Ok(output)
    }

    fn backward_cluster(
        &self,
        i: usize,
        factors: &[f64],
        output: &mut [f64],
        d_x: Option<&mut [f32]>,
        grads: Option<&AdaptiveParameters<Gradient<'_>>>,
    ) -> Result<()> {
        let (bin, projection) = (&self.bins.clusters[i], &self.matrices.tails[i].projection);
        let grads = grads.map(|g| &g.tails[i]);
        if bin.rows.is_empty() {
            if let Some(grads) = grads {
                grads.projection.clear(self.cpu);
                grads.weight.clear(self.cpu);
            }
            return Ok(());
        }
        let hidden = project(self.cpu, &self.x, Some(&bin.rows), projection)?;
        let mut part = vec![0.0; bin.rows.len()];
        let factors: Vec<f64> = bin.rows.iter().map(|&row| factors[row]).collect();
        let mut d_hidden = zeros("hidden gradients", hidden.len())?;
        let backward = Backward {
            factors: &factors,
            hidden: Some(&mut d_hidden),
            weight: grads.map(|g| &g.weight),
            bias: None,
        };
        self.cluster(i, &hidden).run(&mut part, Some(backward))?;
        bin.rows.iter().zip(&part).for_each(|(&row, part)| output[row] += part);
        if let Some(d_x) = d_x {
            self.back_through(projection, &bin.rows, &d_hidden, d_x)?;
        }
        if let Some(grads) = grads {
            self.projection_gradient(&grads.projection, &bin.rows, &d_hidden);
        }
        Ok(())
    }

    /// Adds `dh · projection` to some rows of the input's gradient.
    fn back_through(
        &self,
        projection: &Matrix<'_>,
        rows: &[usize],
        d_hidden: &[f32],
        d_x: &mut [f32],
    ) -> Result<()> {
        let (width, features) = (projection.rows, self.features);
        let mut wide = zeros("projection in f32", projection.scratch(width))?;
        let weight = projection.panel(0..width, &mut wide);
        let (d_x, d_hidden) = (Panel::of_mut(d_x, features), Panel::of(d_hidden, width));
        let block = stored::block(rows.len());
        self.cpu.share(rows.len().div_ceil(block), 1, &|task| {
            let at = task * block;
            let n = block.min(rows.len() - at);
            with_scratch([n * features], |[scratch]| {
                let out = Panel::of_mut(scratch, features);
                // SAFETY: a cluster's rows are different ones, each of this task alone.
                unsafe {
                    product(false, out, [d_hidden.at(at, 0), weight], [n, features, width]);
                    for (i, &row) in rows[at..at + n].iter().enumerate() {
                        let to = d_x.row(row, features);
                        to.iter_mut().zip(out.row(i, features)).for_each(|(to, from)| *to += *from);
                    }
                }
            });
        });
        Ok(())
    }

    /// `dhᵀ · rows of x`.
    fn projection_gradient(&self, grad: &Gradient<'_>, rows: &[usize], d_hidden: &[f32]) {
        /// Rows of the projection that one task makes.
        const ROWS: usize = 32;
        let (width, features, n) = (grad.rows, self.features, rows.len());
        let d_hidden = Panel::of(d_hidden, width);
        with_scratch([n * features], |[gathered]| {
            let x = pick(&self.x, features, rows, gathered);
            self.cpu.share(width.div_ceil(ROWS), 1, &|task| {
                let of = task * ROWS..((task + 1) * ROWS).min(width);
                with_scratch([grad.scratch(of.len())], |[scratch]| {
                    // SAFETY: rows of this task alone.
                    unsafe {
                        let d_hidden = d_hidden.at(0, of.start).transposed();
                        grad.rows(of.clone(), scratch, |out, add| {
                            product(add, out, [d_hidden, x], [of.len(), features, n]);
                        });
                    }
                });
            });
        });
    }

    /// The loss of a kept row. A weight of 0 silences an infinite one.
    fn row_loss(&self, row: usize, output: f64) -> f64 {
        match self.bins.weights[row] {
            0.0 => 0.0,
            weight => -weight * output,
        }
    }

    fn write(&self, checked: &CheckedAdaptive<'_>, output: &[f64], [out, loss]: [&mut [f32]; 2]) {
        out.fill(0.0);
        let mut sum = 0.0;
        if checked.options.reduction == Reduction::None {
            loss.fill(0.0);
        }
        for (i, (&row, &output)) in self.bins.kept.iter().zip(output).enumerate() {
            out[row] = output as f32;
            let of_row = self.row_loss(i, output);
            sum += of_row;
            if checked.options.reduction == Reduction::None {
                loss[row] = of_row as f32;
            }
        }
        match checked.options.reduction {
            Reduction::None => {}
            Reduction::Sum => loss[0] = sum as f32,
            Reduction::Mean | Reduction::BatchMean => {
                let weight = self.bins.weight;
                loss[0] = if weight == 0.0 { f32::NAN } else { (sum / weight) as f32 };
            }
        }
    }

    /// Upstream gradients of the kept rows' −output.
    fn factors(&self, reduction: Reduction, upstream: &Upstream<'_>) -> Vec<f64> {
        let divisor = match reduction {
            Reduction::None | Reduction::Sum => 1.0,
            Reduction::Mean | Reduction::BatchMean if self.bins.weight == 0.0 => f64::NAN,
            Reduction::Mean | Reduction::BatchMean => self.bins.weight,
        };
        (self.bins.kept.iter().zip(&self.bins.weights))
            .map(|(&row, weight)| f64::from(upstream.of(row)) * weight / divisor)
            .collect()
    }
}

/// Writes a gradient of one row.
fn write_row(grad: &Gradient<'_>, from: &[f32]) {
    with_scratch([grad.scratch(1)], |[scratch]| {
        // SAFETY: the only row, which is borrowed exclusively.
        unsafe {
            grad.rows(0..1, scratch, |out, add| {
                for (out, from) in out.row(0, from.len()).iter_mut().zip(from) {
                    *out = if add { *out + from } else { *from };
                }
            });
        }
    });
}

impl Cpu {
    pub(crate) fn adaptive_log_softmax_forward(
        &self,
        checked: &CheckedAdaptive<'_>,
        out: AdaptiveOut<'_>,
    ) -> Result<()> {
        let [output, loss] = [host_f32(out.output, "output")?, host_f32(out.loss, "loss")?];
        let batch = Batch::new(self, checked)?;
        let outputs = batch.forward()?;
        batch.write(checked, &outputs, [output, loss]);
        Ok(())
    }

    pub(crate) fn adaptive_log_softmax_forward_backward(
        &self,
        checked: &CheckedAdaptive<'_>,
        grad_output: GradOutput<'_>,
        out: AdaptiveOut<'_>,
        gradients: AdaptiveGradOut<'_>,
    ) -> Result<()> {
        let [output, loss] = [host_f32(out.output, "output")?, host_f32(out.loss, "loss")?];
        let upstream = Upstream::new(&grad_output)?;
        let add = gradients.accumulate;
        let grads = gradients.parameters.map(|grads| Gradients::new(grads, add)).transpose()?;
        let grad_input = gradients.input.map(|grad| Gradient::new("grad_input", grad, false));
        let grad_input = grad_input.transpose()?;
        let batch = Batch::new(self, checked)?;
        let factors = batch.factors(checked.options.reduction, &upstream);
        let wanted = if grad_input.is_some() { batch.x.len() } else { 0 };
        let mut d_x = zeros("input gradient", wanted)?;
        let d_x_out = grad_input.is_some().then_some(&mut d_x[..]);
        let outputs = batch.backward(&factors, d_x_out, grads.as_ref())?;
        if let Some(grad) = &grad_input {
            self.scatter(grad, &batch.bins.kept, &d_x);
        }
        batch.write(checked, &outputs, [output, loss]);
        Ok(())
    }

    /// Puts the kept rows' gradients in their places, and zeros in the others'.
    fn scatter(&self, grad: &Gradient<'_>, kept: &[usize], rows: &[f32]) {
        let width = grad.columns;
        if kept.len() < grad.rows {
            grad.clear(self);
        }
        let each = PIECE.div_ceil(width);
        let from = SyncPtr(rows.as_ptr().cast_mut());
        self.share(kept.len().div_ceil(each), 1, &|task| {
            with_scratch([grad.scratch(1)], |[scratch]| {
                for (at, &row) in kept.iter().enumerate().skip(task * each).take(each) {
                    // SAFETY: each kept row comes once, and is read from the buffer's row.
                    unsafe {
                        let from = std::slice::from_raw_parts(from.get().add(at * width), width);
                        grad.rows(row..row + 1, scratch, |out, _| {
                            out.row(0, width).copy_from_slice(from);
                        });
                    }
                }
            });
        });
    }
}
