//! A product of matrices on the device, as a driver is asked for it.

use crate::base::dtype::DType;
use crate::base::shape::Shape;

/// Rows of a matrix on the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
    /// Elements between rows.
    pub(crate) stride: usize,
    pub(crate) transposed: bool,
}

impl Panel {
    /// Rows that lie next to one another.
    pub(crate) fn packed(address: u64, dtype: DType, columns: usize) -> Panel {
        Panel { address, dtype, stride: columns, transposed: false }
    }

    /// The rows of a matrix, or the one that a tensor of one dimension is.
    pub(crate) fn lines(address: u64, dtype: DType, (shape, row_stride): (&Shape, usize)) -> Panel {
        let stride = if shape.len() == 1 { shape[0] } else { row_stride };
        Panel { address, dtype, stride, transposed: false }
    }

    pub(crate) fn transposed(self) -> Panel {
        Panel { transposed: !self.transposed, ..self }
    }

    /// The rows from one on.
    pub(crate) fn starting_at(self, row: usize) -> Panel {
        let step = if self.transposed { 1 } else { self.stride };
        self.skip(row, step)
    }

    /// The columns from one on.
    pub(crate) fn after_column(self, column: usize) -> Panel {
        let step = if self.transposed { self.stride } else { 1 };
        self.skip(column, step)
    }

    fn skip(self, n: usize, step: usize) -> Panel {
        let bytes = n as u64 * step as u64 * self.dtype.size() as u64;
        Panel { address: self.address + bytes, ..self }
    }
}

/// `c = a·b`, or `c += a·b`: c of m rows and n columns, k terms an element. Sums are f32. A logit is f32, as
/// is all that is made of several products on its way; f32 by 16-bit numbers: `factors.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    /// Of one type.
    pub(crate) a: Panel,
    pub(crate) b: Panel,
    /// Of that type, or f32; not transposed.
    pub(crate) c: Panel,
    /// m, n and k, none of them 0.
    pub(crate) sizes: [usize; 3],
    pub(crate) add: bool,
}
