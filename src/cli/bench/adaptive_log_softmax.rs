//! `bench adaptive-log-softmax`: hidden states and Zipf targets, parameters as at the start of a
//! training; all of it lies on the device that is measured.

use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::host::{Float, HostMut};
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::check::bench::data;
use crate::check::random::Random;
use crate::cli::bench::line::{Line, Measured};
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::device::Device;
use crate::measure::{Budget, Pass, Timing, time_by};
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters};
use crate::spec::output_layer::{LayerGradOut, LayerOut};

/// What is measured, and what it writes.
struct Data {
    loss: AdaptiveLogSoftmax<'static>,
    parameters: AdaptiveParameters<Tensor>,
    input: Tensor,
    target: Vec<i64>,
    targets: Tensor,
    output: Tensor,
    mean: Tensor,
    grad_input: Tensor,
    gradients: AdaptiveParameters<Tensor>,
}

/// The options of a line.
pub(super) fn options(line: &Line) -> AdaptiveLogSoftmax<'static> {
    AdaptiveLogSoftmax::new(line.hidden, line.classes, &line.cutoffs)
        .capacities(line.capacities.clone())
}

/// Seconds of a forward and backward pass with such targets, whatever the answer.
pub(in crate::cli) fn time(
    device: &Device,
    loss: AdaptiveLogSoftmax<'static>,
    dtype: DType,
    target: Vec<i64>,
    budget: &Budget,
) -> Result<Timing, Failure> {
    let mut data = Data::new(device, loss, dtype, target)?;
    let run = |data: &mut Data| device.time(|| data.run(Pass::ForwardBackward, device));
    Ok(time_by(budget, &mut data, |_| Ok(()), run)?)
}

/// Bytes of inputs, parameters and their gradients.
pub(in crate::cli) fn bytes(
    loss: &AdaptiveLogSoftmax<'_>,
    dtype: DType,
    rows: usize,
) -> Result<u128, Error> {
    let input = rows as u128 * loss.in_features() as u128;
    Ok(2 * (parameters_of(loss)? + input) * dtype.size() as u128 + 12 * rows as u128)
}

pub(super) fn measure(line: &Line, device: &Device, budget: &Budget) -> Result<Measured, Failure> {
    let loss = options(line);
    memory::require(bytes(&loss, line.dtype, line.rows)?, &line.describe())?;
    let elements = parameters_of(&loss)?;
    let input = line.rows as u128 * line.hidden as u128;
    let mut data = Data::new(device, loss, line.dtype, zipf(line.rows, line.classes))?;
    data.run(line.pass, device)?;
    if let Some(wrong) = data.check(line.pass)? {
        let line = line.describe();
        return Err(Failure::failed(format!("{line}: the answer is wrong: {wrong}")));
    }
    let run = |data: &mut Data| device.time(|| data.run(line.pass, device));
    let timing = time_by(budget, &mut data, |_| Ok(()), run)?;
    let passes = if line.pass == Pass::Forward { 1 } else { 2 };
    let bytes = passes * (elements + input) * line.dtype.size() as u128;
    let operations = data.operations() * if line.pass == Pass::Forward { 1.0 } else { 3.0 };
    let (bytes, operations) = (bytes as u64, Some(operations));
    Ok(Measured { line: line.clone(), timing, bytes, operations, row_kernels: None })
}

/// Elements of all parameters.
pub(in crate::cli) fn parameters_of(loss: &AdaptiveLogSoftmax<'_>) -> Result<u128, Error> {
    let shapes = loss.shapes()?.into_named();
    Ok(shapes.iter().map(|(_, s)| s.iter().map(|&d| d as u128).product::<u128>()).sum())
}

