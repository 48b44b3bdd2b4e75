//! What calls along any dimension have in common.

use super::Setpoint;
use super::bound::Bound;
use super::draft::Draft;

pub(in crate::check) const FORMS: [&str; 4] =
    ["forward", "forward_into", "backward", "backward_into"];

/// Letters of up to four dimensions.
pub(in crate::check) const LETTERS: &str = "NCXY";

/// Up to four dimensions.
pub(in crate::check) fn shape(d: &mut Draft) -> Vec<usize> {
    let long = d.random.pick(&[1, 2, 3, 7, 8, 9, 17, 33, 65, 257, 1031, 2049]);
    let mut shape: Vec<usize> = (0..d.random.below(4)).map(|_| d.random.below(4)).collect();
    if !d.random.one_in(10) {
        shape.insert(d.random.below(shape.len() + 1), long);
    }
    shape
}

pub(in crate::check) fn dimensions(b: &Bound<'_>) -> Vec<isize> {
    match b.call.setting("dim") {
        Setpoint::Dims(dims) => dims.clone(),
        _ => Vec::new(),
    }
}
