//! The rows of elementwise losses: a functor, a schedule of `elementwise.cuh`, an element type.

use super::{Data, Module};

/// What is computed of an element: a functor of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ElementLoss {
    Mse,
    L1,
    /// Smooth L1 too.
    Huber,
    BceWithLogits,
    KlDiv,
    KlDivLogTarget,
    KlDivReversed,
    JsDiv,
}

impl ElementLoss {
    pub(crate) const ALL: [ElementLoss; 8] = [
        ElementLoss::Mse,
        ElementLoss::L1,
        ElementLoss::Huber,
        ElementLoss::BceWithLogits,
        ElementLoss::KlDiv,
        ElementLoss::KlDivLogTarget,
        ElementLoss::KlDivReversed,
        ElementLoss::JsDiv,
    ];

    const fn symbol(self) -> &'static str {
        match self {
            ElementLoss::Mse => "mse",
            ElementLoss::L1 => "l1",
            ElementLoss::Huber => "huber",
            ElementLoss::BceWithLogits => "bce_with_logits",
            ElementLoss::KlDiv => "kl_div",
            ElementLoss::KlDivLogTarget => "kl_div_log_target",
            ElementLoss::KlDivReversed => "kl_div_reversed",
            ElementLoss::JsDiv => "js_div",
        }
    }

    const fn functor(self) -> &'static str {
        match self {
            ElementLoss::Mse => "Mse",
            ElementLoss::L1 => "L1",
            ElementLoss::Huber => "Huber",
            ElementLoss::BceWithLogits => "BceWithLogits",
            ElementLoss::KlDiv => "KlDiv",
            ElementLoss::KlDivLogTarget => "KlDivLogTarget",
            ElementLoss::KlDivReversed => "KlDivReversed",
            ElementLoss::JsDiv => "JsDiv",
        }
    }

    pub(crate) const fn module(self) -> Module {
        match self {
            ElementLoss::Mse => Module::Mse,
            ElementLoss::L1 => Module::L1,
            ElementLoss::Huber => Module::Huber,
            ElementLoss::BceWithLogits => Module::BceWithLogits,
            ElementLoss::KlDiv | ElementLoss::KlDivLogTarget => Module::KlDiv,
            ElementLoss::KlDivReversed | ElementLoss::JsDiv => Module::JsDiv,
        }
    }
}

/// A schedule's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ElementEntry {
    /// Line by line: values alone.
    Forward,
    /// Gradients, and values where they are asked for.
    Gradient,
    /// Element by element: what the arguments name.
    Strided,
    /// The gradient of a tensor that was broadcast.
    SumBack,
}

impl ElementEntry {
    pub(crate) const ALL: [ElementEntry; 4] = [
        ElementEntry::Forward,
        ElementEntry::Gradient,
        ElementEntry::Strided,
        ElementEntry::SumBack,
    ];

    const fn symbol(self) -> &'static str {
        match self {
            ElementEntry::Forward => "forward",
            ElementEntry::Gradient => "gradient",
            ElementEntry::Strided => "strided",
            ElementEntry::SumBack => "sum_back",
        }
    }

    /// Blocks that a multiprocessor shall hold at the least: two streams with weights need up to 128
    /// registers, and have as many bytes on their way all the same.
    pub(super) const fn blocks(self) -> u32 {
        match self {
            ElementEntry::Forward | ElementEntry::Gradient => 2,
            ElementEntry::Strided | ElementEntry::SumBack => 3,
        }
    }

    /// The body in `elementwise.cuh`, given a functor and an element type.
    fn body(self, functor: &str, data: &str) -> String {
        match self {
            ElementEntry::Forward => format!("line_pass<{functor}, {data}, false>"),
            ElementEntry::Gradient => format!("line_pass<{functor}, {data}, true>"),
            ElementEntry::Strided => format!("strided_pass<{functor}, {data}>"),
            ElementEntry::SumBack => format!("sum_back<{functor}, {data}>"),
        }
    }
}

/// Threads of every block of an elementwise loss.
pub(crate) const ELEMENT_THREADS: u32 = 256;

pub(super) fn symbol(loss: ElementLoss, entry: ElementEntry, data: Data) -> String {
    format!("{}_{}_{}", loss.symbol(), entry.symbol(), data.name())
}

pub(super) fn body(loss: ElementLoss, entry: ElementEntry, data: Data) -> String {
    entry.body(loss.functor(), data.name())
}