/// Targets whose logarithm is uniform: class k comes with probability ∝ ln((k + 2) / (k + 1)).
pub(super) fn zipf(rows: usize, classes: usize) -> Vec<i64> {
    let mut random = Random::new(0x7a67);
    let scale = ((classes + 1) as f64).ln();
    let mut unit = || (random.next() >> 11) as f64 / (1u64 << 53) as f64;
    (0..rows).map(|_| (((unit() * scale).exp() - 1.0) as usize).min(classes - 1) as i64).collect()
}

/// Numbers as hidden states have them after a layer norm.
pub(super) fn normal(tensor: &mut Tensor) {
    fn each<T: Float>(numbers: &mut [T]) {
        let mut random = Random::new(0x5eed);
        numbers.iter_mut().for_each(|x| *x = T::from_f32(random.normal()));
    }
    match tensor.view_mut().into_host_data() {
        Some(HostMut::F32(x)) => each(x),
        Some(HostMut::F16(x)) => each(x),
        Some(HostMut::BF16(x)) => each(x),
        // The command line takes floats only.
        _ => {}
    }
}

impl Data {
    fn new(
        device: &Device,
        loss: AdaptiveLogSoftmax<'static>,
        dtype: DType,
        target: Vec<i64>,
    ) -> Result<Data, Error> {
        let rows = target.len();
        let shape = Shape::new(&[rows, loss.in_features()]).unwrap_or(Shape::SCALAR);
        let mut input = Tensor::zeros_for("input", dtype, shape)?;
        normal(&mut input);
        let input = device.hold(input)?;
        let parameters = loss.init(dtype, 0x5eed)?.try_into_map(|p| device.hold(p))?;
        let zeros =
            |like: &Tensor| device.hold(Tensor::zeros_for("gradient", dtype, like.shape())?);
        let gradients = parameters.try_map(|_, p| zeros(p))?;
        let grad_input = zeros(&input)?;
        Ok(Data {
            parameters,
            input,
            targets: device.hold(Tensor::from_vec(target.clone(), &[rows])?)?,
            target,
            output: device.hold(Tensor::from_vec(vec![0f32; rows], &[rows])?)?,
            mean: device.hold(Tensor::from_vec(vec![0f32], &[])?)?,
            grad_input,
            gradients,
            loss,
        })
    }

    fn run(&mut self, pass: Pass, device: &Device) -> Result<(), Error> {
        let (parameters, data) = (self.parameters.view(), (self.input.view(), self.targets.view()));
        let out = LayerOut { output: self.output.view_mut(), loss: self.mean.view_mut() };
        if pass == Pass::Forward {
            return self.loss.forward_into(device, &parameters, data, out);
        }
        let gradients = LayerGradOut {
            input: Some(self.grad_input.view_mut()),
            parameters: Some(self.gradients.view_mut()),
            accumulate: false,
        };
        self.loss.forward_backward_into(device, &parameters, data, 1.0, (out, gradients))
    }

    /// Multiplications and additions of the forward products.
    fn operations(&self) -> f64 {
        let (rows, features) = (self.target.len() as f64, self.loss.in_features() as f64);
        let shortlist = self.loss.cutoffs()[0];
        let head = 2.0 * rows * features * (shortlist + self.loss.clusters()) as f64;
        let tails = (0..self.loss.clusters()).map(|i| {
            let classes = self.loss.cluster(i);
            let of = self.target.iter().filter(|&&t| classes.contains(&(t as usize))).count();
            2.0 * (of * self.loss.width(i)) as f64 * (features + classes.len() as f64)
        });
        head + tails.sum::<f64>()
    }

