//! Kullback–Leibler divergence of a target from log-probabilities.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Choice, Description, Domain, Setting, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::kl_div::KlDiv as Loss;

struct KlDiv;

impl Described for KlDiv {
    const LOSS: &'static Description = &Description {
        name: "kl-div",
        measured: "As mse; the target holds probabilities",
        options: &[Choice {
            name: "log_target",
            default: Setting::Flag(false),
            cases: &[1.0, 0.0],
            calls: &[1.0],
            tests: &[0.0, 1.0],
        }],
        weights: Weights::None,
        pos_weight: false,
        broadcasts: true,
        batch_mean: true,
        input: Domain::Logarithms,
        target: |o| match o[0] {
            0.0 => Domain::Probabilities,
            _ => Domain::Logarithms,
        },
        formula: |o, at| reference::kl_div(o[0] != 0.0, at),
        make: |o, given| given.plain(Loss::default().log_target(o[0] != 0.0)),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<KlDiv>();
