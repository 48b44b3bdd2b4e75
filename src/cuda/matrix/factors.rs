//! Products of f32 numbers by 16-bit ones, or by f32 ones that came of those. Tensor cores multiply 16-bit
//! numbers, and cuBLAS takes two matrices of one type; so an f32 matrix is taken apart into bf16 ones whose
//! sum it is (`panel_parts` in `kernels/batch/panels.cu`), and f16 ones beside it as well. bf16 has the exponents of
//! f32: nothing overflows, and no gradient needs a scale. Sums are f32, and what is made of several
//! products is rounded once. Without 16-bit numbers all is f32, as it stands.
//!
//! Two parts hold 16 bits, which gradients are made of; logits are made of three, and are as good as f32's.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::PanelArgs;
use crate::code::variants::Batch;
use crate::cuda::driver::product::{Panel, Product};
use crate::cuda::matrix::products::{Places, Workspace, padded, panel_args};
use crate::cuda::stream::Cuda;

/// Columns of parts are a multiple of this: what kernels read and write at once.
const PACK: usize = 8;
/// Bytes of a sum of products on its way to 16 bits, unless there is less room.
pub(crate) const SUM: usize = 16 << 20;

/// Which part stands where, side by side.
type Layout = &'static [u32];
const TWO: Layout = &[0, 1];
/// The first part alone: the number, rounded to bf16.
const ONE: Layout = &[0];
/// All of f32's digits.
const THREE: Layout = &[0, 1, 2];

/// Of rows and of weights in 16 bits: every pair of parts that counts meets in one product, whose terms are
/// those of all pairs.
fn pairs(weights: DType) -> [Layout; 2] {
    match weights {
        DType::F16 => [&[0, 0, 1, 1, 2], &[0, 1, 0, 1, 0]],
        _ => [THREE, &[0, 0, 0]],
    }
}

/// Columns that parts of so many take.
fn columns_of(layout: Layout, columns: usize) -> usize {
    layout.len() * columns.next_multiple_of(PACK)
}

/// Features of f32 rows as tiles multiply them by weights of 16 bits (`kernels/tile/pipeline.cuh`): parts of the weights'
/// type side by side, two of f16 or three of bf16, which are as good as f32.
pub(crate) fn tile_terms(weights: DType, columns: usize) -> usize {
    columns_of(if weights == DType::F16 { TWO } else { THREE }, columns)
}

/// Elements between rows of a factor of two parts.
pub(crate) fn two_parts(columns: usize) -> usize {
    padded(columns_of(TWO, columns))
}

/// A matrix as products take it: itself, or its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factor {
    parts: [Panel; 2],
    count: usize,
}

impl Factor {
    pub(crate) fn whole(panel: Panel) -> Factor {
        Factor { parts: [panel; 2], count: 1 }
    }

    /// What is cut into parts.
    pub(crate) fn of_parts(first: Panel, second: Option<Panel>) -> Factor {
        let count = if second.is_some() { 2 } else { 1 };
        Factor { parts: [first, second.unwrap_or(first)], count }
    }

    /// The first part alone.
    pub(crate) fn rounded(self) -> Factor {
        Factor { count: 1, ..self }
    }

    /// Those of its parts; 0 where there is none.
    pub(crate) fn addresses(self) -> [u64; 2] {
        let [first, second] = self.parts.map(|part| part.address);
        [first, if self.count > 1 { second } else { 0 }]
    }

    /// Elements between rows.
    pub(crate) fn stride(self) -> usize {
        self.parts[0].stride
    }

    /// Its parts.
    pub(crate) fn parts(&self) -> &[Panel] {
        &self.parts[..self.count]
    }

    fn map(self, of: impl Fn(Panel) -> Panel) -> Factor {
        Factor { parts: self.parts.map(of), ..self }
    }

    pub(crate) fn transposed(self) -> Factor {
        self.map(Panel::transposed)
    }

    fn starting_at(self, row: usize) -> Factor {
        self.map(|panel| panel.starting_at(row))
    }

    fn after_column(self, column: usize) -> Factor {
        self.map(|panel| panel.after_column(column))
    }
}

/// Whether a matrix of one type is taken apart in a call of tensors of another.
fn apart(dtype: DType, call: DType) -> bool {
    match call {
        DType::F32 => false,
        DType::F16 => true,
        _ => dtype == DType::F32,
    }
}