    /// Compares a row of the head and one of each cluster with a plain f64 computation.
    fn check(&self, pass: Pass) -> Result<Option<String>, Error> {
        let mut rows = vec![0];
        rows.extend((0..self.loss.clusters()).filter_map(|i| {
            let classes = self.loss.cluster(i);
            self.target.iter().position(|&t| classes.contains(&(t as usize)))
        }));
        let width = self.loss.in_features();
        let row_of = |tensor: &Tensor, row: usize, width: usize| {
            data::part(tensor, row * width..(row + 1) * width)
        };
        let parameters = self.parameters.try_map(|_, tensor| Matrix::new(tensor))?;
        for row in rows {
            let (x, output) = (row_of(&self.input, row, width)?, row_of(&self.output, row, 1)?[0]);
            let expected = Row::new(&self.loss, &parameters, &x, self.target[row] as usize);
            if (output - expected.output).abs() > 1e-4 * (1.0 + expected.output.abs()) {
                let (got, expected) = (output, expected.output);
                return Ok(Some(format!("output of row {row}: expected {expected}, got {got}")));
            }
            if pass == Pass::Forward {
                continue;
            }
            let size = expected.grad.iter().fold(0f64, |m, g| m.max(g.abs()));
            let rounding = if self.input.dtype() == DType::F32 { 1e-4 } else { 1e-2 };
            let got = row_of(&self.grad_input, row, width)?;
            for (i, (expected, got)) in expected.grad.iter().zip(got).enumerate() {
                let expected = expected / self.target.len() as f64;
                if (got - expected).abs() > rounding * (size / self.target.len() as f64) + 1e-7 {
                    return Ok(Some(format!(
                        "gradient of row {row}, feature {i}: expected {expected}, got {got}"
                    )));
                }
            }
        }
        Ok(None)
    }
}

/// A row's log-probability and the gradient of its loss.
struct Row {
    output: f64,
    grad: Vec<f64>,
}

impl Row {
    fn new(
        loss: &AdaptiveLogSoftmax<'_>,
        parameters: &AdaptiveParameters<Matrix<'_>>,
        x: &[f64],
        target: usize,
    ) -> Row {
        let shortlist = loss.cutoffs()[0];
        let cluster = (0..loss.clusters()).find(|&i| loss.cluster(i).contains(&target));
        let column = cluster.map_or(target, |i| shortlist + i);
        let (mut output, mut grad) = softmax(&parameters.head_weight, x, column);
        if let Some(i) = cluster {
            let tail = &parameters.tails[i];
            let hidden = tail.projection.times(x);
            let (part, back) = softmax(&tail.weight, &hidden, target - loss.cluster(i).start);
            output += part;
            for (i, back) in back.iter().enumerate() {
                let row = tail.projection.row(i);
                grad.iter_mut().zip(row).for_each(|(g, w)| *g += back * w);
            }
        }
        Row { output, grad }
    }
}

/// A tensor of one or two dimensions, in f64 a row at a time.
struct Matrix<'a> {
    data: data::Host<'a>,
    rows: usize,
    columns: usize,
}

impl<'a> Matrix<'a> {
    fn new(tensor: &'a Tensor) -> Result<Matrix<'a>, Error> {
        let (rows, columns) = match *tensor.shape() {
            [rows, columns] => (rows, columns),
            _ => (tensor.view().elements(), 1),
        };
        Ok(Matrix { data: data::host(tensor)?, rows, columns })
    }

    fn row(&self, i: usize) -> Vec<f64> {
        self.data.part(i * self.columns..(i + 1) * self.columns)
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        let dot = |row: Vec<f64>| row.iter().zip(x).map(|(w, x)| w * x).sum();
        (0..self.rows).map(|i| dot(self.row(i))).collect()
    }
}

/// ln p of a column, and the gradient of −ln p to x.
fn softmax(weight: &Matrix<'_>, x: &[f64], column: usize) -> (f64, Vec<f64>) {
    let z = weight.times(x);
    let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
    let sum: f64 = z.iter().map(|z| (z - max).exp()).sum();
    let mut grad = vec![0.0; x.len()];
    for (i, z) in z.iter().enumerate() {
        let slope = (z - max).exp() / sum - f64::from(i == column);
        grad.iter_mut().zip(weight.row(i)).for_each(|(g, w)| *g += slope * w);
    }
    (z[column] - max - sum.ln(), grad)
}
