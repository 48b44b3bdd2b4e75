//! Rows whose logits never reach memory: a pass over all classes for their numbers, and for a backward pass another,
//! which leaves the logits' gradient of a slab of classes at a time to products: the driver's, or where a filter makes
//! zeros of tiles, those of `block_sparse.rs`. So each row of the classifier's gradient is made at once, of all rows.
//! Rows that count go first, so that the others take no tiles. `kernels/loss/linear_cross_entropy.cu`.

use super::chunks::Gradients;
use super::rows::RowNumbers;
use super::slabs::{LIMITS, Slabs, stride};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::{CrossEntropyArgs, LinearTileArgs};
use crate::code::variants::{Batch, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::Sum;
use crate::cuda::matrix::block_sparse::{BlockSparse, tiles};
use crate::cuda::matrix::factors::{Factor, SUM};
use crate::cuda::matrix::products::{Bias, Places, Workspace};
use crate::cuda::matrix::wide_tiles;
use crate::cuda::matrix::wide_tiles::{CLASSES, Slots};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::linear_cross_entropy::CheckedLinear;

/// The kernels of a type, and words of their states and of what gradients are made of.
struct Kernels {
    forward: Batch,
    finish: Batch,
    gradient: Batch,
    state: usize,
    slopes: usize,
}

impl Kernels {
    /// Those that give what `loss` does, for hidden rows and weights of 16 bits.
    fn of(dtype: DType, loss: Loss) -> Kernels {
        use Batch::*;
        let half = dtype == DType::F16;
        let pick = |f16, bf16| if half { f16 } else { bf16 };
        match loss {
            Loss::CrossEntropy => Kernels {
                forward: pick(LinearForwardF16, LinearForwardBf16),
                finish: LinearFinish,
                gradient: pick(LinearGradientF16, LinearGradientBf16),
                state: loss.words(),
                slopes: 4,
            },
            _ => Kernels {
                forward: pick(LinearFullForwardF16, LinearFullForwardBf16),
                finish: LinearFullFinish,
                gradient: pick(LinearFullGradientF16, LinearFullGradientBf16),
                state: Loss::CrossEntropyTokens.words(),
                slopes: 5,
            },
        }
    }
}

/// A call's inputs, with memory for what its launches hand on.
pub(super) struct Tiled<'c, 'p> {
    cuda: &'p Cuda,
    numbers: &'c RowNumbers<'p>,
    slabs: &'c Slabs,
    kernels: Kernels,
    n: usize,
    features: usize,
    classes: usize,
    dtype: DType,
    /// Whether the logits' gradient is rounded to 16 bits.
    round: bool,
    /// What a row's piece of 64 classes must reach to have a gradient.
    bound: Option<f32>,
    slots: Slots<'p>,
    input: Input<'p>,
    weight: Input<'p>,
    bias: Bias<'p>,
    _given: Option<Input<'p>>,
    /// Addresses.
    partials: u64,
    targets: u64,
    slopes: u64,
    limits: u64,
    _memory: Workspace<'p>,
}

/// Memory for the products back; factors as in chunks.
struct Back<'p> {
    /// Hidden rows by slots, 0 where they are not read, as products take them.
    x: Factor,
    /// The gradient of a slab's logits.
    logits: Factor,
    /// Of its tiles, where there is a bound.
    flags: u64,
    weight_factor: Panel,
    /// f32.
    d_x: Panel,
    /// Sums of columns; f32.
    sums: Panel,
    to: Gradients,
    _memory: [Workspace<'p>; 4],
}

impl<'c, 'p> Tiled<'c, 'p> {
    /// # Safety
    /// The call's shapes were checked, and its rows marked; there is a row.
    pub(super) unsafe fn new(
        cuda: &'p Cuda,
        checked: &CheckedLinear<'p>,
        (slabs, loss): (&'c Slabs, Loss),
        numbers: &'c RowNumbers<'p>,
    ) -> Result<Tiled<'c, 'p>> {
        let of = &checked.input;
        let (dtype, classes) = (of.input.dtype(), checked.classes());
        let kernels = Kernels::of(dtype, loss);
        let given = of.linear_bias.map(|bias| cuda.input("linear_bias", bias)).transpose()?;
        // SAFETY: a bias was checked to have an element a class: the caller's promise.
        let bias = unsafe { cuda.bias(given.as_ref().map(Panel::from), classes)? };
        let mut memory = Workspace::new(cuda, checked.rows);
        let back = slabs.classes > 0;
        let bound = checked.options.gradient_filter.filter(|_| back);
        // SAFETY: rows have been marked, says the caller.
        let slots = unsafe { numbers.pack()? };
        Ok(Tiled {
            cuda,
            numbers,
            slabs,
            n: checked.rows,
            features: checked.features,
            classes,
            dtype,
            round: checked.options.round_grad_logits,
            bound,
            slots,
            input: cuda.input("input", of.input)?,
            weight: cuda.input("linear_weight", of.linear_weight)?,
            bias,
            _given: given,
            partials: memory.packed(slabs.splits * kernels.state, DType::F32)?.address,
            targets: memory.packed(1, DType::F32)?.address,
            slopes: if back { memory.packed(kernels.slopes, DType::F32)?.address } else { 0 },
            limits: if bound.is_some() { memory.packed(LIMITS, DType::F32)?.address } else { 0 },
            kernels,
            _memory: memory,
        })
    }

    fn args(&self, row: CrossEntropyArgs) -> LinearTileArgs {
        let [hidden, weight] = [&self.input, &self.weight].map(Panel::from);
        LinearTileArgs {
            row: CrossEntropyArgs { bias: self.bias.address, ..row },
            hidden: hidden.address,
            weight: weight.address,
            temperature: self.numbers.temperature(),
            slot_rows: self.slots.rows,
            slot_marks: self.slots.marks,
            partials: self.partials,
            targets: self.targets,
            slopes: self.slopes,
            limits: self.limits,
            bound: self.bound.unwrap_or(0.0),
            width: self.features as i64,
            hidden_stride: hidden.stride as i64,
            weight_stride: weight.stride as i64,
            end: self.classes as i64,
            splits: self.slabs.splits as i64,
            ..LinearTileArgs::default()
        }
    }

    /// Puts all launches on the stream; `row` is filled but for the bias.
    ///
    /// # Safety
    /// The call's shapes were checked, what `row` names is as long as they say, and outputs are borrowed
    /// exclusively; there is a row.
    pub(super) unsafe fn run(
        &self,
        row: CrossEntropyArgs,
        gradients: Option<Gradients>,
    ) -> Result<()> {
        let args = self.args(row);
        // SAFETY: inputs were checked to have these sizes; the workspace is as long as rows and splits need, and
        // what gradients are made of is written before they are.
        unsafe {
            wide_tiles::launch(self.cuda, self.kernels.forward, &args)?;
            wide_tiles::finish(self.cuda, self.kernels.finish, &args)?;
            let Some(to) = gradients else { return Ok(()) };
            let back = self.back(to)?;
            if self.classes == 0 {
                self.cuda.zeros(back.d_x, [self.n, self.features])?;
            }
            for first in (0..self.classes).step_by(self.slabs.classes.max(1)) {
                let some = self.slabs.classes.min(self.classes - first);
                let [gradient, gradient_rest] = back.logits.addresses();
                let slab = LinearTileArgs {
                    gradient,
                    gradient_rest,
                    gradient_stride: back.logits.stride() as i64,
                    flags: back.flags,
                    begin: first as i64,
                    end: (first + some) as i64,
                    splits: some.div_ceil(CLASSES) as i64,
                    ..args
                };
                wide_tiles::launch(self.cuda, self.kernels.gradient, &slab)?;
                self.products(&back, first, some)?;
            }
            self.settle(&back)
        }
    }

    /// # Safety
    /// As for [`Tiled::run`], here and below.
    unsafe fn back(&self, to: Gradients) -> Result<Back<'p>> {
        let (n, features, dtype) = (self.n, self.features, self.dtype);
        let mut of_rows = Workspace::new(self.cuda, n);
        let mut of_classes = Workspace::new(self.cuda, self.slabs.classes);
        let mut one = Workspace::new(self.cuda, 1);
        let if_there = |there: bool, n: usize| if there { n } else { 0 };
        let (of_weight, of_x) = (to.weight.is_some(), to.input.is_some());
        let x = of_rows.panel(if_there(of_weight, features), dtype)?;
        let x_factor = of_rows.factor(if_there(of_weight, features), dtype, dtype)?;
        let sums = one.panel(if_there(to.bias.is_some(), self.classes), DType::F32)?;
        let panels = [Panel::from(&self.input), x];
        let width = stride(self.slabs.classes);
        let first = of_rows.packed(width, DType::BF16)?;
        // Sums of columns are no product that rounding would save.
        let rest = if self.round && to.bias.is_none() { 0 } else { width };
        let rest = of_rows.packed(rest, DType::BF16)?;
        let second = (rest.stride > 0).then_some(rest);
        let [down, across] = tiles([n, self.slabs.classes]);
        let mut of_tiles = Workspace::new(self.cuda, down);
        let flags = match self.bound {
            Some(_) => of_tiles.packed(across, DType::U32)?.address,
            None => 0,
        };
        // SAFETY: input and buffer have all rows, and each slot has a row and a mark.
        let x = unsafe {
            if of_weight {
                self.cuda.panel(Batch::PanelGather, panels, [n, features], self.places(), false)?;
                self.cuda.factor(x, x_factor, [n, features], dtype)?
            } else {
                Factor::whole(x)
            }
        };
        Ok(Back {
            x,
            logits: Factor::of_parts(first, second),
            flags,
            weight_factor: of_classes.factor(if_there(of_x, features), dtype, dtype)?,
            d_x: of_rows.panel(if_there(of_x, features), DType::F32)?,
            sums,
            to,
            _memory: [of_rows, of_classes, of_tiles, one],
        })
    }

    fn places(&self) -> Places {
        Places { rows: self.slots.rows, marks: self.slots.marks }
    }

    /// The gradient of a slab's logits, as products take it.
    fn slopes(&self, back: &Back<'p>) -> Factor {
        if self.round { back.logits.rounded() } else { back.logits }
    }

    /// What a slab adds to the rows' gradient, and its share of the others.
    ///
    /// # Safety
    /// As above; the slab's gradient is on the stream.
    unsafe fn products(&self, back: &Back<'p>, first: usize, some: usize) -> Result<()> {
        let Tiled { cuda, n, features, dtype, .. } = *self;
        let sizes = [n, some];
        // SAFETY: gradients have the sizes of what they belong to, and the buffers all rows and the slab's classes.
        unsafe {
            let weight = Panel::from(&self.weight).starting_at(first);
            let weight = match back.to.input {
                Some(_) => cuda.factor(weight, back.weight_factor, [some, features], dtype)?,
                None => Factor::whole(weight),
            };
            if back.flags == 0 {
                return self.whole_products(back, weight, first, some);
            }
            let of = |factor| BlockSparse { factor, flags: back.flags, sizes };
            let slopes = of(self.slopes(back));
            if back.to.bias.is_some() {
                of(back.logits).column_sums(cuda, back.sums.after_column(first))?;
            }
            if let Some(Sum { to, add }) = back.to.weight {
                slopes.multiply_turned(cuda, back.x, to.starting_at(first), (features, add))?;
            }
            if back.to.input.is_some() {
                slopes.multiply(cuda, weight, back.d_x, (features, first > 0))?;
            }
        }
        Ok(())
    }

    /// The same by the driver's products.
    ///
    /// # Safety
    /// As above; the weights are the slab's.
    unsafe fn whole_products(
        &self,
        back: &Back<'p>,
        weight: Factor,
        first: usize,
        some: usize,
    ) -> Result<()> {
        let Tiled { cuda, n, features, .. } = *self;
        let slopes = self.slopes(back);
        // SAFETY: gradients have the sizes of what they belong to, and the buffers all rows and the slab's classes.
        unsafe {
            if back.to.bias.is_some() {
                let (sums, sizes) = (back.sums.after_column(first), [n, some]);
                for (i, &part) in back.logits.parts().iter().enumerate() {
                    let (panels, places) = ([part, sums], Places::default());
                    cuda.panel(Batch::PanelColumnSums, panels, sizes, places, i > 0)?;
                }
            }
            if let Some(Sum { to, add }) = back.to.weight {
                let factors = [slopes.transposed(), back.x];
                let sizes = ([some, features, n], add);
                cuda.multiply(factors, to.starting_at(first), sizes, self.slabs.room)?;
            }
            if back.to.input.is_some() {
                let sizes = ([n, features, some], first > 0);
                cuda.multiply([slopes, weight], back.d_x, sizes, SUM)?;
            }
        }
        Ok(())
    }

    /// Rounds what was added up.
    ///
    /// # Safety
    /// As above, when all slabs are on the stream.
    unsafe fn settle(&self, back: &Back<'p>) -> Result<()> {
        // SAFETY: gradients have the sizes of what they belong to.
        unsafe {
            if let Some(Sum { to, add }) = back.to.input {
                // What is not read has no gradient, whatever zeros times the classifier are.
                let (panels, sizes) = ([back.d_x, to], [self.n, self.features]);
                self.cuda.panel(Batch::PanelRound, panels, sizes, self.places(), add)?;
            }
            let Some(Sum { to, add }) = back.to.bias else { return Ok(()) };
            let (panels, sizes) = ([back.sums, to], [1, self.classes]);
            self.cuda.panel(Batch::PanelRound, panels, sizes, Places::default(), add)
        }
    }
}
