//! What is asked of all classes, on the device: rows of log-probabilities, chunk by chunk, and
//! `kernels/distribution.cu` over them.

use crate::cuda::Cuda;
use crate::cuda::args::{self, DistributionArgs, RowArgs};
use crate::cuda::bins::check_clusters;
use crate::cuda::lines::count;
use crate::cuda::memory::Input;
use crate::cuda::products::{Linear, Panel, Places, Workspace};
use crate::cuda::rows::{Work, data};
use crate::cuda::variants::{BATCH_THREADS, Batch, Loss};
use crate::loss::{AdaptiveParameters, CheckedAdaptive};
use crate::{DType, Result, TensorMut};

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
    _workspace: Workspace<'p>,
}

impl<'c: 'p, 'p> Call<'c, 'p> {
    fn new(cuda: &'p Cuda, checked: &'c CheckedAdaptive<'c>) -> Result<Self> {
        let options = checked.options;
        check_clusters(options.clusters())?;
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
        let mut workspace = Workspace::new(self.cuda, rows);
        let most = clusters().map(|i| options.cluster(i).len()).max().unwrap_or(0);
        let dtype = self.input.dtype;
        let widest = clusters().map(|i| options.width(i)).max().unwrap_or(0);
        Ok(Buffers {
            x: workspace.panel(options.in_features, dtype)?,
            hidden: workspace.panel(widest, dtype)?,
            logits: workspace.panel(most.max(options.head_size()), dtype)?,
            head: workspace.panel(options.head_size(), DType::F32)?,
            all: workspace.panel(if all { options.classes } else { 0 }, DType::F32)?,
            _workspace: workspace,
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
        let logits = |columns: usize| Panel { stride: columns, ..buffers.logits };
        // SAFETY: the caller's contract; buffers are as long as the rows need.
        unsafe {
            let x = [Panel::from(&self.input).starting_at(from), buffers.x];
            cuda.panel(Batch::PanelGather, x, [n, features], Places::default(), false)?;
            let (head, columns) = (super::head(&self.parameters), options.head_size());
            cuda.linear(buffers.x, head, logits(columns), [n, columns, features])?;
            self.log_softmax(n, columns, logits(columns), buffers.head)?;
            for (i, tail) in self.parameters.tails.iter().enumerate() {
                let (classes, width) = (options.cluster(i), options.width(i));
                let layer = |weight: &Input<'_>| Linear { weight: Panel::from(weight), bias: None };
                let hidden = Panel { stride: width, ..buffers.hidden };
                cuda.linear(buffers.x, layer(&tail.projection), hidden, [n, width, features])?;
                let (z, k) = (logits(classes.len()), classes.len());
                cuda.linear(hidden, layer(&tail.weight), z, [n, k, width])?;
                let address = to.address + 4 * classes.start as u64;
                self.log_softmax(n, k, z, Panel { address, ..to })?;
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
        let to = Panel::from(&out);
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
