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
use crate::check::reference::ElementLoss;
use crate::measure::{Pass, Traffic};
use crate::{Device, Error};
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
}

impl BenchOp {
    pub(super) fn parts(self) -> (&'static str, &'static dyn Bench) {
        match self {
            BenchOp::CrossEntropy => ("cross-entropy", &cross_entropy::CrossEntropyBench),
            BenchOp::LogSoftmax => ("log-softmax", &log_softmax::LogSoftmaxBench),
            BenchOp::Logsumexp => ("logsumexp", &logsumexp::LogsumexpBench),
            BenchOp::LogprobEntropy => ("logprob-entropy", &logprob_entropy::LogprobEntropyBench),
            BenchOp::Nll => ("nll", &nll::NllBench),
            BenchOp::SoftCrossEntropy => {
                ("soft-cross-entropy", &SoftCrossEntropyBench { teacher_scale: None })
            }
            BenchOp::Distillation => {
                ("distillation", &SoftCrossEntropyBench { teacher_scale: Some(1.0) })
            }
            BenchOp::Mse => ("mse", &ElementwiseBench(ElementLoss::Mse)),
            BenchOp::L1 => ("l1", &ElementwiseBench(ElementLoss::L1)),
            BenchOp::SmoothL1 => {
                ("smooth-l1", &ElementwiseBench(ElementLoss::SmoothL1 { beta: 1.0 }))
            }
            BenchOp::Huber => ("huber", &ElementwiseBench(ElementLoss::Huber { delta: 1.0 })),
            BenchOp::BceWithLogits => {
                ("bce-with-logits", &ElementwiseBench(ElementLoss::BceWithLogits))
            }
            BenchOp::KlDiv => {
                ("kl-div", &ElementwiseBench(ElementLoss::KlDiv { log_target: false }))
            }
            BenchOp::JsDiv => ("js-div", &ElementwiseBench(ElementLoss::JsDiv { beta: 0.5 })),
            BenchOp::JsDivLogits => ("js-div-logits", &js_div_logits::JsDivLogitsBench),
        }
    }
}

/// A measured op.
pub(super) trait Bench {
    /// What each pass must move.
    fn traffic(&self, pass: Pass) -> Traffic;
    /// Whether the pass consumes its input in `data.work`.
    fn consumes(&self, _pass: Pass) -> bool {
        false
    }
    /// Whether the input has elements and no classes: `--elements` says how many.
    fn elementwise(&self) -> bool {
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
