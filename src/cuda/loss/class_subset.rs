//! Cross entropy over lists of classes on a CUDA device (`kernels/batch/subset.cu`): lists in order, logits of what
//! they list, the row kernels of the losses over logits in place on those, and their gradient multiplied out. Rows
//! of the classifier that nobody lists are not touched.

mod bucket;
mod budget;
mod lists;

use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{PartArgument, SubsetArgs, SumArgs};
use crate::code::variants::{Batch as BatchKernel, Data, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::loss::class_subset::bucket::Bucket;
use crate::cuda::loss::class_subset::budget::bytes;
use crate::cuda::loss::class_subset::lists::Lists;
use crate::cuda::loss::cross_entropy::{Batch, Pass, Results};
use crate::cuda::loss::linear_cross_entropy::rows::RowNumbers;
use crate::cuda::loss::linear_cross_entropy::{Backward, work};
use crate::cuda::loss::soft_cross_entropy::SoftBatch;
use crate::cuda::matrix::clusters::blocks;
use crate::cuda::matrix::segment_sum::{Rest, Segments, Table};
use crate::cuda::schedule::rows::Work;
use crate::cuda::stream::Cuda;
use crate::spec::class_subset::CheckedSubset;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::cross_entropy::{
    Checked, CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, SoftTarget,
};
use crate::spec::linear_cross_entropy::{
    Call, CheckedLinear, LinearPath, LinearPlan, small_budget,
};

/// What of the places in lists stands for none.
const NO_PLACE: i64 = -1;

impl Cuda {
    pub(crate) fn class_subset(
        &self,
        (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
        call: Call<'_>,
    ) -> Result<()> {
        let (upstream, gradients, out) = match call {
            Call::Forward { out } => (CrossEntropyUpstream::default(), None, Some(out)),
            Call::Backward { upstream, gradients, out } => (upstream, Some(gradients), out),
        };
        self.class_subset_plan(checked, gradients.is_some())?;
        if let Some(to) = &gradients {
            to.check_no_rest("lists of classes on CUDA keep none")?;
        }
        let back = gradients.map(|gradients| Backward::new(self, gradients)).transpose()?;
        // Weights of classes are among those of rows; places are what is ignored.
        let of = checked.of_logits.options;
        let mut options = CrossEntropy { weight: None, ignore_index: NO_PLACE, ..of.clone() };
        if subset.bucket && options.softcap.take().is_some() {
            // Logits are capped, and so scaled, before they are added up.
            options.logit_scale = 1.0;
        }
        let of_logits = Checked { options: &options, ..checked.of_logits.clone() };
        match checked.of_logits.target {
            Target::Classes(classes) => {
                let of_logits = of_logits.with(classes);
                self.listed_classes((checked, subset), &of_logits, &upstream, (back, out))
            }
            Target::Soft(soft) => {
                let of_logits = of_logits.with(soft);
                self.listed_soft((checked, subset), &of_logits, &upstream, (back, out))
            }
        }
    }

    /// All rows' logits are there at once: there are as many as were listed. Where the rest has a part, a chunk of
    /// rows has those of all classes besides.
    pub(crate) fn class_subset_plan(
        &self,
        checked: &CheckedLinear<'_>,
        backward: bool,
    ) -> Result<LinearPlan> {
        if checked.options.path == LinearPath::Tiled {
            return checked.options.path.refuse("lists of classes", "auto or chunked");
        }
        if let Some(subset) = checked.subset.filter(|subset| subset.bucket) {
            let budget = bucket::budget((checked, &subset), backward)?;
            let (chunk_rows, workspace_bytes) = (budget.rows, budget.bytes);
            return Ok(LinearPlan { path: LinearPath::Chunked, chunk_rows, workspace_bytes });
        }
        let (bytes, budget) = (bytes(checked, backward), checked.options.workspace);
        if bytes > budget {
            return Err(small_budget(bytes, budget));
        }
        let (path, chunk_rows) = (LinearPath::Chunked, checked.rows);
        Ok(LinearPlan { path, chunk_rows, workspace_bytes: bytes })
    }

    fn listed_classes<'a, 'p: 'a>(
        &'p self,
        (checked, subset): (&CheckedLinear<'p>, &CheckedSubset<'p>),
        of_logits: &Checked<'_>,
        upstream: &CrossEntropyUpstream<'p>,
        (back, out): (Option<Backward<'a, 'p>>, Option<CrossEntropyOut<'a>>),
    ) -> Result<()> {
        let top = out.as_ref().and_then(|out| out.top_k.as_ref()).map_or(0, |top| top.k());
        let mut pass = Pass::new(self, of_logits, upstream, out)?;
        let mut numbers = RowNumbers::new(self, checked)?;
        let lists = Lists::new(self, (checked, subset), &numbers)?;
        // SAFETY: shapes were checked (`CheckedLinear`).
        unsafe { lists.put_in_order()? };
        let labels = lists.labels();
        let census = lists.census(checked, Some(&labels), numbers.factors())?;
        let places = lists.places();
        let batch = Batch::of_places(self, (of_logits, places), &upstream.grad_output, census)?;
        let mut args = batch.args(of_logits)?;
        let sum = pass.name(self, of_logits, &batch, &mut args)?;
        let (loss, work) = pass.kernel(&batch, work(back.is_some()));
        let mut given: Vec<_> = Vec::new();
        if back.is_some() {
            given.push(&mut args.upstream);
            if upstream.of_tokens() {
                given.extend([&mut args.tokens.of_logprob, &mut args.tokens.of_entropy]);
            }
        }
        if let Some(factors) = lists.factors() {
            numbers.weigh_by(factors);
        }
        let of_places = (args.target, args.rows.classes);
        // SAFETY: shapes were checked (`CheckedLinear`); outputs are borrowed exclusively.
        unsafe {
            numbers.prepare(Some(of_places), &mut given, true)?;
            self.listed_rows(&lists, &numbers, (loss, work), args)?;
            numbers.weigh(&args.out)?;
            lists.name_classes((args.ranks.argmax, 1))?;
            lists.name_classes((args.tokens.top_classes, top))?;
        }
        self.add_up_rows(sum)?;
        // SAFETY: shapes were checked (`CheckedLinear`), and outputs are borrowed exclusively.
        back.as_ref().map_or(Ok(()), |back| unsafe { self.listed_gradients(&lists, back) })?;
        let gradients = back.map(Backward::outputs).into_iter().flatten();
        self.read_back(pass.outputs().chain(gradients))
    }

    fn listed_soft<'a, 'p: 'a>(
        &'p self,
        (checked, subset): (&CheckedLinear<'p>, &CheckedSubset<'p>),
        of_logits: &Checked<'_, SoftTarget<'p>>,
        upstream: &CrossEntropyUpstream<'p>,
        (back, out): (Option<Backward<'a, 'p>>, Option<CrossEntropyOut<'a>>),
    ) -> Result<()> {
        let results = out.map(|out| Results::new(self, out.loss, out.z_loss, out.lse));
        let mut results = results.transpose()?;
        let mut numbers = RowNumbers::new(self, checked)?;
        let mut lists = Lists::new(self, (checked, subset), &numbers)?;
        // SAFETY: shapes were checked (`CheckedLinear`).
        unsafe { lists.put_in_order()? };
        let census = lists.census(checked, None, numbers.factors())?;
        let grad_target = back.as_ref().and_then(|back| back.target.as_ref());
        let given = &upstream.grad_output;
        let batch = SoftBatch::with_census(self, of_logits, given, grad_target.is_some(), census)?;
        let mut args = batch.args(of_logits)?;
        let mut sum = SumArgs::default();
        if let Some(results) = &mut results {
            let rows = (checked.rows, of_logits.options.reduction);
            args.out = results.of_rows(self, rows, &args.options)?;
            sum = results.sum(&batch.census, &args.out);
        }
        let target = self.input("target", of_logits.target.tensor())?;
        let mut given = Vec::new();
        if back.is_some() {
            given.push(&mut args.upstream);
        }
        // SAFETY: shapes were checked (`CheckedLinear`); outputs are borrowed exclusively.
        unsafe {
            // The gradient of probabilities is not one over τ: that of logits is divided when it is there.
            numbers.prepare(None, &mut given, false)?;
            let beside = lists.probabilities(Panel::from(&target), grad_target.is_some())?;
            if let Some(of) = args.beside() {
                (of.values, of.stride) = (beside.values, beside.stride);
                (of.gradient, of.gradient_stride) = (beside.gradient, beside.stride);
            }
            let kernels = (batch.loss, work(back.is_some()));
            match subset.bucket {
                true => {
                    let bucket = Bucket::new(self, (checked, subset), &numbers, back.is_some())?;
                    bucket.run(&lists, kernels, args, back.as_ref())?;
                }
                false => self.listed_rows(&lists, &numbers, kernels, args)?,
            }
            if let Some(to) = grad_target {
                lists.write_probabilities(beside.gradient, Panel::from(to))?;
            }
            numbers.weigh(&args.out)?;
        }
        self.add_up_rows(sum)?;
        if let Some(back) = back.as_ref().filter(|_| !subset.bucket) {
            // SAFETY: shapes were checked (`CheckedLinear`), and outputs are borrowed exclusively.
            unsafe {
                numbers.divide(lists.z(), 0, lists.sizes())?;
                self.listed_gradients(&lists, back)?;
            }
        }
        let results = results.map(Results::outputs).into_iter().flatten();
        self.read_back(results.chain(back.map(Backward::outputs).into_iter().flatten()))
    }

    /// The logits that are listed, and the loss over them, in place where there is a backward pass.
    ///
    /// # Safety
    /// The arguments are of the checked call, and outputs are borrowed exclusively.
    unsafe fn listed_rows<A: PartArgument>(
        &self,
        lists: &Lists<'_>,
        numbers: &RowNumbers<'_>,
        (loss, work): (Loss, Work),
        mut args: A,
    ) -> Result<()> {
        let (z, rows) = (lists.z(), args.rows());
        (rows.x, rows.x_stride) = (z.address, z.stride as i64);
        if work == Work::Fused {
            (rows.y, rows.y_stride) = (z.address, z.stride as i64);
        }
        // SAFETY: the logits have the lists' rows and columns, and what the arguments name is as long.
        unsafe {
            lists.logits()?;
            numbers.divide(z, 0, lists.sizes())?;
            self.go(loss, Data::F32, work, args)
        }
    }

    /// Multiplies the logits' gradient out.
    ///
    /// # Safety
    /// Gradients have the shapes of what they belong to and are borrowed exclusively; that of the logits is on
    /// the stream.
    unsafe fn listed_gradients(&self, lists: &Lists<'_>, back: &Backward<'_, '_>) -> Result<()> {
        let [n, _] = lists.sizes();
        let (classes, features) = lists.classifier();
        // SAFETY: gradients have the sizes of what they belong to, and the lists a part for each place.
        unsafe {
            if let Some(input) = &back.input {
                lists.input_gradient(Panel::from(input), back.accumulate_input)?;
            }
            let bias = back.bias.as_ref().map(|bias| Panel::packed(bias.address, bias.dtype, 1));
            let weight = back.weight.as_ref().map(Panel::from);
            let of = [(weight, features), (bias, 1)];
            for (to, columns) in of {
                if let (Some(to), false) = (to, back.accumulate) {
                    self.zeros(to, [classes, columns])?;
                }
            }
            if (weight.is_none() && bias.is_none()) || n == 0 {
                return Ok(());
            }
            let segments = Segments::sort(self, [(0, 0), lists.parts()], classes)?;
            let rest = Rest {
                rows: lists.x(),
                slots: lists.slots(),
                of: [0, n],
                factors: lists.z().address,
            };
            for ((to, columns), rows) in of.into_iter().zip([rest.rows, None]) {
                let Some(to) = to else { continue };
                let table = Table { rows: to, columns, classes: 0..classes };
                segments.add(None, Rest { rows, ..rest }, &table)?;
            }
        }
        Ok(())
    }

    /// Puts a kernel of lists on the stream, unless there are no elements.
    ///
    /// # Safety
    /// The arguments name memory of so many elements.
    unsafe fn launch_listed(
        &self,
        kernel: BatchKernel,
        elements: usize,
        args: &SubsetArgs,
    ) -> Result<()> {
        if elements == 0 {
            return Ok(());
        }
        // SAFETY: these are the kernel's own arguments, whose memory is as long: the caller's promise.
        unsafe { self.launch_batch(kernel, blocks(elements), args::bytes(args)) }
    }
}
