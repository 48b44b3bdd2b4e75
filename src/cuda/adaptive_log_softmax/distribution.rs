//! What is asked of all classes, on the device: rows of log-probabilities, chunk by chunk, and
//! `kernels/distribution.cu` over them.

use crate::cuda::Cuda;
use crate::cuda::args::{self, DistributionArgs, MAX_CLUSTERS, RowArgs};
use crate::cuda::lines::count;
use crate::cuda::memory::Input;
use crate::cuda::pool::Block;
use crate::cuda::products::{Panel, Places, Product};
use crate::cuda::rows::{Work, data};
use crate::cuda::variants::{BATCH_THREADS, Batch, Loss};
use crate::loss::{AdaptiveParameters, CheckedAdaptive};
use crate::{DType, Error, Result, TensorMut};

/// A call on the device.
struct Call<'c, 'p> {
    cuda: &'p Cuda,
    checked: &'c CheckedAdaptive<'c>,
    input: Input<'p>,
    parameters: AdaptiveParameters<Input<'p>>,
    /// Of a place its class; 0: they are the same.
    classes: u64,
}

/// Memory of a chunk of rows.
struct Buffers<'p> {
    x: Panel,
    hidden: Panel,
    logits: Panel,
    /// Log-probabilities of the head's columns, f32.
    head: Panel,
    /// Those of all classes, by place, where the caller's memory does not take them; f32.
    all: Panel,
    _blocks: Vec<Block<'p>>,
}

impl<'c: 'p, 'p> Call<'c, 'p> {
    fn new(cuda: &'p Cuda, checked: &'c CheckedAdaptive<'c>) -> Result<Self> {
        let options = checked.options;
        if options.clusters() > MAX_CLUSTERS {
            let clusters = options.clusters();
            let reason =
                format!("{clusters} clusters, of which a CUDA device takes {MAX_CLUSTERS}");
            return Err(Error::Device { reason });
        }
        let input = cuda.input("input", checked.input)?;
        let parameters = checked.parameters.try_map(|_, p| cuda.input("parameters", *p))?;
        let classes = match &options.class_order {
            Some(order) => cuda.order(order)?[1],
            None => 0,
        };
        Ok(Call { cuda, checked, input, parameters, classes })
    }

    /// Rows of a chunk.
    fn chunk(&self) -> usize {
        let row = self.checked.options.classes.saturating_mul(size_of::<f32>());
        (self.checked.options.workspace / row.max(1)).clamp(1, self.checked.rows.len.max(1))
    }

    fn buffers(&self, rows: usize, all: bool) -> Result<Buffers<'p>> {
        let options = self.checked.options;
        let clusters = || 0..options.clusters();
        let mut blocks = Vec::new();
        let mut take = |columns: usize, dtype: DType| {
            let bytes = rows.saturating_mul(columns).saturating_mul(dtype.size());
            let block = self.cuda.pool.take("workspace", bytes)?;
            let panel = Panel::packed(block.address(), dtype, columns);
            blocks.push(block);
            Ok::<_, Error>(panel)
        };
        let most = clusters().map(|i| options.cluster(i).len()).max().unwrap_or(0);
        let dtype = self.input.dtype;
        let widest = clusters().map(|i| options.width(i)).max().unwrap_or(0);
        Ok(Buffers {
            x: take(options.in_features, dtype)?,
            hidden: take(widest, dtype)?,
            logits: take(most.max(options.head_size()), dtype)?,
            head: take(options.head_size(), DType::F32)?,
            all: take(if all { options.classes } else { 0 }, DType::F32)?,
            _blocks: blocks,
        })
    }

    fn args(&self, n: usize) -> Result<DistributionArgs> {
        let options = self.checked.options;
        let mut args = DistributionArgs {
            classes: self.classes,
            n: count("input", n)?,
            places: count("classes", options.classes)?,
            head_size: count("cutoffs", options.head_size())?,
            shortlist: count("cutoffs", options.shortlist())?,
            clusters: options.clusters() as i64,
            ..DistributionArgs::default()
        };
        for (to, &cutoff) in args.cutoffs.iter_mut().zip(&options.cutoffs) {
            *to = cutoff as i64;
        }
        Ok(args)
    }

    /// Log-probabilities of rows `from..from + n`, by place.
    ///
    /// # Safety
    /// Shapes, strides and lengths were checked; `to` has those rows.
    unsafe fn rows(&self, from: usize, n: usize, buffers: &Buffers<'_>, to: Panel) -> Result<()> {
        let (options, cuda) = (self.checked.options, self.cuda);
        let features = options.in_features;
        let mut input = Panel::from(&self.input);
        input.stride = if self.checked.rows.len == 1 { features } else { input.stride };
        let logits = |columns: usize| Panel { stride: columns, ..buffers.logits };
        // SAFETY: the caller's contract; buffers are as long as the rows need.
        unsafe {
            let x = [input.starting_at(from), buffers.x];
            cuda.panel(Batch::PanelGather, x, [n, features], Places::default(), false)?;
            let (weight, columns) =
                (Panel::from(&self.parameters.head_weight), options.head_size());
            let c = logits(columns);
            let bias = self.parameters.head_bias.as_ref();
            if let Some(bias) = bias {
                let panels = [Panel { stride: 0, ..Panel::from(bias) }, c];
                cuda.panel(Batch::PanelGather, panels, [n, columns], Places::default(), false)?;
            }
            let (b, sizes) = (weight.transposed(), [n, columns, features]);
            cuda.product(Product { a: buffers.x, b, c, sizes, add: bias.is_some() })?;
            self.log_softmax(n, columns, c, buffers.head)?;
            for (i, tail) in self.parameters.tails.iter().enumerate() {
                let (classes, width) = (options.cluster(i), options.width(i));
                let hidden = Panel { stride: width, ..buffers.hidden };
                let b = Panel::from(&tail.projection).transposed();
                let sizes = [n, width, features];
                cuda.product(Product { a: buffers.x, b, c: hidden, sizes, add: false })?;
                let (b, c) = (Panel::from(&tail.weight).transposed(), logits(classes.len()));
                let sizes = [n, classes.len(), width];
                cuda.product(Product { a: hidden, b, c, sizes, add: false })?;
                let address = to.address + 4 * classes.start as u64;
                self.log_softmax(n, classes.len(), c, Panel { address, ..to })?;
            }
            let mut args = self.args(n)?;
            (args.log_prob, args.stride) = (to.address, to.stride as i64);
            args.head = buffers.head.address;
            cuda.launch_batch(Batch::DistributionShift, self.blocks(n), args::bytes(&args))
        }
    }

    fn blocks(&self, n: usize) -> u32 {
        let elements = n.saturating_mul(self.checked.options.classes);
        elements.div_ceil(BATCH_THREADS as usize).clamp(1, 1 << 14) as u32
    }

    /// # Safety
    /// As for [`Call::rows`].
    unsafe fn log_softmax(&self, n: usize, columns: usize, from: Panel, to: Panel) -> Result<()> {
        let args = RowArgs {
            x: from.address,
            x_stride: from.stride as i64,
            y: to.address,
            y_stride: to.stride as i64,
            rows: count("input", n)?,
            classes: count("classes", columns)?,
            ..RowArgs::default()
        };
        // SAFETY: the caller's contract.
        unsafe { self.cuda.go(Loss::LogSoftmax, data(from.dtype)?, Work::Fused, args) }
    }

    /// Goes through all rows, `to(from, n, their log-probabilities, their head's)`.
    ///
    /// # Safety
    /// Shapes, strides and lengths were checked.
    unsafe fn each(&self, to: impl Fn(usize, usize, Panel, Panel) -> Result<()>) -> Result<()> {
        let chunk = self.chunk();
        let buffers = self.buffers(chunk.min(self.checked.rows.len), true)?;
        for from in (0..self.checked.rows.len).step_by(chunk) {
            let n = chunk.min(self.checked.rows.len - from);
            // SAFETY: the caller's contract.
            unsafe { self.rows(from, n, &buffers, buffers.all)? };
            to(from, n, buffers.all, buffers.head)?;
        }
        Ok(())
    }
}