impl Workspace<'_> {
    /// Memory for a matrix of this type as a factor in a call of tensors of another type.
    pub(crate) fn factor(&mut self, columns: usize, dtype: DType, call: DType) -> Result<Panel> {
        let columns = if apart(dtype, call) { columns_of(TWO, columns) } else { 0 };
        self.panel(columns, DType::BF16)
    }
}

impl Cuda {
    /// # Safety
    /// As for [`Cuda::product`]; `to` has the layout's columns, and its rows begin at 16-byte boundaries.
    unsafe fn cut(&self, from: Panel, to: Panel, sizes: [usize; 2], layout: Layout) -> Result<()> {
        let digits = layout.iter().enumerate().map(|(i, part)| part << (2 * i)).sum();
        let mut args = panel_args([from, to], sizes, Places::default(), false);
        (args.parts, args.add) = (digits, layout.len() as u32);
        let packs = sizes[0].saturating_mul(sizes[1].div_ceil(PACK));
        // SAFETY: `from` is device memory of these sizes, and `to` has the layout's columns from
        // 16-byte boundaries on: the caller's promise.
        unsafe { self.launch_panel(Batch::PanelParts, packs, args) }
    }

    /// Rows of f32 as parts of the type of `to`, which has the columns of [`tile_terms`]; f16 ones are those of the row
    /// times a power of two, which goes to `scales` (f32, a number a row).
    ///
    /// # Safety
    /// As for [`Cuda::product`]; the rows of `to` begin at 16-byte boundaries.
    pub(crate) unsafe fn tile_rows(
        &self,
        from: Panel,
        (to, scales): (Panel, u64),
        sizes: [usize; 2],
    ) -> Result<()> {
        if to.dtype != DType::F16 {
            // SAFETY: `from` is device memory of these sizes, and `to` has the columns of three parts: the caller's promise.
            return unsafe { self.cut(from, to, sizes, THREE) };
        }
        let args = panel_args([from, to], sizes, Places::default(), false);
        let args = PanelArgs { rest: scales, ..args };
        // SAFETY: `from` is device memory of these sizes, `to` has the columns of two parts, and `scales` a number a
        // row: the caller's promise.
        unsafe { self.launch_panel(Batch::PanelHalves, sizes[0].saturating_mul(32), args) }
    }

    /// A matrix of n rows as a factor, in a call of tensors of this type; `memory` is its
    /// [`Workspace::factor`].
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn factor(
        &self,
        from: Panel,
        memory: Panel,
        sizes: [usize; 2],
        call: DType,
    ) -> Result<Factor> {
        if !apart(from.dtype, call) {
            return Ok(Factor::whole(from));
        }
        // SAFETY: `from` is initialised device memory of these sizes, says the caller; `memory` was
        // taken by `Workspace::factor` for a factor's parts.
        unsafe { self.cut(from, memory, sizes, TWO)? };
        let second = memory.after_column(sizes[1].next_multiple_of(PACK));
        Ok(Factor { parts: [memory, second], count: 2 })
    }

    /// The same of the first part alone, if `round` says so.
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn slopes_factor(
        &self,
        (from, round): (Panel, bool),
        memory: Panel,
        sizes: [usize; 2],
        call: DType,
    ) -> Result<Factor> {
        if !round || !apart(from.dtype, call) {
            // SAFETY: `from` is initialised device memory of these sizes, and `memory` a factor's: the caller's promise.
            return unsafe { self.factor(from, memory, sizes, call) };
        }
        // SAFETY: as for a factor, whose memory has more columns.
        unsafe { self.cut(from, memory, sizes, ONE)? };
        Ok(Factor::whole(memory))
    }

