//! How losses are measured: one file a loss, with its calls, its byte model, and a check of a few rows
//! of the answer. `data` is what they all work on.

pub(super) mod cross_entropy;
pub(crate) mod data;
pub(super) mod elementwise;
pub(super) mod js_div_logits;
pub(super) mod log_softmax;
pub(super) mod logprob_entropy;
pub(super) mod logsumexp;
pub(super) mod nll;
pub(super) mod soft_cross_entropy;

use crate::base::error::Error;
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use data::{Data, Large};

/// What can be measured.
pub(crate) struct Measured {
    /// As the command line has it.
    pub(crate) name: &'static str,
    /// Its line of help.
    pub(crate) help: &'static str,
    /// On what, and how.
    pub(crate) kind: Kind,
}

/// What an op works on.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Rows of logits: `--rows` and `--classes`.
    Rows(&'static dyn Bench),
    /// Elements of two tensors: `--elements`.
    Elements(&'static dyn Bench),
    /// Hidden states and parameters: `--hidden` too.
    Products(Layer),
}

/// A layer, whose time products decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// `--cutoffs` and `--capacities` too.
    AdaptiveLogSoftmax,
    LinearCrossEntropy,
    LinearLogprobEntropy,
    LinearDistillation,
}

/// A measured op.
pub(crate) trait Bench: Sync {
    /// What each pass must move.
    fn traffic(&self, pass: Pass) -> Traffic;
    /// Whether the pass consumes its input in `data.work`.
    fn consumes(&self, _pass: Pass) -> bool {
        false
    }
    /// What it takes for logits (`data.logits`).
    fn input(&self) -> Large {
        Large::Logits
    }
    /// What the pass needs in a tensor as large as the logits (`data.upstream`).
    fn large(&self, _pass: Pass) -> Option<Large> {
        None
    }
    /// Makes what an earlier pass saves.
    fn save(&self, _pass: Pass, _device: &Device, _data: &mut Data) -> Result<(), Error> {
        Ok(())
    }
    /// One run.
    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error>;
    /// Compares a few rows of the last run with a plain f64 computation; what differs, in words.
    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error>;
}
