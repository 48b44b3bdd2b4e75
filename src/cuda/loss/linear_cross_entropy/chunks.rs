//! Rows of logits, some at a time: products, the loss in place, products back.

use super::budget::Budget;
use super::rows::RowNumbers;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::PartArgument;
use crate::code::variants::Batch;
use crate::cuda::driver::product::{Panel, Product};
use crate::cuda::matrix::accumulator::{Growing, Sum};
use crate::cuda::matrix::factors::Factor;
use crate::cuda::matrix::products::{Places, Workspace};
use crate::cuda::schedule::lines::begin_with_a_pack;
use crate::cuda::schedule::rows::Planned;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::linear_cross_entropy::CheckedLinear;

/// Gradients of hidden rows, classifier and bias.
#[derive(Clone, Copy)]
pub(in crate::cuda::loss) struct Gradients {
    pub(in crate::cuda::loss) input: Option<Sum>,
    pub(in crate::cuda::loss) weight: Option<Sum>,
    /// Where what rounding leaves of the classifier's is kept.
    pub(in crate::cuda::loss) rest: Option<Panel>,
    pub(in crate::cuda::loss) bias: Option<Sum>,
}

/// What rows of logits are products of.
pub(in crate::cuda::loss) struct Factors<'p> {
    pub(in crate::cuda::loss) input: Input<'p>,
    pub(in crate::cuda::loss) weight: Input<'p>,
    pub(in crate::cuda::loss) bias: Option<Input<'p>>,
}

impl Gradients {
    /// Those of no rows.
    ///
    /// # Safety
    /// They have the shapes of what they belong to, and are borrowed exclusively.
    pub(in crate::cuda::loss) unsafe fn clear(&self, cuda: &Cuda, sizes: [usize; 2]) -> Result<()> {
        for (sum, sizes) in [(self.weight, sizes), (self.bias, [1, sizes[0]])] {
            if let Some(Sum { to, add: false }) = sum {
                // SAFETY: the gradient has these sizes: the caller's promise.
                unsafe { cuda.zeros(to, sizes)? };
            }
        }
        match (self.rest, self.weight) {
            // SAFETY: it has the classifier's sizes: the caller's promise.
            (Some(rest), Some(Sum { add: false, .. })) => unsafe { cuda.zeros(rest, sizes) },
            _ => Ok(()),
        }
    }
}

/// Probabilities of all rows, and their gradient.
#[derive(Clone, Copy)]
pub(super) struct Probabilities {
    pub(super) values: Panel,
    pub(super) gradient: Option<Panel>,
}

/// A call's inputs, with memory for the longest chunk.
pub(in crate::cuda::loss) struct Chunks<'c, 'p> {
    cuda: &'p Cuda,
    numbers: &'c RowNumbers<'p>,
    budget: &'c Budget,
    n: usize,
    features: usize,
    classes: usize,
    dtype: DType,
    /// Whether the logits' gradient is rounded to 16 bits.
    round: bool,
    input: Input<'p>,
    weight: Input<'p>,
    bias: Option<Input<'p>>,
    probabilities: Option<Probabilities>,
    /// f32 rows for probabilities of 16 bits, and for their gradient.
    wide: [Option<Panel>; 2],
    /// Logits, then their gradient; f32.
    pub(in crate::cuda::loss) logits: Panel,
    memory: Workspace<'p>,
}

/// A batch on its way: memory for a chunk's hidden rows, and what is being made of all rows.
pub(in crate::cuda::loss) struct Walk<'w, 'c, 'p> {
    chunks: &'w Chunks<'c, 'p>,
    x: Option<Panel>,
    back: Option<Back<'p>>,
    _memory: Workspace<'p>,
}

/// Memory for the products back. Factors are memory for what lies before them, as products take it.
struct Back<'p> {
    weight: Option<Growing<'p>>,
    x_factor: Panel,
    logits_factor: Panel,
    /// f32.
    d_x: Panel,
    /// Sums of columns; f32.
    sums: Panel,
    to: Gradients,
    _memory: [Workspace<'p>; 2],
}

/// Rows of a chunk: how many, and from which on.
#[derive(Clone, Copy)]
pub(in crate::cuda::loss) struct Part {
    pub(in crate::cuda::loss) from: usize,
    pub(in crate::cuda::loss) n: usize,
}

/// All rows, so many at a time.
pub(in crate::cuda::loss) fn parts(all: usize, rows: usize) -> impl Iterator<Item = Part> + use<> {
    (0..all).step_by(rows.max(1)).map(move |from| Part { from, n: rows.min(all - from) })
}

