//! Focal loss between logits and labels.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::sigmoid_focal::SigmoidFocal as Loss;

struct SigmoidFocal;

impl Described for SigmoidFocal {
    const LOSS: &'static Description = &Description {
        name: "sigmoid-focal",
        evaluated: Some((
            "Focal loss between logits and labels 0 and 1",
            "\
Reads input (logits), target (of its shape) and, with --grad, where the file has it, grad_output.
Writes loss (f32); with --grad also grad_input and grad_target.

Example:
  warploss eval sigmoid-focal --input boxes.safetensors --gamma 1.5 --reduction sum",
        )),
        measured: "As mse, alpha 0.25, gamma 2",
        options: &[
            Choice {
                name: "alpha",
                value: "A",
                help: "Weight of the label 1 against that of 0; below 0 for none",
                default: Scalar::Number(0.25),
                cases: &[0.25, -1.0, 0.0, 1.0, 0.9],
                calls: &[-1.0, 0.0, 1.0, 0.9],
                tests: &[0.25, -1.0],
            },
            Choice {
                name: "gamma",
                value: "G",
                help: "How much less counts what is already told apart",
                default: Scalar::Number(2.0),
                cases: &[2.0, 0.0, 0.5, 1.0, 5.0, 3.0],
                calls: &[0.0, 0.5, 1.0, 5.0, 3.0],
                tests: &[2.0, 0.0, 1.5, 1.0, 3.0],
            },
        ],
        weights: Weights::None,
        third: None,
        broadcasts: false,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Probabilities,
        formula: |o, at| reference::sigmoid_focal(o[0], o[1], at),
        make: |o, given| given.plain(Loss::default().alpha(o[0]).gamma(o[1])),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<SigmoidFocal>();
