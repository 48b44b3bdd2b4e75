//! `bench linear-cross-entropy` and `linear-logprob-entropy`: hidden states and Zipf targets, a classifier as at the
//! start of a training; all of it lies on the device that is measured.

use crate::base::error::Error;
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::check::bench::{Kind, Layer, data};
use crate::cli::bench::adaptive_log_softmax::{normal, zipf};
use crate::cli::bench::line::{Line, Measured};
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::device::Device;
use crate::measure::{Budget, Pass, time_by};
use crate::spec::class_subset::ClassSubset;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut};
use crate::spec::linear_cross_entropy::{LinearCrossEntropy, LinearGradOut, LinearInput};
use crate::spec::linear_logprob_entropy::LinearLogprobEntropy;
use crate::spec::logprob_entropy::{LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream};

/// Which of the two.
enum Loss {
    CrossEntropy(LinearCrossEntropy<'static>),
    /// With what a change of a row's log-probability, and of its entropy, is worth.
    Tokens(LinearLogprobEntropy, [f32; 2]),
}

/// What is measured, and what it writes.
struct Data {
    loss: Loss,
    /// Hidden states, the classifier, and their gradients.
    input: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    target: Vec<i64>,
    targets: Tensor,
    /// Classes that rows list, where not all count; on the device as well.
    lists: Option<(Vec<i64>, Tensor)>,
    temperature: Option<Tensor>,
    /// The mean loss; or log-probabilities and entropies.
    results: [Tensor; 2],
    lse: Tensor,
}

pub(super) fn measure(line: &Line, device: &Device, budget: &Budget) -> Result<Measured, Failure> {
    let (rows, classes, hidden) = (line.rows as u128, line.classes as u128, line.hidden as u128);
    // Of the classifier each row takes its own.
    let of_row = if line.subset > 0 { line.subset as u128 } else { classes };
    let taken = if line.subset > 0 { rows * of_row } else { classes };
    let elements = hidden * (rows + classes);
    let size = line.dtype.size() as u128;
    memory::require(2 * elements * size + 24 * rows, &line.describe())?;
    let mut data = Data::new(device, line)?;
    data.run(line.pass, device)?;
    if let Some(wrong) = data.check(line)? {
        let line = line.describe();
        return Err(Failure::failed(format!("{line}: the answer is wrong: {wrong}")));
    }
    let run = |data: &mut Data| device.time(|| data.run(line.pass, device));
    let timing = time_by(budget, &mut data, |_| Ok(()), run)?;
    let (passes, products) = match line.pass {
        Pass::Forward => (1, 1.0),
        // The logits are made again.
        Pass::Backward | Pass::ForwardBackward => (2, 3.0),
    };
    let bytes = (passes * hidden * (rows + taken) * size) as u64;
    let operations = Some(products * 2.0 * (rows * of_row * hidden) as f64);
    Ok(Measured { line: line.clone(), timing, bytes, operations, row_kernels: None })
}

impl Data {
    fn new(device: &Device, line: &Line) -> Result<Data, Error> {
        let Line { rows, classes, hidden, dtype, .. } = *line;
        let random = |name, sizes: [usize; 2]| {
            let mut tensor =
                Tensor::zeros_for(name, dtype, Shape::new(&sizes).unwrap_or(Shape::SCALAR))?;
            normal(&mut tensor);
            Ok::<_, Error>(tensor)
        };
        let scale = 1.0 / (hidden as f32).sqrt();
        let input = device.hold(random("input", [rows, hidden])?)?;
        let weight = device.hold(random("linear_weight", [classes, hidden])?)?;
        let zeros =
            |like: &Tensor| device.hold(Tensor::zeros_for("gradient", dtype, like.shape())?);
        let target = zipf(rows, classes);
        let lists = match line.subset {
            0 => None,
            k => {
                let ids = listed(&target, classes, k);
                let tensor = device.hold(Tensor::from_vec(ids.clone(), &[rows, k])?)?;
                Some((ids, tensor))
            }
        };
        let temperature = line.rows_temperature.then(|| {
            device.hold(Tensor::from_vec((0..rows).map(temperature_of).collect(), &[rows])?)
        });
        let per_row = || device.hold(Tensor::from_vec(vec![0f32; rows], &[rows])?);
        let tokens = matches!(line.op.parts().1, Kind::Products(Layer::LinearLogprobEntropy));
        let (loss, results) = match tokens {
            true => {
                let op = LogprobEntropy::default().logit_scale(scale).into();
                (Loss::Tokens(op, [-1.0, -0.01].map(|g| g / rows as f32)), [per_row()?, per_row()?])
            }
            false => {
                let mean = Tensor::from_vec(vec![0f32], &[])?;
                let loss: LinearCrossEntropy<'_> =
                    CrossEntropy::default().logit_scale(scale).into();
                let loss = loss.gradient_filter(line.filter);
                (Loss::CrossEntropy(loss), [device.hold(mean.clone())?, device.hold(mean)?])
            }
        };
        Ok(Data {
            loss,
            grad_input: zeros(&input)?,
            grad_weight: zeros(&weight)?,
            input,
            weight,
            targets: device.hold(Tensor::from_vec(target.clone(), &[rows])?)?,
            target,
            lists,
            temperature: temperature.transpose()?,
            results,
            lse: per_row()?,
        })
    }

