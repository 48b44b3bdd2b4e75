//! `warploss eval` of the losses that the catalogue describes: options and tensors by name.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number};
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::shape::Shape;
use crate::check::call::{Setpoint, Setting};
use crate::check::catalogue::Op;
use crate::check::entry::{Evaluated, Read};
use crate::check::option::{Choice, Scalar};
use crate::cli::failure::Failure;
use crate::cli::file::Input;
use crate::cli::memory;
use crate::spec::broadcast::broadcast;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _, value_parser};
use std::time::Instant;

/// A loss, and what the command line says of it.
pub(super) struct Described {
    common: Common,
    op: Op,
    loss: &'static Evaluated,
    settings: Vec<Setting>,
}

/// An option as the command line has it.
fn long(choice: &Choice) -> String {
    choice.name.replace('_', "-")
}

impl Described {
    /// The losses.
    pub(super) fn all() -> impl Iterator<Item = (Op, &'static Evaluated)> {
        Op::ALL.iter().filter_map(|&op| Some((op, op.evaluated()?)))
    }

    /// The subcommand of a loss.
    pub(super) fn command(op: Op, loss: &'static Evaluated) -> Command {
        let mut command = Common::augment_args(Command::new(op.name()));
        for choice in loss.options {
            let arg = Arg::new(choice.name).long(long(choice)).help(choice.help);
            command = command.arg(match choice.default {
                Scalar::Flag(_) => arg.action(ArgAction::SetTrue),
                Scalar::Number(default) => arg
                    .value_name(choice.value)
                    .allow_hyphen_values(true)
                    .value_parser(value_parser!(f32))
                    .default_value((default as f32).to_string()),
            });
        }
        command.about(loss.about).after_help(loss.more)
    }

    /// What was said after the loss's name.
    pub(super) fn new(
        (op, loss): (Op, &'static Evaluated),
        said: &ArgMatches,
    ) -> Result<Described, clap::Error> {
        let set = |choice: &Choice| {
            let value = match choice.default {
                Scalar::Flag(_) => Setpoint::Flag(said.get_flag(choice.name)),
                Scalar::Number(default) => {
                    let number = said.get_one::<f32>(choice.name).map(|&x| x.into());
                    Setpoint::Number(number.unwrap_or(default))
                }
            };
            Setting { name: choice.name, default: value.clone(), value }
        };
        let settings = loss.options.iter().map(set).collect();
        Ok(Described { common: Common::from_arg_matches(said)?, op, loss, settings })
    }

    /// The tensors that the file has of those that the loss reads.
    fn inputs<'a>(&self, call: &Call<'a>) -> Result<Vec<(&'static str, Input<'a>)>, Failure> {
        let mut found = Vec::new();
        for Read { name, indices, optional } in self.loss.reads {
            let input = match (indices, optional) {
                (false, false) => Some(call.inputs.floats(name)?),
                (true, false) => Some(call.inputs.indices(name)?),
                (false, true) => call.inputs.find_floats(name)?,
                (true, true) => call.inputs.find_indices(name)?,
            };
            found.extend(input.map(|input| (*name, input)));
        }
        if self.common.grad {
            found.extend(call.grad_output()?.map(|input| ("grad_output", input)));
        }
        Ok(found)
    }

    /// The library's error in the names of the file and of the command line.
    fn renamed(&self, call: &Call<'_>, error: &Error) -> Failure {
        let options: Vec<(&str, String)> = (self.loss.options.iter())
            .map(|choice| (choice.name, format!("--{}", long(choice))))
            .collect();
        let options = options.iter().map(|(name, here)| (*name, &here[..]));
        let tensors = self.loss.reads.iter().map(|read| (read.name, read.name));
        call.renamed(error, &options.chain(tensors).collect::<Vec<_>>())
    }
}

impl Evaluate for Described {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        self.common.no_classes("the rows of this op have no classes")?;
        let inputs = self.inputs(call)?;
        let mut read = Vec::new();
        for (name, input) in &inputs {
            read.push((*name, input.view()?));
        }
        let [(_, input), (_, target), ..] = &inputs[..] else {
            return Err(Failure::failed(format!("{}: no input and target", self.op.name())));
        };
        // Shapes that do not broadcast are the library's to report.
        let [x, y] = [input, target].map(|of| Shape::new(of.shape()).unwrap_or(Shape::SCALAR));
        let rows: usize = match target.dtype().is_index() {
            true => target.elements(),
            false => broadcast(x, y).unwrap_or(Shape::SCALAR).iter().product(),
        };
        let gradients = bytes(input.dtype(), &x) + bytes(target.dtype(), &y);
        let needed = bytes(DType::F32, &[rows]) + if self.common.grad { gradients } else { 0 };
        memory::require(needed, "the results")?;

        let mut settings = self.settings.clone();
        let number = Setpoint::Number(1.0);
        let reduction = Setpoint::Reduction(self.common.reduction());
        for (name, value) in [("grad_output", number), ("reduction", reduction)] {
            settings.push(Setting { name, default: value.clone(), value });
        }
        let start = Instant::now();
        let mut results: Vec<(String, crate::base::tensor::Tensor)> = Vec::new();
        for form in self.loss.forms[usize::from(self.common.grad)] {
            let made = self.op.call(form, call.device, settings.clone(), read.clone());
            results.extend(made.map_err(|e| self.renamed(call, &e))?);
        }
        let seconds = start.elapsed().as_secs_f64();
        // Gradients first, as they always stood in a file.
        results.sort_by_key(|(name, _)| name == "loss");
        let loss = results.last().filter(|(name, _)| name == "loss");
        Ok(Evaluation {
            dtype: input.dtype(),
            shape: input.shape().to_vec(),
            reduction: self.common.reduction(),
            loss: loss.and_then(|(_, loss)| one_number(loss)),
            rows,
            ignored: 0,
            seconds,
            tensors: results,
        })
    }
}
