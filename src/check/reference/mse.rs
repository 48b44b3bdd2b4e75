//! Squared error.

use super::elementwise::{Element, Point};

/// d², of d = x − y.
pub fn mse(at: Point) -> Element {
    let d = at.difference();
    Element::of_difference(at.v, d * d, 2.0 * d)
}
