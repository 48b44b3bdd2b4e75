//! Cross entropy of hidden states times a classifier.

pub(super) mod calls;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::bench::{Kind, Layer, Measured};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::{Labels, grad_output, weight};
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, layer, upstream};
use crate::check::entry::{Calls, Entry, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::{self, LinearData, LinearTarget};
use crate::check::typed;
use crate::check::values::Values;
use crate::device::Device;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::{
    LinearCrossEntropy, LinearGradOut, LinearInput, LinearPath,
};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "linear-cross-entropy",
    cases: Draw { shape: layer::shape, rest: case },
    calls: Calls { draw: calls::draw, run: calls::run, expect: calls::expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "linear-cross-entropy",
        help: "Hidden states and a classifier to a loss and all gradients",
        kind: Kind::Products(Layer::LinearCrossEntropy),
    }],
    traits: Traits { factors: &["temperature", "row_weight"], ..Traits::LAYER },
};

/// Options and tensors, owned.
#[derive(Debug)]
struct LinearCall {
    labels: Labels,
    options: CrossEntropy<'static>,
    classes: usize,
    /// Sizes between the classes and the features of a classifier for each position.
    positions: Vec<usize>,
    weight: Tensor,
    bias: Option<Tensor>,
    /// In the place of the labels' target.
    probabilities: Option<Tensor>,
    temperature: Option<Tensor>,
    row_weight: Option<Tensor>,
    /// Of log-probability and entropy.
    tokens: [Upstream; 2],
    gradient_filter: Option<f32>,
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

impl LinearCall {
    /// The loss with its options.
    fn of_logits(&self) -> CrossEntropy<'_> {
        match &self.labels.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        }
    }

    fn loss(&self) -> LinearCrossEntropy<'_> {
        LinearCrossEntropy::from(self.of_logits()).gradient_filter(self.gradient_filter)
    }

    fn input<'a>(&'a self, input: TensorRef<'a>) -> LinearInput<'a> {
        let target = self.probabilities.as_ref().unwrap_or(&self.labels.target).view();
        LinearInput {
            linear_bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            row_weight: self.row_weight.as_ref().map(Tensor::view),
            ..LinearInput::new(input, self.weight.view(), target)
        }
    }

    fn upstream(&self) -> CrossEntropyUpstream<'_> {
        let [grad_logprob, grad_entropy] = self.tokens.each_ref().map(Upstream::view);
        CrossEntropyUpstream {
            grad_output: self.labels.grad_output.view(),
            grad_logprob,
            grad_entropy,
        }
    }

    /// Loss, log-probability and entropy, and all gradients, into memory of their own.
    fn all(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        (pass, loss): (&'static str, LinearCrossEntropy<'_>),
    ) -> Result<Vec<Outcome>> {
        let view = self.input(input);
        let checked = loss.check(&view)?;
        let rows = checked.of_logits.rows;
        let zeros = |shape| Tensor::zeros_for("result", DType::F32, shape);
        let mut one = zeros(checked.of_logits.loss_shape())?;
        let [mut logprob, mut entropy, mut lse] = [zeros(rows)?, zeros(rows)?, zeros(rows)?];
        let like = |of: TensorRef<'_>| Tensor::zeros_for("gradient", of.dtype(), of.shape());
        let [mut dx, mut dw] = [like(input)?, like(view.linear_weight)?];
        let mut db = view.linear_bias.map(like).transpose()?;
        let indices = self.probabilities.is_none();
        let out = CrossEntropyOut {
            lse: Some(lse.view_mut()),
            logprob: indices.then(|| logprob.view_mut()),
            entropy: indices.then(|| entropy.view_mut()),
            ..CrossEntropyOut::loss(one.view_mut())
        };
        let mut dq = self.probabilities.as_ref().map(|q| like(q.view())).transpose()?;
        let gradients = LinearGradOut {
            input: Some(dx.view_mut()),
            linear_weight: Some(dw.view_mut()),
            linear_bias: db.as_mut().map(Tensor::view_mut),
            target: dq.as_mut().map(Tensor::view_mut),
            ..LinearGradOut::default()
        };
        loss.forward_backward_into(device, &view, self.upstream(), gradients, out)?;
        let mut outcomes = vec![
            Outcome::new(Quantity::Loss, pass, one.view())?,
            Outcome::new(Quantity::Lse, pass, lse.view())?,
            Outcome::new(Quantity::Gradient, pass, dx.view())?,
        ];
        if indices {
            outcomes.push(Outcome::new(Quantity::Output, pass, logprob.view())?);
            outcomes.push(Outcome::new(Quantity::Entropy, pass, entropy.view())?);
        }
        if let Some(dq) = dq {
            outcomes.push(Outcome::new(Quantity::TargetGradient, pass, dq.view())?);
        }
        if self.finite {
            let parts = [Some(dw), db].into_iter().flatten();
            outcomes.push(layer::all_gradients(input.dtype(), pass, parts)?);
        }
        Ok(outcomes)
    }
}

