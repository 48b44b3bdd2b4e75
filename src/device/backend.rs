//! What a device has to be able to do: the one contract between the public calls and devices.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::facts::{CpuInfo, DriverCalls};
use crate::spec::adaptive_embedding::{self, CheckedEmbedding};
use crate::spec::adaptive_log_softmax::{self, CheckedAdaptive};
use crate::spec::cross_entropy::{self, Checked, CheckedShard, SoftTarget};
use crate::spec::information::{self, CheckedInformation};
use crate::spec::js_div_logits::{self, CheckedJsDiv};
use crate::spec::linear_cross_entropy::{self, CheckedLinear, LinearOutputs, LinearPlan};
use crate::spec::linear_distillation::{self, CheckedDistillation};
use crate::spec::log_softmax::{self, CheckedLines};
use crate::spec::multi_margin::{self, CheckedMargin};
use crate::spec::nll::{self, CheckedNll};
use crate::spec::row_state::Merge;
use crate::spec::sampled_softmax::{self, CheckedSampled};
use crate::spec::{elementwise, logprob_entropy, logsumexp, ranks};
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

/// A device: an implementor of this trait and a constructor (`open.rs`) are all that a new kind of
/// device needs.
///
/// A loss comes as two values: inputs and options that have passed the checks (`Checked…`, which
/// only `spec/` makes), and a `Call`, which says what is computed, what is read, and where results
/// go. Shapes, dtypes and options are right; where memory lies, and what it holds, is for the device
/// to say. A loss that a device does not have is an error that names it. Every method may be called
/// from any thread.
pub(crate) trait Backend: Debug + Send + Sync {
    /// The device itself, for what only its own `open.rs` gives.
    #[cfg_attr(not(all(gpu, any(feature = "cli", feature = "emulator"))), allow(dead_code))]
    fn as_any(&self) -> &dyn Any;

    /// The name as the command line takes it.
    fn name(&self) -> &'static str;

    /// What it is, in words.
    fn description(&self) -> String;

    /// Whether it reaches memory of devices; the host's is reached by all.
    fn reaches_devices(&self) -> bool {
        false
    }

    /// A copy of a host tensor in the device's memory.
    ///
    /// # Errors
    /// [`Error::Place`] where the tensor is not on the host; out of memory.
    fn upload(&self, tensor: TensorRef<'_>) -> Result<Tensor> {
        tensor.to_owned_host()
    }

    /// The tensor where calls that time a device want it: in the device's memory.
    ///
    /// # Errors
    /// As [`Backend::upload`].
    fn hold(&self, tensor: Tensor) -> Result<Tensor> {
        Ok(tensor)
    }

    /// As [`Backend::hold`], in memory for `len` elements that holds the tensor's again and again.
    ///
    /// # Errors
    /// As [`Backend::upload`].
    fn hold_repeated(&self, tensor: Tensor, _len: usize) -> Result<Tensor> {
        Ok(tensor)
    }

    /// Memory for a result that a call is about to write, of the kind that `beside` lies in; zeros on
    /// the host.
    ///
    /// # Errors
    /// Out of memory, named for `argument`.
    fn zeros(
        &self,
        argument: &'static str,
        dtype: DType,
        shape: Shape,
        _beside: &TensorRef<'_>,
    ) -> Result<Tensor> {
        Tensor::zeros_for(argument, dtype, shape)
    }

    /// The device with a stream of its own; `None` where calls wait for nothing of each other.
    ///
    /// # Errors
    /// What a driver reports.
    fn another_stream(&self) -> Result<Option<Arc<dyn Backend>>> {
        Ok(None)
    }

    /// Waits, and gives the first error that was found since the last call.
    ///
    /// # Errors
    /// That error.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// What a driver reports.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// Gives unused workspace back; its bytes.
    fn trim(&self) -> usize {
        0
    }

    /// Seconds that the device needs for `work`.
    ///
    /// # Errors
    /// Those of `work`; what a driver reports.
    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let begin = Instant::now();
        work()?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Seconds that kernels which go through rows take of `work`; `None` where there are none.
    ///
    /// # Errors
    /// As [`Backend::time`].
    #[cfg(feature = "cli")]
    fn time_rows(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<f64>> {
        work().map(|()| None)
    }

    /// Bytes of device memory that were read and written, where they are counted.
    fn traffic(&self) -> Option<(u64, u64)> {
        None
    }

    /// What a driver was asked so far, where it is counted.
    fn driver_calls(&self) -> Option<DriverCalls> {
        None
    }

    /// Which schedules were run so far, as `loss dtype work: schedule`.
    fn schedules(&self) -> Vec<String> {
        Vec::new()
    }

    /// Threads and instruction set, where the device is the host's own.
    fn cpu_info(&self) -> Option<CpuInfo> {
        None
    }

    /// Losses of one element of the input and one of the target.
    ///
    /// # Errors
    /// What its `spec/` says for values and places; so for all that follow.
    fn elementwise(
        &self,
        _checked: &elementwise::Checked<'_>,
        _call: elementwise::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "elementwise losses")
    }

