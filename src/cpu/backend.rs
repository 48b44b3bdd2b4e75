//! The CPU as a backend: which method does which call.

use crate::base::error::Result;
use crate::base::tensor::TensorMut;
use crate::cpu::processor::Cpu;
use crate::device::backend::Backend;
use crate::device::facts::CpuInfo;
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

impl Backend for Cpu {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn description(&self) -> String {
        format!("{} threads, {}", self.threads(), self.simd())
    }

    fn cpu_info(&self) -> Option<CpuInfo> {
        Some(CpuInfo { threads: self.threads(), simd: self.simd() })
    }

    fn elementwise(
        &self,
        checked: &elementwise::Checked<'_>,
        call: elementwise::Call<'_>,
    ) -> Result<()> {
        Cpu::elementwise(self, checked, call)
    }

    fn cross_entropy(&self, checked: &Checked<'_>, call: cross_entropy::Call<'_>) -> Result<()> {
        use cross_entropy::Call;
        match call {
            Call::Forward { logits, out } => self.cross_entropy_forward(checked, logits, out),
            Call::Backward { logits, lse, grad_output, grad_logits } => {
                self.cross_entropy_backward(checked, logits, lse, grad_output, grad_logits)
            }
            Call::BackwardInPlace { logits, lse, grad_output } => {
                self.cross_entropy_backward_in_place(checked, logits, lse, grad_output)
            }
            Call::ForwardBackward { from, grad_logits, upstream, out } => {
                let logits = (from, grad_logits);
                self.cross_entropy_forward_backward(checked, logits, upstream, out)
            }
        }
    }

    fn cross_entropy_shard(
        &self,
        checked: &CheckedShard<'_>,
        call: cross_entropy::ShardCall<'_>,
    ) -> Result<()> {
        use cross_entropy::ShardCall;
        match call {
            ShardCall::Partial { logits, state } => {
                self.cross_entropy_partial(checked, logits, state)
            }
            ShardCall::Finish { state, out } => self.cross_entropy_finish(checked, state, out),
            ShardCall::Backward { logits, state, grad_output, grad_logits } => {
                self.cross_entropy_shard_backward(checked, logits, state, grad_output, grad_logits)
            }
            ShardCall::BackwardInPlace { logits, state, grad_output } => {
                self.cross_entropy_shard_backward_in_place(checked, logits, state, grad_output)
            }
        }
    }

    fn merge_states(&self, merge: &Merge<'_>, state: TensorMut<'_>) -> Result<()> {
        Cpu::merge_states(self, merge, state)
    }

    fn soft_cross_entropy(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        call: cross_entropy::SoftCall<'_>,
    ) -> Result<()> {
        use cross_entropy::SoftCall;
        match call {
            SoftCall::Forward { logits, out } => {
                self.soft_cross_entropy_forward(checked, logits, out)
            }
            SoftCall::Backward { from, gradients, grad_output, out } => {
                let logits = (from, gradients);
                self.soft_cross_entropy_backward(checked, logits, grad_output, out)
            }
        }
    }

    fn linear_cross_entropy(
        &self,
        checked: &CheckedLinear<'_>,
        call: linear_cross_entropy::Call<'_>,
    ) -> Result<()> {
        match &checked.subset {
            Some(subset) => self.class_subset((checked, subset), call),
            None => Cpu::linear_cross_entropy(self, checked, call),
        }
    }

    fn linear_plan(
        &self,
        checked: &CheckedLinear<'_>,
        outputs: LinearOutputs,
    ) -> Result<LinearPlan> {
        match checked.subset {
            Some(_) => self.class_subset_plan(checked, outputs.gradients),
            None => Cpu::linear_plan(self, checked, outputs.gradients),
        }
    }

    fn linear_distillation(
        &self,
        checked: &CheckedDistillation<'_>,
        call: linear_distillation::Call<'_>,
    ) -> Result<()> {
        Cpu::linear_distillation(self, checked, call)
    }

    fn distillation_plan(
        &self,
        checked: &CheckedDistillation<'_>,
        back: [bool; 2],
    ) -> Result<LinearPlan> {
        Cpu::distillation_plan(self, checked, back)
    }

