//! Rows whose logits never reach memory: a pass over all classes for their numbers, and for a backward pass another,
//! which leaves the logits' gradient of a slab of classes at a time to products (`slab_products.rs`).
//! Rows that count go first, so that the others take no tiles. `kernels/loss/linear_cross_entropy.cu`.

use super::chunks::Gradients;
use super::rows::RowNumbers;
use super::slabs::{LIMITS, Slabs};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::{CrossEntropyArgs, LinearTileArgs};
use crate::code::variants::{Batch, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::Sum;
use crate::cuda::matrix::products::{Bias, Places, Workspace};
use crate::cuda::matrix::slab_products::{Extent, Slab, SlabProducts, To};
use crate::cuda::matrix::wide_tiles;
use crate::cuda::matrix::wide_tiles::{Kernels, Slots};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::linear_cross_entropy::CheckedLinear;

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
    /// Whether products back are to go over the rows that count alone, of which the host is then told.
    asks: bool,
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

/// Memory for the products back.
struct Back<'p> {
    products: SlabProducts<'p>,
    to: To,
    gradients: Gradients,
    _memory: [Workspace<'p>; 2],
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
            // Where tiles of zeros are known products go by them.
            asks: checked.options.skip_ignored && bound.is_none(),
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
            weight_width: self.features as i64,
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
            let count = if self.asks { self.slots.counted(self.cuda, self.n)? } else { self.n };
            // One that does not count is zeros.
            let of = (count.max(1), Panel::from(&self.weight));
            back.products.run((self.kernels.gradient, &args), of, &back.to)?;
            self.settle(&back)
        }
    }

    /// # Safety
    /// As for [`Tiled::run`], here and below.
    unsafe fn back(&self, gradients: Gradients) -> Result<Back<'p>> {
        let (cuda, n, features, dtype) = (self.cuda, self.n, self.features, self.dtype);
        let [hidden, bias] = [&gradients.input, &gradients.bias].map(|sum| sum.is_some());
        let extent = Extent { n, features, classes: self.classes, dtype };
        let slab = Slab {
            classes: self.slabs.classes,
            round: self.round,
            filter: self.bound.is_some(),
            room: self.slabs.room,
        };
        let mut of_rows = Workspace::new(cuda, n);
        let mut one = Workspace::new(cuda, 1);
        let if_there = |there: bool, n: usize| if there { n } else { 0 };
        let of_weight = gradients.weight.is_some();
        let x = of_rows.panel(if_there(of_weight, features), dtype)?;
        let x_factor = of_rows.factor(if_there(of_weight, features), dtype, dtype)?;
        let sums = one.panel(if_there(bias, self.classes), DType::F32)?;
        let d_x = of_rows.panel(if_there(hidden, features), DType::F32)?;
        let weight = match gradients.weight {
            // SAFETY: input and buffer have all rows, and each slot has a row and a mark.
            Some(sum) => unsafe {
                let (panels, sizes) = ([Panel::from(&self.input), x], [n, features]);
                cuda.panel(Batch::PanelGather, panels, sizes, self.slots.places(), false)?;
                Some((cuda.factor(x, x_factor, sizes, dtype)?, sum))
            },
            None => None,
        };
        let sums = bias.then_some(Sum { to: sums, add: false });
        Ok(Back {
            products: SlabProducts::new(cuda, extent, slab, [hidden, bias])?,
            to: To { hidden: hidden.then_some(d_x), weight, sums },
            gradients,
            _memory: [of_rows, one],
        })
    }

    /// Rounds what was added up.
    ///
    /// # Safety
    /// As above, when all slabs are on the stream.
    unsafe fn settle(&self, back: &Back<'p>) -> Result<()> {
        // SAFETY: gradients have the sizes of what they belong to.
        unsafe {
            if let (Some(Sum { to, add }), Some(d_x)) = (back.gradients.input, back.to.hidden) {
                // What is not read has no gradient, whatever zeros times the classifier are.
                let (panels, sizes) = ([d_x, to], [self.n, self.features]);
                self.cuda.panel(Batch::PanelRound, panels, sizes, self.slots.places(), add)?;
            }
            let (Some(Sum { to, add }), Some(sums)) = (back.gradients.bias, back.to.sums) else {
                return Ok(());
            };
            let (panels, sizes) = ([sums.to, to], [1, self.classes]);
            self.cuda.panel(Batch::PanelRound, panels, sizes, Places::default(), add)
        }
    }
}
