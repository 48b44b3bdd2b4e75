//! Negative log-likelihood of counts under Poisson distributions.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::poisson_nll::PoissonNll as Loss;

struct PoissonNll;

impl Described for PoissonNll {
    const LOSS: &'static Description = &Description {
        name: "poisson-nll",
        evaluated: Some((
            "Negative log-likelihood of counts under Poisson distributions",
            "\
Reads input (logarithms of rates, or with --rate-input rates), target (counts; shapes broadcast as in
PyTorch) and, with --grad, where the file has it, grad_output. Writes loss (f32); with --grad also
grad_input and grad_target.

Example:
  warploss eval poisson-nll --input counts.safetensors --full",
        )),
        measured: "As mse, of logarithms of rates",
        options: &[
            Choice {
                name: "rate_input",
                value: "",
                help: "The input holds rates, not their logarithms",
                default: Scalar::Flag(false),
                cases: &[0.0, 1.0],
                calls: &[1.0],
                tests: &[0.0],
            },
            Choice {
                name: "full",
                value: "",
                help: "Add Stirling's approximation of the counts' factorials",
                default: Scalar::Flag(false),
                cases: &[0.0, 1.0],
                calls: &[1.0],
                tests: &[0.0],
            },
            Choice {
                name: "eps",
                value: "E",
                help: "Added to a rate before its logarithm is taken",
                default: Scalar::Number(1e-8),
                cases: &[1e-8, 0.0, 0.01],
                calls: &[0.0, 0.01],
                tests: &[1e-8],
            },
        ],
        weights: Weights::None,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Counts,
        formula: |o, at| reference::poisson_nll(o[0] == 0.0, o[1] != 0.0, o[2], at),
        make: |o, given| {
            given.plain(Loss::default().log_input(o[0] == 0.0).full(o[1] != 0.0).eps(o[2]))
        },
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<PoissonNll>();
