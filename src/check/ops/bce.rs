//! Binary cross entropy between probabilities.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::bce::Bce as Loss;

struct Bce;

impl Described for Bce {
    const LOSS: &'static Description = &Description {
        name: "bce",
        evaluated: Some((
            "Binary cross entropy between probabilities",
            "\
Reads input (probabilities), target (of its shape) and, where the file
has them, weight (which broadcasts to the input) and, with --grad, grad_output. Writes loss (f32);
with --grad also grad_input and grad_target. Of logits: bce-with-logits.

Example:
  warploss eval bce --input labels.safetensors --reduction sum",
        )),
        measured: "As mse",
        options: &[],
        weights: Weights::Broadcast,
        third: None,
        broadcasts: false,
        batch_mean: false,
        input: Domain::Probabilities,
        target: |_| Domain::Probabilities,
        formula: |_, at| reference::bce(at),
        make: |_, given| given.weighted(Loss::default()),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<Bce>();
