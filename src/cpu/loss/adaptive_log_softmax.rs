//! Adaptive log-softmax on the CPU: rows are grouped by cluster once (`bins.rs`); the head and each
//! cluster are a softmax over products (`cpu/matrix/linear_softmax.rs`); what is asked of
//! all classes is in `distribution.rs`.

mod best;
mod bins;
mod distribution;

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::numbers::Upstream;
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::linear_softmax::operands::{Backward, Softmax};
use crate::cpu::matrix::linear_softmax::stored::block;
use crate::cpu::matrix::product::{Matrix, Panel, product};
use crate::cpu::matrix::scratch::{with_scratch, zeros};
use crate::cpu::processor::{Cpu, host_f32};
use crate::spec::adaptive_log_softmax::{AdaptiveParameters, AdaptiveTail, CheckedAdaptive};
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut};
use bins::Bins;
use std::borrow::Cow;

/// The parameters as matrices.
struct Matrices<'a> {
    head: Matrix<'a>,
    bias: Option<Vec<f32>>,
    tails: Vec<AdaptiveTail<Matrix<'a>>>,
}

impl<'a> Matrices<'a> {
    fn new(cpu: &Cpu, parameters: &AdaptiveParameters<TensorRef<'a>>) -> Result<Matrices<'a>> {
        let matrix = |tensor: &TensorRef<'a>| Matrix::new(cpu, "parameters", tensor);
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
    fn new(
        cpu: &Cpu,
        grads: AdaptiveParameters<TensorMut<'a>>,
        add: bool,
    ) -> Result<Gradients<'a>> {
        let gradient = |tensor| Gradient::new(cpu, "grad_parameters", tensor, add);
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

/// `out = rows of x · wᵀ`, a block of rows a task. `rows`: which of x, or all.
fn project(cpu: &Cpu, x: &[f32], rows: Option<&[usize]>, weight: &Matrix<'_>) -> Result<Vec<f32>> {
    let (width, features) = (weight.rows, weight.columns);
    let n = rows.map_or(x.len() / features, <[usize]>::len);
    let mut wide = zeros("projection in f32", weight.scratch(width))?;
    let weight = weight.panel(0..width, &mut wide);
    let mut hidden = zeros("hidden rows", n * width)?;
    let out = Panel::of_mut(&mut hidden, width);
    let block = block(n);
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
        let input = Matrix::new(cpu, "input", &checked.input)?;
        let matrices = Matrices::new(cpu, checked.parameters)?;
        let bins = Bins::new(checked)?;
        let x = input.gather_kept(cpu, &bins.kept.rows)?;
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
            grad.write_row(&bias);
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
        let block = block(rows.len());
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
        let (width, features, n) = (grad.rows, self.features, rows.len());
        with_scratch([n * features], |[gathered]| {
            let x = pick(&self.x, features, rows, gathered);
            // SAFETY: both have n rows; the gradient is borrowed.
            unsafe { grad.outer(self.cpu, [Panel::of(d_hidden, width), x], n) };
        });
    }
}

impl Cpu {
    pub(crate) fn adaptive_log_softmax_forward(
        &self,
        checked: &CheckedAdaptive<'_>,
        out: LayerOut<'_>,
    ) -> Result<()> {
        let [output, loss] = [host_f32(out.output, "output")?, host_f32(out.loss, "loss")?];
        let batch = Batch::new(self, checked)?;
        let outputs = batch.forward()?;
        let of = (checked.options.reduction, checked.rows.len);
        batch.bins.kept.write(of, &outputs, [output, loss]);
        Ok(())
    }

    pub(crate) fn adaptive_log_softmax_forward_backward(
        &self,
        checked: &CheckedAdaptive<'_>,
        grad_output: GradOutput<'_>,
        out: LayerOut<'_>,
        gradients: LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let [output, loss] = [host_f32(out.output, "output")?, host_f32(out.loss, "loss")?];
        let upstream = Upstream::new(&grad_output)?;
        let add = gradients.accumulate;
        let grads =
            gradients.parameters.map(|grads| Gradients::new(self, grads, add)).transpose()?;
        let grad_input = gradients.input.map(|grad| Gradient::new(self, "grad_input", grad, false));
        let grad_input = grad_input.transpose()?;
        let batch = Batch::new(self, checked)?;
        let factors = batch.bins.kept.factors(checked.options.reduction, &upstream);
        let wanted = if grad_input.is_some() { batch.x.len() } else { 0 };
        let mut d_x = zeros("input gradient", wanted)?;
        let d_x_out = grad_input.is_some().then_some(&mut d_x[..]);
        let outputs = batch.backward(&factors, d_x_out, grads.as_ref())?;
        if let Some(grad) = &grad_input {
            grad.scatter(self, &batch.bins.kept.rows, &d_x);
        }
        let of = (checked.options.reduction, checked.rows.len);
        batch.bins.kept.write(of, &outputs, [output, loss]);
        Ok(())
    }
}
