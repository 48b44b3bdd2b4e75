//! The rows of a batch by cluster, on the device: `kernels/batch/clusters.cu`. How many rows a cluster has is
//! never asked: it has slots for as many as its capacity, and those that are empty are ignored rows.

use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;
use crate::code::args;
use crate::code::args::{BinArgs, MAX_CLUSTERS, Totals};
use crate::code::variants::{BATCH_THREADS, Batch};
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::Input;
use crate::cuda::stream::pool::Block;
use crate::spec::adaptive_log_softmax::ClassOrder;
use crate::spec::class_indices::ClassIndices;
use crate::spec::grad_output::GradOutput;
use std::sync::Arc;

/// Slots of one softmax: rows of the batch, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    pub(crate) len: usize,
    /// Addresses of: which row each holds (i64; 0: the one that it stands at),
    pub(crate) rows: u64,
    /// what is below 0 where it holds none, else the class (i64),
    pub(crate) marks: u64,
    /// the upstream gradient (f32),
    pub(crate) factors: u64,
    /// all rows' losses, which a slot's is added to (f32),
    pub(crate) nll: u64,
    /// and how many slots hold rows, the first ones, or would if there were so many (i64; 0: unknown).
    pub(crate) count: u64,
}

/// The numbers of a batch's rows and slots, and what fills them.
pub(crate) struct Bins<'p> {
    cuda: &'p Cuda,
    args: BinArgs,
    rows: usize,
    _target: Indices<'p>,
    _weight: Option<Input<'p>>,
    _upstream: Upstream<'p>,
    _memory: Block<'p>,
}

/// What groups rows, and what counts of them.
#[derive(Debug, Clone)]
pub(crate) struct Grouping<'a> {
    /// The classes, one a row.
    pub(crate) target: ClassIndices<'a>,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    /// The first class of each cluster.
    pub(crate) cutoffs: &'a [usize],
    /// Slots of each cluster.
    pub(crate) capacities: Vec<usize>,
    pub(crate) order: Option<&'a Arc<ClassOrder>>,
    pub(crate) ignore_index: Option<i64>,
    pub(crate) weight: Option<TensorRef<'a>>,
    pub(crate) reduction: Reduction,
    /// Whether the head has a column for each cluster; else its rows have none.
    pub(crate) cluster_columns: bool,
}

/// More clusters than kernels can be told of are an error.
pub(crate) fn check_clusters(clusters: usize) -> Result<()> {
    if clusters <= MAX_CLUSTERS {
        return Ok(());
    }
    let reason = format!("{clusters} clusters, of which a CUDA device takes {MAX_CLUSTERS}");
    Err(Error::Device { reason })
}

/// Takes pieces of a block one after another.
pub(crate) struct Cutter(pub(crate) u64);

impl Cutter {
    /// Each begins at a multiple of 8 bytes.
    pub(crate) fn take(&mut self, n: usize, size: usize) -> u64 {
        let next = self.0 + Cutter::bytes(n, size) as u64;
        std::mem::replace(&mut self.0, next)
    }

    /// Bytes that a piece takes.
    pub(crate) fn bytes(n: usize, size: usize) -> usize {
        n.saturating_mul(size).saturating_add(7) & !7
    }
}

