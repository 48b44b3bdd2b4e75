//! `warploss eval linear-cross-entropy --distill`: the distribution of a teacher in the place of targets.

use super::call::{Call, Common, Evaluation, bytes, one_number, zeros};
use super::linear::OfProducts;
use super::of_logits::OfLogits;
use crate::base::dtype::DType;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::cli::failure::Failure;
use crate::cli::file::Input;
use crate::cli::memory;
use crate::spec::divergence::Divergence;
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::JsDivLogits;
use crate::spec::linear_cross_entropy::LinearGradOut;
use crate::spec::linear_distillation::{
    DistillationGradOut, DistillationInput, LinearDistillation, LinearHead,
};
use clap::{Args, ValueEnum};
use std::time::Instant;

/// What of a teacher the loss is.
#[derive(Debug, Args)]
pub(super) struct Distil {
    /// Divergence from a teacher of hidden states and a classifier, in the place of a target
    #[arg(long, value_name = "kl|reverse-kl|js|tv", hide_possible_values = true)]
    pub(super) distill: Option<DivergenceArg>,

    /// The teacher's share of the mixture, for --distill js
    #[arg(long, value_name = "B", default_value_t = 0.5, allow_hyphen_values = true)]
    beta: f32,

    /// Multiply the teacher's logits by this first, for --distill
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_hyphen_values = true)]
    teacher_scale: f32,
}

/// `--distill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DivergenceArg {
    Kl,
    ReverseKl,
    Js,
    Tv,
}

const NAMES: &[(&str, &str)] = &[
    ("linear_weight", "linear_weight"),
    ("linear_bias", "linear_bias"),
    ("temperature", "temperature"),
    ("teacher_input", "teacher_input"),
    ("teacher_weight", "teacher_weight"),
    ("teacher_bias", "teacher_bias"),
    ("teacher_temperature", "teacher_temperature"),
    ("row_weight", "row_weight"),
    ("labels", "target"),
    ("beta", "--beta"),
    ("logit_scale", "--logit-scale"),
    ("teacher_scale", "--teacher-scale"),
    ("max_workspace_bytes", "--workspace-mib (in bytes)"),
    ("path", "--path"),
];

/// The tensors of a side, and what its gradients are called.
struct Side<'a> {
    input: Input<'a>,
    weight: Input<'a>,
    bias: Option<Input<'a>>,
    temperature: Option<Input<'a>>,
    gradients: [&'static str; 3],
}

impl<'a> Side<'a> {
    fn new(
        call: &Call<'a>,
        [input, weight, bias, temperature]: [&'static str; 4],
        gradients: [&'static str; 3],
    ) -> Result<Side<'a>, Failure> {
        Ok(Side {
            input: call.inputs.floats(input)?,
            weight: call.inputs.floats(weight)?,
            bias: call.inputs.find_floats(bias)?,
            temperature: call.inputs.find_floats(temperature)?,
            gradients,
        })
    }

    fn head(&self) -> Result<LinearHead<'_>, Failure> {
        let mut head = LinearHead::new(self.input.view()?, self.weight.view()?);
        head.linear_bias = self.bias.as_ref().map(Input::view).transpose()?;
        head.temperature = self.temperature.as_ref().map(Input::view).transpose()?;
        Ok(head)
    }

    /// Memory for its gradients, by name.
    fn zeros(&self) -> Result<Vec<(&'static str, Tensor)>, Failure> {
        let owners = [Some(&self.input), Some(&self.weight), self.bias.as_ref()];
        let each = self.gradients.into_iter().zip(owners);
        let there = each.filter_map(|(name, owner)| Some((name, owner?)));
        there.map(|(name, of)| Ok((name, zeros(name, of.dtype(), of.shape())?))).collect()
    }

    fn gradient_bytes(&self) -> u128 {
        let of = |input: &Input<'_>| bytes(input.dtype(), input.shape());
        of(&self.input).saturating_add(of(&self.weight))
    }
}

