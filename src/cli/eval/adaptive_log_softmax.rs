//! `warploss eval adaptive-log-softmax`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number};
use super::upstream;
use crate::base::dtype::DType;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
use crate::cli::failure::Failure;
use crate::cli::file::Input;
use crate::cli::memory;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters};
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::LayerOutput;
use clap::{Args, ValueEnum};
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input ([N, D] or [D]), the parameters as torch.nn.AdaptiveLogSoftmaxWithLoss names them
(head.weight, head.bias where there is one, tail.{i}.0.weight, tail.{i}.1.weight) and, in mode
loss, target (class indices) and, with --grad, grad_output (the shape of what --grad-of names, or
one number). Modes write
  loss      output (the log-probability of each target, f32) and loss, which is its negated
            reduction; with --grad also grad_input and grad_ + each parameter's name
  log-prob  log_prob (of each class, f32)
  predict   predict (the most likely class, i64)
Classes are numbered by falling frequency.

Example:
  warploss eval adaptive-log-softmax --input model.safetensors --cutoffs 2000,10000 --grad")]
pub(super) struct AdaptiveLogSoftmaxArgs {
    #[command(flatten)]
    common: Common,

    /// First class of each cluster, without the number of classes [default: as the weights have it]
    #[arg(long, value_name = "C,C,…", value_delimiter = ',', allow_hyphen_values = true)]
    cutoffs: Option<Vec<usize>>,

    /// The label of rows that do not count [default: none, so that -100 is an error]
    #[arg(long, value_name = "LABEL", allow_hyphen_values = true)]
    ignore_index: Option<i64>,

    /// What to compute
    #[arg(long, value_name = "loss|log-prob|predict", default_value = "loss")]
    #[arg(hide_possible_values = true)]
    mode: Mode,

    /// What grad_output is the gradient of
    #[arg(long, value_name = "loss|output", default_value = "loss", hide_possible_values = true)]
    grad_of: GradOf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Loss,
    LogProb,
    Predict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GradOf {
    Loss,
    Output,
}

const NAMES: &[(&str, &str)] = &[
    ("cutoffs", "--cutoffs"),
    ("k", "--mode"),
    // What the file lacks; the key follows.
    ("state_dict", "--input"),
    ("parameters", "--input"),
    ("output", "output"),
    ("loss", "loss"),
    ("grad_input", "grad_input"),
];

impl Evaluate for AdaptiveLogSoftmaxArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        if let Some(classes) = self.common.classes {
            let expected = "expected none (the weights say how many classes there are)";
            return Err(Failure::input(format!("--classes: {expected}, got {classes}")));
        }
        if self.mode != Mode::Loss && self.common.grad {
            let got = match self.mode {
                Mode::LogProb => "log-prob",
                Mode::Loss | Mode::Predict => "predict",
            };
            return Err(Failure::input(format!("--grad: expected --mode loss, got --mode {got}")));
        }
        let input = call.inputs.floats("input")?;
        let stored = self.parameters(call)?;
        let loss = self.options(call, &stored)?;
        let prefix = call.inputs.full_name("");
        let named = stored.iter().map(|p| Ok((p.name().to_owned(), p.view()?)));
        let named = named.collect::<Result<Vec<_>, Failure>>()?;
        let parameters = loss
            .parameters_from(&prefix, named, |view| view.shape())
            .map_err(|e| call.renamed(&e, NAMES))?;
        let batch = Batch { call, loss, parameters, input: input.view()? };
        let start = Instant::now();
        let result = match self.mode {
            Mode::Loss => self.loss(&batch, &input)?,
            Mode::LogProb | Mode::Predict => batch.distribution(self.mode)?,
        };
        let rows = input.shape().split_last().map_or(0, |(_, rows)| rows.iter().product());
        Ok(Evaluation {
            dtype: input.dtype(),
            shape: input.shape().to_vec(),
            reduction: self.common.reduction(),
            loss: result.loss,
            rows,
            ignored: result.ignored,
            seconds: start.elapsed().as_secs_f64(),
            tensors: result.tensors,
        })
    }
}

/// What is evaluated.
struct Batch<'a> {
    call: &'a Call<'a>,
    loss: AdaptiveLogSoftmax<'static>,
    parameters: AdaptiveParameters<TensorRef<'a>>,
    input: TensorRef<'a>,
}

#[derive(Default)]
struct Results {
    loss: Option<f32>,
    ignored: usize,
    tensors: Vec<(String, Tensor)>,
}