impl Call for LinearCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinearCall { labels, options, classes, tokens: [logprob, entropy], .. } = self;
        write!(f, ", classes {classes}, positions {:?}", self.positions)?;
        write!(f, "{labels}, bias {}", self.bias.is_some())?;
        write!(f, ", probabilities {}", self.probabilities.is_some())?;
        let rows = [self.temperature.is_some(), self.row_weight.is_some()];
        write!(f, ", temperature and row_weight {rows:?}")?;
        write!(f, ", label_smoothing {}", options.label_smoothing)?;
        write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
        write!(f, ", logit_scale {}, softcap {:?}", options.logit_scale, options.softcap)?;
        write!(f, ", grad_logprob {logprob}, grad_entropy {entropy}")?;
        write!(f, ", gradient_filter {:?}", self.gradient_filter)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let owned = |of: &Option<Tensor>| of.as_ref().map(|t| t.view().to_f64()).transpose();
        let (input, weight) = (case.input()?.to_f64()?, self.weight.view().to_f64()?);
        let (bias, temperature) = (owned(&self.bias)?, owned(&self.temperature)?);
        let (row_weight, probabilities) = (owned(&self.row_weight)?, owned(&self.probabilities)?);
        let indices = reference::indices(self.labels.target.view())?;
        let CrossEntropyUpstream { grad_output, grad_logprob, grad_entropy } = self.upstream();
        let upstream = [grad_output, grad_logprob, grad_entropy].map(reference::upstream);
        let [g, a, b] = upstream;
        let (g, a, b) = (g?, a?, b?);
        let features = case.shape.last().copied().unwrap_or(1);
        let target = match &probabilities {
            Some(q) => LinearTarget::Probabilities(q),
            None => LinearTarget::Classes(&indices),
        };
        let data = LinearData {
            positions: self.positions.iter().product(),
            bias: bias.as_deref(),
            temperature: temperature.as_deref(),
            row_weight: row_weight.as_deref(),
            gradient_filter: self.gradient_filter.map(f64::from),
            upstream: [&g, &a, &b],
            ..LinearData::new((&input, features), (&weight, self.classes), target)
        };
        let out = reference::linear_cross_entropy(&self.of_logits(), &data);
        let mut expected = vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::ZLoss, out.z_loss),
            Expected::product(Quantity::Lse, out.lse),
            Expected::product(Quantity::Output, out.logprob),
            Expected::product(Quantity::Entropy, out.entropy),
            Expected::product(Quantity::Gradient, out.grad_input),
            Expected::product(Quantity::TargetGradient, out.grad_target),
        ];
        if self.finite {
            let bias = self.bias.is_some().then_some(out.grad_bias);
            let parts = [Some(out.grad_weight), bias];
            expected.push(layer::gradients(parts.into_iter().flatten()));
        }
        Ok(expected)
    }

    /// Forward, and all of it with gradients.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let input = layer::input(case, &packed)?;
        let loss = self.loss();
        let out = loss.forward(device, &self.input(input))?;
        let mut outcomes = vec![
            Outcome::new(Quantity::Loss, "forward", out.loss.view())?,
            Outcome::new(Quantity::ZLoss, "forward", out.z_loss.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
        ];
        let has =
            |loss: &LinearCrossEntropy<'_>| loss.plan(device, &self.input(input), true).is_ok();
        let tiled = loss.clone().path(LinearPath::Tiled);
        // A device without tiles has no filter, unless it is the CPU.
        if self.gradient_filter.is_none() || has(&loss) {
            outcomes.extend(self.all(device, input, ("all of it", loss))?);
        }
        if has(&tiled) {
            outcomes.extend(self.all(device, input, ("all of it, tiled", tiled))?);
        }
        Ok(outcomes)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        // At another position the same hidden row may be read.
        match self.probabilities.is_some() || !self.positions.is_empty() {
            true => Ok(Vec::new()),
            false => layer::unread(case, self.labels.target.view(), self.labels.ignore_index),
        }
    }
}