fn out<'a>(gradients: &'a mut [(&'static str, Tensor)]) -> LinearGradOut<'a> {
    let mut views = gradients.iter_mut().map(|(_, grad)| grad.view_mut());
    LinearGradOut {
        input: views.next(),
        linear_weight: views.next(),
        linear_bias: views.next(),
        ..LinearGradOut::default()
    }
}

impl Distil {
    /// Whether anything is said that means something only with a teacher.
    pub(super) fn check_without(&self) -> Result<(), Failure> {
        let said = [("--beta", self.beta != 0.5), ("--teacher-scale", self.teacher_scale != 1.0)];
        match said.into_iter().find(|(_, said)| *said) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Failure::input(format!("{name}: expected --distill as well, got none")))
            }
        }
    }

    pub(super) fn evaluate(
        &self,
        divergence: DivergenceArg,
        (common, logits, products): (&Common, &OfLogits, &OfProducts),
        call: &Call<'_>,
    ) -> Result<Evaluation, Failure> {
        let student = Side::new(
            call,
            ["input", "linear_weight", "linear_bias", "temperature"],
            ["grad_input", "grad_linear_weight", "grad_linear_bias"],
        )?;
        let teacher = Side::new(
            call,
            ["teacher_input", "teacher_weight", "teacher_bias", "teacher_temperature"],
            ["grad_teacher_input", "grad_teacher_weight", "grad_teacher_bias"],
        )?;
        let labels = call.inputs.find_indices("target")?;
        let row_weight = call.inputs.find_floats("row_weight")?;
        let upstream = if common.grad { call.inputs.find_floats("grad_output")? } else { None };
        let mut input = DistillationInput::new(student.head()?, teacher.head()?);
        input.row_weight = row_weight.as_ref().map(Input::view).transpose()?;
        let mut of_logits = JsDivLogits::default()
            .divergence(match divergence {
                DivergenceArg::Kl => Divergence::Kl,
                DivergenceArg::ReverseKl => Divergence::ReverseKl,
                DivergenceArg::Js => Divergence::Js(self.beta),
                DivergenceArg::Tv => Divergence::TotalVariation,
            })
            .reduction(common.reduction_or(Reduction::BatchMean))
            .logit_scale(logits.logit_scale)
            .teacher_scale(self.teacher_scale)
            .ignore_index(logits.ignore_index);
        if let Some(labels) = &labels {
            of_logits = of_logits.labels(labels.view()?);
        }
        let reduction = of_logits.reduction;
        let loss = LinearDistillation::from(of_logits)
            .path(products.path())
            .max_workspace_bytes(products.workspace());
        let renamed = |e| call.renamed(&e, NAMES);
        let checked = loss.check(&input).map_err(renamed)?;
        let rows = checked.of_rows.rows();
        let g = match &upstream {
            Some(tensor) => GradOutput::Tensor(tensor.view()?),
            None => GradOutput::default(),
        };

        let gradients = match common.grad {
            true => student.gradient_bytes().saturating_add(teacher.gradient_bytes()),
            false => 0,
        };
        memory::require(bytes(DType::F32, &[rows]).saturating_add(gradients), "the results")?;
        let mut one = zeros("loss", DType::F32, &checked.of_rows.loss_shape())?;
        let mut of_student = if common.grad { student.zeros()? } else { Vec::new() };
        let mut of_teacher = if common.grad { teacher.zeros()? } else { Vec::new() };
        let start = Instant::now();
        match common.grad {
            true => {
                let gradients = DistillationGradOut {
                    student: out(&mut of_student),
                    teacher: out(&mut of_teacher),
                };
                loss.forward_backward_into(call.device, &input, g, gradients, one.view_mut())
            }
            false => loss.forward_into(call.device, &input, one.view_mut()),
        }
        .map_err(renamed)?;
        let seconds = start.elapsed().as_secs_f64();
        let number = one_number(&one);
        let named = of_student.into_iter().chain(of_teacher).chain([("loss", one)]);
        Ok(Evaluation {
            dtype: student.input.dtype(),
            shape: student.input.shape().to_vec(),
            reduction,
            loss: number,
            rows,
            ignored: labels.map_or(0, |labels| labels.count(logits.ignore_index)),
            seconds,
            tensors: named.map(|(name, tensor)| (name.to_owned(), tensor)).collect(),
        })
    }
}
