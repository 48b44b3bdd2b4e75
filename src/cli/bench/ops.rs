//! What `bench OP` takes: what the catalogue can measure.

use crate::check::bench::{Kind, Measured};
use crate::check::catalogue::Op;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::sync::LazyLock;

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct BenchOp(&'static Measured);

impl BenchOp {
    pub(super) fn parts(self) -> (&'static str, Kind) {
        (self.0.name, self.0.kind)
    }

    /// What is measured first of an op.
    pub(super) fn of(op: Op) -> Option<BenchOp> {
        op.measured().first().map(BenchOp)
    }
}

impl PartialEq for BenchOp {
    fn eq(&self, other: &BenchOp) -> bool {
        self.0.name == other.0.name
    }
}

impl std::fmt::Debug for BenchOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl ValueEnum for BenchOp {
    fn value_variants<'a>() -> &'a [BenchOp] {
        static ALL: LazyLock<Vec<BenchOp>> =
            LazyLock::new(|| Op::ALL.iter().flat_map(|op| op.measured()).map(BenchOp).collect());
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name).help(self.0.help))
    }
}