    /// `c = a·b`, or added to c, rounded once where c is of 16 bits: by a sum of so many bytes.
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn multiply(
        &self,
        [a, b]: [Factor; 2],
        c: Panel,
        (sizes, add): ([usize; 3], bool),
        room: usize,
    ) -> Result<()> {
        let [m, n, k] = sizes;
        if c.dtype == DType::F32 || a.count + b.count == 2 {
            // SAFETY: the panels are device memory of these sizes, and those that are read are
            // initialised: the caller's promise.
            return unsafe { self.pairwise([a, b], c, sizes, add) };
        }
        let rows = (room / (4 * padded(n)).max(1)).clamp(1, m.max(1));
        let mut workspace = Workspace::new(self, rows.min(m));
        let wide = workspace.panel(n, DType::F32)?;
        for at in (0..m).step_by(rows) {
            let some = rows.min(m - at);
            // SAFETY: the caller's contract; the sum has as many rows.
            unsafe {
                self.pairwise([a.starting_at(at), b], wide, [some, n, k], false)?;
                let panels = [wide, c.starting_at(at)];
                self.panel(Batch::PanelRound, panels, [some, n], Places::default(), add)?;
            }
        }
        Ok(())
    }

    /// The products of all pairs of parts, but for that of the lesser ones, which nobody would see.
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    unsafe fn pairwise(
        &self,
        [a, b]: [Factor; 2],
        c: Panel,
        sizes: [usize; 3],
        add: bool,
    ) -> Result<()> {
        for i in 0..a.count {
            for j in 0..b.count.min(2 - i) {
                let (a, b, add) = (a.parts[i], b.parts[j], add || i + j > 0);
                // SAFETY: each part is a panel of the factor's sizes, and `c` is initialised where
                // it is added to, which the first product sees to: the caller's promise for the
                // rest.
                unsafe { self.product(Product { a, b, c, sizes, add })? };
            }
        }
        Ok(())
    }

    /// `to = hidden·weightᵀ` of n f32 rows and weights of any type, in buffers of so many bytes.
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn logits(
        &self,
        [hidden, weight, to]: [Panel; 3],
        [n, classes, width]: [usize; 3],
        budget: usize,
    ) -> Result<()> {
        if weight.dtype == DType::F32 {
            let (a, b, sizes) = (hidden, weight.transposed(), [n, classes, width]);
            // SAFETY: the panels are device memory of these sizes, and rows and weights are
            // initialised: the caller's promise.
            return unsafe { self.product(Product { a, b, c: to, sizes, add: false }) };
        }
        let [of_rows, of_weights] = pairs(weight.dtype);
        let terms = columns_of(of_rows, width);
        let rows = (budget / (2 * padded(terms)).max(1)).clamp(1, classes.max(1));
        let (mut left, mut right) = (Workspace::new(self, n), Workspace::new(self, rows));
        let left = left.panel(terms, DType::BF16)?;
        let right = right.panel(terms, DType::BF16)?;
        // SAFETY: the caller's contract; the parts have their layouts' columns.
        unsafe {
            self.cut(hidden, left, [n, width], of_rows)?;
            for at in (0..classes).step_by(rows) {
                let some = rows.min(classes - at);
                self.cut(weight.starting_at(at), right, [some, width], of_weights)?;
                let (b, c, sizes) = (right.transposed(), to.after_column(at), [n, some, terms]);
                self.product(Product { a: left, b, c, sizes, add: false })?;
            }
        }
        Ok(())
    }

    /// `to = a·weight`, the weights `[rows, columns]` of the call's type, in buffers of so many bytes; `to` is f32.
    ///
    /// # Safety
    /// As for [`Cuda::product`].
    pub(crate) unsafe fn through(
        &self,
        a: Factor,
        weight: Panel,
        to: Panel,
        [n, columns, rows]: [usize; 3],
        budget: usize,
    ) -> Result<()> {
        let dtype = weight.dtype;
        let each = match apart(dtype, dtype) {
            true => (budget / (2 * padded(columns_of(TWO, columns))).max(1)).clamp(1, rows.max(1)),
            false => rows.max(1),
        };
        let mut workspace = Workspace::new(self, each.min(rows));
        let memory = workspace.factor(columns, dtype, dtype)?;
        // SAFETY: the caller's contract; the parts have as many rows.
        unsafe {
            if rows == 0 {
                let sizes = ([n, columns, 0], false);
                return self.multiply([a, Factor::whole(weight)], to, sizes, SUM);
            }
            for at in (0..rows).step_by(each) {
                let some = each.min(rows - at);
                let b = self.factor(weight.starting_at(at), memory, [some, columns], dtype)?;
                self.multiply([a.after_column(at), b], to, ([n, columns, some], at > 0), SUM)?;
            }
        }
        Ok(())
    }
}
