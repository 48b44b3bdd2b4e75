//! Rows beside whose lists all other classes stand as one: the logits of all classes, a chunk of rows at a time, of
//! which those of lists and one of the rest are gone through by the loss (`kernels/loss/class_subset.cu`).

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{PartArgument, RestArgs, SoftCrossEntropyArgs};
use crate::code::variants::{Batch, Data, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::loss::class_subset::budget::bytes;
use crate::cuda::loss::class_subset::lists::Lists;
use crate::cuda::loss::cross_entropy::logits;
use crate::cuda::loss::linear_cross_entropy::Backward;
use crate::cuda::loss::linear_cross_entropy::budget::{Budget, Needs, Sizes};
use crate::cuda::loss::linear_cross_entropy::chunks::{Chunks, Part, Walk, parts};
use crate::cuda::loss::linear_cross_entropy::rows::RowNumbers;
use crate::cuda::matrix::products::{Places, Workspace, padded};
use crate::cuda::schedule::lines::{begin_with_a_pack, count};
use crate::cuda::schedule::rows::{Lie, Work};
use crate::cuda::stream::Cuda;
use crate::spec::class_subset::CheckedSubset;
use crate::spec::linear_cross_entropy::CheckedLinear;

/// How many rows' logits are there at once, beside the lists of all rows.
///
/// # Errors
/// A budget that does not do for a row.
pub(super) fn budget(
    (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
    back: bool,
) -> Result<Budget> {
    let of_all = match subset.given {
        true => Needs { row: 4 * padded(subset.classes), ..Needs::default() },
        false => Sizes {
            n: checked.rows,
            features: checked.features,
            positions: 1,
            classes: subset.classes,
            dtype: checked.input.input.dtype(),
            soft: false,
            back,
            narrow_weights: false,
        }
        .needs(),
    };
    let needs = Needs { fixed: of_all.fixed.saturating_add(bytes(checked, back)), ..of_all };
    Budget::of(needs, checked.rows, checked.options.workspace)
}

/// What is kept of rows between the launches of a chunk.
pub(super) struct Bucket<'c, 'p> {
    cuda: &'p Cuda,
    checked: &'c CheckedLinear<'p>,
    subset: &'c CheckedSubset<'p>,
    numbers: &'c RowNumbers<'p>,
    budget: Budget,
    /// Addresses.
    sums: u64,
    slopes: u64,
    _memory: Workspace<'p>,
}

impl<'c, 'p> Bucket<'c, 'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        (checked, subset): (&'c CheckedLinear<'p>, &'c CheckedSubset<'p>),
        numbers: &'c RowNumbers<'p>,
        back: bool,
    ) -> Result<Bucket<'c, 'p>> {
        let budget = budget((checked, subset), back)?;
        let mut memory = Workspace::new(cuda, checked.rows);
        let capped = checked.of_logits.options.softcap.is_some();
        Ok(Bucket {
            cuda,
            checked,
            subset,
            numbers,
            budget,
            sums: memory.packed(2, DType::F32)?.address,
            slopes: match capped && back {
                true => memory.packed(padded(subset.columns), DType::F32)?.address,
                false => 0,
            },
            _memory: memory,
        })
    }

    /// All chunks, by a plan of all rows: no row's numbers depend on its chunk.
    ///
    /// # Safety
    /// The call's shapes were checked, the lists are in order on the stream with their probabilities, what `args`
    /// names is as long as rows and lists, and outputs are borrowed exclusively.
    pub(super) unsafe fn run(
        &self,
        lists: &Lists<'p>,
        (loss, work): (Loss, Work),
        args: SoftCrossEntropyArgs,
        back: Option<&Backward<'_, 'p>>,
    ) -> Result<()> {
        let z = lists.z();
        let lie =
            Lie::Whole { aligned: begin_with_a_pack((z.address, z.stride), self.checked.rows, 4) };
        let planned =
            self.cuda.planned((loss, Data::F32, work), &args.rows, lie, self.budget.rows)?;
        let mut go = |part: Part, of_all: Panel| {
            let mut some = args.part(part.from, part.n);
            let own = z.starting_at(part.from);
            let rows = &mut some.rows;
            (rows.x, rows.x_stride) = (own.address, own.stride as i64);
            if back.is_some() {
                (rows.y, rows.y_stride) = (own.address, own.stride as i64);
            }
            let skipped = 4 * (part.from * z.stride) as u64;
            some.target.values += skipped;
            if some.target.gradient != 0 {
                some.target.gradient += skipped;
            }
            let rest = self.rest(lists, part, (of_all, own), &some)?;
            let spread = RestArgs { z: if back.is_some() { rest.z } else { 0 }, ..rest };
            // SAFETY: the chunk's rows have lists, probabilities and logits of all classes, says the caller.
            unsafe {
                self.launch(Batch::RestSums, &rest)?;
                planned.launch(some)?;
                if back.is_some() || rest.lse != 0 {
                    self.launch(Batch::RestSpread, &spread)?;
                }
                match back {
                    Some(_) => {
                        self.numbers.divide(of_all, part.from, [part.n, self.subset.classes])
                    }
                    None => Ok(()),
                }
            }
        };
        // SAFETY: shapes were checked and outputs are borrowed exclusively, says the caller; `go` asks for no more.
        unsafe {
            match self.subset.given {
                true => self.through_given(lists, back, &mut go),
                false => self.through_products(back, &mut go),
            }
        }
    }

    fn rest(
        &self,
        lists: &Lists<'p>,
        part: Part,
        (of_all, own): (Panel, Panel),
        some: &SoftCrossEntropyArgs,
    ) -> Result<RestArgs> {
        let (listed, skipped) = (lists.parts().0, (part.from * own.stride) as u64);
        Ok(RestArgs {
            logits: logits(self.checked.of_logits.options),
            listed: listed + 8 * skipped,
            x: of_all.address,
            z: own.address,
            slopes: if self.slopes == 0 { 0 } else { self.slopes + 4 * skipped },
            probabilities: some.target.values,
            of_probabilities: some.target.gradient,
            sums: self.sums + 8 * part.from as u64,
            lse: some.out.lse,
            n: count("input", part.n)?,
            columns: count("ids", self.subset.columns)?,
            stride: count("ids", own.stride)?,
            classes: count("linear_weight", self.subset.classes)?,
            x_stride: count("linear_weight", of_all.stride)?,
        })
    }

    /// A block a row.
    ///
    /// # Safety
    /// The arguments name memory of so many rows.
    unsafe fn launch(&self, kernel: Batch, args: &RestArgs) -> Result<()> {
        // SAFETY: these are the kernel's own arguments: the caller's promise.
        unsafe { self.cuda.launch_batch(kernel, args.n as u32, args::bytes(args)) }
    }

    /// # Safety
    /// As for [`Bucket::run`]; so it is for `go`, of a chunk's logits.
    unsafe fn through_products(
        &self,
        back: Option<&Backward<'_, 'p>>,
        go: &mut dyn FnMut(Part, Panel) -> Result<()>,
    ) -> Result<()> {
        let Bucket { cuda, checked, subset, .. } = *self;
        let gradients = back.map(Backward::gradients);
        let sizes = [subset.classes, checked.features];
        let chunks =
            Chunks::of_classes(cuda, checked, subset.classes, (&self.budget, self.numbers))?;
        // SAFETY: shapes were checked and outputs are borrowed exclusively, says the caller; chunks come in order.
        unsafe {
            if checked.rows == 0 {
                return gradients.map_or(Ok(()), |gradients| gradients.clear(cuda, sizes));
            }
            let walk = Walk::new(&chunks, gradients)?;
            for part in chunks.parts() {
                let x = walk.logits(part)?;
                go(part, chunks.logits)?;
                walk.products(part, x, chunks.logits)?;
            }
            walk.settle()
        }
    }

    /// # Safety
    /// As above.
    unsafe fn through_given(
        &self,
        lists: &Lists<'p>,
        back: Option<&Backward<'_, 'p>>,
        go: &mut dyn FnMut(Part, Panel) -> Result<()>,
    ) -> Result<()> {
        let (cuda, classes) = (self.cuda, self.subset.classes);
        let mut memory = Workspace::new(cuda, self.budget.rows);
        let wide = memory.panel(classes, DType::F32)?;
        let to = back.and_then(|back| back.input.as_ref()).map(Panel::from);
        for part in parts(self.checked.rows, self.budget.rows) {
            let (sizes, places) = ([part.n, classes], Places::default());
            let panel = |panels| {
                // SAFETY: logits and their gradient have all rows, and the memory the chunk's.
                unsafe { cuda.panel(Batch::PanelRound, panels, sizes, places, false) }
            };
            if let Some(x) = lists.x() {
                panel([x.starting_at(part.from), wide])?;
            }
            // SAFETY: the memory has the chunk's rows.
            unsafe { self.numbers.divide(wide, part.from, sizes)? };
            go(part, wide)?;
            if let Some(to) = to {
                panel([wide, to.starting_at(part.from)])?;
            }
        }
        Ok(())
    }
}