    fn logprob_entropy(
        &self,
        checked: &Checked<'_>,
        call: logprob_entropy::Call<'_>,
    ) -> Result<()> {
        use logprob_entropy::Call;
        match call {
            Call::Forward { logits, out } => self.logprob_entropy_forward(checked, logits, out),
            Call::Backward { logits, lse, upstream, grad_logits } => {
                self.logprob_entropy_backward(checked, logits, lse, upstream, grad_logits)
            }
            Call::BackwardInPlace { logits, lse, upstream } => {
                self.logprob_entropy_backward_in_place(checked, logits, lse, upstream)
            }
            Call::ForwardBackward { logits, upstream, out } => {
                self.logprob_entropy_forward_backward(checked, logits, upstream, out)
            }
        }
    }

    fn nll(&self, checked: &CheckedNll<'_>, call: nll::Call<'_>) -> Result<()> {
        use nll::Call;
        match call {
            Call::Forward { input, loss } => self.nll_forward(checked, input, loss),
            Call::Backward { grad_output, grad_input } => {
                self.nll_backward(checked, grad_output, grad_input)
            }
            Call::ForwardBackward { input, grad_output, loss } => {
                self.nll_forward_backward(checked, input, grad_output, loss)
            }
        }
    }

    fn multi_margin(
        &self,
        checked: &CheckedMargin<'_>,
        call: multi_margin::Call<'_>,
    ) -> Result<()> {
        Cpu::multi_margin(self, checked, call)
    }

    fn js_div_logits(
        &self,
        checked: &CheckedJsDiv<'_>,
        call: js_div_logits::Call<'_>,
    ) -> Result<()> {
        use js_div_logits::Call;
        match call {
            Call::Forward { logits, loss } => self.js_div_logits_forward(checked, logits, loss),
            Call::Backward { logits, grad_output, gradients } => {
                self.js_div_logits_backward(checked, logits, grad_output, gradients)
            }
            Call::ForwardBackward { gradients, grad_output, loss } => {
                self.js_div_logits_forward_backward(checked, gradients, grad_output, loss)
            }
        }
    }

    fn log_softmax(&self, checked: CheckedLines, call: log_softmax::Call<'_>) -> Result<()> {
        use log_softmax::Call;
        match call {
            Call::Forward { input, output } => self.log_softmax_forward(checked, input, output),
            Call::Backward { input, grad_output, grad_input } => {
                self.log_softmax_backward(checked, input, grad_output, grad_input)
            }
        }
    }

    fn logsumexp(&self, checked: CheckedLines, call: logsumexp::Call<'_>) -> Result<()> {
        use logsumexp::Call;
        match call {
            Call::Forward { input, output } => self.logsumexp_forward(checked, input, output),
            Call::Backward { input, output, grad_output, grad_input } => {
                self.logsumexp_backward(checked, input, (output, grad_output), grad_input)
            }
        }
    }

    fn information(&self, checked: CheckedInformation, call: information::Call<'_>) -> Result<()> {
        Cpu::information(self, checked, call.p, call.q, call.output)
    }

    fn count_ranks(&self, call: ranks::Call<'_>) -> Result<()> {
        Cpu::count_ranks(self, call.rank, call.limits, call.counts)
    }

    fn adaptive_log_softmax(
        &self,
        checked: &CheckedAdaptive<'_>,
        call: adaptive_log_softmax::Call<'_>,
    ) -> Result<()> {
        use adaptive_log_softmax::Call;
        match call {
            Call::Forward { out } => self.adaptive_log_softmax_forward(checked, out),
            Call::ForwardBackward { grad_output, out, gradients } => {
                self.adaptive_log_softmax_forward_backward(checked, grad_output, out, gradients)
            }
            Call::LogProb { out } => self.adaptive_log_softmax_log_prob(checked, out),
            Call::TopK { k, classes, log_prob } => {
                self.adaptive_log_softmax_top_k(checked, k, classes, log_prob)
            }
            Call::Sample { seed, classes } => {
                self.adaptive_log_softmax_sample(checked, seed, classes)
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
            Call::Forward { output } => self.adaptive_embedding_forward(checked, output),
            Call::Backward { grad_output, gradients, accumulate } => {
                self.adaptive_embedding_backward(checked, grad_output, gradients, accumulate)
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
            Call::Forward { out } => self.sampled_softmax_forward(checked, out),
            Call::ForwardBackward { grad_output, out, gradients } => {
                self.sampled_softmax_forward_backward(checked, grad_output, out, gradients)
            }
        }
    }
}
