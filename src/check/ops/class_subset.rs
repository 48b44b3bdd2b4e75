//! Cross entropy over lists of classes, of hidden states and of logits. What no row lists is NaN.

mod calls;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::{Labels, grad_output, weight};
use crate::check::draw::lists::{DrawnLists, Lists};
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, layer, upstream};
use crate::check::entry::{Calls, Entry, Traits};
use crate::check::ops::linear_cross_entropy::per_row;
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::{self, LinearData, LinearTarget};
use crate::check::typed;
use crate::device::Device;
use crate::spec::class_subset::Rest;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::{LinearCrossEntropy, LinearGradOut, LinearInput};
use crate::spec::subset_cross_entropy::{SubsetCrossEntropy, SubsetGradOut, SubsetInput};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "subset-cross-entropy",
    cases: Draw { shape: layer::shape, rest: case },
    calls: Calls { draw: calls::draw, run: calls::run, expect: calls::expect, saved: None },
    evaluated: None,
    measured: &[],
    traits: Traits { factors: &["temperature", "row_weight"], ..Traits::LAYER },
};

/// Options and tensors, owned.
#[derive(Debug)]
struct SubsetCall {
    labels: Labels,
    options: CrossEntropy<'static>,
    lists: Lists,
    classes: usize,
    /// The classifier; `None`: the input is logits.
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    /// In the place of the labels' target, one for each id.
    probabilities: Option<Tensor>,
    temperature: Option<Tensor>,
    row_weight: Option<Tensor>,
    /// Of log-probability and entropy.
    tokens: [Upstream; 2],
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

/// What a pass gives.
struct Given {
    out: [Tensor; 4],
    dx: Tensor,
    dq: Option<Tensor>,
    parameters: Vec<Tensor>,
}

impl SubsetCall {
    /// The loss with its options.
    fn loss(&self) -> CrossEntropy<'_> {
        match &self.labels.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        }
    }

    fn target(&self) -> TensorRef<'_> {
        self.probabilities.as_ref().unwrap_or(&self.labels.target).view()
    }

    fn upstream(&self) -> CrossEntropyUpstream<'_> {
        let [grad_logprob, grad_entropy] = self.tokens.each_ref().map(Upstream::view);
        CrossEntropyUpstream {
            grad_output: self.labels.grad_output.view(),
            grad_logprob,
            grad_entropy,
        }
    }

    fn of_hidden<'a>(&'a self, input: TensorRef<'a>, weight: &'a Tensor) -> LinearInput<'a> {
        LinearInput {
            linear_bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            row_weight: self.row_weight.as_ref().map(Tensor::view),
            subset: Some(self.lists.subset()),
            ..LinearInput::new(input, weight.view(), self.target())
        }
    }

    fn of_logits<'a>(&'a self, logits: TensorRef<'a>) -> SubsetInput<'a> {
        let mut input = SubsetInput::new(logits, self.target(), self.lists.subset());
        if let Some(temperature) = &self.temperature {
            input = input.temperature(temperature.view());
        }
        match &self.row_weight {
            Some(weight) => input.row_weight(weight.view()),
            None => input,
        }
    }

    /// Loss, log-probability and entropy, and all gradients, into memory of their own.
    fn all(&self, device: &Device, input: TensorRef<'_>) -> Result<Given> {
        let indices = self.probabilities.is_none();
        let shape = input.shape();
        let rows = &shape[..shape.len() - 1];
        let zeros =
            |shape: &[usize]| typed::tensor(DType::F32, shape, &vec![0.0; shape.iter().product()]);
        let one = if self.labels.reduction == Reduction::None { rows } else { &[] };
        let mut out = [zeros(one)?, zeros(rows)?, zeros(rows)?, zeros(rows)?];
        let like = |of: TensorRef<'_>| Tensor::zeros_for("gradient", of.dtype(), of.shape());
        let mut dx = like(input)?;
        let mut dq = self.probabilities.as_ref().map(|q| like(q.view())).transpose()?;
        let mut dw = self.weight.as_ref().map(|w| like(w.view())).transpose()?;
        let mut db = self.bias.as_ref().map(|b| like(b.view())).transpose()?;
        let [loss, lse, logprob, entropy] = out.each_mut().map(Tensor::view_mut);
        let results = CrossEntropyOut {
            lse: Some(lse),
            logprob: indices.then_some(logprob),
            entropy: indices.then_some(entropy),
            ..CrossEntropyOut::loss(loss)
        };
        let upstream = self.upstream();
        match &self.weight {
            Some(weight) => {
                let gradients = LinearGradOut {
                    input: Some(dx.view_mut()),
                    linear_weight: dw.as_mut().map(Tensor::view_mut),
                    linear_bias: db.as_mut().map(Tensor::view_mut),
                    target: dq.as_mut().map(Tensor::view_mut),
                    ..LinearGradOut::default()
                };
                let view = self.of_hidden(input, weight);
                LinearCrossEntropy::from(self.loss())
                    .forward_backward_into(device, &view, upstream, gradients, results)?;
            }
            None => {
                let target = dq.as_mut().map(Tensor::view_mut);
                let gradients = SubsetGradOut { logits: dx.view_mut(), target };
                let view = self.of_logits(input);
                SubsetCrossEntropy::from(self.loss())
                    .forward_backward_into(device, &view, upstream, gradients, results)?;
            }
        }
        Ok(Given { out, dx, dq, parameters: dw.into_iter().chain(db).collect() })
    }
}

