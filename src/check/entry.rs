//! What the catalogue knows of a loss: its name, how its cases and calls are drawn, how calls are made
//! by name, what is right, and what sets it apart.

use super::bench::Measured;
use super::call::bound::Bound;
use super::call::draft::Draft;
use super::case::Draw;
use super::elementwise::Description;
use super::option::Choice;
use super::outcome::Expected;
use super::reference::WithSizes;
use crate::base::error::Result;
use crate::base::tensor::Tensor;

/// A loss, a function of rows, or a layer.
pub(super) struct Entry {
    /// As the command line has it.
    pub(super) name: &'static str,
    /// Right calls, all forms of each, compared with the reference.
    pub(super) cases: Draw,
    /// Calls of one form, right and wrong.
    pub(super) calls: Calls,
    /// How `eval` computes it, where that follows from its calls; else by hand, or not.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // `eval` asks.
    pub(super) evaluated: Option<Evaluated>,
    /// What of it can be measured; nothing of what is measured by hand.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // `bench` asks.
    pub(super) measured: &'static [Measured],
    /// What sets it apart.
    pub(super) traits: Traits,
}

/// What `eval` reads, says and calls.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub(crate) struct Evaluated {
    /// In a line.
    pub(crate) about: &'static str,
    /// What it reads and writes, and an example.
    pub(crate) more: &'static str,
    /// Tensors besides the upstream gradient.
    pub(crate) reads: &'static [Read],
    /// Its own options.
    pub(crate) options: &'static [Choice],
    /// The calls that give its loss and gradients, without and with `--grad`; none of them consumes,
    /// or writes into memory that it is given.
    pub(crate) forms: [&'static [&'static str]; 2],
}

/// A tensor that `eval` reads.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub(crate) struct Read {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether it holds class indices.
    pub(crate) indices: bool,
    /// Whether there may be none.
    pub(crate) optional: bool,
}

/// Calls as data: see [`super::call::Call`].
#[derive(Debug)]
pub(super) struct Calls {
    /// Draws a right call.
    pub(super) draw: fn(&mut Draft),
    /// Makes a call, right or wrong.
    pub(super) run: fn(&Bound<'_>) -> Result<()>,
    /// What is right, where the call is.
    pub(super) expect: fn(&Bound<'_>) -> Result<Reference>,
    /// A tensor that a call reads and another call made: its name, and that call.
    pub(super) saved: Option<Saved>,
}

/// See [`Calls::saved`].
pub(super) type Saved = (&'static str, fn(&Bound<'_>) -> Result<Tensor>);

/// What is right.
#[derive(Debug, Default)]
pub(super) struct Reference {
    /// By quantity.
    pub(super) expected: Vec<Expected>,
    /// Gradients of parameters, by name.
    pub(super) gradients: Vec<(String, WithSizes)>,
    /// Log-probabilities of all classes, row by row, that classes are picked by; and how many there are.
    pub(super) picked_by: Option<(WithSizes, usize)>,
}

impl From<Vec<Expected>> for Reference {
    fn from(expected: Vec<Expected>) -> Reference {
        Reference { expected, ..Reference::default() }
    }
}

/// What sets an entry apart from others.
#[derive(Debug)]
pub(super) struct Traits {
    /// Parameters, and products of matrices on the way to every result. The inputs have the features
    /// that the parameters say.
    pub(super) layer: bool,
    /// Tensors that are factors of the results, besides weights and the upstream gradient.
    pub(super) factors: &'static [&'static str],
    /// Large numbers in it are multiplied before they are a result: products may leave f32 on one
    /// device's way, and not on another's.
    pub(super) overflows: bool,
    /// It is a loss of one element of the input and one of the target: this.
    pub(super) elementwise: Option<&'static Description>,
}

impl Traits {
    /// As most functions of rows and elements.
    pub(super) const PLAIN: Traits =
        Traits { layer: false, factors: &[], overflows: false, elementwise: None };

    /// As layers.
    pub(super) const LAYER: Traits = Traits { layer: true, overflows: true, ..Traits::PLAIN };
}
