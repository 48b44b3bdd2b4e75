//! Absolute error.

use super::elementwise::{Element, Point, sign};

/// |d|, of d = x − y.
pub fn l1(at: Point) -> Element {
    let d = at.difference();
    Element::of_difference(at.v, d.abs(), sign(d))
}
