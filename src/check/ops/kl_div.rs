//! Kullback–Leibler divergence of a target from log-probabilities.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::kl_div::KlDiv as Loss;

struct KlDiv;

impl Described for KlDiv {
    const LOSS: &'static Description = &Description {
        name: "kl-div",
        evaluated: Some((
            "Kullback-Leibler divergence of a target from log-probabilities",
            "\
Reads input (log-probabilities), target (probabilities, or with --log-target their logarithms;
shapes broadcast as in PyTorch) and, with --grad, where the file has it, grad_output. Writes loss
(f32); with --grad also grad_input and grad_target. --reduction batchmean divides by the input's
first dimension.

Example:
  warploss eval kl-div --input distributions.safetensors --reduction batchmean",
        )),
        measured: "As mse; the target holds probabilities",
        options: &[Choice {
            name: "log_target",
            value: "",
            help: "The target holds logarithms of probabilities",
            default: Scalar::Flag(false),
            cases: &[1.0, 0.0],
            calls: &[1.0],
            tests: &[0.0, 1.0],
        }],
        weights: Weights::None,
        third: None,
        broadcasts: true,
        batch_mean: true,
        input: Domain::Logarithms,
        target: |o| match o[0] {
            0.0 => Domain::Probabilities,
            _ => Domain::Logarithms,
        },
        formula: |o, at| reference::kl_div(o[0] != 0.0, at),
        make: |o, given| given.plain(Loss::default().log_target(o[0] != 0.0)),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<KlDiv>();
