//! Absolute error.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::l1::L1 as Loss;

struct L1;

impl Described for L1 {
    const LOSS: &'static Description = &Description {
        name: "l1",
        evaluated: Some((
            "Absolute error between input and target",
            "\
Reads and writes what mse does.

Example:
  warploss eval l1 --input pairs.safetensors --reduction none",
        )),
        measured: "As mse",
        options: &[],
        weights: Weights::Divide,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Any,
        formula: |_, at| reference::l1(at),
        make: |_, given| given.weighted(Loss::default()),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<L1>();