/// What lies between the classes and the features of a classifier for each position: nothing in most cases.
fn positions(random: &mut Random, several_rows: bool) -> Vec<usize> {
    match several_rows && random.one_in(5) {
        true => (0..1 + random.below(2)).map(|_| 1 + random.below(3)).collect(),
        false => Vec::new(),
    }
}

/// One number a row, of rows of this shape.
pub(in crate::check::ops) fn per_row(
    random: &mut Random,
    rows: &[usize],
    one: impl Fn(&mut Random) -> f64,
) -> Result<Option<Tensor>> {
    let values: Vec<f64> = (0..rows.iter().product()).map(|_| one(random)).collect();
    let tensor = typed::tensor(DType::F32, rows, &values)?;
    Ok((!random.one_in(2)).then_some(tensor))
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (before, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let positions = positions(random, before.len() == 1);
    let rows = &[before, &positions].concat()[..];
    let classes = random.pick(&[1, 2, 5, 40, 300, 2100]);
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
    let soft = random.one_in(4);
    let of_classes = [&[classes], &positions[..]].concat();
    let alone = positions.is_empty();
    let filters = !soft && alone && dtype != DType::F32 && random.one_in(4);
    let gradient_filter = filters.then(|| random.pick(&[0.0, 1e-3, 0.02, 0.3]));
    let labels = Labels {
        target: indices,
        weight: weight(random, dtype, classes)?,
        ignore_index: if soft { -100 } else { ignore_index },
        reduction,
        grad_output: grad_output(random, dtype, reduction, rows)?,
    };
    let plain = matches!(values, Values::Tiny | Values::Equal | Values::Offset);
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let smoothing: &[f64] = match plain {
        _ if filters => &[0.0],
        true => &[0.0, 0.1],
        false => &[0.0, 0.0, 0.1, 1.0],
    };
    let options = CrossEntropy::default()
        .ignore_index(labels.ignore_index)
        .reduction(reduction)
        .label_smoothing(random.pick(smoothing))
        .lse_square_scale(random.pick(&[0.0, 0.0, 1e-4, 0.1]))
        .logit_scale(random.pick(&[1.0, 0.5, 2.0]))
        .softcap(random.pick(caps));
    let deviation = layer::deviation(random, values, dtype);
    let of_weight = [&of_classes[..], &[features]].concat();
    let weights = layer::parameter(random, dtype, &of_weight, deviation)?;
    let bias = layer::parameter(random, dtype, &of_classes, deviation)?;
    let probabilities = soft.then(|| {
        let sizes = [before, &of_classes].concat();
        let share = 1.0 / classes as f64;
        let count = sizes.iter().product();
        let one = |_| match random.one_in(4) {
            true => 0.0,
            false => share * f64::from(random.normal()).abs(),
        };
        let values: Vec<f64> = (0..count).map(one).collect();
        typed::tensor(dtype, &sizes, &values)
    });
    let mut token = || -> Result<Upstream> {
        Ok(match (soft, random.below(3)) {
            (true, _) | (_, 0) => Upstream::Number(0.0),
            (_, 1) => Upstream::Number(random.normal()),
            _ => Upstream::Tensor(upstream(random, dtype, rows)?),
        })
    };
    let tokens = [token()?, token()?];
    Ok(Box::new(LinearCall {
        labels,
        options,
        classes,
        positions,
        weight: weights,
        bias: (!random.one_in(2)).then_some(bias),
        probabilities: probabilities.transpose()?,
        temperature: per_row(random, rows, |r| r.pick(&[0.5, 0.7, 1.0, 2.0]))?.filter(|_| alone),
        row_weight: per_row(random, rows, |r| r.pick(&[0.0, 0.3, 1.0, 2.5]))?.filter(|_| alone),
        tokens,
        gradient_filter,
        finite: values.finite(),
    }))
}
