//! What every op of `eval` takes, is called with and gives.

use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::cli::failure::Failure;
use crate::cli::file::{Input, Inputs};
use crate::cli::number;
use crate::device::Device;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What every op takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Safetensors file with the input tensors; memory-mapped
    #[arg(long, value_name = "FILE")]
    pub(super) input: PathBuf,

    /// Write the resulting tensors to this safetensors file
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,

    /// Read the tensors whose names are this prefix and the name
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(super) prefix: String,

    /// Write gradients to --output too, from `grad_output` where the file has it, else from 1
    #[arg(long)]
    pub(super) grad: bool,

    /// How the losses of the rows become the result; batchmean for the divergences alone
    #[arg(long, value_name = "none|sum|mean|batchmean", hide_possible_values = true)]
    pub(super) reduction: Option<ReductionArg>,

    /// Only the first V of each row's columns are classes, the rest is padding
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    pub(super) classes: Option<usize>,
}

/// `--reduction`, as far as any op knows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReductionArg {
    None,
    Sum,
    Mean,
    #[value(name = "batchmean")]
    BatchMean,
}

impl Common {
    /// The reduction of a loss; the mean where nothing is said.
    pub(super) fn reduction(&self) -> Reduction {
        self.reduction_or(Reduction::Mean)
    }

    /// The reduction of a loss that has a default of its own.
    pub(super) fn reduction_or(&self, default: Reduction) -> Reduction {
        match self.reduction {
            Some(ReductionArg::None) => Reduction::None,
            Some(ReductionArg::Sum) => Reduction::Sum,
            Some(ReductionArg::Mean) => Reduction::Mean,
            Some(ReductionArg::BatchMean) => Reduction::BatchMean,
            None => default,
        }
    }

    /// For an op whose rows have no padding, and why.
    pub(super) fn no_classes(&self, why: &str) -> Result<(), Failure> {
        match self.classes {
            None => Ok(()),
            Some(got) => {
                Err(Failure::input(format!("--classes: expected none ({why}), got {got}")))
            }
        }
    }

    /// For an op whose results are not losses: only `none` can be said of them.
    pub(super) fn unreduced(&self, op: &str) -> Result<Reduction, Failure> {
        match self.reduction {
            Some(ReductionArg::None) | None => Ok(Reduction::None),
            Some(ReductionArg::Sum | ReductionArg::Mean | ReductionArg::BatchMean) => {
                Err(Failure::input(format!(
                    "--reduction: expected none ({op} does not reduce rows), got {}",
                    self.reduction()
                )))
            }
        }
    }
}

/// One op of `eval`.
pub(super) trait Evaluate {
    /// The options that every op has.
    fn common(&self) -> &Common;
    /// Reads, checks, computes.
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure>;
}

/// What an op is called with.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) device: &'a Device,
    pub(super) inputs: &'a Inputs<'a>,
    /// Whether the tensors will be written, so that those nobody asked for are not computed.
    pub(super) output: bool,
}

/// What an op returns.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) reduction: Reduction,
    /// Where the result is one number.
    pub(super) loss: Option<f32>,
    pub(super) rows: usize,
    pub(super) ignored: usize,
    pub(super) seconds: f64,
    pub(super) tensors: Vec<(String, Tensor)>,
}

impl Evaluation {
    pub(super) fn json(&self, op: &str, device: &Device) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("op", op.into());
        put("device", device.name().into());
        put("dtype", self.dtype.name().into());
        put("shape", self.shape.clone().into());
        put("reduction", self.reduction.name().into());
        put("loss", self.loss.map_or(Value::Null, number::f32));
        put("rows", self.rows.into());
        put("ignored", self.ignored.into());
        put("seconds", number::f64(self.seconds));
        Value::Object(object)
    }
}

impl<'a> Call<'a> {
    /// The upstream gradient where the file has one.
    pub(super) fn grad_output(&self) -> Result<Option<Input<'a>>, Failure> {
        self.inputs.find_floats("grad_output")
    }

    /// The library's error in the file's names; `more` are the op's own pairs.
    pub(super) fn renamed(&self, error: &Error, more: &[(&str, &str)]) -> Failure {
        let mut names: Vec<(&str, String)> = more
            .iter()
            .map(|&(library, here)| match here.starts_with("--") {
                true => (library, here.to_owned()),
                false => (library, self.inputs.full_name(here)),
            })
            .collect();
        names.push(("reduction", "--reduction".to_owned()));
        for same in ["input", "target", "weight", "grad_output"] {
            names.push((same, self.inputs.full_name(same)));
        }
        Failure::renamed(error, &names)
    }
}

/// Bytes of a tensor, for the question whether it fits.
pub(super) fn bytes(dtype: DType, shape: &[usize]) -> u128 {
    let elements = shape.iter().fold(1u128, |n, &d| n.saturating_mul(d as u128));
    elements.saturating_mul(dtype.size() as u128)
}

/// A tensor of zeros whose shape came from a file.
pub(super) fn zeros(name: &'static str, dtype: DType, shape: &[usize]) -> Result<Tensor, Failure> {
    let shape = Shape::new(shape).ok_or_else(|| {
        Failure::input(format!(
            "{name}: expected at most {} dimensions",
            crate::base::shape::MAX_RANK
        ))
    })?;
    Ok(Tensor::zeros_for(name, dtype, shape)?)
}

/// The number that a result of no dimensions is.
pub(super) fn one_number(tensor: &Tensor) -> Option<f32> {
    if tensor.shape().is_empty() { tensor.item().ok() } else { None }
}
