//! How a line is measured: its answer is checked, then it is timed.

use crate::base::error::Error;
use crate::check::bench::data::Data;
use crate::check::bench::{Bench, Kind, Layer};
use crate::cli::bench::line::{Line, Measured};
use crate::cli::bench::{adaptive_log_softmax, linear_cross_entropy, linear_distillation};
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::device::Device;
use crate::measure::{Budget, Timing, time_by};

/// Runs that the kernels which go through rows are timed in.
const ROW_RUNS: usize = 5;

impl Line {
    /// Checks, then times; `held` keeps the buffers, which have room for as many elements, from one
    /// line to the next.
    pub(super) fn measure(
        &self,
        device: &Device,
        budget: &Budget,
        (held, room): (&mut Option<Data>, usize),
    ) -> Result<Measured, Failure> {
        let bench = match self.op.parts().1 {
            Kind::Rows(bench) | Kind::Elements(bench) => bench,
            Kind::Products(Layer::AdaptiveLogSoftmax) => {
                return adaptive_log_softmax::measure(self, device, budget);
            }
            Kind::Products(Layer::LinearDistillation) => {
                return linear_distillation::measure(self, device, budget);
            }
            Kind::Products(Layer::LinearCrossEntropy | Layer::LinearLogprobEntropy) => {
                return linear_cross_entropy::measure(self, device, budget);
            }
        };
        let shape = (self.rows, self.classes);
        let (large, what) = (bench.large(self.pass), (self.dtype, bench.input()));
        let mut data = match held.take() {
            Some(mut data) if data.serve(device, shape, what) => {
                if large.is_some() && data.upstream.is_none() {
                    self.require(1)?;
                }
                if (data.rows, data.classes) != shape {
                    data.shape(device, self.rows, self.classes)?;
                }
                data
            }
            other => {
                drop(other);
                self.require(2 + u128::from(large.is_some()))?;
                // Later lines need more than there may be; that is their affair.
                Data::new(device, shape, what, room).or_else(|error| match error {
                    Error::OutOfMemory { .. } => Data::new(device, shape, what, 0),
                    other => Err(other),
                })?
            }
        };
        if let Some(large) = large {
            data.need(device, large)?;
        }
        let prepare = |data: &mut Data| match bench.consumes(self.pass) {
            true => data.restore(),
            false => Ok(()),
        };
        bench.save(self.pass, device, &mut data)?;
        prepare(&mut data)?;
        bench.run(self.pass, device, &mut data)?;
        if let Some(wrong) = bench.check(self.pass, device, &mut data)? {
            let line = self.describe();
            return Err(Failure::failed(format!("{line}: the answer is wrong: {wrong}")));
        }
        let run = |data: &mut Data| device.time(|| bench.run(self.pass, device, data));
        let timing = time_by(budget, &mut data, prepare, run)?;
        let row_kernels = self.row_kernels(bench, device, &mut data)?;
        *held = Some(data);
        let elements = self.rows as u64 * self.classes as u64;
        let bytes = bench.traffic(self.pass).bytes(elements, self.dtype);
        Ok(Measured { line: self.clone(), timing, bytes, operations: None, row_kernels })
    }

    /// Seconds of the kernels that go through rows, in the middle of a few runs.
    fn row_kernels(
        &self,
        bench: &dyn Bench,
        device: &Device,
        data: &mut Data,
    ) -> Result<Option<f64>, Failure> {
        let mut seconds = Vec::new();
        for _ in 0..ROW_RUNS {
            if bench.consumes(self.pass) {
                data.restore()?;
            }
            match device.time_rows(|| bench.run(self.pass, device, data))? {
                Some(run) => seconds.push(run),
                None => return Ok(None),
            }
        }
        Ok(Some(Timing::of(seconds).median))
    }

    /// Whether so many tensors of this shape fit, and the few numbers per row.
    fn require(&self, tensors: u128) -> Result<(), Failure> {
        let (rows, classes) = (self.rows as u128, self.classes as u128);
        let tensor = rows.saturating_mul(classes).saturating_mul(self.dtype.size() as u128);
        let bytes = tensor.saturating_mul(tensors).saturating_add(rows * 20);
        // A size beyond the address space cannot be asked of an allocator either.
        match bytes > isize::MAX as u128 {
            true => Err(Failure::failed(format!("memory: {bytes} bytes exceed the address space"))),
            false => memory::require(bytes, &self.describe()),
        }
    }
}
