//! Distillation from hidden states.

mod calls;
mod right;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::bench::{Kind, Layer, Measured};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::grad_output;
use crate::check::draw::targets::Targets;
use crate::check::draw::{FLOATS, Upstream, layer};
use crate::check::entry::{Calls, Entry, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::typed;
use crate::device::Device;
use crate::spec::divergence::Divergence;
use crate::spec::js_div_logits::JsDivLogits;
use crate::spec::linear_cross_entropy::LinearGradOut;
use crate::spec::linear_distillation::{
    DistillationGradOut, DistillationInput, LinearDistillation, LinearHead,
};
use right::right;
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "linear-distillation",
    cases: Draw { shape: layer::shape, rest: case },
    calls: Calls { draw: calls::draw, run: calls::run, expect: calls::expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "linear-distillation",
        help: "KL from a teacher to a student, each of hidden states and a classifier, and the student's gradients",
        kind: Kind::Products(Layer::LinearDistillation),
    }],
    traits: Traits {
        factors: &["temperature", "teacher_temperature", "row_weight"],
        ..Traits::LAYER
    },
};

/// One side, owned.
#[derive(Debug)]
struct Head {
    /// None of the student, whose hidden states are the case's.
    input: Option<Tensor>,
    weight: Tensor,
    bias: Option<Tensor>,
    temperature: Option<Tensor>,
}

impl Head {
    fn of<'a>(&'a self, input: Option<TensorRef<'a>>) -> Result<LinearHead<'a>> {
        let own = self.input.as_ref().map(Tensor::view);
        let weight = self.weight.view();
        let mut head = LinearHead::new(input.or(own).unwrap_or(weight), weight);
        head.linear_bias = self.bias.as_ref().map(Tensor::view);
        head.temperature = self.temperature.as_ref().map(Tensor::view);
        Ok(head)
    }
}

/// Options and tensors, owned.
#[derive(Debug)]
struct DistillationCall {
    student: Head,
    teacher: Head,
    labels: Option<Tensor>,
    row_weight: Option<Tensor>,
    options: JsDivLogits<'static>,
    grad_output: Upstream,
    /// Whether gradients of parameters are numbers: no hidden state is infinite.
    finite: bool,
}

impl DistillationCall {
    fn loss(&self) -> LinearDistillation<'_> {
        match &self.labels {
            Some(labels) => self.options.clone().labels(labels.view()).into(),
            None => self.options.clone().into(),
        }
    }

    fn input<'a>(&'a self, input: TensorRef<'a>) -> Result<DistillationInput<'a>> {
        let (student, teacher) = (self.student.of(Some(input))?, self.teacher.of(None)?);
        let row_weight = self.row_weight.as_ref().map(Tensor::view);
        Ok(DistillationInput { student, teacher, row_weight })
    }

    /// The loss, and all gradients of both sides, into memory of their own.
    fn all(&self, device: &Device, input: TensorRef<'_>) -> Result<Vec<Outcome>> {
        let pass = "all of it, forward-backward";
        let (loss, view) = (self.loss(), self.input(input)?);
        let shape = loss.check(&view)?.of_rows.loss_shape();
        let mut one = Tensor::zeros_for("loss", DType::F32, shape)?;
        let like = |of: TensorRef<'_>| Tensor::zeros_for("gradient", of.dtype(), of.shape());
        let of_side = |head: &LinearHead<'_>| -> Result<(Tensor, Tensor, Option<Tensor>)> {
            let bias = head.linear_bias.map(like).transpose()?;
            Ok((like(head.input)?, like(head.linear_weight)?, bias))
        };
        let mut sides = [of_side(&view.student)?, of_side(&view.teacher)?];
        let [student, teacher] = sides.each_mut().map(|(input, weight, bias)| LinearGradOut {
            input: Some(input.view_mut()),
            linear_weight: Some(weight.view_mut()),
            linear_bias: bias.as_mut().map(Tensor::view_mut),
            ..LinearGradOut::default()
        });
        let gradients = DistillationGradOut { student, teacher };
        let g = self.grad_output.view();
        loss.forward_backward_into(device, &view, g, gradients, one.view_mut())?;
        let [(dx, dw, db), (dx_t, dw_t, db_t)] = sides;
        let mut outcomes = vec![
            Outcome::new(Quantity::Loss, pass, one.view())?,
            Outcome::new(Quantity::Gradient, pass, dx.view())?,
        ];
        // Each side is judged by its own dtype.
        let parameters = [Some(dw_t), db_t].into_iter().flatten().filter(|_| self.finite);
        let parts = std::iter::once(dx_t).chain(parameters);
        let of_teacher = layer::all_gradients(view.teacher.input.dtype(), pass, parts)?;
        outcomes.push(Outcome { quantity: Quantity::TargetGradient, ..of_teacher });
        if self.finite {
            let parts = [Some(dw), db].into_iter().flatten();
            outcomes.push(layer::all_gradients(input.dtype(), pass, parts)?);
        }
        Ok(outcomes)
    }
}

