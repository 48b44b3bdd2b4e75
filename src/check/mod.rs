//! What a result is checked against: a plain f64 reference of every loss, and the tolerances.
//!
//! `reference` knows nothing of the engine: it reads options and shapes and follows the formulas
//! word for word, one line of logits at a time. `compare` says how far a result may be from it. `ops` has
//! a file for each loss: how its cases (`case`) and its calls as data (`call`) are drawn and made.
//! `catalogue` is the table of them, and stands above; `subject` and `differential` go through it.

// The command line measures.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub(crate) mod bench;
pub(crate) mod call;
mod case;
pub mod catalogue;
pub mod compare;
pub mod differential;
mod draw;
pub mod elementwise;
pub(crate) mod entry;
mod ops;
pub mod option;
mod outcome;
pub(crate) mod random;
pub mod reference;
pub mod subject;
pub(crate) mod typed;
mod values;

pub use case::Case;
pub use outcome::{Expected, Finding, Outcome, Quantity};
pub use values::Values;
