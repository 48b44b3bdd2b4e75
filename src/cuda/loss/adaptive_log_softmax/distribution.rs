//! Log-probabilities on the device, of the head's columns, of a cluster's classes and, chunk by chunk, of
//! all classes: products, and `kernels/batch/distribution.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::TensorMut;
use crate::code::args;
use crate::code::args::{DistributionArgs, LogSoftmaxArgs, RowOperands};
use crate::code::variants::{BATCH_THREADS, Batch, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::check_clusters;
use crate::cuda::matrix::products::{Bias, Places, Workspace, padded};
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::adaptive_log_softmax::{AdaptiveParameters, CheckedAdaptive};

/// A call on the device.
pub(crate) struct Call<'c, 'p> {
    pub(crate) cuda: &'p Cuda,
    pub(crate) checked: &'c CheckedAdaptive<'c>,
    input: Input<'p>,
    parameters: AdaptiveParameters<Input<'p>>,
    head_bias: Bias<'p>,
    /// Of a place its class; 0: they are the same.
    classes: u64,
}

/// Rows of the input.
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    /// One after another.
    From(usize),
    /// From one on those whose numbers are at an address (i64); below 0: none.
    At(usize, u64),
}

/// Memory of a chunk of rows.
struct Buffers<'p> {
    x: Panel,
    /// f32.
    hidden: Panel,
    /// Log-probabilities of the head's columns, f32.
    head: Panel,
    /// Those of all classes, by place, where the caller's memory does not take them; f32.
    all: Panel,
    _workspace: Workspace<'p>,
}

