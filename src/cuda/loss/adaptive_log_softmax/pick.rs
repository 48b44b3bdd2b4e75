//! Classes picked of each row's distribution, the likeliest or by chance: first among the head's columns,
//! then of a cluster for those rows that need it. How many those are is asked of the device once a chunk
//! of rows, as products have their sizes from the host; while the stream is captured they are all.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::TensorMut;
use crate::code::args;
use crate::code::args::DistributionArgs;
use crate::code::variants::Batch;
use crate::cuda::loss::adaptive_log_softmax::distribution::{Call, Rows};
use crate::cuda::matrix::products::Workspace;
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::spec::adaptive_log_softmax::CheckedAdaptive;

/// Where what is picked goes, and how.
struct Pick {
    /// `DistributionTop` or `DistributionDraw`.
    kernel: Batch,
    /// Columns of the head that are picked from.
    columns: usize,
    k: usize,
    /// Addresses of the classes (i64) and their log-probabilities (f32; 0 where they are drawn), k a
    /// row.
    classes: u64,
    values: u64,
    seed: u64,
}

impl Pick {
    /// # Safety
    /// Shapes, strides and lengths were checked; results have k elements a row, next to one another.
    unsafe fn run(&self, call: &Call<'_, '_>) -> Result<()> {
        let (options, rows, cuda) = (call.checked.options, call.checked.rows.len, call.cuda);
        let (clusters, columns) = (options.clusters(), options.head_size());
        let chunk = call.chunk(rows, columns);
        let mut workspace = Workspace::new(cuda, chunk.min(rows));
        let x = workspace.panel(options.in_features, call.dtype())?;
        let head = workspace.panel(columns, DType::F32)?;
        let needed = workspace.packed(clusters, DType::I64)?.address;
        let mut of_clusters = Workspace::new(cuda, clusters);
        let counts = of_clusters.packed(1, DType::I64)?.address;
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let args = DistributionArgs {
                log_prob: head.address,
                head: head.address,
                picked: self.classes,
                values: self.values,
                needed,
                counts,
                seed: self.seed,
                places: self.columns as i64,
                stride: head.stride as i64,
                head_stride: head.stride as i64,
                row: from as i64,
                k: count("k", self.k)?,
                ..call.args(n)?
            };
            // SAFETY: the caller's contract; buffers are as long as the rows need.
            unsafe {
                call.gather(n, x, Rows::From(from))?;
                call.head(n, x, head)?;
                cuda.launch_batch(self.kernel, n as u32, args::bytes(&args))?;
                if clusters == 0 {
                    continue;
                }
                let bytes = args::bytes(&args);
                cuda.launch_batch(Batch::DistributionNeeds, clusters as u32, bytes)?;
                for (i, m) in cuda.numbers(counts, clusters, n)?.into_iter().enumerate() {
                    self.cluster(call, i, m, args)?;
                }
            }
        }
        Ok(())
    }

    /// Of a cluster, for the first m rows that need it.
    ///
    /// # Safety
    /// As for [`Pick::run`].
    unsafe fn cluster(
        &self,
        call: &Call<'_, '_>,
        i: usize,
        m: usize,
        mut args: DistributionArgs,
    ) -> Result<()> {
        let (options, cuda, n) = (call.checked.options, call.cuda, args.n as usize);
        let classes = options.cluster(i);
        // Room for all rows, however few there are: a graph's capture finds it in the pool.
        let chunk = call.chunk(n, classes.len());
        let mut workspace = Workspace::new(cuda, chunk.min(n));
        let x = workspace.panel(options.in_features, call.dtype())?;
        let hidden = workspace.panel(options.width(i), DType::F32)?;
        let log_prob = workspace.panel(classes.len(), DType::F32)?;
        // Drawn classes are one a row, and need no memory.
        let candidates = if self.values == 0 { 0 } else { self.k };
        args.names = workspace.packed(candidates, DType::I64)?.address;
        args.logs = workspace.packed(candidates, DType::F32)?.address;
        (args.log_prob, args.stride) = (log_prob.address, log_prob.stride as i64);
        (args.begin, args.places) = (classes.start as i64, classes.len() as i64);
        args.cluster = i as i64;
        for at in (0..m).step_by(chunk) {
            let slots = chunk.min(m - at);
            args.rows = args.needed + 8 * (i * n + at) as u64;
            // SAFETY: the caller's contract; buffers are as long as the slots need.
            unsafe {
                call.gather(slots, x, Rows::At(args.row as usize, args.rows))?;
                call.cluster(i, slots, [x, hidden, log_prob])?;
                cuda.launch_batch(self.kernel, slots as u32, args::bytes(&args))?;
            }
        }
        Ok(())
    }
}

impl Cuda {
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
        let mut workspace = Workspace::new(self, checked.rows.len);
        let pick = Pick {
            kernel: Batch::DistributionTop,
            columns: checked.options.shortlist(),
            k,
            classes: classes.address,
            values: match &values {
                Some(values) => values.address,
                None => workspace.packed(k, DType::F32)?.address,
            },
            seed: 0,
        };
        // SAFETY: shapes were checked; results have k elements a row, next to one another.
        unsafe { pick.run(&call)? };
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
        let pick = Pick {
            kernel: Batch::DistributionDraw,
            columns: checked.options.head_size(),
            k: 1,
            classes: classes.address,
            values: 0,
            seed,
        };
        // SAFETY: shapes were checked; the result has an element a row.
        unsafe { pick.run(&call)? };
        self.read_back([Some(classes)])
    }
}
