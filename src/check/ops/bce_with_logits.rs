//! Binary cross entropy between logits and probabilities.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Third, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::bce_with_logits::BceWithLogits as Loss;

struct BceWithLogits;

impl Described for BceWithLogits {
    const LOSS: &'static Description = &Description {
        name: "bce-with-logits",
        evaluated: Some((
            "Binary cross entropy between logits and probabilities",
            "\
Reads input (logits), target (of its shape) and, where the file has them, weight and pos_weight
(which broadcast to the input) and, with --grad, grad_output. Writes loss (f32); with --grad also
grad_input and grad_target.

Example:
  warploss eval bce-with-logits --input labels.safetensors --reduction sum",
        )),
        measured: "As mse",
        options: &[],
        weights: Weights::Broadcast,
        third: Some(Third { name: "pos_weight", slope: None }),
        broadcasts: false,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Probabilities,
        formula: |_, at| reference::bce_with_logits(at),
        make: |_, given| match given.third {
            Some(weight) => given.weighted(Loss::default().pos_weight(weight)),
            None => given.weighted(Loss::default()),
        },
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<BceWithLogits>();