impl<'c, 'p> Chunks<'c, 'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        checked: &CheckedLinear<'p>,
        budget: &'c Budget,
        numbers: &'c RowNumbers<'p>,
    ) -> Result<Chunks<'c, 'p>> {
        Chunks::of_classes(cuda, checked, checked.classes(), (budget, numbers))
    }

    /// Of a classifier of so many classes.
    pub(in crate::cuda::loss) fn of_classes(
        cuda: &'p Cuda,
        checked: &CheckedLinear<'p>,
        classes: usize,
        all: (&'c Budget, &'c RowNumbers<'p>),
    ) -> Result<Chunks<'c, 'p>> {
        let of = &checked.input;
        let factors = Factors {
            bias: of.linear_bias.map(|bias| cuda.input("linear_bias", bias)).transpose()?,
            input: cuda.input("input", of.input)?,
            weight: cuda.input("linear_weight", of.linear_weight)?,
        };
        let sizes = [checked.rows, classes, checked.features];
        let round = checked.options.round_grad_logits;
        Ok(Chunks { round, ..Chunks::of(cuda, factors, sizes, all)? })
    }

    /// Of so many rows, classes and features.
    pub(in crate::cuda::loss) fn of(
        cuda: &'p Cuda,
        Factors { input, weight, bias }: Factors<'p>,
        [n, classes, features]: [usize; 3],
        (budget, numbers): (&'c Budget, &'c RowNumbers<'p>),
    ) -> Result<Chunks<'c, 'p>> {
        let mut memory = Workspace::new(cuda, budget.rows);
        Ok(Chunks {
            cuda,
            numbers,
            budget,
            n,
            features,
            classes,
            dtype: input.dtype,
            round: false,
            input,
            weight,
            bias,
            probabilities: None,
            wide: [None; 2],
            logits: memory.panel(classes, DType::F32)?,
            memory,
        })
    }

    /// The targets are probabilities: those of f32 as they lie, others a chunk at a time in f32.
    pub(super) fn probabilities(&mut self, of: Probabilities) -> Result<()> {
        self.probabilities = Some(of);
        if self.dtype != DType::F32 {
            let mut wide = || self.memory.panel(self.classes, DType::F32);
            self.wide = [Some(wide()?), of.gradient.map(|_| wide()).transpose()?];
        }
        Ok(())
    }

    /// Whether each row of logits begins with a pack, of however many.
    pub(in crate::cuda::loss) fn aligned(&self) -> bool {
        begin_with_a_pack((self.logits.address, self.logits.stride), self.n, 4)
    }

    /// Rows of the longest chunk.
    pub(super) fn longest(&self) -> usize {
        self.budget.rows
    }

    /// Puts all launches on the stream; `args` is filled but for where rows lie.
    ///
    /// # Safety
    /// The call's shapes were checked, what `args` names is as long as they say, and outputs are borrowed
    /// exclusively; the plan is for rows of these logits, as many as the longest chunk.
    pub(super) unsafe fn run<A: PartArgument>(
        &self,
        planned: &Planned<'_>,
        args: A,
        gradients: Option<Gradients>,
    ) -> Result<()> {
        let walk = Walk::new(self, gradients)?;
        for part in self.parts() {
            // SAFETY: shapes were checked and outputs are borrowed exclusively, says the caller; chunks come in order.
            unsafe {
                let x = walk.logits(part)?;
                self.loss(part, planned, args, gradients.is_some())?;
                walk.products(part, x, self.logits)?;
            }
        }
        // SAFETY: the caller's contract; every chunk's product is on the stream.
        unsafe { walk.settle() }
    }

    /// Its chunks, in order.
    pub(in crate::cuda::loss) fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        parts(self.n, self.budget.rows)
    }

    fn back(&self, to: Gradients) -> Result<Back<'p>> {
        let (rows, dtype) = (self.budget.rows, self.dtype);
        let mut of_rows = Workspace::new(self.cuda, rows);
        let mut one = Workspace::new(self.cuda, 1);
        let room = if self.budget.wide { usize::MAX } else { 0 };
        let of = (self.n.div_ceil(rows), room);
        let sizes = [self.classes, self.features];
        let growing = |sum| Growing::keeping(self.cuda, (sum, to.rest), sizes, of);
        let weight = to.weight.map(growing).transpose()?;
        let if_there = |there: bool, n: usize| if there { n } else { 0 };
        let [of_x, of_sums] = [to.input, to.bias].map(|sum| sum.is_some());
        Ok(Back {
            x_factor: of_rows.factor(if_there(weight.is_some(), self.features), dtype, dtype)?,
            logits_factor: of_rows.factor(self.classes, DType::F32, dtype)?,
            d_x: of_rows.panel(if_there(of_x, self.features), DType::F32)?,
            sums: one.panel(if_there(of_sums, self.classes), DType::F32)?,
            weight,
            to,
            _memory: [of_rows, one],
        })
    }

    fn places(&self, part: Part) -> Places {
        let marks = self.numbers.marks();
        let marks = if marks == 0 { 0 } else { marks + 8 * part.from as u64 };
        Places { rows: 0, marks }
    }

    /// The hidden rows: as they lie where all of them count, else gathered, zeros for what is not read.
    ///
    /// # Safety
    /// As for [`Chunks::run`], here and below.
    unsafe fn hidden(&self, part: Part, to: Option<Panel>) -> Result<Panel> {
        let from = Panel::from(&self.input).starting_at(part.from);
        let Some(x) = to else { return Ok(from) };
        let sizes = [part.n, self.features];
        // SAFETY: input and buffer have the chunk's rows, and each row has a mark.
        unsafe { self.cuda.panel(Batch::PanelGather, [from, x], sizes, self.places(part), false)? };
        Ok(x)
    }

    /// Logits of the rows; the product is added to the bias where there is one.
    ///
    /// # Safety
    /// As above.
    unsafe fn logits(&self, part: Part, x: Panel) -> Result<()> {
        let (cuda, sizes) = (self.cuda, [part.n, self.classes]);
        // SAFETY: the classifier has these sizes and the bias an element a class, which each row takes; the
        // buffer has the chunk's rows.
        unsafe {
            if let Some(bias) = &self.bias {
                let each = Panel { stride: 0, ..Panel::packed(bias.address, bias.dtype, 0) };
                let panels = [each, self.logits];
                cuda.panel(Batch::PanelRound, panels, sizes, Places::default(), false)?;
            }
            let (b, c) = (Panel::from(&self.weight).transposed(), self.logits);
            let sizes_of = [part.n, self.classes, self.features];
            let add = self.bias.is_some();
            cuda.product(Product { a: x, b, c, sizes: sizes_of, add })?;
            self.numbers.divide(self.logits, part.from, sizes)
        }
    }

    /// The loss over the logits, in place where there is a backward pass.
    ///
    /// # Safety
    /// As above.
    unsafe fn loss<A: PartArgument>(
        &self,
        part: Part,
        planned: &Planned<'_>,
        args: A,
        back: bool,
    ) -> Result<()> {
        let (cuda, z) = (self.cuda, self.logits);
        let (sizes, places) = ([part.n, self.classes], Places::default());
        let mut args = args.part(part.from, part.n);
        let rows = args.rows();
        (rows.x, rows.x_stride) = (z.address, z.stride as i64);
        if back {
            (rows.y, rows.y_stride) = (z.address, z.stride as i64);
        }
        // SAFETY: probabilities and their gradient have the chunk's rows, and so have the buffers; what the
        // arguments name is as long as rows and classes say.
        unsafe {
            let Some(of) = self.probabilities else { return planned.launch(args) };
            let [values, gradient] = [Some(of.values), of.gradient]
                .map(|panel| panel.map(|panel| panel.starting_at(part.from)));
            let [wide_values, wide_gradient] = self.wide;
            if let (Some(from), Some(to)) = (values, wide_values) {
                cuda.panel(Batch::PanelRound, [from, to], sizes, places, false)?;
            }
            if let Some(beside) = args.beside() {
                let at =
                    |panel: Option<Panel>| panel.map_or((0, 0), |p| (p.address, p.stride as i64));
                (beside.values, beside.stride) = at(wide_values.or(values));
                (beside.gradient, beside.gradient_stride) = at(wide_gradient.or(gradient));
            }
            planned.launch(args)?;
            if let (Some(from), Some(to)) = (wide_gradient, gradient) {
                cuda.panel(Batch::PanelRound, [from, to], sizes, places, false)?;
            }
            if back { self.numbers.divide(z, part.from, sizes) } else { Ok(()) }
        }
    }

    /// Adds to the gradients of classifier and bias, and writes that of the rows, of the gradient of their logits.
    ///
    /// # Safety
    /// As above.
    unsafe fn products(&self, part: Part, [x, slopes]: [Panel; 2], back: &Back<'p>) -> Result<()> {
        let Part { from, n } = part;
        let (cuda, classes, features) = (self.cuda, self.classes, self.features);
        let (first, room) = (from == 0, self.budget.room);
        // SAFETY: gradients have the sizes of what they belong to, and the buffers the chunk's rows, which
        // launches before have written.
        unsafe {
            if back.to.bias.is_some() {
                let panels = [slopes, back.sums];
                let places = Places::default();
                cuda.panel(Batch::PanelColumnSums, panels, [n, classes], places, !first)?;
            }
            if back.to.input.is_none() && back.weight.is_none() {
                return Ok(());
            }
            let sizes = [n, classes];
            let given = (slopes, self.round);
            let slopes = cuda.slopes_factor(given, back.logits_factor, sizes, self.dtype)?;
            if let Some(weight) = &back.weight {
                let x: Factor = cuda.factor(x, back.x_factor, [n, features], self.dtype)?;
                let (c, add) = weight.target(first);
                let sizes = ([classes, features, n], add);
                cuda.multiply([slopes.transposed(), x], c, sizes, room)?;
            }
            let Some(Sum { to, add }) = back.to.input else { return Ok(()) };
            let weight = Panel::from(&self.weight);
            cuda.through(slopes, weight, back.d_x, [n, features, classes], room)?;
            // What is not read has no gradient, whatever zeros times the classifier are.
            let panels = [back.d_x, to.starting_at(from)];
            cuda.panel(Batch::PanelRound, panels, [n, features], self.places(part), add)
        }
    }

    /// # Safety
    /// As above, when all chunks are on the stream.
    unsafe fn settle(&self, back: &Back<'p>) -> Result<()> {
        // SAFETY: gradients have the sizes of what they belong to, and sums have been added up.
        unsafe {
            if let Some(weight) = &back.weight {
                weight.settle(self.cuda, self.n.div_ceil(self.budget.rows))?;
            }
            let Some(Sum { to, add }) = back.to.bias else { return Ok(()) };
            let (panels, sizes) = ([back.sums, to], [1, self.classes]);
            self.cuda.panel(Batch::PanelRound, panels, sizes, Places::default(), add)
        }
    }
}

