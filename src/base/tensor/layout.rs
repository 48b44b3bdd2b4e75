//! Where a shape and a stride meet a length.

use crate::base::error::{Error, Result};
use crate::base::shape::{MAX_RANK, Shape};

/// Shape and row stride of a view, known to fit its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) shape: Shape,
    pub(crate) row_stride: usize,
}

impl Layout {
    /// Of a single number.
    pub(crate) const SCALAR: Layout = Layout { shape: Shape::SCALAR, row_stride: 1 };

    /// Elements of a row.
    pub(crate) fn row(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The same for fewer rows; `None` where there are not so many, or no dimension.
    pub(crate) fn first_rows(self, rows: usize) -> Option<Layout> {
        let mut sizes = self.shape.to_vec();
        let first = sizes.first_mut().filter(|all| rows <= **all)?;
        *first = rows;
        Some(Layout { shape: Shape::new(&sizes)?, row_stride: self.row_stride })
    }

    /// The same elements in another shape; `None` where there are more or fewer, or padding lies between them.
    pub(crate) fn viewed(self, shape: Shape) -> Option<Layout> {
        let contiguous = self.row_stride == self.row() || self.shape.first().is_none_or(|&n| n < 2);
        let as_many = shape.elements() == self.shape.elements();
        let row_stride = shape.iter().skip(1).product();
        (contiguous && as_many).then_some(Layout { shape, row_stride })
    }

    /// The dimensions after the first as one.
    pub(crate) fn flat(self) -> Layout {
        match *self.shape {
            [rows, _, _, ..] => {
                let mut shape = Shape::SCALAR;
                [rows, self.row()].into_iter().for_each(|size| shape.push(size));
                Layout { shape, ..self }
            }
            _ => self,
        }
    }

    /// Elements from the first to the last, padding between rows counted.
    pub(crate) fn reach(&self) -> usize {
        let row = self.row();
        match self.shape.elements() {
            Some(0) => 0,
            _ => self.shape.first().map_or(row, |&rows| (rows - 1) * self.row_stride + row),
        }
    }

    /// The one place where a shape and a stride meet a length.
    pub(crate) fn check(sizes: &[usize], row_stride: Option<usize>, len: usize) -> Result<Layout> {
        let argument = "shape";
        let shape = shape(sizes)?;
        let too_large = |got| Error::Stride {
            argument: "row_stride",
            expected: format!("a size of shape {shape} that fits the address space"),
            got,
        };
        let elements = shape.elements().ok_or_else(|| too_large(row_stride.unwrap_or(0)))?;
        let rows = shape.first().copied().unwrap_or(1);
        let row = shape.iter().skip(1).product();
        let row_stride = row_stride.unwrap_or(row);
        if row_stride < row {
            return Err(Error::Stride {
                argument: "row_stride",
                expected: format!("at least {row}, a row of shape {shape}"),
                got: row_stride,
            });
        }
        if elements > 0 {
            let before = (rows - 1).checked_mul(row_stride);
            before.and_then(|n| n.checked_add(row)).ok_or_else(|| too_large(row_stride))?;
        }
        let layout = Layout { shape, row_stride };
        match layout.reach() {
            reach if reach > len => {
                Err(Error::Length { argument, shape, row_stride, expected: reach, got: len })
            }
            _ => Ok(layout),
        }
    }
}

/// Sizes as a shape.
///
/// # Errors
/// [`Error::Rank`] where there are too many.
pub(crate) fn shape(sizes: &[usize]) -> Result<Shape> {
    Shape::new(sizes).ok_or_else(|| Error::Rank {
        argument: "shape",
        expected: format!("at most {MAX_RANK}"),
        got: sizes.len(),
    })
}

#[cfg(test)]
mod tests {
    use crate::base::error::Error;
    use crate::base::tensor::TensorRef;

    #[test]
    fn a_view_reaches_no_further_than_its_buffer() {
        let data = [0f32; 11];
        assert!(TensorRef::with_row_stride(&data, &[3, 3], 4).is_ok());
        assert!(matches!(
            TensorRef::with_row_stride(&data[..10], &[3, 3], 4),
            Err(Error::Length { expected: 11, got: 10, .. })
        ));
        assert!(matches!(
            TensorRef::with_row_stride(&data, &[3, 3], 2),
            Err(Error::Stride { got: 2, .. })
        ));
    }

    #[test]
    fn sizes_beyond_the_address_space_are_refused() {
        let data = [0f32; 4];
        for shape in [[usize::MAX, 2], [2, usize::MAX]] {
            assert!(TensorRef::new(&data, &shape).is_err());
        }
        assert!(TensorRef::new(&data, &[0, 1 << 40, 1 << 40]).is_err());
        assert!(TensorRef::with_row_stride(&data, &[3, 1], usize::MAX).is_err());
        assert!(TensorRef::new(&data, &[1; 9]).is_err());
    }

    #[test]
    fn empty_views_need_no_memory() {
        let data: [f32; 0] = [];
        assert_eq!(TensorRef::new(&data, &[0, 7]).unwrap().elements(), 0);
        assert_eq!(TensorRef::new(&data, &[7, 0]).unwrap().elements(), 0);
    }
}
