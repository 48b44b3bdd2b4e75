//! `bench linear-distillation`: a student and a teacher of as many features, KL between their distributions, and the
//! student's gradients; all of it lies on the device that is measured.

use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::check::bench::data;
use crate::cli::bench::adaptive_log_softmax::normal;
use crate::cli::bench::line::{Line, Measured};
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::device::Device;
use crate::measure::{Budget, Pass, time_by};
use crate::spec::divergence::Divergence;
use crate::spec::js_div_logits::JsDivLogits;
use crate::spec::linear_cross_entropy::LinearGradOut;
use crate::spec::linear_distillation::{DistillationInput, LinearDistillation, LinearHead};

/// What is measured, and what it writes.
struct Data {
    loss: LinearDistillation<'static>,
    /// Hidden states and a classifier, of student and teacher.
    heads: [[Tensor; 2]; 2],
    /// Of the student's.
    gradients: [Tensor; 2],
    mean: Tensor,
}

pub(super) fn measure(line: &Line, device: &Device, budget: &Budget) -> Result<Measured, Failure> {
    let (rows, classes, hidden) = (line.rows as u128, line.classes as u128, line.hidden as u128);
    let elements = hidden * (rows + classes);
    let size = line.dtype.size() as u128;
    memory::require(3 * elements * size, &line.describe())?;
    let mut data = Data::new(device, line)?;
    data.run(line.pass, device)?;
    if let Some(wrong) = data.check(line)? {
        let line = line.describe();
        return Err(Failure::failed(format!("{line}: the answer is wrong: {wrong}")));
    }
    let run = |data: &mut Data| device.time(|| data.run(line.pass, device));
    let timing = time_by(budget, &mut data, |_| Ok(()), run)?;
    // Logits of both sides; then the student's products back, and its gradients.
    let (passes, products) = match line.pass {
        Pass::Forward => (2, 2.0),
        Pass::Backward | Pass::ForwardBackward => (3, 4.0),
    };
    let bytes = (passes * elements * size) as u64;
    let operations = Some(products * 2.0 * (rows * classes * hidden) as f64);
    Ok(Measured { line: line.clone(), timing, bytes, operations, row_kernels: None })
}

impl Data {
    fn new(device: &Device, line: &Line) -> Result<Data, Error> {
        let Line { rows, classes, hidden, dtype, .. } = *line;
        let zeros = |sizes: [usize; 2]| {
            Tensor::zeros_for("tensor", dtype, Shape::new(&sizes).unwrap_or(Shape::SCALAR))
        };
        let random = |sizes| {
            let mut tensor = zeros(sizes)?;
            normal(&mut tensor);
            device.hold(tensor)
        };
        let head = || Ok::<_, Error>([random([rows, hidden])?, random([classes, hidden])?]);
        let scale = 1.0 / (hidden as f32).sqrt();
        let of_logits = JsDivLogits::default()
            .divergence(Divergence::Kl)
            .logit_scale(scale)
            .teacher_scale(0.5 * scale);
        Ok(Data {
            loss: of_logits.into(),
            heads: [head()?, head()?],
            gradients: [
                device.hold(zeros([rows, hidden])?)?,
                device.hold(zeros([classes, hidden])?)?,
            ],
            mean: device.hold(Tensor::zeros_for("loss", DType::F32, Shape::SCALAR)?)?,
        })
    }

    fn run(&mut self, pass: Pass, device: &Device) -> Result<(), Error> {
        let [student, teacher] = self
            .heads
            .each_ref()
            .map(|[input, weight]| LinearHead::new(input.view(), weight.view()));
        let input = DistillationInput::new(student, teacher);
        let [dx, dw] = self.gradients.each_mut().map(|grad| Some(grad.view_mut()));
        let out = LinearGradOut { input: dx, linear_weight: dw, ..LinearGradOut::default() };
        let mean = self.mean.view_mut();
        match pass {
            Pass::Forward => self.loss.forward_into(device, &input, mean),
            Pass::Backward => self.loss.backward_into(device, &input, 1.0, out),
            Pass::ForwardBackward => {
                self.loss.forward_backward_into(device, &input, 1.0, out, mean)
            }
        }
    }

    /// Compares a row's gradient with a plain f64 computation.
    fn check(&self, line: &Line) -> Result<Option<String>, Error> {
        let Line { rows, classes, hidden, .. } = *line;
        if line.pass == Pass::Forward {
            let mean = data::part(&self.mean, 0..1)?[0];
            let right = mean.is_finite() && mean > 0.0;
            return Ok((!right).then(|| format!("loss: expected a finite number > 0, got {mean}")));
        }
        let row = rows / 2;
        let of = &self.loss.of_logits;
        let scales = [of.logit_scale, of.teacher_scale].map(f64::from);
        let mut shares = [Vec::new(), Vec::new()];
        for ((to, [input, weight]), scale) in shares.iter_mut().zip(&self.heads).zip(scales) {
            let x = data::part(input, row * hidden..(row + 1) * hidden)?;
            let weight = data::host(weight)?;
            let class = |j: usize| weight.part(j * hidden..(j + 1) * hidden);
            let logit = |j: usize| scale * class(j).iter().zip(&x).map(|(w, x)| w * x).sum::<f64>();
            let z: Vec<f64> = (0..classes).map(logit).collect();
            let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
            let sum = z.iter().map(|z| (z - max).exp()).sum::<f64>();
            *to = z.iter().map(|z| (z - max).exp() / sum).collect();
        }
        let weight = data::host(&self.heads[0][1])?;
        let mut expected = vec![0.0; hidden];
        for (j, (q, p)) in shares[0].iter().zip(&shares[1]).enumerate() {
            let slope = scales[0] * (q - p) / rows as f64;
            let class = weight.part(j * hidden..(j + 1) * hidden);
            expected.iter_mut().zip(class).for_each(|(g, w)| *g += slope * w);
        }
        let size = expected.iter().fold(0f64, |m, g| m.max(g.abs()));
        let rounding = if line.dtype == DType::F32 { 1e-4 } else { 1e-2 };
        let got = data::part(&self.gradients[0], row * hidden..(row + 1) * hidden)?;
        for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
            if (got - expected).abs() > rounding * size + 1e-9 {
                let text = format!("gradient of row {row}, feature {i}: {expected}, got {got}");
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}
