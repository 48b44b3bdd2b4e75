//! Log-probability and entropy on a CUDA device: `kernels/loss/logprob_entropy.cu` after a census.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::RowArgs;
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::{Batch, Logits, along};
use crate::cuda::loss::ranks::Ranks;
use crate::cuda::schedule::operands::{Operands, ReadRows};
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

    fn fill(&self, checked: &Checked<'_>, args: &mut RowArgs) -> Result<()> {
        self.batch.fill(checked, args)?;
        let second = self.grad_entropy.fields();
        (args.second, args.second_stride) = (second.address, second.stride);
        (args.second_kind, args.second_number) = (second.kind, second.number);
        Ok(())
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
        let mut args = RowArgs::default();
        call.fill(checked, &mut args)?;
        (args.loss, args.z_loss) = (logprob.address, entropy.address);
        args.lse = lse.as_ref().map_or(0, |t| t.address);
        ranks.fill(&mut args);

        let loss = if ranks.wanted() { Loss::LogprobEntropyRanked } else { Loss::LogprobEntropy };
        let kernels = (loss, data(checked.dtype)?, work);
        let operands = Operands { x: x.as_ref(), upstream: None, y };
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        let logits = unsafe { self.go_through(kernels, args, operands)? };
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
        let x = self.read_rows("logits", logits, along(checked))?;
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
        let y = self.write_rows("grad_logits", grad_logits, from.is_none(), along(checked))?;
        let call = Call::new(self, checked, upstream)?;
        let mut args = RowArgs { lse: lse.address, ..RowArgs::default() };
        call.fill(checked, &mut args)?;
        let kernels = (Loss::LogprobEntropy, data(checked.dtype)?, Work::FromLse);
        let operands = Operands { x: from.as_ref(), upstream: None, y: Some(y) };
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        let grad = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([grad])
    }
}