impl Call for SubsetCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SubsetCall { labels, options, classes, lists, tokens: [logprob, entropy], .. } = self;
        write!(f, ", classes {classes}{labels}, of logits {}", self.weight.is_none())?;
        write!(f, ", bias {}", self.bias.is_some())?;
        let (ids, missing) = (lists.ids.view(), lists.missing.name());
        write!(f, ", ids {} {} shared {}", ids.dtype(), ids.shape(), lists.shared)?;
        write!(f, ", counts {}, missing_target {missing}", lists.counts.is_some())?;
        write!(f, ", rest {}", lists.rest.name())?;
        write!(f, ", probabilities {}", self.probabilities.is_some())?;
        let rows = [self.temperature.is_some(), self.row_weight.is_some()];
        write!(f, ", temperature and row_weight {rows:?}")?;
        write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
        write!(f, ", logit_scale {}, softcap {:?}", options.logit_scale, options.softcap)?;
        write!(f, ", grad_logprob {logprob}, grad_entropy {entropy}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let owned = |of: &Option<Tensor>| of.as_ref().map(|t| t.view().to_f64()).transpose();
        let (input, weight) = (case.input()?.to_f64()?, owned(&self.weight)?);
        let (bias, temperature) = (owned(&self.bias)?, owned(&self.temperature)?);
        let (row_weight, probabilities) = (owned(&self.row_weight)?, owned(&self.probabilities)?);
        let indices = reference::indices(self.labels.target.view())?;
        let CrossEntropyUpstream { grad_output, grad_logprob, grad_entropy } = self.upstream();
        let [g, a, b] = [grad_output, grad_logprob, grad_entropy].map(reference::upstream);
        let (g, a, b) = (g?, a?, b?);
        let lists = self.lists.owned()?;
        let target = match &probabilities {
            Some(q) => LinearTarget::Probabilities(q),
            None => LinearTarget::Classes(&indices),
        };
        let hidden = (&input[..], case.shape.last().copied().unwrap_or(1));
        let classifier = (weight.as_deref().unwrap_or(&[]), self.classes);
        let data = LinearData {
            bias: bias.as_deref(),
            temperature: temperature.as_deref(),
            row_weight: row_weight.as_deref(),
            upstream: [&g, &a, &b],
            ..LinearData::new(hidden, classifier, target)
        };
        let out = reference::class_subset(&self.loss(), &data, &lists.data(self.weight.is_none()));
        let mut expected = vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::ZLoss, out.z_loss),
            Expected::product(Quantity::Lse, out.lse),
            Expected::product(Quantity::Output, out.logprob),
            Expected::product(Quantity::Entropy, out.entropy),
            Expected::product(Quantity::Gradient, out.grad_input),
            Expected::product(Quantity::TargetGradient, out.grad_target),
        ];
        if self.finite && self.weight.is_some() {
            let bias = self.bias.is_some().then_some(out.grad_bias);
            expected.push(layer::gradients([Some(out.grad_weight), bias].into_iter().flatten()));
        }
        Ok(expected)
    }

    /// Forward, and all of it with gradients.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let input = layer::input(case, &packed)?;
        let out = match &self.weight {
            Some(weight) => LinearCrossEntropy::from(self.loss())
                .forward(device, &self.of_hidden(input, weight))?,
            None => {
                SubsetCrossEntropy::from(self.loss()).forward(device, &self.of_logits(input))?
            }
        };
        let mut outcomes = vec![
            Outcome::new(Quantity::Loss, "forward", out.loss.view())?,
            Outcome::new(Quantity::ZLoss, "forward", out.z_loss.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
        ];
        let pass = "all of it, forward-backward";
        let Given { out: [loss, lse, logprob, entropy], dx, dq, parameters } =
            self.all(device, input)?;
        outcomes.push(Outcome::new(Quantity::Loss, pass, loss.view())?);
        outcomes.push(Outcome::new(Quantity::Lse, pass, lse.view())?);
        outcomes.push(Outcome::new(Quantity::Gradient, pass, dx.view())?);
        match dq {
            Some(dq) => outcomes.push(Outcome::new(Quantity::TargetGradient, pass, dq.view())?),
            None => {
                outcomes.push(Outcome::new(Quantity::Output, pass, logprob.view())?);
                outcomes.push(Outcome::new(Quantity::Entropy, pass, entropy.view())?);
            }
        }
        if self.finite && !parameters.is_empty() {
            let parts = parameters.into_iter();
            outcomes.push(layer::all_gradients(input.dtype(), pass, parts)?);
        }
        Ok(outcomes)
    }

    /// Hidden states of ignored rows; logits that are not listed.
    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        let [rows, width] = case.shape[..] else { return Ok(Vec::new()) };
        let read = self.read(rows)?;
        let unread = |row: usize, at: usize| match (&read[row], &self.weight) {
            (None, _) => true,
            (Some(_), Some(_)) => false,
            (Some(list), None) => !list.contains(&at),
        };
        let all = (0..rows).flat_map(|row| (0..width).map(move |at| (row, at)));
        Ok(all.filter(|&(row, at)| unread(row, at)).map(|(row, at)| row * width + at).collect())
    }
}