impl<'p> Bins<'p> {
    /// Outputs: the addresses of the rows' log-probabilities and of the loss; 0 where
    /// [`Bins::finish`] is not called.
    pub(crate) fn new(
        cuda: &'p Cuda,
        grouping: &Grouping<'p>,
        grad_output: &GradOutput<'p>,
        [output, loss]: [u64; 2],
    ) -> Result<Bins<'p>> {
        let Grouping { target, rows, classes, cutoffs, .. } = *grouping;
        check_clusters(cutoffs.len())?;
        let target = cuda.indices(target)?;
        let weight = grouping.weight.map(|w| cuda.input("row_weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let places = match grouping.order {
            Some(order) => cuda.order(order)?[0],
            None => 0,
        };
        let ignores = grouping.ignore_index.is_some();
        let mut args = BinArgs {
            target: target.address(),
            target_kind: target.kind(),
            weight: weight.as_ref().map_or(0, |w| w.address),
            weight_kind: weight.as_ref().map_or(0, |w| args::kind(w.dtype)),
            places,
            status: cuda.status()?,
            output,
            loss,
            n: count(target.argument(), rows)?,
            classes: count("classes", classes)?,
            ignore_index: grouping.ignore_index.unwrap_or(0),
            ignores: ignores.into(),
            bad_target: target.bad(ignores),
            clusters: cutoffs.len() as i64,
            shortlist: match grouping.cluster_columns {
                true => count("cutoffs", cutoffs.first().copied().unwrap_or(classes))?,
                false => -1 - MAX_CLUSTERS as i64,
            },
            mean: (grouping.reduction == Reduction::Mean).into(),
            whole: (grouping.reduction == Reduction::None).into(),
            ..BinArgs::default()
        };
        let given = upstream.args();
        (args.upstream, args.upstream_kind) = (given.values, given.kind);
        (args.number, args.upstream_rows) = (given.number, (given.stride > 0).into());
        for (i, (&cutoff, &capacity)) in cutoffs.iter().zip(&grouping.capacities).enumerate() {
            args.cutoffs[i] = cutoff as i64;
            args.begins.0[i + 1] = args.begins.0[i] + capacity as i64;
        }
        let clusters = cutoffs.len();
        let slots = args.begins.0[clusters] as usize;
        let pieces = [(1, size_of::<Totals>()), (clusters, 8), (rows, 24), (slots, 16), (rows, 4)];
        let more = [(slots, 4), (rows, 4)];
        let bytes = pieces.into_iter().chain(more).map(|(n, size)| Cutter::bytes(n, size)).sum();
        let memory = cuda.pool.take("workspace", bytes)?;
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

    /// All rows: the column of the head is what they are marked by.
    pub(crate) fn rows(&self) -> Slots {
        Slots {
            len: self.rows,
            rows: 0,
            marks: self.args.column,
            factors: self.args.factor,
            nll: self.args.nll,
            count: 0,
        }
    }

    pub(crate) fn cluster(&self, i: usize) -> Slots {
        let [begin, end] = [self.args.begins.0[i], self.args.begins.0[i + 1]].map(|at| at as u64);
        Slots {
            len: (end - begin) as usize,
            rows: self.args.rows + 8 * begin,
            marks: self.args.locals + 8 * begin,
            factors: self.args.factors + 4 * begin,
            nll: self.args.nll,
            count: self.args.counts + 8 * i as u64,
        }
    }

    /// What the kernels are told.
    pub(crate) fn args(&self) -> &BinArgs {
        &self.args
    }

    /// Slots of all clusters.
    pub(crate) fn slots(&self) -> usize {
        self.args.begins.0[self.args.clusters as usize] as usize
    }

    /// Finds each row's column and cluster.
    ///
    /// # Safety
    /// The call's shapes were checked.
    pub(crate) unsafe fn columns(&self) -> Result<()> {
        // SAFETY: the caller's contract; the memory is as long as the rows need.
        unsafe {
            self.cuda.launch_batch(Batch::BinColumns, blocks(self.rows), args::bytes(&self.args))
        }
    }

    /// Puts the rows into their slots, takes stock, and makes upstream gradients if asked for.
    ///
    /// # Safety
    /// As for [`Bins::columns`], which came before.
    pub(crate) unsafe fn group(&self, factors: bool) -> Result<()> {
        let bytes = args::bytes(&self.args);
        // SAFETY: the caller's contract; the memory is as long as rows, slots and clusters need.
        unsafe {
            self.cuda.launch_batch(Batch::BinSlots, self.args.clusters as u32 + 1, bytes)?;
            if factors {
                let n = blocks(self.rows + self.slots());
                self.cuda.launch_batch(Batch::BinFactors, n, bytes)?;
            }
        }
        Ok(())
    }

    /// Outputs and the loss, of the rows' log-probabilities.
    ///
    /// # Safety
    /// As for [`Bins::group`], which came before, and every row has its loss.
    pub(crate) unsafe fn finish(&self) -> Result<()> {
        // SAFETY: shapes were checked and `group` has put the rows into their slots, says the
        // caller; each row's loss is written by launches before this one.
        unsafe { self.cuda.launch_batch(Batch::BinFinish, 1, args::bytes(&self.args)) }
    }
}

/// Blocks with an element a thread, or a few.
pub(crate) fn blocks(n: usize) -> u32 {
    n.div_ceil(BATCH_THREADS as usize).clamp(1, 4096) as u32
}
