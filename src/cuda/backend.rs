//! A CUDA device as a backend: which method of a call on the stream does which call.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::cuda::driver::Driver;
use crate::cuda::stream::resident::Resident;
use crate::cuda::stream::{Cuda, Stream};
use crate::device::backend::Backend;
use crate::device::facts::DriverCalls;
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
use std::sync::Arc;

/// A CUDA device and one of its streams.
#[derive(Debug)]
pub(crate) struct CudaBackend {
    pub(crate) stream: Arc<Stream>,
}

impl CudaBackend {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<CudaBackend> {
        Ok(CudaBackend { stream: Arc::new(Stream::new(driver)?) })
    }

    /// One call on the stream.
    fn call(&self) -> Cuda {
        Cuda::new(&self.stream)
    }
}

impl Backend for CudaBackend {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        self.stream.driver.name()
    }

    fn description(&self) -> String {
        self.stream.description()
    }

    fn reaches_devices(&self) -> bool {
        true
    }

    fn upload(&self, tensor: TensorRef<'_>) -> Result<Tensor> {
        Ok(Tensor::on_device(Resident::upload(&self.stream, tensor)?, tensor.shape()))
    }

    fn hold(&self, tensor: Tensor) -> Result<Tensor> {
        self.upload(tensor.view())
    }

    fn hold_repeated(&self, tensor: Tensor, len: usize) -> Result<Tensor> {
        let shape = Shape::new(&[len.max(tensor.view().elements())]);
        let memory = Resident::repeated(&self.stream, tensor.view(), len)?;
        Ok(Tensor::on_device(memory, shape.unwrap_or(Shape::SCALAR)))
    }

    fn zeros(
        &self,
        argument: &'static str,
        dtype: DType,
        shape: Shape,
        beside: &TensorRef<'_>,
    ) -> Result<Tensor> {
        if beside.place() != "device" {
            return Tensor::zeros_for(argument, dtype, shape);
        }
        let elements = shape.elements().unwrap_or(usize::MAX);
        let memory = Resident::new(argument, &self.stream, dtype, elements)?;
        Ok(Tensor::on_device(memory, shape))
    }

    fn another_stream(&self) -> Result<Option<Arc<dyn Backend>>> {
        Ok(Some(Arc::new(CudaBackend::new(self.stream.driver.another_stream()?)?)))
    }

    fn check(&self) -> Result<()> {
        self.stream.check()
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.driver.synchronize()
    }

    fn trim(&self) -> usize {
        self.stream.pool.trim()
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let from = self.stream.driver.moment()?;
        let done = work();
        let seconds = self.stream.driver.seconds([from, self.stream.driver.moment()?]);
        done.and(seconds)
    }

    #[cfg(feature = "cli")]
    fn time_rows(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<f64>> {
        self.stream.laps.of(&*self.stream.driver, work)
    }

    fn traffic(&self) -> Option<(u64, u64)> {
        self.stream.driver.traffic()
    }

    fn driver_calls(&self) -> Option<DriverCalls> {
        self.stream.driver.calls()
    }

    fn schedules(&self) -> Vec<String> {
        self.stream.notes()
    }

    fn elementwise(
        &self,
        checked: &elementwise::Checked<'_>,
        call: elementwise::Call<'_>,
    ) -> Result<()> {
        self.call().elementwise(checked, call)
    }

    fn cross_entropy(&self, checked: &Checked<'_>, call: cross_entropy::Call<'_>) -> Result<()> {
        use cross_entropy::Call;
        match call {
            Call::Forward { logits, out } => {
                self.call().cross_entropy_forward(checked, logits, out)
            }
            Call::Backward { logits, lse, grad_output, grad_logits } => {
                self.call().cross_entropy_backward(checked, logits, lse, grad_output, grad_logits)
            }
            Call::BackwardInPlace { logits, lse, grad_output } => {
                self.call().cross_entropy_backward_in_place(checked, logits, lse, grad_output)
            }
            Call::ForwardBackward { from, grad_logits, upstream, out } => {
                let logits = (from, grad_logits);
                self.call().cross_entropy_forward_backward(checked, logits, upstream, out)
            }
        }
    }

    fn cross_entropy_shard(
        &self,
        checked: &CheckedShard<'_>,
        call: cross_entropy::ShardCall<'_>,
    ) -> Result<()> {
        use cross_entropy::ShardCall;
        let cuda = self.call();
        match call {
            ShardCall::Partial { logits, state } => {
                cuda.cross_entropy_partial(checked, logits, state)
            }
            ShardCall::Finish { state, out } => cuda.cross_entropy_finish(checked, state, out),
            ShardCall::Backward { logits, state, grad_output, grad_logits } => {
                cuda.cross_entropy_shard_backward(checked, logits, state, grad_output, grad_logits)
            }
            ShardCall::BackwardInPlace { logits, state, grad_output } => {
                cuda.cross_entropy_shard_backward_in_place(checked, logits, state, grad_output)
            }
        }
    }

    fn merge_states(&self, merge: &Merge<'_>, state: TensorMut<'_>) -> Result<()> {
        self.call().merge_states(merge, state)
    }

    fn soft_cross_entropy(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        call: cross_entropy::SoftCall<'_>,
    ) -> Result<()> {
        use cross_entropy::SoftCall;
        match call {
            SoftCall::Forward { logits, out } => {
                self.call().soft_cross_entropy_forward(checked, logits, out)
            }
            SoftCall::Backward { from, gradients, grad_output, out } => {
                let logits = (from, gradients);
                self.call().soft_cross_entropy_backward(checked, logits, grad_output, out)
            }
        }
    }

    fn linear_cross_entropy(
        &self,
        checked: &CheckedLinear<'_>,
        call: linear_cross_entropy::Call<'_>,
    ) -> Result<()> {
        match &checked.subset {
            Some(subset) => self.call().class_subset((checked, subset), call),
            None => self.call().linear_cross_entropy(checked, call),
        }
    }

    fn linear_plan(
        &self,
        checked: &CheckedLinear<'_>,
        outputs: LinearOutputs,
    ) -> Result<LinearPlan> {
        match checked.subset {
            Some(_) => self.call().class_subset_plan(checked, outputs.gradients),
            None => self.call().linear_plan(checked, outputs),
        }
    }

    fn linear_distillation(
        &self,
        checked: &CheckedDistillation<'_>,
        call: linear_distillation::Call<'_>,
    ) -> Result<()> {
        self.call().linear_distillation(checked, call)
    }

    fn distillation_plan(
        &self,
        checked: &CheckedDistillation<'_>,
        back: [bool; 2],
    ) -> Result<LinearPlan> {
        self.call().distillation_plan(checked, back)
    }

    fn logprob_entropy(
        &self,
        checked: &Checked<'_>,
        call: logprob_entropy::Call<'_>,
    ) -> Result<()> {
        use logprob_entropy::Call;
        match call {
            Call::Forward { logits, out } => {
                self.call().logprob_entropy_forward(checked, logits, out)
            }
            Call::Backward { logits, lse, upstream, grad_logits } => {
                self.call().logprob_entropy_backward(checked, logits, lse, upstream, grad_logits)
            }
            Call::BackwardInPlace { logits, lse, upstream } => {
                self.call().logprob_entropy_backward_in_place(checked, logits, lse, upstream)
            }
            Call::ForwardBackward { logits, upstream, out } => {
                self.call().logprob_entropy_forward_backward(checked, logits, upstream, out)
            }
        }
    }

    fn nll(&self, checked: &CheckedNll<'_>, call: nll::Call<'_>) -> Result<()> {
        use nll::Call;
        match call {
            Call::Forward { input, loss } => self.call().nll_forward(checked, input, loss),
            Call::Backward { grad_output, grad_input } => {
                self.call().nll_backward(checked, grad_output, grad_input)
            }
            Call::ForwardBackward { input, grad_output, loss } => {
                self.call().nll_forward_backward(checked, input, grad_output, loss)
            }
        }
    }

    fn multi_margin(
        &self,
        checked: &CheckedMargin<'_>,
        call: multi_margin::Call<'_>,
    ) -> Result<()> {
        self.call().multi_margin(checked, call)
    }

    fn js_div_logits(
        &self,
        checked: &CheckedJsDiv<'_>,
        call: js_div_logits::Call<'_>,
    ) -> Result<()> {
        use js_div_logits::Call;
        match call {
            Call::Forward { logits, loss } => {
                self.call().js_div_logits_forward(checked, logits, loss)
            }
            Call::Backward { logits, grad_output, gradients } => {
                self.call().js_div_logits_backward(checked, logits, grad_output, gradients)
            }
            Call::ForwardBackward { gradients, grad_output, loss } => {
                self.call().js_div_logits_forward_backward(checked, gradients, grad_output, loss)
            }
        }
    }

    fn log_softmax(&self, checked: CheckedLines, call: log_softmax::Call<'_>) -> Result<()> {
        use log_softmax::Call;
        match call {
            Call::Forward { input, output } => {
                self.call().log_softmax_forward(checked, input, output)
            }
            Call::Backward { input, grad_output, grad_input } => {
                self.call().log_softmax_backward(checked, input, grad_output, grad_input)
            }
        }
    }

    fn logsumexp(&self, checked: CheckedLines, call: logsumexp::Call<'_>) -> Result<()> {
        use logsumexp::Call;
        match call {
            Call::Forward { input, output } => {
                self.call().logsumexp_forward(checked, input, output)
            }
            Call::Backward { input, output, grad_output, grad_input } => {
                self.call().logsumexp_backward(checked, input, (output, grad_output), grad_input)
            }
        }
    }

    fn information(&self, checked: CheckedInformation, call: information::Call<'_>) -> Result<()> {
        self.call().information(checked, call.p, call.q, call.output)
    }

    fn count_ranks(&self, call: ranks::Call<'_>) -> Result<()> {
        self.call().count_ranks(call.rank, call.limits, call.counts)
    }

    fn adaptive_log_softmax(
        &self,
        checked: &CheckedAdaptive<'_>,
        call: adaptive_log_softmax::Call<'_>,
    ) -> Result<()> {
        use adaptive_log_softmax::Call;
        match call {
            Call::Forward { out } => self.call().adaptive_log_softmax_forward(checked, out),
            Call::ForwardBackward { grad_output, out, gradients } => self
                .call()
                .adaptive_log_softmax_forward_backward(checked, grad_output, out, gradients),
            Call::LogProb { out } => self.call().adaptive_log_softmax_log_prob(checked, out),
            Call::TopK { k, classes, log_prob } => {
                self.call().adaptive_log_softmax_top_k(checked, k, classes, log_prob)
            }
            Call::Sample { seed, classes } => {
                self.call().adaptive_log_softmax_sample(checked, seed, classes)
            }
        }
    }

    fn adaptive_embedding(
        &self,
        checked: &CheckedEmbedding<'_>,
        call: adaptive_embedding::Call<'_>,
    ) -> Result<()> {
        use adaptive_embedding::Call;
        match call {
            Call::Forward { output } => self.call().adaptive_embedding_forward(checked, output),
            Call::Backward { grad_output, gradients, accumulate } => {
                self.call().adaptive_embedding_backward(checked, grad_output, gradients, accumulate)
            }
        }
    }

    fn sampled_softmax(
        &self,
        checked: &CheckedSampled<'_>,
        call: sampled_softmax::Call<'_>,
    ) -> Result<()> {
        use sampled_softmax::Call;
        match call {
            Call::Forward { out } => self.call().sampled_softmax_forward(checked, out),
            Call::ForwardBackward { grad_output, out, gradients } => {
                self.call().sampled_softmax_forward_backward(checked, grad_output, out, gradients)
            }
        }
    }
}
