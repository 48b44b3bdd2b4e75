//! What a result is checked against: a plain f64 reference of every loss, and the tolerances.
//!
//! `reference` knows nothing of the engine: it reads options and shapes and follows the formulas
//! word for word, one line of logits at a time. `compare` says how far a result may be from it.

pub mod cases;
pub mod compare;
pub mod differential;
pub mod ops;
pub(crate) mod random;
pub mod reference;
pub mod subject;
pub(crate) mod typed;
