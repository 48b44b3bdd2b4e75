//! Adaptive embeddings on a CUDA device. Lookups are grouped by cluster on the device (`bins.rs`), so
//! that those of a cluster are products with its projection, chunk by chunk; gradients are added up
//! class by class (`segments.rs`).

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::EmbeddingArgs;
use crate::code::variants::Batch;
use crate::cuda::driver::product::{Panel, Product};
use crate::cuda::matrix::accumulator::{Growing, Sum};
use crate::cuda::matrix::clusters::{Bins, Cutter, Grouping, Slots, blocks};
use crate::cuda::matrix::products::{Places, Workspace};
use crate::cuda::matrix::segment_sum::{Rest, Segments, Table};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::adaptive_embedding::{AdaptiveEmbeddingParameters, CheckedEmbedding};
use crate::spec::adaptive_log_softmax::AdaptiveTail;
use crate::spec::grad_output::GradOutput;

/// A call on the device.
struct Call<'c, 'p> {
    cuda: &'p Cuda,
    checked: &'c CheckedEmbedding<'c>,
    bins: Bins<'p>,
    parameters: AdaptiveEmbeddingParameters<Input<'p>>,
    /// Lookups.
    n: usize,
}

/// Some slots of a cluster.
#[derive(Clone, Copy)]
struct Chunk {
    from: usize,
    n: usize,
    slots: Slots,
}

impl Chunk {
    /// Where the slots' lookups are.
    fn lookups(&self) -> Places {
        let from = 8 * self.from as u64;
        Places { rows: self.slots.rows + from, marks: self.slots.marks + from }
    }

    /// Where their classes are in the cluster's table.
    fn classes(&self) -> Places {
        let at = self.slots.marks + 8 * self.from as u64;
        Places { rows: at, marks: at }
    }
}

/// Rows of what has a row a lookup, whatever the index's shape.
fn lookups(address: u64, dtype: DType, shape: &[usize], row_stride: usize) -> Panel {
    let features = shape.last().copied().unwrap_or(0);
    let stride = if shape.len() == 2 { row_stride } else { features };
    Panel { address, dtype, stride, transposed: false }
}

