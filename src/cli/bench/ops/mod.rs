//! The ops that can be measured: their calls, their byte models, and the check of their answers.
//!
//! To add one: a type with [`Bench`] in a file of its own, a variant and a line in [`BenchOp`].

mod cross_entropy;
mod elementwise;
mod js_div_logits;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod nll;
mod soft_cross_entropy;

use super::data::{Data, Large};
use crate::base::error::Error;
use crate::check::reference::ElementLoss;
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use clap::ValueEnum;
use elementwise::ElementwiseBench;
use soft_cross_entropy::SoftCrossEntropyBench;

/// What `bench OP` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchOp {
    /// Fused in place where forward-backward
    CrossEntropy,
    /// Output in the input's dtype
    LogSoftmax,
    /// Along rows
    Logsumexp,
    /// Fused in place where forward-backward; both results have a gradient
    LogprobEntropy,
    /// One element of each row
    Nll,
    /// Cross entropy against probabilities, fused in place where forward-backward
    SoftCrossEntropy,
    /// The same against a teacher's logits
    Distillation,
    /// In place where forward-backward, as the other elementwise losses
    Mse,
    /// As mse
    L1,
    /// As mse, beta 1
    SmoothL1,
    /// As mse, delta 1
    Huber,
    /// As mse
    BceWithLogits,
    /// As mse; the target holds probabilities
    KlDiv,
    /// As mse, beta 0.5; both hold log-probabilities
    JsDiv,
    /// Jensen-Shannon divergence from logits, fused in place where forward-backward
    JsDivLogits,
    /// Hidden states and parameters to a loss and all gradients
    AdaptiveLogSoftmax,
}

impl BenchOp {
    pub(super) fn parts(self) -> (&'static str, Kind) {
        match self {
            BenchOp::CrossEntropy => {
                ("cross-entropy", Kind::Rows(&cross_entropy::CrossEntropyBench))
            }
            BenchOp::LogSoftmax => ("log-softmax", Kind::Rows(&log_softmax::LogSoftmaxBench)),
            BenchOp::Logsumexp => ("logsumexp", Kind::Rows(&logsumexp::LogsumexpBench)),
            BenchOp::LogprobEntropy => {
                ("logprob-entropy", Kind::Rows(&logprob_entropy::LogprobEntropyBench))
            }
            BenchOp::Nll => ("nll", Kind::Rows(&nll::NllBench)),
            BenchOp::SoftCrossEntropy => {
                ("soft-cross-entropy", Kind::Rows(&SoftCrossEntropyBench { teacher_scale: None }))
            }
            BenchOp::Distillation => {
                ("distillation", Kind::Rows(&SoftCrossEntropyBench { teacher_scale: Some(1.0) }))
            }
            BenchOp::Mse => ("mse", Kind::Elements(&ElementwiseBench(ElementLoss::Mse))),
            BenchOp::L1 => ("l1", Kind::Elements(&ElementwiseBench(ElementLoss::L1))),
            BenchOp::SmoothL1 => (
                "smooth-l1",
                Kind::Elements(&ElementwiseBench(ElementLoss::SmoothL1 { beta: 1.0 })),
            ),
            BenchOp::Huber => {
                ("huber", Kind::Elements(&ElementwiseBench(ElementLoss::Huber { delta: 1.0 })))
            }
            BenchOp::BceWithLogits => {
                ("bce-with-logits", Kind::Elements(&ElementwiseBench(ElementLoss::BceWithLogits)))
            }
            BenchOp::KlDiv => (
                "kl-div",
                Kind::Elements(&ElementwiseBench(ElementLoss::KlDiv { log_target: false })),
            ),
            BenchOp::JsDiv => {
                ("js-div", Kind::Elements(&ElementwiseBench(ElementLoss::JsDiv { beta: 0.5 })))
            }
            BenchOp::JsDivLogits => ("js-div-logits", Kind::Rows(&js_div_logits::JsDivLogitsBench)),
            BenchOp::AdaptiveLogSoftmax => ("adaptive-log-softmax", Kind::Products),
        }
    }
}

/// What an op works on.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Rows of logits: `--rows` and `--classes`.
    Rows(&'static dyn Bench),
    /// Elements of two tensors: `--elements`.
    Elements(&'static dyn Bench),
    /// Hidden states and parameters: `--hidden` and `--cutoffs` too.
    Products,
}

/// A measured op.
pub(super) trait Bench {
    /// What each pass must move.
    fn traffic(&self, pass: Pass) -> Traffic;
    /// Whether the pass consumes its input in `data.work`.
    fn consumes(&self, _pass: Pass) -> bool {
        false
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
