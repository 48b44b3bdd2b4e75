//! Jensen–Shannon divergence between log-probabilities.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::option::{Choice, Scalar};
use crate::check::reference;
use crate::spec::js_div::JsDiv as Loss;

struct JsDiv;

impl Described for JsDiv {
    const LOSS: &'static Description = &Description {
        name: "js-div",
        evaluated: None,
        measured: "As mse, beta 0.5; both hold log-probabilities",
        options: &[Choice {
            name: "beta",
            value: "B",
            help: "The target's share of the mixture",
            default: Scalar::Number(0.5),
            cases: &[0.5, 0.1, 0.9, 0.0, 1.0, 1e-6, 0.999],
            calls: &[0.1, 0.9, 0.0, 1.0],
            tests: &[0.5, 0.1, 0.0, 1.0],
        }],
        weights: Weights::None,
        third: None,
        broadcasts: true,
        batch_mean: true,
        input: Domain::Logarithms,
        target: |_| Domain::Logarithms,
        formula: |o, at| reference::js_div(o[0], at),
        make: |o, given| given.plain(Loss::default().beta(o[0])),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<JsDiv>();