    fn run(&mut self, pass: Pass, device: &Device) -> Result<(), Error> {
        let input = LinearInput::new(self.input.view(), self.weight.view(), self.targets.view());
        let lists = self.lists.as_ref().map(|(_, ids)| ClassSubset::per_row(ids.view(), None));
        let temperature = self.temperature.as_ref().map(Tensor::view);
        let input = LinearInput { subset: lists, temperature, ..input };
        let gradients = LinearGradOut {
            // Nobody clears what few rows are added to.
            accumulate: self.lists.is_some(),
            input: Some(self.grad_input.view_mut()),
            linear_weight: Some(self.grad_weight.view_mut()),
            ..LinearGradOut::default()
        };
        let [first, second] = self.results.each_mut().map(Tensor::view_mut);
        let lse = Some(self.lse.view_mut());
        match &self.loss {
            Loss::CrossEntropy(loss) => {
                let out = CrossEntropyOut { lse, ..CrossEntropyOut::loss(first) };
                match pass {
                    Pass::Forward => loss.forward_into(device, &input, out),
                    Pass::Backward => loss.backward_into(device, &input, 1.0, gradients),
                    Pass::ForwardBackward => {
                        loss.forward_backward_into(device, &input, 1.0, gradients, out)
                    }
                }
            }
            Loss::Tokens(op, worth) => {
                let out = LogprobEntropyOut { lse, ..LogprobEntropyOut::new(first, second) };
                let [grad_logprob, grad_entropy] = worth.map(Into::into);
                let upstream = LogprobEntropyUpstream { grad_logprob, grad_entropy };
                match pass {
                    Pass::Forward => op.forward_into(device, &input, out),
                    Pass::Backward => op.backward_into(device, &input, upstream, gradients),
                    Pass::ForwardBackward => {
                        op.forward_backward_into(device, &input, upstream, gradients, out)
                    }
                }
            }
        }
    }

    /// Compares a row's log-sum-exp and gradient with a plain f64 computation.
    fn check(&self, line: &Line) -> Result<Option<String>, Error> {
        let Line { rows, classes, hidden, .. } = *line;
        let row = rows / 2;
        let ([of_logprob, of_entropy], of_logits) = match &self.loss {
            Loss::CrossEntropy(loss) => ([-1.0 / rows as f32, 0.0], &loss.of_logits),
            Loss::Tokens(op, worth) => (*worth, &op.linear.of_logits),
        };
        let tau = if line.rows_temperature { temperature_of(row) } else { 1.0 };
        let scale = f64::from(of_logits.logit_scale) / f64::from(tau);
        let weight = data::host(&self.weight)?;
        let of = |tensor: &Tensor| data::part(tensor, row * hidden..(row + 1) * hidden);
        let x = of(&self.input)?;
        let class = |j: usize| weight.part(j * hidden..(j + 1) * hidden);
        let logit = |j: usize| scale * class(j).iter().zip(&x).map(|(w, x)| w * x).sum::<f64>();
        let classes: Vec<usize> = match &self.lists {
            None => (0..classes).collect(),
            Some((ids, _)) => {
                let own = &ids[row * line.subset..][..line.subset];
                let mut own: Vec<usize> = own.iter().map(|&id| id as usize).collect();
                own.sort_unstable();
                own.dedup();
                own
            }
        };
        let z: Vec<f64> = classes.iter().map(|&j| logit(j)).collect();
        let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
        let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        if line.pass != Pass::Backward {
            let got = data::part(&self.lse, row..row + 1)?[0];
            if (got - lse).abs() > 1e-4 * (1.0 + lse.abs()) {
                return Ok(Some(format!("lse of row {row}: expected {lse}, got {got}")));
            }
        }
        if line.pass == Pass::Forward {
            return Ok(None);
        }
        let left_out = line.filter.map(|bound| {
            let far = |j: usize| {
                ((z[j] - lse).exp() - f64::from(u8::from(j == self.target[row] as usize))).abs()
            };
            let piece = |at: usize| (at..classes.len().min(at + 64)).all(|j| far(j) < bound.into());
            (0..classes.len()).step_by(64).map(piece).collect::<Vec<_>>()
        });
        let entropy = z.iter().map(|z| (lse - z) * (z - lse).exp()).sum::<f64>();
        let mut expected = vec![0.0; hidden];
        for (&j, z) in classes.iter().zip(&z) {
            if left_out.as_ref().is_some_and(|left_out| left_out[j / 64]) {
                continue;
            }
            let own = f64::from(u8::from(j == self.target[row] as usize));
            let (p, logp) = ((z - lse).exp(), z - lse);
            let slope =
                f64::from(of_logprob) * (own - p) - f64::from(of_entropy) * p * (logp + entropy);
            let slope = scale * slope;
            expected.iter_mut().zip(class(j)).for_each(|(g, w)| *g += slope * w);
        }
        let size = expected.iter().fold(0f64, |m, g| m.max(g.abs()));
        let rounding = if line.dtype == crate::base::dtype::DType::F32 { 1e-4 } else { 1e-2 };
        for (i, (expected, got)) in expected.iter().zip(of(&self.grad_input)?).enumerate() {
            if (got - expected).abs() > rounding * size + 1e-9 {
                let text = format!("gradient of row {row}, feature {i}: {expected}, got {got}");
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}

/// From 0.5 to 2, as policies are sampled.
fn temperature_of(row: usize) -> f32 {
    0.5 + (row * 7 % 16) as f32 / 10.0
}

/// k classes of each row, its target and others from everywhere.
fn listed(target: &[i64], classes: usize, k: usize) -> Vec<i64> {
    let mut state = 7u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % classes) as i64
    };
    let mut row =
        |own: i64| -> Vec<i64> { std::iter::once(own).chain((1..k).map(|_| next())).collect() };
    target.iter().flat_map(|&own| row(own)).collect()
}
