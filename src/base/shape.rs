//! Shapes: a short list of dimension sizes, held inline so that views never allocate.

use std::fmt;
use std::ops::Deref;

/// Most dimensions that a tensor may have.
pub const MAX_RANK: usize = 8;

/// Sizes of a tensor's dimensions, outermost first; a slice of `usize` in all but storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The shape of a single number, `[]`.
    pub const SCALAR: Shape = Shape { sizes: [0; MAX_RANK], rank: 0 };

    /// `None` where there are more than [`MAX_RANK`] dimensions.
    pub fn new(sizes: &[usize]) -> Option<Shape> {
        let mut shape = Shape::SCALAR;
        shape.sizes.get_mut(..sizes.len())?.copy_from_slice(sizes);
        shape.rank = sizes.len();
        Some(shape)
    }

    /// Product of the sizes (1 for `[]`); `None` where that of the sizes other than 0 exceeds the
    /// address space, so that no product of some of the sizes can overflow either.
    pub fn elements(&self) -> Option<usize> {
        let nonzero = self.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
        Some(if self.contains(&0) { 0 } else { nonzero })
    }

    /// The same shape without dimension `dim`.
    pub(crate) fn without(&self, dim: usize) -> Shape {
        let mut shape = Shape::SCALAR;
        for (i, &size) in self.iter().enumerate() {
            if i != dim {
                shape.push(size);
            }
        }
        shape
    }

    /// Appends a dimension; the caller has made sure that there is room.
    pub(crate) fn push(&mut self, size: usize) {
        self.sizes[self.rank] = size;
        self.rank += 1;
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_its_sizes() {
        let shape = Shape::new(&[2, 3, 4]).unwrap();
        assert_eq!(&*shape, &[2, 3, 4]);
        assert_eq!(shape.to_string(), "[2, 3, 4]");
        assert_eq!(&*shape.without(1), &[2, 4]);
        assert_eq!(Shape::SCALAR.elements(), Some(1));
    }

    #[test]
    fn too_many_dimensions_and_too_many_elements_are_refused() {
        assert_eq!(Shape::new(&[1; MAX_RANK + 1]), None);
        assert_eq!(Shape::new(&[usize::MAX, 2]).unwrap().elements(), None);
        assert_eq!(Shape::new(&[0, 1 << 40, 1 << 40]).unwrap().elements(), None);
        assert_eq!(Shape::new(&[0, 1 << 40]).unwrap().elements(), Some(0));
    }
}