impl<'c: 'p, 'p> Call<'c, 'p> {
    fn new(cuda: &'p Cuda, checked: &'c CheckedEmbedding<'c>, skip: Option<i64>) -> Result<Self> {
        let (cut, n) = (&checked.options.cut, checked.index.len());
        let parameters = checked.parameters.try_map(|_, p| cuda.input("parameters", *p))?;
        let grouping = Grouping {
            target: checked.index,
            rows: n,
            classes: cut.classes,
            cutoffs: &cut.cutoffs,
            capacities: vec![n; cut.clusters()],
            order: cut.class_order.as_ref(),
            ignore_index: skip,
            weight: None,
            reduction: Reduction::None,
            cluster_columns: false,
        };
        let bins = Bins::new(cuda, &grouping, &GradOutput::default(), [0; 2])?;
        Ok(Call { cuda, checked, bins, parameters, n })
    }

    /// # Safety
    /// The call's shapes were checked.
    unsafe fn group(&self) -> Result<()> {
        // SAFETY: shapes were checked, says the caller; the bins' own memory was taken by
        // `Bins::new` for as many rows.
        unsafe {
            self.bins.columns()?;
            self.bins.group(false)
        }
    }

    /// A cluster's slots, as many at once as the budget has rows of the features for.
    fn chunks(&self, i: usize) -> impl Iterator<Item = Chunk> {
        let cut = &self.checked.options.cut;
        let (slots, row) = (self.bins.cluster(i), 4 * cut.in_features.max(cut.width(i)).max(1));
        let each = (cut.workspace / row).clamp(1, self.n.max(1));
        let n = move |from: usize| each.min(slots.len - from);
        (0..slots.len).step_by(each).map(move |from| Chunk { from, n: n(from), slots })
    }

    /// # Safety
    /// The call's shapes were checked; `out` has a row a lookup.
    unsafe fn forward(&self, out: Panel) -> Result<()> {
        let (cuda, cut) = (self.cuda, &self.checked.options.cut);
        let features = cut.in_features;
        let shortlist = Panel::from(&self.parameters.shortlist);
        let columns = self.bins.rows().marks;
        let of_shortlist = Places { rows: columns, marks: columns };
        // SAFETY: the caller's contract; buffers are as long as the chunks need.
        unsafe {
            self.group()?;
            // All others are 0, which clusters add to.
            let panels = [shortlist, out];
            cuda.panel(Batch::PanelGather, panels, [self.n, features], of_shortlist, false)?;
            for (i, tail) in self.parameters.tails.iter().enumerate() {
                let width = cut.width(i);
                let most = self.chunks(i).map(|chunk| chunk.n).max().unwrap_or(0);
                let mut workspace = Workspace::new(cuda, most);
                let embeddings = workspace.panel(width, out.dtype)?;
                let products = workspace.panel(features, DType::F32)?;
                for chunk in self.chunks(i) {
                    let panels = [Panel::from(&tail.weight), embeddings];
                    let sizes = [chunk.n, width];
                    cuda.panel(Batch::PanelGather, panels, sizes, chunk.classes(), false)?;
                    let (b, sizes) = (Panel::from(&tail.projection), [chunk.n, features, width]);
                    let (a, c) = (embeddings, products);
                    cuda.product(Product { a, b, c, sizes, add: false })?;
                    let (panels, sizes) = ([products, out], [chunk.n, features]);
                    cuda.panel(Batch::PanelScatterAdd, panels, sizes, chunk.lookups(), false)?;
                }
            }
        }
        Ok(())
    }

    /// # Safety
    /// The call's shapes were checked; `grad` has a row a lookup.
    unsafe fn backward(
        &self,
        grad: Panel,
        out: &AdaptiveEmbeddingParameters<Output<'_, '_>>,
        add: bool,
    ) -> Result<()> {
        let (cuda, cut) = (self.cuda, &self.checked.options.cut);
        let memory = cuda.pool.take("workspace", 2 * Cutter::bytes(self.n, 8))?;
        let mut cutter = Cutter(memory.address());
        let [places, slots] = [(); 2].map(|()| cutter.take(self.n, 8));
        // SAFETY: the caller's contract; buffers are as long as lookups and chunks need.
        unsafe {
            self.group()?;
            let args = EmbeddingArgs { bins: *self.bins.args(), places, slots };
            let threads = blocks(self.n + self.bins.slots());
            cuda.launch_batch(Batch::EmbeddingPlaces, threads, args::bytes(&args))?;
            let segments = Segments::sort(cuda, [(0, 0), (places, self.n)], cut.classes)?;
            let shortlist = self.table(&out.shortlist, 0..cut.shortlist(), add)?;
            let rest = Rest { rows: Some(grad), slots: 0, of: [0, self.n], factors: 0 };
            segments.add(None, rest, &shortlist)?;
            for (i, tail) in out.tails.iter().enumerate() {
                let classes = self.table(&tail.weight, cut.cluster(i), add)?;
                self.cluster(i, grad, (&segments, slots), (tail, &classes, add))?;
            }
        }
        Ok(())
    }

    /// A gradient that is added to: 0, unless what is there counts.
    ///
    /// # Safety
    /// As for [`Call::backward`].
    unsafe fn table(
        &self,
        out: &Output<'_, '_>,
        classes: std::ops::Range<usize>,
        add: bool,
    ) -> Result<Table> {
        let (rows, columns) = (Panel::from(out), out.shape[1]);
        if !add {
            // SAFETY: the output was checked to have a row a class of the table, and is borrowed
            // exclusively.
            unsafe { self.cuda.zeros(rows, [classes.len(), columns])? };
        }
        Ok(Table { rows, columns, classes })
    }

    /// The gradients of a cluster's projection and embeddings.
    ///
    /// # Safety
    /// As for [`Call::backward`].
    unsafe fn cluster(
        &self,
        i: usize,
        grad: Panel,
        (segments, slots): (&Segments<'_>, u64),
        (out, table, add): (&AdaptiveTail<Output<'_, '_>>, &Table, bool),
    ) -> Result<()> {
        let (cuda, cut, tail) = (self.cuda, &self.checked.options.cut, &self.parameters.tails[i]);
        let (features, width) = (cut.in_features, cut.width(i));
        let chunks = self.chunks(i).count();
        let most = self.chunks(i).map(|chunk| chunk.n).max().unwrap_or(0);
        let mut workspace = Workspace::new(cuda, most);
        let rows = workspace.panel(features, grad.dtype)?;
        let embeddings = workspace.panel(width, grad.dtype)?;
        let back = workspace.panel(width, DType::F32)?;
        // SAFETY: shapes were checked and `grad` has a row a lookup, says the caller; the workspace
        // has as many rows as the longest chunk.
        unsafe {
            let projection = Panel::from(&out.projection);
            let sum = Growing::new(
                cuda,
                Sum { to: projection, add },
                [width, features],
                (chunks, cut.workspace),
            )?;
            for (number, chunk) in self.chunks(i).enumerate() {
                let n = chunk.n;
                let panels = [grad, rows];
                cuda.panel(Batch::PanelGather, panels, [n, features], chunk.lookups(), false)?;
                let panels = [Panel::from(&tail.weight), embeddings];
                cuda.panel(Batch::PanelGather, panels, [n, width], chunk.classes(), false)?;
                let (c, add) = sum.target(number == 0);
                let (a, sizes) = (embeddings.transposed(), [width, features, n]);
                cuda.product(Product { a, b: rows, c, sizes, add })?;
                let (a, b) = (rows, Panel::from(&tail.projection).transposed());
                let sizes = [n, width, features];
                cuda.product(Product { a, b, c: back, sizes, add: false })?;
                let of = [chunk.from, chunk.from + n];
                segments.add(None, Rest { rows: Some(back), slots, of, factors: 0 }, table)?;
            }
            sum.settle(cuda, chunks)
        }
    }
}

impl Cuda {
    pub(crate) fn adaptive_embedding_forward(
        &self,
        checked: &CheckedEmbedding<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let output = self.output("output", output, false)?;
        let call = Call::new(self, checked, None)?;
        let out = lookups(output.address, output.dtype, &output.shape, output.row_stride);
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        unsafe { call.forward(out)? };
        self.read_back([Some(output)])
    }

    pub(crate) fn adaptive_embedding_backward(
        &self,
        checked: &CheckedEmbedding<'_>,
        grad_output: TensorRef<'_>,
        gradients: AdaptiveEmbeddingParameters<TensorMut<'_>>,
        accumulate: bool,
    ) -> Result<()> {
        let new = |g| self.output("grad_parameters", g, accumulate);
        let out = gradients.try_into_map(new)?;
        let grad = self.input("grad_output", grad_output)?;
        let call = Call::new(self, checked, checked.options.padding_idx)?;
        let rows = lookups(grad.address, grad.dtype, &grad.shape, grad.row_stride);
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { call.backward(rows, &out, accumulate)? };
        self.read_back(out.into_named().into_iter().map(|(_, grad)| Some(grad)))
    }
}