impl AdaptiveLogSoftmaxArgs {
    /// All tensors of the file that are named as parameters.
    fn parameters<'a>(&self, call: &Call<'a>) -> Result<Vec<Input<'a>>, Failure> {
        let names = call.inputs.names();
        let ours = names.iter().filter(|n| n.starts_with("head.") || n.starts_with("tail."));
        ours.map(|name| call.inputs.floats(name)).collect()
    }

    /// The options that the file's shapes make, from which the command line's cutoffs must not
    /// differ.
    fn options(
        &self,
        call: &Call<'_>,
        stored: &[Input<'_>],
    ) -> Result<AdaptiveLogSoftmax<'static>, Failure> {
        let shapes = stored.iter().map(|p| Ok((p.name().to_owned(), p.view()?.shape())));
        let shapes = shapes.collect::<Result<Vec<_>, Failure>>()?;
        let prefix = call.inputs.full_name("");
        let loss = AdaptiveLogSoftmax::from_shapes(&prefix, shapes);
        let loss = loss.map_err(|e| call.renamed(&e, NAMES))?;
        if let Some(given) = &self.cutoffs {
            check_cutoffs(call, given, &loss)?;
        }
        Ok(loss.ignore_index(self.ignore_index).reduction(self.common.reduction()))
    }

    fn loss(&self, batch: &Batch<'_>, input: &Input<'_>) -> Result<Results, Failure> {
        let call = batch.call;
        let target = call.inputs.indices("target")?;
        let renamed = |e| call.renamed(&e, NAMES);
        let mut tensors = Vec::new();
        let out = if self.common.grad {
            let sizes = batch.parameters.clone().into_named();
            let each = sizes.iter().map(|(_, p)| bytes(p.dtype(), &p.shape())).sum::<u128>();
            memory::require(each + bytes(input.dtype(), input.shape()), "the gradients")?;
            let given = call.grad_output()?;
            let mut negated = None;
            let (loss, upstream) = match (self.grad_of, &given) {
                (GradOf::Loss, None) => (batch.loss.clone(), GradOutput::default()),
                (GradOf::Loss, Some(g)) => (batch.loss.clone(), GradOutput::Tensor(g.view()?)),
                (GradOf::Output, given) => {
                    let loss = batch.loss.clone().reduction(Reduction::None);
                    (loss, negative(given.as_ref(), &mut negated)?)
                }
            };
            let (parameters, input) = (&batch.parameters, batch.input);
            let grad = loss
                .forward_backward(call.device, parameters, input, target.view()?, upstream)
                .map_err(renamed)?;
            tensors.push(("grad_input".to_owned(), grad.input));
            let named = grad.parameters.into_named().into_iter();
            tensors.extend(named.map(|(key, grad)| (format!("grad_{key}"), grad)));
            match self.grad_of {
                GradOf::Loss => grad.output,
                GradOf::Output => batch.forward(&target)?,
            }
        } else {
            batch.forward(&target)?
        };
        let ignored = match self.ignore_index {
            Some(label) => target.count(label),
            None => 0,
        };
        let loss = one_number(&out.loss);
        tensors.push(("output".to_owned(), out.output));
        tensors.push(("loss".to_owned(), out.loss));
        Ok(Results { loss, ignored, tensors })
    }
}

impl Batch<'_> {
    fn forward(&self, target: &Input<'_>) -> Result<LayerOutput, Failure> {
        self.loss
            .forward(self.call.device, &self.parameters, self.input, target.view()?)
            .map_err(|e| self.call.renamed(&e, NAMES))
    }

    fn distribution(&self, mode: Mode) -> Result<Results, Failure> {
        let (device, parameters) = (self.call.device, &self.parameters);
        let rows: usize = self.input.shape().split_last().map_or(0, |(_, r)| r.iter().product());
        let (name, tensor) = match mode {
            Mode::Predict => ("predict", self.loss.predict(device, parameters, self.input)),
            Mode::LogProb | Mode::Loss => {
                memory::require(bytes(DType::F32, &[rows, self.loss.classes()]), "log_prob")?;
                ("log_prob", self.loss.log_prob(device, parameters, self.input))
            }
        };
        let tensor = tensor.map_err(|e| self.call.renamed(&e, NAMES))?;
        Ok(Results { tensors: vec![(name.to_owned(), tensor)], ..Results::default() })
    }
}

/// An error for cutoffs that are not those of the weights.
fn check_cutoffs(
    call: &Call<'_>,
    given: &[usize],
    loss: &AdaptiveLogSoftmax<'_>,
) -> Result<(), Failure> {
    let (right, classes) = (loss.cutoffs(), loss.classes());
    if given == right {
        return Ok(());
    }
    let list =
        |cutoffs: &[usize]| cutoffs.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let refuse = |why: String| {
        let (right, given) = (list(right), list(given));
        Err(Failure::input(format!("--cutoffs: expected {right} ({why}), got {given}")))
    };
    if given.split_last() == Some((&classes, right)) {
        return refuse(format!(
            "without the number of classes, {classes}, which follows from the weights"
        ));
    }
    // Cutoffs that suit no weights are told so.
    let any = AdaptiveLogSoftmax::new(loss.in_features(), classes, given);
    any.shapes().map_err(|e| call.renamed(&e, NAMES))?;
    refuse(format!("as the weights of {classes} classes have it"))
}

/// −grad_output, for the gradient of `output` is that of −loss; −1 where there is none.
fn negative<'a>(
    given: Option<&Input<'_>>,
    to: &'a mut Option<Tensor>,
) -> Result<GradOutput<'a>, Failure> {
    let Some(given) = given else {
        return Ok(GradOutput::Number(-1.0));
    };
    let shape = Shape::new(given.shape()).unwrap_or(Shape::SCALAR);
    let mut tensor = Tensor::zeros_for("grad_output", given.dtype(), shape)?;
    upstream::fill_by(&mut tensor, |i| -given.host().float(i));
    Ok(GradOutput::Tensor(to.insert(tensor).view()))
}