impl Cuda {
    pub(crate) fn adaptive_log_softmax_log_prob(
        &self,
        checked: &CheckedAdaptive<'_>,
        out: TensorMut<'_>,
    ) -> Result<()> {
        let out = self.output("log_prob", out, false)?;
        let call = Call::new(self, checked)?;
        let mut to = Panel::from(&out);
        to.stride = if checked.rows.len == 1 { checked.options.classes } else { to.stride };
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        unsafe {
            if call.classes == 0 {
                let chunk = call.chunk();
                let buffers = call.buffers(chunk.min(checked.rows.len), false)?;
                for from in (0..checked.rows.len).step_by(chunk) {
                    let n = chunk.min(checked.rows.len - from);
                    call.rows(from, n, &buffers, to.starting_at(from))?;
                }
            } else {
                call.each(|from, n, all, _| {
                    let mut args = call.args(n)?;
                    (args.log_prob, args.stride) = (all.address, all.stride as i64);
                    (args.values, args.k) = (to.starting_at(from).address, to.stride as i64);
                    self.launch_batch(Batch::DistributionRename, call.blocks(n), args::bytes(&args))
                })?;
            }
        }
        self.read_back([Some(out)])
    }

    pub(crate) fn adaptive_log_softmax_top_k(
        &self,
        checked: &CheckedAdaptive<'_>,
        k: usize,
        classes: TensorMut<'_>,
        log_prob: Option<TensorMut<'_>>,
    ) -> Result<()> {
        let classes = self.output("classes", classes, false)?;
        let values = log_prob.map(|t| self.output("log_prob", t, false)).transpose()?;
        let call = Call::new(self, checked)?;
        // SAFETY: shapes were checked; results have k elements a row, next to one another.
        unsafe {
            call.each(|from, n, all, _| {
                let mut args = call.args(n)?;
                (args.log_prob, args.stride) = (all.address, all.stride as i64);
                (args.picked, args.k) = (classes.address, count("k", k)?);
                args.values = values.as_ref().map_or(0, |values| values.address);
                args.row = from as i64;
                self.launch_batch(Batch::DistributionTop, n as u32, args::bytes(&args))
            })?;
        }
        self.read_back([Some(classes), values])
    }

    pub(crate) fn adaptive_log_softmax_sample(
        &self,
        checked: &CheckedAdaptive<'_>,
        seed: u64,
        classes: TensorMut<'_>,
    ) -> Result<()> {
        let classes = self.output("classes", classes, false)?;
        let call = Call::new(self, checked)?;
        // SAFETY: shapes were checked; the result has an element a row.
        unsafe {
            call.each(|from, n, all, head| {
                let mut args = call.args(n)?;
                (args.log_prob, args.stride) = (all.address, all.stride as i64);
                (args.head, args.picked, args.seed) = (head.address, classes.address, seed);
                args.row = from as i64;
                self.launch_batch(Batch::DistributionDraw, n as u32, args::bytes(&args))
            })?;
        }
        self.read_back([Some(classes)])
    }
}
