//! A batch: which lines it has, its targets, what they make of each row, and where results go.

pub(crate) mod lines;
pub(crate) mod numbers;
pub(crate) mod place;
pub(crate) mod results;
pub(crate) mod targets;
pub(crate) mod tiles;
pub(crate) mod valid;