impl<'c: 'p, 'p> Call<'c, 'p> {
    pub(crate) fn new(cuda: &'p Cuda, checked: &'c CheckedAdaptive<'c>) -> Result<Self> {
        let options = checked.options;
        check_clusters(options.clusters())?;
        let input = cuda.input("input", checked.input)?;
        let parameters = checked.parameters.try_map(|_, p| cuda.input("parameters", *p))?;
        let classes = match &options.class_order {
            Some(order) => cuda.order(order)?[1],
            None => 0,
        };
        let bias = parameters.head_bias.as_ref().map(Panel::from);
        // SAFETY: the bias was checked to have an element a column of the head.
        let head_bias = unsafe { cuda.bias(bias, options.head_size())? };
        Ok(Call { cuda, checked, input, parameters, head_bias, classes })
    }

    /// As many of so many rows at once as the budget has room for `columns` numbers, or features, of.
    pub(crate) fn chunk(&self, rows: usize, columns: usize) -> usize {
        let options = self.checked.options;
        let row = padded(columns).max(options.in_features).saturating_mul(size_of::<f32>());
        (options.workspace / row.max(1)).clamp(1, rows.max(1))
    }

    pub(crate) fn dtype(&self) -> DType {
        self.input.dtype
    }

    fn buffers(&self, rows: usize, all: bool) -> Result<Buffers<'p>> {
        let options = self.checked.options;
        let mut workspace = Workspace::new(self.cuda, rows);
        let widest = (0..options.clusters()).map(|i| options.width(i)).max().unwrap_or(0);
        Ok(Buffers {
            x: workspace.panel(options.in_features, self.dtype())?,
            hidden: workspace.panel(widest, DType::F32)?,
            head: workspace.panel(options.head_size(), DType::F32)?,
            all: workspace.panel(if all { options.classes } else { 0 }, DType::F32)?,
            _workspace: workspace,
        })
    }

    pub(crate) fn args(&self, n: usize) -> Result<DistributionArgs> {
        let options = self.checked.options;
        let mut args = DistributionArgs {
            classes: self.classes,
            k: 1,
            n: count("input", n)?,
            places: count("classes", options.classes)?,
            shortlist: count("cutoffs", options.shortlist())?,
            clusters: options.clusters() as i64,
            ..DistributionArgs::default()
        };
        for (to, &cutoff) in args.cutoffs.iter_mut().zip(&options.cutoffs) {
            *to = cutoff as i64;
        }
        Ok(args)
    }

    /// Rows of the input to `x`: from one on, or those that are named.
    ///
    /// # Safety
    /// Shapes, strides and lengths were checked; the panels have so many rows. Here and below.
    pub(crate) unsafe fn gather(&self, n: usize, x: Panel, rows: Rows) -> Result<()> {
        let features = self.checked.options.in_features;
        let (input, places) = match rows {
            Rows::From(row) => (Panel::from(&self.input).starting_at(row), Places::default()),
            Rows::At(from, rows) => {
                (Panel::from(&self.input).starting_at(from), Places { rows, marks: rows })
            }
        };
        // SAFETY: the input was checked to have these rows and features, and `x` has n rows of as
        // many: the caller's promise.
        unsafe { self.cuda.panel(Batch::PanelGather, [input, x], [n, features], places, false) }
    }

    /// Log-probabilities of the head's columns, of rows of the input.
    ///
    /// # Safety
    /// As for [`Call::gather`].
    pub(crate) unsafe fn head(&self, n: usize, x: Panel, to: Panel) -> Result<()> {
        let (options, weight) = (self.checked.options, Panel::from(&self.parameters.head_weight));
        let columns = options.head_size();
        // SAFETY: `x` and `to` have n rows, says the caller; the head's parameters were checked to
        // be of these sizes.
        unsafe {
            self.cuda.linear(x, weight, to, [n, columns, options.in_features])?;
            self.log_softmax(n, columns, to, self.head_bias.address)
        }
    }

    /// Log-probabilities of a cluster's classes among themselves, of rows of the input.
    ///
    /// # Safety
    /// As for [`Call::gather`].
    pub(crate) unsafe fn cluster(
        &self,
        i: usize,
        n: usize,
        [x, hidden, to]: [Panel; 3],
    ) -> Result<()> {
        let (options, tail) = (self.checked.options, &self.parameters.tails[i]);
        let (classes, width) = (options.cluster(i).len(), options.width(i));
        let projection = Panel::from(&tail.projection);
        let weight = Panel::from(&tail.weight);
        // SAFETY: the panels have n rows, says the caller; the tail's parameters were checked to be
        // of these sizes.
        unsafe {
            let sizes = [n, width, options.in_features];
            self.cuda.linear(x, projection, hidden, sizes)?;
            let (panels, sizes) = ([hidden, weight, to], [n, classes, width]);
            self.cuda.logits(panels, sizes, options.workspace)?;
            self.log_softmax(n, classes, to, 0)
        }
    }

    /// Log-probabilities of rows `from..from + n`, by place.
    ///
    /// # Safety
    /// As for [`Call::gather`].
    unsafe fn rows(&self, from: usize, n: usize, buffers: &Buffers<'_>, to: Panel) -> Result<()> {
        let (options, cuda) = (self.checked.options, self.cuda);
        let Buffers { x, hidden, head, .. } = *buffers;
        // SAFETY: the caller's contract; buffers are as long as the rows need.
        unsafe {
            self.gather(n, x, Rows::From(from))?;
            self.head(n, x, head)?;
            for i in 0..options.clusters() {
                let address = to.address + 4 * options.cluster(i).start as u64;
                self.cluster(i, n, [x, hidden, Panel { address, ..to }])?;
            }
            let mut args = self.args(n)?;
            (args.log_prob, args.stride) = (to.address, to.stride as i64);
            (args.head, args.head_stride) = (head.address, head.stride as i64);
            cuda.launch_batch(Batch::DistributionShift, self.blocks(n), args::bytes(&args))
        }
    }

    fn blocks(&self, n: usize) -> u32 {
        let elements = n.saturating_mul(self.checked.options.classes);
        elements.div_ceil(BATCH_THREADS as usize).clamp(1, 1 << 14) as u32
    }

    /// Logits, which are f32, become log-probabilities in their place. `bias`: the address of what they still
    /// lack, or 0.
    ///
    /// # Safety
    /// As for [`Call::gather`].
    unsafe fn log_softmax(&self, n: usize, columns: usize, rows: Panel, bias: u64) -> Result<()> {
        let operands = RowOperands {
            x: rows.address,
            y: rows.address,
            count: count("input", n)?,
            classes: count("classes", columns)?,
            x_stride: rows.stride as i64,
            y_stride: rows.stride as i64,
            ..RowOperands::default()
        };
        let args = LogSoftmaxArgs { rows: operands, bias, ..LogSoftmaxArgs::default() };
        let loss = if bias == 0 { Loss::LogSoftmax } else { Loss::LogSoftmaxBiased };
        // SAFETY: `rows` is a panel of n rows and as many columns, initialised by launches before
        // this one: the caller's promise.
        unsafe { self.cuda.go(loss, data(rows.dtype)?, Work::Fused, args) }
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
        let rows = checked.rows.len;
        let chunk = call.chunk(rows, checked.options.classes);
        let ordered = call.classes != 0;
        let buffers = call.buffers(chunk.min(rows), ordered)?;
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let to = to.starting_at(from);
            // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
            unsafe {
                if !ordered {
                    call.rows(from, n, &buffers, to)?;
                    continue;
                }
                call.rows(from, n, &buffers, buffers.all)?;
                let mut args = call.args(n)?;
                (args.log_prob, args.stride) = (buffers.all.address, buffers.all.stride as i64);
                (args.values, args.k) = (to.address, to.stride as i64);
                self.launch_batch(Batch::DistributionRename, call.blocks(n), args::bytes(&args))?;
            }
        }
        self.read_back([Some(out)])
    }
}
