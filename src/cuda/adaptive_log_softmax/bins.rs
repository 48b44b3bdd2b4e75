//! The rows of a batch by cluster, on the device.

use crate::cuda::Cuda;
use crate::cuda::args::{self, AdaptiveArgs, Totals};
use crate::cuda::cross_entropy::Upstream;
use crate::cuda::lines::count;
use crate::cuda::memory::Input;
use crate::cuda::pool::Block;
use crate::cuda::variants::{BATCH_THREADS, Batch};
use crate::loss::{CheckedAdaptive, GradOutput};
use crate::{Error, Reduction, Result};

/// Slots of one softmax: rows of the batch, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub(super) len: usize,
    /// Addresses of: which row each holds (i64; 0: the one that it stands at),
    pub(super) rows: u64,
    /// what is below 0 where it holds none, else the class (i64),
    pub(super) marks: u64,
    /// the upstream gradient (f32),
    pub(super) factors: u64,
    /// and all rows' losses, which a slot's is added to (f32).
    pub(super) nll: u64,
}

/// The numbers of a batch's rows and slots, and what fills them.
pub(super) struct Bins<'p> {
    cuda: &'p Cuda,
    args: AdaptiveArgs,
    rows: usize,
    _target: Input<'p>,
    _weight: Option<Input<'p>>,
    _upstream: Upstream<'p>,
    _memory: Block<'p>,
}

/// Takes pieces of a block one after another.
struct Cutter(u64);

impl Cutter {
    fn take(&mut self, n: usize, size: usize) -> u64 {
        // Every piece begins at a multiple of 8 bytes.
        let piece = (n * size).next_multiple_of(8) as u64;
        let next = self.0 + piece;
        std::mem::replace(&mut self.0, next)
    }
}

impl<'p> Bins<'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        checked: &'p CheckedAdaptive<'p>,
        grad_output: &GradOutput<'p>,
        [output, loss]: [u64; 2],
    ) -> Result<Bins<'p>> {
        let options = checked.options;
        let clusters = options.clusters();
        super::check_clusters(checked)?;
        let Some(target) = checked.target else {
            return Err(Error::Device { reason: "no target".into() });
        };
        let target = cuda.input("target", target)?;
        let weight = options.row_weight.map(|w| cuda.input("row_weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let places = match &options.class_order {
            Some(order) => cuda.order(order)?[0],
            None => 0,
        };
        let rows = checked.rows.len;
        let mut args = AdaptiveArgs {
            target: target.address,
            target_kind: args::kind(target.dtype),
            weight: weight.as_ref().map_or(0, |w| w.address),
            weight_kind: weight.as_ref().map_or(0, |w| args::kind(w.dtype)),
            places,
            status: cuda.status()?,
            output,
            loss,
            n: count("input", rows)?,
            classes: count("classes", options.classes)?,
            ignore_index: options.ignore_index.unwrap_or(0),
            ignores: options.ignore_index.is_some().into(),
            clusters: clusters as i64,
            shortlist: count("cutoffs", options.shortlist())?,
            mean: (options.reduction == Reduction::Mean).into(),
            whole: (options.reduction == Reduction::None).into(),
            ..AdaptiveArgs::default()
        };
        let fields = upstream.fields();
        (args.upstream, args.upstream_kind) = (fields.address, fields.kind);
        (args.number, args.upstream_rows) = (fields.number, (fields.stride > 0).into());
        for (i, &cutoff) in options.cutoffs.iter().enumerate() {
            args.cutoffs[i] = cutoff as i64;
            args.begins.0[i + 1] = args.begins.0[i] + options.capacity(i, rows) as i64;
        }
        let slots = args.begins.0[clusters] as usize;
        let bytes =
            size_of::<Totals>() + 8 * (clusters + 3 * rows + 2 * slots) + 4 * (2 * rows + slots);
        let memory = cuda.pool.take("workspace", bytes + 64)?;
        let mut cut = Cutter(memory.address());
        args.totals = cut.take(size_of::<Totals>(), 1);
        args.counts = cut.take(clusters, 8);
        args.column = cut.take(rows, 8);
        args.local = cut.take(rows, 8);
        args.cluster = cut.take(rows, 8);
        args.rows = cut.take(slots, 8);
        args.locals = cut.take(slots, 8);
        args.factor = cut.take(rows, 4);
        args.factors = cut.take(slots, 4);
        args.nll = cut.take(rows, 4);
        Ok(Bins {
            cuda,
            args,
            rows,
            _target: target,
            _weight: weight,
            _upstream: upstream,
            _memory: memory,
        })
    }

    /// All rows, for the head.
    pub(super) fn rows(&self) -> Slots {
        Slots {
            len: self.rows,
            rows: 0,
            marks: self.args.column,
            factors: self.args.factor,
            nll: self.args.nll,
        }
    }

    pub(super) fn cluster(&self, i: usize) -> Slots {
        let [begin, end] = [self.args.begins.0[i], self.args.begins.0[i + 1]].map(|at| at as u64);
        Slots {
            len: (end - begin) as usize,
            rows: self.args.rows + 8 * begin,
            marks: self.args.locals + 8 * begin,
            factors: self.args.factors + 4 * begin,
            nll: self.args.nll,
        }
    }

    /// Puts the rows into their slots, with upstream gradients if asked for.
    ///
    /// # Safety
    /// The call's shapes were checked.
    pub(super) unsafe fn group(&self, factors: bool) -> Result<()> {
        let bytes = args::bytes(&self.args);
        let slots = self.args.begins.0[self.args.clusters as usize] as usize;
        let blocks = |n: usize| n.div_ceil(BATCH_THREADS as usize).clamp(1, 4096) as u32;
        // SAFETY: the caller's contract; the memory is as long as rows, slots and clusters need.
        unsafe {
            self.cuda.launch_batch(Batch::AdaptiveColumns, blocks(self.rows), bytes)?;
            self.cuda.launch_batch(Batch::AdaptiveBins, self.args.clusters as u32 + 1, bytes)?;
            match factors {
                true => {
                    self.cuda.launch_batch(Batch::AdaptiveFactors, blocks(self.rows + slots), bytes)
                }
                false => Ok(()),
            }
        }
    }

    /// Outputs and the loss, of the rows' log-probabilities.
    ///
    /// # Safety
    /// As for [`Bins::group`], which came before, and every row has its loss.
    pub(super) unsafe fn finish(&self) -> Result<()> {
        // SAFETY: the caller's contract.
        unsafe { self.cuda.launch_batch(Batch::AdaptiveFinish, 1, args::bytes(&self.args)) }
    }
}
