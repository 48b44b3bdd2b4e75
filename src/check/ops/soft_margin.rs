//! The logistic loss of labels −1 and 1.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::soft_margin::SoftMargin as Loss;

struct SoftMargin;

impl Described for SoftMargin {
    const LOSS: &'static Description = &Description {
        name: "soft-margin",
        evaluated: Some((
            "Logistic loss of scores and labels -1 and 1",
            "\
Reads input (scores), target (labels; shapes broadcast as in PyTorch) and, with --grad, where the
file has it, grad_output. Writes loss (f32); with --grad also grad_input and grad_target.

Example:
  warploss eval soft-margin --input scores.safetensors",
        )),
        measured: "As mse",
        options: &[],
        weights: Weights::None,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Signs,
        formula: |_, at| reference::soft_margin(at),
        make: |_, given| given.plain(Loss::default()),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<SoftMargin>();
