//! Log-probability and entropy on a CUDA device: `kernels/loss/logprob_entropy.cu` after a census.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{LogprobEntropyArgs, TokenOutputs};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::{Batch, Logits};
use crate::cuda::loss::ranks::Ranks;
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::operands::{ReadRows, along};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::spec::cross_entropy::Checked;
use crate::spec::logprob_entropy::{LogprobEntropyOut, LogprobEntropyUpstream};

/// What a call takes besides the logits: targets and options, and both upstream gradients.
struct Call<'p> {
    batch: Batch<'p>,
    grad_entropy: Upstream<'p>,
}

impl<'p> Call<'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &Checked<'p>,
        upstream: &LogprobEntropyUpstream<'p>,
    ) -> Result<Self> {
        // Read under its own name; the batch of a loss calls its only one grad_output.
        let batch = Batch::new(cuda, checked, &upstream.grad_logprob)?;
        let grad_entropy = Upstream::new(cuda, "grad_entropy", &upstream.grad_entropy)?;
        Ok(Call { batch, grad_entropy })
    }

    /// The arguments but for the operands and what is written.
    fn args(&self, checked: &Checked<'_>) -> Result<LogprobEntropyArgs> {
        let of_loss = self.batch.args(checked)?;
        Ok(LogprobEntropyArgs {
            rows: of_loss.rows,
            upstream: of_loss.upstream,
            of_entropy: self.grad_entropy.args(),
            logits: of_loss.logits,
            target: of_loss.target,
            ..LogprobEntropyArgs::default()
        })
    }
}

impl Cuda {
    pub(crate) fn logprob_entropy_forward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        // Nobody reads the upstream gradients.
        let upstream = LogprobEntropyUpstream::default();
        self.with_tokens(checked, Logits::Read(logits), &upstream, out)
    }

    pub(crate) fn logprob_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        self.with_tokens(checked, Logits::Overwrite(logits), &upstream, out)
    }

    /// The results; the gradient too where there are logits to overwrite.
    fn with_tokens(
        &self,
        checked: &Checked<'_>,
        logits: Logits<'_>,
        upstream: &LogprobEntropyUpstream<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        let logprob = self.output("logprob", out.logprob, false)?;
        let entropy = self.output("entropy", out.entropy, false)?;
        let lse = out.lse.map(|t| self.output("lse", t, false)).transpose()?;
        let ranks = Ranks::new(self, checked.classes, out.argmax, out.rank)?;
        let (work, x, y) = logits.named(self, checked)?;
        let call = Call::new(self, checked, upstream)?;
        let mut args = call.args(checked)?;
        args.out = TokenOutputs {
            logprob: logprob.address,
            entropy: entropy.address,
            lse: lse.as_ref().map_or(0, |t| t.address),
        };
        args.ranks = ranks.args();

        let loss = if ranks.wanted() { Loss::LogprobEntropyRanked } else { Loss::LogprobEntropy };
        let kernels = (loss, data(checked.dtype)?, work);
        let operands = RowTensors { x: x.as_ref(), y, ..RowTensors::default() };
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        let [logits, ..] = unsafe { self.go_through(kernels, args, operands)? };
        let Ranks { argmax, rank } = ranks;
        self.read_back([Some(logprob), Some(entropy), lse, argmax, rank, logits])
    }

    pub(crate) fn logprob_entropy_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        lse: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.read_rows("logits", logits, along(checked.class_dim))?;
        self.token_gradient(checked, Some(x), lse, &upstream, grad_logits)
    }

    pub(crate) fn logprob_entropy_backward_in_place(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        lse: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
    ) -> Result<()> {
        self.token_gradient(checked, None, lse, &upstream, logits)
    }

    /// Gradient from a saved lse, of rows elsewhere or of those that it overwrites.
    fn token_gradient(
        &self,
        checked: &Checked<'_>,
        from: Option<ReadRows<'_>>,
        lse: TensorRef<'_>,
        upstream: &LogprobEntropyUpstream<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let lse = self.input("lse", lse)?;
        let y =
            self.write_rows("grad_logits", grad_logits, from.is_none(), along(checked.class_dim))?;
        let call = Call::new(self, checked, upstream)?;
        let mut args = call.args(checked)?;
        args.out.lse = lse.address;
        let kernels = (Loss::LogprobEntropy, data(checked.dtype)?, Work::FromLse);
        let operands = RowTensors { x: from.as_ref(), y: Some(y), ..RowTensors::default() };
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        let [grad, ..] = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([grad])
    }
}