impl Call for DistillationCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DistillationCall { student, teacher, labels, options, grad_output, .. } = self;
        write!(f, ", {:?}, {}", options.divergence, options.reduction)?;
        for head in [student, teacher] {
            let (bias, tau) = (head.bias.is_some(), head.temperature.is_some());
            write!(f, ", {} {}", head.weight.dtype(), head.weight.shape())?;
            write!(f, " with bias {bias} and temperature {tau}")?;
        }
        write!(f, ", logit_scale {}", options.logit_scale)?;
        write!(f, ", teacher_scale {}", options.teacher_scale)?;
        write!(f, ", row_weight {}", self.row_weight.is_some())?;
        let labels = labels.as_ref().map(Tensor::dtype);
        write!(f, ", labels {labels:?}, ignore_index {}", options.ignore_index)?;
        write!(f, ", grad_output {grad_output}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let packed = layer::packed(case)?;
        let (view, loss) = (self.input(packed.view())?, self.loss());
        let (of_loss, [student, teacher]) = right(&loss.of_logits, &view, self.grad_output.view())?;
        let bias = |head: &Head, of| head.bias.is_some().then_some(of);
        let mut of_teacher = teacher.input;
        if self.finite {
            of_teacher.extend(teacher.weight);
            bias(&self.teacher, teacher.bias).into_iter().for_each(|db| of_teacher.extend(db));
        }
        let mut expected = vec![
            Expected::product(Quantity::Loss, of_loss),
            Expected::product(Quantity::Gradient, student.input),
            Expected::product(Quantity::TargetGradient, of_teacher),
        ];
        if self.finite {
            let parts = [Some(student.weight), bias(&self.student, student.bias)];
            expected.push(layer::gradients(parts.into_iter().flatten()));
        }
        Ok(expected)
    }

    /// Forward, and all of it with gradients.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let input = layer::input(case, &packed)?;
        let loss = self.loss().forward(device, &self.input(input)?)?;
        let mut outcomes = vec![Outcome::new(Quantity::Loss, "forward", loss.view())?];
        outcomes.extend(self.all(device, input)?);
        Ok(outcomes)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        match &self.labels {
            Some(labels) => layer::unread(case, labels.view(), self.options.ignore_index),
            None => Ok(Vec::new()),
        }
    }
}

/// One number a row, in half of all cases.
fn per_row(random: &mut Random, rows: &[usize], of: &[f64]) -> Result<Option<Tensor>> {
    let values: Vec<f64> = (0..rows.iter().product()).map(|_| random.pick(of)).collect();
    let tensor = typed::tensor(DType::F32, rows, &values)?;
    Ok((!random.one_in(2)).then_some(tensor))
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let classes = random.pick(&[1, 2, 5, 40, 300, 2100]);
    let reductions = [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];
    let reduction = random.pick(&reductions);
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0] } else { &[1.0] };
    let divergence = random.pick(&[
        Divergence::Kl,
        Divergence::ReverseKl,
        Divergence::Js(0.5),
        Divergence::Js(0.1),
        Divergence::TotalVariation,
    ]);
    let mut options = JsDivLogits::default()
        .divergence(divergence)
        .reduction(reduction)
        .logit_scale(random.pick(scales))
        .teacher_scale(random.pick(&[1.0, 0.5]));
    let mut labels = None;
    if random.one_in(2) {
        let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
        options = options.ignore_index(ignore_index);
        labels = Some(indices);
    }
    let deviation = layer::deviation(random, values, dtype);
    let mut head = |(dtype, features): (DType, usize), input| -> Result<Head> {
        let weight = layer::parameter(random, dtype, &[classes, features], deviation)?;
        let bias = layer::parameter(random, dtype, &[classes], deviation)?;
        let bias = (!random.one_in(2)).then_some(bias);
        let temperature = per_row(random, rows, &[0.5, 0.7, 1.0, 2.0])?;
        Ok(Head { input, weight, bias, temperature })
    };
    let student = head((dtype, features), None)?;
    let mut teacher = head((dtype, features), None)?;
    let of_teacher = [features, 1, 5, 20][random.below(4)];
    let near = of_teacher == features && random.one_in(2);
    let shape_of = [rows, &[of_teacher]].concat();
    let count = shape_of.iter().product();
    if near {
        // A teacher that the student is nearly.
        let own = first.nearly(random)?;
        let weight = student.weight.view().to_f64()?;
        let moved = weight.iter().map(|w| w * (1.0 + 1e-3 * f64::from(random.normal())));
        let moved: Vec<f64> = moved.collect();
        teacher.weight = typed::tensor(dtype, &[classes, features], &moved)?;
        teacher.input = Some(typed::tensor(dtype, shape, &own)?);
        teacher.bias = student.bias.clone();
        teacher.temperature = student.temperature.clone();
        options = options.clone().teacher_scale(options.logit_scale);
    } else {
        let other = random.pick(&FLOATS);
        let numbers: Vec<f64> = (0..count).map(|_| f64::from(random.normal())).collect();
        let weight = layer::parameter(random, other, &[classes, of_teacher], 0.4)?;
        teacher.input = Some(typed::tensor(other, &shape_of, &numbers)?);
        let bias = teacher.bias.map(|b| typed::tensor(other, &[classes], &b.view().to_f64()?));
        (teacher.weight, teacher.bias) = (weight, bias.transpose()?);
    }
    Ok(Box::new(DistillationCall {
        student,
        teacher,
        labels,
        row_weight: per_row(random, rows, &[0.0, 0.3, 1.0, 2.5])?,
        options,
        grad_output: grad_output(random, dtype, reduction, rows)?,
        finite: values.finite(),
    }))
}
