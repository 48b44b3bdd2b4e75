//! Matrices of parameters and their products: f32 where they lie, narrower types widened piece by
//! piece. The products themselves are the `gemm` crate's, one thread each.

use crate::base::error::Result;
use crate::base::host::HostRef;
use crate::base::tensor::TensorRef;
use crate::cpu::matrix::convert;
use crate::cpu::matrix::scratch::zeros;
use crate::cpu::processor::Cpu;
use crate::cpu::simd::Level;
use crate::cpu::threads::SyncPtr;
use std::borrow::Cow;
use std::ops::Range;

/// Elements at `data + i·rows + j·columns`.
#[derive(Clone, Copy)]
pub(crate) struct Panel<T = f32> {
    pub(super) data: SyncPtr<T>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<T> Panel<T> {
    /// Rows that begin `stride` elements apart.
    pub(crate) fn of(data: &[T], stride: usize) -> Panel<T> {
        Panel { data: SyncPtr(data.as_ptr().cast_mut()), rows: stride, columns: 1 }
    }

    /// As [`Panel::of`], to be written.
    pub(crate) fn of_mut(data: &mut [T], stride: usize) -> Panel<T> {
        Panel { data: SyncPtr(data.as_mut_ptr()), rows: stride, columns: 1 }
    }

    /// Rows that begin `stride` elements apart, from an address on; whoever uses them vouches for them.
    pub(super) fn at_address(data: *mut T, stride: usize) -> Panel<T> {
        Panel { data: SyncPtr(data), rows: stride, columns: 1 }
    }

    /// The first element, and the distance between rows.
    pub(crate) fn begin(self) -> (*mut T, usize) {
        (self.data.get(), self.rows)
    }

    pub(crate) fn transposed(self) -> Panel<T> {
        Panel { rows: self.columns, columns: self.rows, ..self }
    }

    /// The panel from an element on.
    ///
    /// # Safety
    /// The element is one of the panel, or one past it.
    pub(crate) unsafe fn at(self, row: usize, column: usize) -> Panel<T> {
        // SAFETY: the element is one of the panel or one past it, says the caller, so the pointer
        // stays in the panel's memory.
        let data = unsafe { self.data.get().add(row * self.rows + column * self.columns) };
        Panel { data: SyncPtr(data), ..self }
    }

    /// A row's elements.
    ///
    /// # Safety
    /// They are `len` elements of the panel, next to one another, and nobody else uses them.
    pub(crate) unsafe fn row<'a>(self, row: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the `len` elements are the panel's, next to one another, and nobody else uses
        // them: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.get().add(row * self.rows), len) }
    }
}

impl Panel {
    /// Writes so many rows and columns of another panel.
    ///
    /// # Safety
    /// Both have them, and nobody else uses those that are written.
    pub(crate) unsafe fn copy(self, from: Panel, [rows, columns]: [usize; 2]) {
        for row in 0..rows {
            for column in 0..columns {
                // SAFETY: an element of both: the caller's promise.
                unsafe {
                    let value = from.at(row, column).data.get().read();
                    self.at(row, column).data.get().write(value);
                }
            }
        }
    }
}

/// Elements of a product up to which the crate goes along rows of both factors where they lie.
const DOTS: usize = 256;

/// `c = a·b`, or `c += a·b`, with c of m × n elements and a of m × k.
///
/// # Safety
/// The panels have those elements; those of `c` are neither those of `a` and `b` nor touched by
/// anybody else.
pub(crate) unsafe fn product(add: bool, c: Panel, [a, b]: [Panel; 2], [m, n, k]: [usize; 3]) {
    // Of a few rows of `a` that are long, products along rows cost less than bringing the rows of `bᵀ`
    // into the crate's order.
    let few = (2..=16).contains(&m) && 8 * m <= k && a.columns == 1 && b.rows == 1;
    let each = if few { DOTS / m } else { n.max(1) };
    for at in (0..n).step_by(each) {
        // SAFETY: columns of `b` and of `c`, both of which have n; else the caller's contract.
        unsafe { whole(add, c.at(0, at), [a, b.at(0, at)], [m, each.min(n - at), k]) };
    }
}