    /// Cross entropy against class indices.
    fn cross_entropy(&self, _checked: &Checked<'_>, _call: cross_entropy::Call<'_>) -> Result<()> {
        absent(self.name(), "cross entropy")
    }

    /// Cross entropy of a vocabulary in shards.
    fn cross_entropy_shard(
        &self,
        _checked: &CheckedShard<'_>,
        _call: cross_entropy::ShardCall<'_>,
    ) -> Result<()> {
        absent(self.name(), "cross entropy of a vocabulary in shards")
    }

    /// States of rows, side by side in `state`.
    fn merge_states(&self, _merge: &Merge<'_>, _state: TensorMut<'_>) -> Result<()> {
        absent(self.name(), "states of rows")
    }

    /// Cross entropy against probabilities, or a teacher's logits.
    fn soft_cross_entropy(
        &self,
        _checked: &Checked<'_, SoftTarget<'_>>,
        _call: cross_entropy::SoftCall<'_>,
    ) -> Result<()> {
        absent(self.name(), "cross entropy against probabilities")
    }

    /// Cross entropy of logits that are products.
    fn linear_cross_entropy(
        &self,
        _checked: &CheckedLinear<'_>,
        _call: linear_cross_entropy::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "linear cross entropy")
    }

    /// What [`Backend::linear_cross_entropy`] would do that gives these results.
    ///
    /// # Errors
    /// Those that it has before it reads anything.
    fn linear_plan(
        &self,
        _checked: &CheckedLinear<'_>,
        _outputs: LinearOutputs,
    ) -> Result<LinearPlan> {
        absent(self.name(), "linear cross entropy")
    }

    /// A divergence of rows of logits that are products of both sides, and gradients of either's factors.
    ///
    /// # Errors
    /// What is wrong with values; memory that cannot be had.
    fn linear_distillation(
        &self,
        _checked: &CheckedDistillation<'_>,
        _call: linear_distillation::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "distillation from hidden states")
    }

    /// What [`Backend::linear_distillation`] would do, with gradients of student and teacher or without.
    ///
    /// # Errors
    /// A budget that is too small.
    fn distillation_plan(
        &self,
        _checked: &CheckedDistillation<'_>,
        _back: [bool; 2],
    ) -> Result<LinearPlan> {
        absent(self.name(), "distillation from hidden states")
    }

    /// Log-probability of the target, and entropy of the row.
    fn logprob_entropy(
        &self,
        _checked: &Checked<'_>,
        _call: logprob_entropy::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "log-probability and entropy")
    }

    /// Negative log-likelihood.
    fn nll(&self, _checked: &CheckedNll<'_>, _call: nll::Call<'_>) -> Result<()> {
        absent(self.name(), "negative log-likelihood")
    }

    /// Multi-class margin loss.
    fn multi_margin(
        &self,
        _checked: &CheckedMargin<'_>,
        _call: multi_margin::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "multi-class margin loss")
    }

    /// Jensen–Shannon divergence from logits.
    fn js_div_logits(
        &self,
        _checked: &CheckedJsDiv<'_>,
        _call: js_div_logits::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "Jensen–Shannon divergence from logits")
    }

    /// Log-softmax along a dimension.
    fn log_softmax(&self, _checked: CheckedLines, _call: log_softmax::Call<'_>) -> Result<()> {
        absent(self.name(), "log-softmax")
    }

    /// Log-sum-exp along dimensions.
    fn logsumexp(&self, _checked: CheckedLines, _call: logsumexp::Call<'_>) -> Result<()> {
        absent(self.name(), "log-sum-exp")
    }

    /// Entropies of rows of probabilities.
    fn information(
        &self,
        _checked: CheckedInformation,
        _call: information::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "entropies of probabilities")
    }

    /// Ranks below limits, counted.
    fn count_ranks(&self, _call: ranks::Call<'_>) -> Result<()> {
        absent(self.name(), "counts of ranks")
    }

    /// Adaptive log-softmax, and what is asked of its distribution.
    fn adaptive_log_softmax(
        &self,
        _checked: &CheckedAdaptive<'_>,
        _call: adaptive_log_softmax::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "adaptive log-softmax")
    }

    /// Adaptive embeddings.
    fn adaptive_embedding(
        &self,
        _checked: &CheckedEmbedding<'_>,
        _call: adaptive_embedding::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "adaptive embeddings")
    }

    /// Sampled softmax.
    fn sampled_softmax(
        &self,
        _checked: &CheckedSampled<'_>,
        _call: sampled_softmax::Call<'_>,
    ) -> Result<()> {
        absent(self.name(), "sampled softmax")
    }
}

/// The error of a device without a loss.
fn absent<T>(device: &str, what: &str) -> Result<T> {
    Err(Error::Device { reason: format!("{what}: not on this device ({device})") })
}
