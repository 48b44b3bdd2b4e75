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
    pub(super) cuda: &'p Cuda,
    pub(super) numbers: &'c RowNumbers<'p>,
    budget: &'c Budget,
    n: usize,
    /// Rows that are multiplied: the first ones.
    counted: usize,
    features: usize,
    pub(super) classes: usize,
    /// Lines that lie side by side in a row of logits.
    pub(super) positions: usize,
    dtype: DType,
    /// Whether the logits' gradient is rounded to 16 bits.
    round: bool,
    input: Input<'p>,
    weight: Input<'p>,
    bias: Option<Input<'p>>,
    pub(super) probabilities: Option<Probabilities>,
    /// f32 rows for probabilities of 16 bits, and for their gradient.
    pub(super) wide: [Option<Panel>; 2],
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
        let chunks = Chunks::of_classes(cuda, checked, checked.columns(), (budget, numbers))?;
        Ok(Chunks { positions: checked.positions, ..chunks })
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
            counted: n,
            features,
            classes,
            positions: 1,
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

    /// Rows have been packed, and so many of them count. Chunks begin where they do if all did: whoever cannot know
    /// the number adds zeros to the same sums.
    pub(super) fn packed(self, count: usize) -> Self {
        Chunks { counted: count, ..self }
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

    /// Whether each row of logits that is gone through begins with a pack, of however many.
    pub(in crate::cuda::loss) fn aligned(&self) -> bool {
        match self.positions {
            1 => begin_with_a_pack((self.logits.address, self.logits.stride), self.n, 4),
            // Rows of a workspace, one after another.
            positions => begin_with_a_pack((0, self.classes / positions), self.n * positions, 4),
        }
    }

    /// Losses of the longest chunk.
    pub(super) fn longest(&self) -> usize {
        self.budget.rows * self.positions
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
        parts(self.counted, self.budget.rows)
    }

    /// How many those are.
    fn count(&self) -> usize {
        self.counted.div_ceil(self.budget.rows)
    }

    fn back(&self, to: Gradients) -> Result<Back<'p>> {
        let (rows, dtype) = (self.budget.rows, self.dtype);
        let mut of_rows = Workspace::new(self.cuda, rows);
        let mut one = Workspace::new(self.cuda, 1);
        let room = if self.budget.wide { usize::MAX } else { 0 };
        // As if all rows counted: whoever cannot know how many do gives the same bits.
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

    /// A panel of all rows, from where places of the part are named.
    fn of_rows(&self, panel: Panel, places: Places, from: usize) -> Panel {
        if places.rows == 0 { panel.starting_at(from) } else { panel }
    }

    /// The hidden rows: as they lie where all of them count, else gathered, zeros for what is not read.
    ///
    /// # Safety
    /// As for [`Chunks::run`], here and below.
    unsafe fn hidden(&self, part: Part, to: Option<Panel>) -> Result<Panel> {
        let places = self.numbers.places(part.from);
        let from = self.of_rows(Panel::from(&self.input), places, part.from);
        let Some(x) = to else { return Ok(from) };
        let sizes = [part.n, self.features];
        // SAFETY: input and buffer have the chunk's rows, and each row has a mark.
        unsafe { self.cuda.panel(Batch::PanelGather, [from, x], sizes, places, false)? };
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
            let places = self.numbers.places(from);
            let panels = [back.d_x, self.of_rows(to, places, from)];
            cuda.panel(Batch::PanelRound, panels, [n, features], places, add)
        }
    }

    /// What has no place in any chunk has no gradient.
    ///
    /// # Safety
    /// As above.
    unsafe fn uncounted(&self, back: &Back<'p>) -> Result<()> {
        let Some(Sum { to, add: false }) = back.to.input else { return Ok(()) };
        let zeros = Panel { address: 0, ..to };
        let (sizes, places) =
            ([self.n - self.counted, self.features], self.numbers.places(self.counted));
        // SAFETY: the gradient has a row for each of the input's, which the slots name.
        unsafe { self.cuda.panel(Batch::PanelRound, [zeros, to], sizes, places, false) }
    }

    /// # Safety
    /// As above, when all chunks are on the stream.
    unsafe fn settle(&self, back: &Back<'p>) -> Result<()> {
        // SAFETY: gradients have the sizes of what they belong to, and sums have been added up.
        unsafe {
            if let Some(weight) = &back.weight {
                weight.settle(self.cuda, self.count())?;
            }
            self.uncounted(back)?;
            let Some(Sum { to, add }) = back.to.bias else { return Ok(()) };
            // Without a chunk there are no sums.
            let address = if self.counted == 0 { 0 } else { back.sums.address };
            let panels = [Panel { address, ..back.sums }, to];
            let sizes = [1, self.classes];
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
