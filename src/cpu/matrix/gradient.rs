//! Gradients of parameters: f32 where they lie, narrower types rounded once from what was made in f32.

use crate::base::error::{Error, Result};
use crate::base::host::{Float, HostMut};
use crate::base::tensor::TensorMut;
use crate::cpu::matrix::convert;
use crate::cpu::matrix::product::{PIECE, Panel, lines, product};
use crate::cpu::matrix::scratch::with_scratch;
use crate::cpu::processor::Cpu;
use crate::cpu::simd::{Lanes, Level};
use crate::cpu::threads::SyncPtr;
use half::{bf16, f16};
use std::ops::Range;

/// A matrix of any float type that is written row by row, by several threads.
pub(crate) struct Gradient<'a> {
    data: Typed,
    level: Level,
    stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Whether what is written is added to what is there.
    add: bool,
    /// What rounding leaves, and how far apart its rows are.
    rest: Option<(Typed, usize)>,
    memory: std::marker::PhantomData<&'a mut f32>,
}

#[derive(Clone, Copy)]
enum Typed {
    F32(SyncPtr<f32>),
    F16(SyncPtr<f16>),
    BF16(SyncPtr<bf16>),
}

impl Typed {
    fn of(argument: &'static str, tensor: TensorMut<'_>) -> Result<Typed> {
        match tensor.into_host_data() {
            Some(HostMut::F32(data)) => Ok(Typed::F32(SyncPtr(data.as_mut_ptr()))),
            Some(HostMut::F16(data)) => Ok(Typed::F16(SyncPtr(data.as_mut_ptr()))),
            Some(HostMut::BF16(data)) => Ok(Typed::BF16(SyncPtr(data.as_mut_ptr()))),
            _ => {
                let expected = "host floating-point";
                Err(Error::Place { argument, expected, got: "other" })
            }
        }
    }

    /// # Safety
    /// There are so many elements from there on, which nobody else touches.
    unsafe fn clear(self, at: usize, len: usize) {
        // SAFETY: the caller's promise; of all three types no bits are 0.
        unsafe {
            match self {
                Typed::F32(data) => data.get().add(at).write_bytes(0, len),
                Typed::F16(data) => data.get().add(at).write_bytes(0, len),
                Typed::BF16(data) => data.get().add(at).write_bytes(0, len),
            }
        }
    }
}

impl<'a> Gradient<'a> {
    pub(crate) fn new(
        cpu: &Cpu,
        argument: &'static str,
        tensor: TensorMut<'a>,
        add: bool,
    ) -> Result<Gradient<'a>> {
        let [rows, columns, stride] = lines(&tensor.as_ref());
        let data = Typed::of(argument, tensor)?;
        let memory = std::marker::PhantomData;
        Ok(Gradient { data, level: cpu.level, stride, rows, columns, add, rest: None, memory })
    }

    /// The same, which keeps what rounding leaves in a tensor of its shape and type.
    pub(crate) fn keeping(
        self,
        argument: &'static str,
        rest: Option<TensorMut<'a>>,
    ) -> Result<Gradient<'a>> {
        let rest = rest.map(|rest| {
            let [.., stride] = lines(&rest.as_ref());
            Typed::of(argument, rest).map(|data| (data, stride))
        });
        Ok(Gradient { rest: rest.transpose()?, ..self })
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
        // SAFETY: the caller's promise.
        unsafe { self.grow(rows, scratch, false, make) };
    }

    /// As [`Gradient::rows`]; what is there is added to as well where something was made before.
    ///
    /// # Safety
    /// As for [`Gradient::rows`].
    pub(crate) unsafe fn grow(
        &self,
        rows: Range<usize>,
        scratch: &mut [f32],
        again: bool,
        make: impl FnOnce(Panel, bool),
    ) {
        let add = self.add || again;
        // SAFETY: the rows are some of the matrix's and nobody else touches them, as the caller
        // promises; `rounded` is given the matrix's own data.
        unsafe {
            match self.data {
                Typed::F32(data) => {
                    make(
                        Panel::at_address(data.get().add(rows.start * self.stride), self.stride),
                        add,
                    );
                }
                Typed::F16(data) => {
                    let rest = self.rest.and_then(|(rest, stride)| match rest {
                        Typed::F16(rest) => Some((rest, stride)),
                        Typed::F32(_) | Typed::BF16(_) => None,
                    });
                    self.rounded((data, rest), (rows, add), scratch, make);
                }
                Typed::BF16(data) => {
                    let rest = self.rest.and_then(|(rest, stride)| match rest {
                        Typed::BF16(rest) => Some((rest, stride)),
                        Typed::F32(_) | Typed::F16(_) => None,
                    });
                    self.rounded((data, rest), (rows, add), scratch, make);
                }
            }
        }
    }

    /// Writes or adds all rows, which lie next to one another.
    pub(crate) fn add_all(&self, cpu: &Cpu, from: &[f32]) {
        let each = PIECE.div_ceil(self.columns.max(1));
        cpu.share(self.rows.div_ceil(each), 1, &|task| {
            for row in task * each..((task + 1) * each).min(self.rows) {
                // SAFETY: a row of this task alone.
                unsafe { self.put(row, &from[row * self.columns..][..self.columns]) };
            }
        });
    }

    /// Writes or adds one row.
    ///
    /// # Safety
    /// The row is one of the matrix's, and nobody else touches it.
    pub(crate) unsafe fn put(&self, row: usize, from: &[f32]) {
        with_scratch([self.scratch(1)], |[scratch]| {
            // SAFETY: the caller's promise.
            unsafe {
                self.rows(row..row + 1, scratch, |out, add| {
                    let out = out.row(0, self.columns);
                    match add {
                        true => out.iter_mut().zip(from).for_each(|(out, g)| *out += g),
                        false => out.copy_from_slice(from),
                    }
                });
            }
        });
    }

    /// # Safety
    /// As for [`Gradient::rows`]; `data` is the matrix's, and the other what keeps its rest.
    unsafe fn rounded<T: Lanes>(
        &self,
        (data, rest): (SyncPtr<T>, Option<(SyncPtr<T>, usize)>),
        (rows, add): (Range<usize>, bool),
        scratch: &mut [f32],
        make: impl FnOnce(Panel, bool),
    ) {
        make(Panel::of_mut(scratch, self.columns), false);
        if self.columns == 0 {
            return;
        }
        // SAFETY: of both tensors the rows are as many elements apart and `columns` long; these are touched by nobody
        // else: the caller's promise.
        let row = |data: SyncPtr<T>, at: usize| unsafe {
            std::slice::from_raw_parts_mut(data.get().add(at), self.columns)
        };
        for (at, wide) in rows.zip(scratch.chunks_exact_mut(self.columns)) {
            let out = row(data, at * self.stride);
            match rest {
                Some((rest, stride)) => {
                    convert::round_keeping(self.level, wide, (out, row(rest, at * stride)), add);
                }
                None => convert::round(self.level, wide, out, add),
            }
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
        // SAFETY: the only row, which is borrowed exclusively.
        unsafe { self.put(0, from) };
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
                // SAFETY: a row of the matrix, and of what keeps its rest, both borrowed exclusively; each comes once.
                unsafe {
                    self.data.clear(row * self.stride, self.columns);
                    if let Some((rest, stride)) = self.rest {
                        rest.clear(row * stride, self.columns);
                    }
                }
            }
        });
    }
}
