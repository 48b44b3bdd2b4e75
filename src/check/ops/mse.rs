//! Squared error.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::mse::Mse as Loss;

struct Mse;

impl Described for Mse {
    const LOSS: &'static Description = &Description {
        name: "mse",
        evaluated: Some((
            "Squared error between input and target",
            "\
Reads input, target (shapes broadcast as in PyTorch) and, where the file has them, weight (then all
three have one shape) and, with --grad, grad_output. Writes loss (f32); with --grad also grad_input
and grad_target.

Example:
  warploss eval mse --input pairs.safetensors --grad --output gradients.safetensors",
        )),
        measured: "In place where forward-backward, as the other elementwise losses",
        options: &[],
        weights: Weights::Divide,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Any,
        formula: |_, at| reference::mse(at),
        make: |_, given| given.weighted(Loss::default()),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<Mse>();