/// As [`product`], by one call of the crate.
///
/// # Safety
/// As for [`product`].
pub(crate) unsafe fn whole(add: bool, c: Panel, [a, b]: [Panel; 2], [m, n, k]: [usize; 3]) {
    let stride = |x: usize| x as isize;
    // SAFETY: the caller's contract; strides fit, as the elements are addressable.
    unsafe {
        if k == 0 {
            if !add {
                (0..m).for_each(|i| (0..n).for_each(|j| c.at(i, j).data.get().write(0.0)));
            }
            return;
        }
        gemm::gemm(
            m,
            n,
            k,
            c.data.get(),
            stride(c.columns),
            stride(c.rows),
            add,
            a.data.get().cast_const(),
            stride(a.columns),
            stride(a.rows),
            b.data.get().cast_const(),
            stride(b.columns),
            stride(b.rows),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Elements of rows that one task copies.
pub(crate) const PIECE: usize = 64 * 1024;

/// Rows, columns and stride of a tensor that is gone through along its last dimension.
pub(super) fn lines(tensor: &TensorRef<'_>) -> [usize; 3] {
    let shape = tensor.shape();
    let (columns, rows) = match shape.split_last() {
        Some((&columns, leading)) => (columns, leading.iter().product()),
        None => (1, 1),
    };
    // Rows without elements have no memory to be any distance apart in.
    let padded = shape.len() == 2 && columns > 0;
    [rows, columns, if padded { tensor.row_stride() } else { columns }]
}

/// A matrix of any float type, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(super) data: HostRef<'a>,
    pub(super) level: Level,
    pub(super) stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<'a> Matrix<'a> {
    /// Rows along the last dimension; of other than two dimensions the tensor is contiguous.
    pub(crate) fn new(
        cpu: &Cpu,
        argument: &'static str,
        tensor: &TensorRef<'a>,
    ) -> Result<Matrix<'a>> {
        let data = crate::cpu::processor::host_data(*tensor, argument)?;
        let [rows, columns, stride] = lines(tensor);
        Ok(Matrix { data, level: cpu.level, stride, rows, columns })
    }

    /// Elements of memory that [`Matrix::panel`] needs for so many rows.
    pub(crate) fn scratch(&self, rows: usize) -> usize {
        match self.data {
            HostRef::F32(_) => 0,
            _ => rows * self.columns,
        }
    }

    /// Some rows: where they lie, or widened into `scratch`.
    pub(crate) fn panel(&self, rows: Range<usize>, scratch: &mut [f32]) -> Panel {
        if let HostRef::F32(data) = self.data {
            return Panel::of(data.get(rows.start * self.stride..).unwrap_or(&[]), self.stride);
        }
        if self.columns > 0 {
            for (row, wide) in rows.zip(scratch.chunks_exact_mut(self.columns)) {
                self.widen(row, wide);
            }
        }
        Panel::of_mut(scratch, self.columns)
    }

    /// Some columns of some rows: where they lie, or widened into `scratch`, which has as many elements.
    pub(crate) fn piece(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut [f32],
    ) -> Panel {
        if let HostRef::F32(data) = self.data {
            let first = rows.start * self.stride + columns.start;
            return Panel::of(data.get(first..).unwrap_or(&[]), self.stride);
        }
        let width = columns.len();
        if width > 0 {
            for (row, wide) in rows.zip(scratch.chunks_exact_mut(width)) {
                self.widen_some(row, columns.clone(), wide);
            }
        }
        Panel::of_mut(scratch, width)
    }

    /// As [`Matrix::panel`] of all rows, by all threads.
    pub(crate) fn all(&self, cpu: &Cpu, scratch: &mut [f32]) -> Panel {
        self.some(cpu, 0..self.rows, scratch)
    }

    /// Some rows, widened into `scratch` by all threads where they are not f32.
    pub(crate) fn some(&self, cpu: &Cpu, rows: Range<usize>, scratch: &mut [f32]) -> Panel {
        if self.scratch(1) == 0 {
            return self.panel(rows, scratch);
        }
        let out = Panel::of_mut(scratch, self.columns);
        let each = PIECE.div_ceil(self.columns.max(1));
        cpu.share(rows.len().div_ceil(each), 1, &|task| {
            for at in task * each..((task + 1) * each).min(rows.len()) {
                // SAFETY: a row of this task alone.
                self.widen(rows.start + at, unsafe { out.row(at, self.columns) });
            }
        });
        out
    }

    /// All rows, where they lie, if they are f32.
    pub(crate) fn f32_panel(&self) -> Option<Panel> {
        match self.data {
            HostRef::F32(data) => Some(Panel::of(data, self.stride)),
            _ => None,
        }
    }

    /// Rows of a list in f32, next to one another in `memory`.
    pub(crate) fn gather_into(&self, cpu: &Cpu, rows: &[usize], memory: &mut [f32]) -> Panel {
        let out = Panel::of_mut(memory, self.columns);
        let each = PIECE.div_ceil(self.columns.max(1));
        cpu.share(rows.len().div_ceil(each), 1, &|task| {
            for (at, &row) in rows.iter().enumerate().skip(task * each).take(each) {
                // SAFETY: a row of this task alone.
                self.widen(row, unsafe { out.row(at, self.columns) });
            }
        });
        out
    }

    /// Some rows in f32, next to one another.
    pub(crate) fn gather(&self, cpu: &Cpu, rows: &[usize]) -> Result<Vec<f32>> {
        let mut wide = zeros("rows in f32", rows.len() * self.columns)?;
        self.gather_into(cpu, rows, &mut wide);
        Ok(wide)
    }

    /// The same of rows that rise: where they lie, if those are all of them.
    pub(crate) fn gather_kept(&self, cpu: &Cpu, rows: &[usize]) -> Result<Cow<'a, [f32]>> {
        match self.contiguous().filter(|_| rows.len() == self.rows) {
            Some(data) => Ok(Cow::Borrowed(data)),
            None => Ok(Cow::Owned(self.gather(cpu, rows)?)),
        }
    }

    /// All elements, and how far apart rows begin, if they are bf16.
    pub(crate) fn bf16(&self) -> Option<(&'a [half::bf16], usize)> {
        match self.data {
            HostRef::BF16(data) => Some((data, self.stride)),
            _ => None,
        }
    }

    /// All elements, where they are f32 next to one another.
    pub(crate) fn contiguous(&self) -> Option<&'a [f32]> {
        match self.data {
            HostRef::F32(data) if self.stride == self.columns || self.rows == 1 => {
                data.get(..self.rows * self.columns)
            }
            _ => None,
        }
    }

    /// One row in f32.
    pub(crate) fn widen(&self, row: usize, out: &mut [f32]) {
        self.widen_some(row, 0..self.columns, out);
    }

    /// Some columns of one row in f32.
    pub(crate) fn widen_some(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let at = row * self.stride + columns.start..row * self.stride + columns.end;
        match self.data {
            HostRef::F32(data) => out.copy_from_slice(&data[at]),
            HostRef::F16(data) => convert::widen(self.level, &data[at], out),
            HostRef::BF16(data) => convert::widen(self.level, &data[at], out),
            HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_) => {}
        }
    }
}
