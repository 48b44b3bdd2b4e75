//! Matrices of parameters and their products: f32 where they lie, narrower types widened piece by
//! piece. The products themselves are the `gemm` crate's, one thread each.

use crate::base::error::{Error, Result};
use crate::base::host::{Float, HostMut, HostRef};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::matrix::convert;
use crate::cpu::matrix::scratch::{with_scratch, zeros};
use crate::cpu::processor::Cpu;
use crate::cpu::simd::{Lanes, Level};
use crate::cpu::threads::SyncPtr;
use half::{bf16, f16};
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
unsafe fn whole(add: bool, c: Panel, [a, b]: [Panel; 2], [m, n, k]: [usize; 3]) {
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
fn lines(tensor: &TensorRef<'_>) -> [usize; 3] {
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

    /// As [`Matrix::panel`] of all rows, by all threads.
    pub(crate) fn all(&self, cpu: &Cpu, scratch: &mut [f32]) -> Panel {
        let each = PIECE.div_ceil(self.columns.max(1));
        if self.scratch(1) > 0 {
            let out = Panel::of_mut(scratch, self.columns);
            cpu.share(self.rows.div_ceil(each), 1, &|task| {
                for row in task * each..((task + 1) * each).min(self.rows) {
                    // SAFETY: a row of this task alone.
                    self.widen(row, unsafe { out.row(row, self.columns) });
                }
            });
            return out;
        }
        self.panel(0..self.rows, scratch)
    }

    /// Some rows in f32, next to one another.
    pub(crate) fn gather(&self, cpu: &Cpu, rows: &[usize]) -> Result<Vec<f32>> {
        let mut wide = zeros("rows in f32", rows.len() * self.columns)?;
        let out = Panel::of_mut(&mut wide, self.columns);
        let each = PIECE.div_ceil(self.columns.max(1));
        cpu.share(rows.len().div_ceil(each), 1, &|task| {
            for (at, &row) in rows.iter().enumerate().skip(task * each).take(each) {
                // SAFETY: a row of this task alone.
                self.widen(row, unsafe { out.row(at, self.columns) });
            }
        });
        Ok(wide)
    }

    /// The same of rows that rise: where they lie, if those are all of them.
    pub(crate) fn gather_kept(&self, cpu: &Cpu, rows: &[usize]) -> Result<Cow<'a, [f32]>> {
        match self.contiguous().filter(|_| rows.len() == self.rows) {
            Some(data) => Ok(Cow::Borrowed(data)),
            None => Ok(Cow::Owned(self.gather(cpu, rows)?)),
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
        let at = row * self.stride..row * self.stride + self.columns;
        match self.data {
            HostRef::F32(data) => out.copy_from_slice(&data[at]),
            HostRef::F16(data) => convert::widen(self.level, &data[at], out),
            HostRef::BF16(data) => convert::widen(self.level, &data[at], out),
            HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_) => {}
        }
    }
}

/// A matrix of any float type that is written row by row, by several threads.
pub(crate) struct Gradient<'a> {
    data: Typed,
    level: Level,
    stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Whether what is written is added to what is there.
    add: bool,
    memory: std::marker::PhantomData<&'a mut f32>,
}

#[derive(Clone, Copy)]
enum Typed {
    F32(SyncPtr<f32>),
    F16(SyncPtr<f16>),
    BF16(SyncPtr<bf16>),
}

