//! Squared error with straight ends.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::huber::Huber as Loss;

struct Huber;

impl Described for Huber {
    const LOSS: &'static Description = &Description {
        name: "huber",
        evaluated: Some((
            "Squared error with straight ends",
            "\
Reads and writes what mse does.

Example:
  warploss eval huber --input pairs.safetensors --delta 2",
        )),
        measured: "As mse, delta 1",
        options: &[Choice {
            name: "delta",
            value: "D",
            help: "Where the square ends and the line begins",
            default: Scalar::Number(1.0),
            cases: &[0.01, 0.7, 1.0, 20.0],
            calls: &[0.01, 0.7, 20.0],
            tests: &[0.2, 3.0],
        }],
        weights: Weights::Keep,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Any,
        formula: |o, at| reference::huber(o[0], at),
        make: |o, given| given.weighted(Loss::default().delta(o[0])),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<Huber>();