impl<'w, 'c, 'p> Walk<'w, 'c, 'p> {
    pub(in crate::cuda::loss) fn new(
        chunks: &'w Chunks<'c, 'p>,
        gradients: Option<Gradients>,
    ) -> Result<Walk<'w, 'c, 'p>> {
        let mut memory = Workspace::new(chunks.cuda, chunks.budget.rows);
        let x = match chunks.numbers.marks() {
            0 => None,
            _ => Some(memory.panel(chunks.features, chunks.dtype)?),
        };
        let back = gradients.map(|to| chunks.back(to)).transpose()?;
        Ok(Walk { chunks, x, back, _memory: memory })
    }

    /// Makes the logits of some rows, whose hidden states it returns.
    ///
    /// # Safety
    /// The call's shapes were checked, and outputs are borrowed exclusively.
    pub(in crate::cuda::loss) unsafe fn logits(&self, part: Part) -> Result<Panel> {
        // SAFETY: the caller's contract; buffers have as many rows as the longest chunk.
        unsafe {
            let x = self.chunks.hidden(part, self.x)?;
            self.chunks.logits(part, x)?;
            Ok(x)
        }
    }

    /// Multiplies out the gradient of the logits of some rows with these hidden states.
    ///
    /// # Safety
    /// As for [`Walk::logits`], of those rows; they come in order.
    pub(in crate::cuda::loss) unsafe fn products(
        &self,
        part: Part,
        x: Panel,
        slopes: Panel,
    ) -> Result<()> {
        match &self.back {
            // SAFETY: the part's rows are there and their gradient was made, says the caller.
            Some(back) => unsafe { self.chunks.products(part, [x, slopes], back) },
            None => Ok(()),
        }
    }

    /// Writes what is not in its place yet.
    ///
    /// # Safety
    /// As for [`Walk::logits`], when all chunks are on the stream.
    pub(in crate::cuda::loss) unsafe fn settle(&self) -> Result<()> {
        match &self.back {
            // SAFETY: the caller's contract; gradients have their owners' sizes.
            Some(back) => unsafe { self.chunks.settle(back) },
            None => Ok(()),
        }
    }
}
