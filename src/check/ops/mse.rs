//! Squared error.

use crate::check::elementwise::entry::{self, Described};
use crate::check::elementwise::{Description, Domain, Weights};
use crate::check::entry::Entry;
use crate::check::reference;
use crate::spec::mse::Mse as Loss;

struct Mse;

impl Described for Mse {
    const LOSS: &'static Description = &Description {
        name: "mse",
        measured: "In place where forward-backward, as the other elementwise losses",
        options: &[],
        weights: Weights::Divide,
        pos_weight: false,
        broadcasts: true,
        batch_mean: false,
        input: Domain::Any,
        target: |_| Domain::Any,
        formula: |_, at| reference::mse(at),
        make: |_, given| given.weighted(Loss::default()),
    };
}

pub(in crate::check) const ENTRY: Entry = entry::entry::<Mse>();
