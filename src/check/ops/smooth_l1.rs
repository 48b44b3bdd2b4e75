//! Absolute error with a squared middle of slope 1 at its edge.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::smooth_l1::SmoothL1 as Loss;

struct SmoothL1;

impl Described for SmoothL1 {
    const LOSS: &'static Description = &Description {
        name: "smooth-l1",
        evaluated: Some((
            "Absolute error with a squared middle of slope 1 at its edge",
            "\
Reads and writes what mse does.

Example:
  warploss eval smooth-l1 --input pairs.safetensors --beta 0.5",
        )),
        measured: "As mse, beta 1",
        options: &[Choice {
            name: "beta",
            value: "B",
            help: "Where the square ends and the line begins; 0 is l1",
            default: Scalar::Number(1.0),
            cases: &[0.0, 0.3, 1.0, 7.0],
            calls: &[0.0, 0.3, 7.0],
            tests: &[0.0, 0.7],
        }],
        weights: Weights::Divide,
        third: None,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Any,
        formula: |o, at| reference::smooth_l1(o[0], at),
        make: |o, given| given.weighted(Loss::default().beta(o[0])),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<SmoothL1>();
