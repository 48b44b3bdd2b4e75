//! The rows of elementwise losses: a functor, a schedule of `elementwise.cuh`, an element type.

use super::Data;
use crate::spec::elementwise::functors::Functor;

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

pub(super) fn symbol(functor: Functor, entry: ElementEntry, data: Data) -> String {
    format!("{}_{}_{}", snake(functor.name()), entry.symbol(), data.name())
}

pub(super) fn body(functor: Functor, entry: ElementEntry, data: Data) -> String {
    entry.body(functor.name(), data.name())
}

/// `KlDivLogTarget` as `kl_div_log_target`.
pub(super) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (i, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && i > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