impl SubsetCall {
    /// The classes that each row reads; `None` of one that does not count.
    fn read(&self, rows: usize) -> Result<Vec<Option<Vec<usize>>>> {
        let owned = self.lists.owned()?;
        let lists = owned.data(self.weight.is_none());
        let indices = reference::indices(self.labels.target.view())?;
        let one = |row: usize| match self.probabilities {
            Some(_) => Some(lists.reads(row, self.classes)),
            None => lists.with_target(row, indices[row], self.labels.ignore_index),
        };
        Ok((0..rows).map(one).collect())
    }

    /// Rows of the classifier, and biases, that nobody lists become NaN.
    fn break_unlisted(&mut self, rows: usize) -> Result<()> {
        let read = self.read(rows)?;
        let listed: Vec<bool> = (0..self.classes)
            .map(|class| read.iter().flatten().any(|list| list.contains(&class)))
            .collect();
        for tensor in [&mut self.weight, &mut self.bias].into_iter().flatten() {
            let (shape, each) = (tensor.shape(), tensor.view().elements() / self.classes);
            let mut values = tensor.view().to_f64()?;
            for (class, values) in values.chunks_exact_mut(each).enumerate() {
                if !listed[class] {
                    values.fill(f64::NAN);
                }
            }
            *tensor = typed::tensor(tensor.dtype(), &shape, &values)?;
        }
        Ok(())
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let of_logits = random.one_in(3);
    let classes = if of_logits { features } else { random.pick(&[1, 2, 5, 40, 300]) };
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
    let soft = random.one_in(4);
    let labels = Labels {
        target: indices,
        weight: weight(random, dtype, classes)?.filter(|_| !soft),
        ignore_index: if soft { -100 } else { ignore_index },
        reduction,
        grad_output: grad_output(random, dtype, reduction, rows)?,
    };
    let kept = |target: i64| if target == ignore_index { -1 } else { target };
    let targets: Vec<i64> =
        reference::indices(labels.target.view())?.into_iter().map(kept).collect();
    let given = (!soft).then_some(&targets[..]);
    let mut drawn = DrawnLists::draw(random, classes, (targets.len(), given));
    if !(values.moderate() && values.finite()) {
        // A rest that is masked altogether has no shares.
        drawn.rest = Rest::Excluded;
    }
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let squares = labels.weight.is_none() && drawn.rest == Rest::Excluded;
    let options = CrossEntropy::default()
        .ignore_index(labels.ignore_index)
        .reduction(reduction)
        .lse_square_scale(if squares { random.pick(&[0.0, 0.0, 1e-4, 0.1]) } else { 0.0 })
        .logit_scale(random.pick(&[1.0, 0.5, 2.0]))
        .softcap(random.pick(caps));
    let deviation = layer::deviation(random, values, dtype);
    let mut parameter = |shape: &[usize]| layer::parameter(random, dtype, shape, deviation);
    let (weight, bias) = (parameter(&[classes, features])?, parameter(&[classes])?);
    let probabilities = soft.then(|| {
        let sizes = [rows, &[drawn.k]].concat();
        let share = 1.0 / drawn.k as f64;
        let one = |_| match random.one_in(4) {
            true => 0.0,
            false => share * f64::from(random.normal()).abs(),
        };
        let values: Vec<f64> = (0..sizes.iter().product()).map(one).collect();
        typed::tensor(dtype, &sizes, &values)
    });
    let probabilities = probabilities.transpose()?;
    let mut token = || -> Result<Upstream> {
        Ok(match (soft, random.below(3)) {
            (true, _) | (_, 0) => Upstream::Number(0.0),
            (_, 1) => Upstream::Number(random.normal()),
            _ => Upstream::Tensor(upstream(random, dtype, rows)?),
        })
    };
    let tokens = [token()?, token()?];
    let with_bias = !of_logits && !random.one_in(2);
    let mut call = SubsetCall {
        labels,
        options,
        lists: drawn.tensors(rows)?,
        classes,
        weight: (!of_logits).then_some(weight),
        bias: with_bias.then_some(bias),
        probabilities,
        temperature: per_row(random, rows, |r| r.pick(&[0.5, 0.7, 1.0, 2.0]))?,
        row_weight: per_row(random, rows, |r| r.pick(&[0.0, 0.3, 1.0, 2.5]))?,
        tokens,
        finite: values.finite(),
    };
    call.break_unlisted(rows.iter().product())?;
    Ok(Box::new(call))
}