impl<'a> Gradient<'a> {
    pub(crate) fn new(
        cpu: &Cpu,
        argument: &'static str,
        tensor: TensorMut<'a>,
        add: bool,
    ) -> Result<Gradient<'a>> {
        let [rows, columns, stride] = lines(&tensor.as_ref());
        let data = match tensor.into_host_data() {
            Some(HostMut::F32(data)) => Typed::F32(SyncPtr(data.as_mut_ptr())),
            Some(HostMut::F16(data)) => Typed::F16(SyncPtr(data.as_mut_ptr())),
            Some(HostMut::BF16(data)) => Typed::BF16(SyncPtr(data.as_mut_ptr())),
            _ => {
                let expected = "host floating-point";
                return Err(Error::Place { argument, expected, got: "other" });
            }
        };
        let memory = std::marker::PhantomData;
        Ok(Gradient { data, level: cpu.level, stride, rows, columns, add, memory })
    }

    /// Elements of memory that [`Gradient::rows`] needs for so many rows.
    pub(crate) fn scratch(&self, rows: usize) -> usize {
        match self.data {
            Typed::F32(_) => 0,
            Typed::F16(_) | Typed::BF16(_) => rows * self.columns,
        }
    }

    /// Has some rows made by `make(panel, add)`: in f32, where they lie, or in `scratch` and
    /// rounded once. `make` adds to the panel if it is told to, else it writes all of it.
    ///
    /// # Safety
    /// The rows are some of the matrix's, and nobody else touches them.
    pub(crate) unsafe fn rows(
        &self,
        rows: Range<usize>,
        scratch: &mut [f32],
        make: impl FnOnce(Panel, bool),
    ) {
        // SAFETY: the rows are some of the matrix's and nobody else touches them, as the caller
        // promises; `rounded` is given the matrix's own data.
        unsafe {
            match self.data {
                Typed::F32(data) => {
                    let data = SyncPtr(data.get().add(rows.start * self.stride));
                    make(Panel { data, rows: self.stride, columns: 1 }, self.add);
                }
                Typed::F16(data) => self.rounded(data, rows, scratch, make),
                Typed::BF16(data) => self.rounded(data, rows, scratch, make),
            }
        }
    }

    /// # Safety
    /// As for [`Gradient::rows`]; `data` is the matrix's.
    unsafe fn rounded<T: Lanes>(
        &self,
        data: SyncPtr<T>,
        rows: Range<usize>,
        scratch: &mut [f32],
        make: impl FnOnce(Panel, bool),
    ) {
        make(Panel::of_mut(scratch, self.columns), false);
        if self.columns == 0 {
            return;
        }
        for (row, wide) in rows.zip(scratch.chunks_exact(self.columns)) {
            // SAFETY: `data` is the matrix's, whose rows are `stride` elements apart and `columns`
            // long; these are touched by nobody else: the caller's promise.
            let out = unsafe {
                std::slice::from_raw_parts_mut(data.get().add(row * self.stride), self.columns)
            };
            convert::round(self.level, wide, out, self.add);
        }
    }

    /// `aᵀ·b`, with a of n rows and as many columns as the gradient has rows, and b of n rows.
    ///
    /// # Safety
    /// The panels have those elements, and nobody writes them; nobody else touches the gradient.
    pub(crate) unsafe fn outer(&self, cpu: &Cpu, [a, b]: [Panel; 2], n: usize) {
        /// Rows that one task makes.
        const ROWS: usize = 32;
        cpu.share(self.rows.div_ceil(ROWS), 1, &|task| {
            let of = task * ROWS..((task + 1) * ROWS).min(self.rows);
            with_scratch([self.scratch(of.len())], |[scratch]| {
                // SAFETY: rows of this task alone; the rest is the caller's contract.
                unsafe {
                    let a = a.at(0, of.start).transposed();
                    self.rows(of.clone(), scratch, |out, add| {
                        product(add, out, [a, b], [of.len(), self.columns, n]);
                    });
                }
            });
        });
    }

    /// Adds to elements of the only row of a gradient that has one; each column comes once.
    pub(crate) fn add_at(&self, values: impl IntoIterator<Item = (usize, f32)>) {
        fn add<T: Float>(
            data: SyncPtr<T>,
            columns: usize,
            values: impl Iterator<Item = (usize, f32)>,
        ) {
            for (column, value) in values.filter(|&(column, _)| column < columns) {
                // SAFETY: an element of the row, which is borrowed exclusively.
                unsafe {
                    let at = data.get().add(column);
                    *at = T::from_f32((*at).to_f32() + value);
                }
            }
        }
        let values = values.into_iter();
        match self.data {
            Typed::F32(data) => add(data, self.columns, values),
            Typed::F16(data) => add(data, self.columns, values),
            Typed::BF16(data) => add(data, self.columns, values),
        }
    }

    /// Puts rows in their places, and zeros in those of the others.
    pub(crate) fn scatter(&self, cpu: &Cpu, places: &[usize], from: &[f32]) {
        let width = self.columns;
        if places.len() < self.rows {
            self.clear(cpu);
        }
        let each = PIECE.div_ceil(width.max(1));
        let from = SyncPtr(from.as_ptr().cast_mut());
        cpu.share(places.len().div_ceil(each), 1, &|task| {
            with_scratch([self.scratch(1)], |[scratch]| {
                for (at, &row) in places.iter().enumerate().skip(task * each).take(each) {
                    // SAFETY: each place comes once, and is read from the buffer's row.
                    unsafe {
                        let from = std::slice::from_raw_parts(from.get().add(at * width), width);
                        self.rows(row..row + 1, scratch, |out, _| {
                            out.row(0, width).copy_from_slice(from);
                        });
                    }
                }
            });
        });
    }

    /// Writes the only row of a gradient that has one.
    pub(crate) fn write_row(&self, from: &[f32]) {
        with_scratch([self.scratch(1)], |[scratch]| {
            // SAFETY: the only row, which is borrowed exclusively.
            unsafe {
                self.rows(0..1, scratch, |out, add| {
                    for (out, from) in out.row(0, from.len()).iter_mut().zip(from) {
                        *out = if add { *out + from } else { *from };
                    }
                });
            }
        });
    }

    /// Zeros, unless what is there is added to.
    pub(crate) fn clear(&self, cpu: &Cpu) {
        if self.add {
            return;
        }
        let per_task = (1usize << 18).div_ceil(self.columns.max(1));
        cpu.share(self.rows.div_ceil(per_task), 1, &|task| {
            let rows = task * per_task..((task + 1) * per_task).min(self.rows);
            for row in rows {
                // SAFETY: a row of the matrix, which is borrowed exclusively; each comes once.
                unsafe {
                    let at = row * self.stride;
                    match self.data {
                        Typed::F32(d) => d.get().add(at).write_bytes(0, self.columns),
                        Typed::F16(d) => d.get().add(at).write_bytes(0, self.columns),
                        Typed::BF16(d) => d.get().add(at).write_bytes(0, self.columns),
                    }
                }
            }
        });
    }
}
