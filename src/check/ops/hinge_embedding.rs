//! Distances, small or beyond a margin.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::hinge_embedding::HingeEmbedding as Loss;

struct HingeEmbedding;

impl Described for HingeEmbedding {
    const LOSS: &'static Description = &Description {
        name: "hinge-embedding",
        evaluated: Some((
            "Distances, small where labels are 1 and beyond a margin where they are -1",
            "\
Reads input (distances), target (labels; shapes broadcast as in PyTorch) and, with --grad, where the
file has it, grad_output. Writes loss (f32); with --grad also grad_input and grad_target, which is 0.

Example:
  warploss eval hinge-embedding --input distances.safetensors --margin 0.5",
        )),
        measured: "As mse, margin 1",
        options: &[Choice {
            name: "margin",
            value: "M",
            help: "From which distance on what is not alike costs nothing",
            default: Scalar::Number(1.0),
            cases: &[1.0, 0.3, 0.0, -2.0, 20.0],
            calls: &[0.3, 0.0, -2.0],
            tests: &[0.7, 3.0],
        }],
        weights: Weights::None,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Signs,
        formula: |o, at| reference::hinge_embedding(o[0], at),
        make: |o, given| given.plain(Loss::default().margin(o[0])),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<HingeEmbedding>();
