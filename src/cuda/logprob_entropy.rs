//! Log-probability and entropy on a CUDA device: `kernels/logprob_entropy.cu` after a census.

use super::Cuda;
use super::args::RowArgs;
use super::cross_entropy::{Batch, Upstream, lines};
use super::ranks::Ranks;
use super::rows::{Work, data};
use super::variants::Loss;
use crate::loss::Checked;
use crate::{LogprobEntropyOut, LogprobEntropyUpstream, Result, TensorMut, TensorRef};

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
        let x = self.input("logits", logits)?;
        let rows = self.rows_in(&x, &lines(checked, &x.shape, x.row_stride))?;
        let args = RowArgs { x: rows.address, x_stride: rows.stride as i64, ..RowArgs::default() };
        // Nobody reads the upstream gradients.
        let upstream = LogprobEntropyUpstream::default();
        self.with_tokens(checked, args, &upstream, out, None)
    }

    pub(crate) fn logprob_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        self.with_tokens(checked, RowArgs::default(), &upstream, out, Some(logits))
    }

    /// The results; the gradient too where there are logits to overwrite.
    fn with_tokens(
        &self,
        checked: &Checked<'_>,
        mut args: RowArgs,
        upstream: &LogprobEntropyUpstream<'_>,
        out: LogprobEntropyOut<'_>,
        logits: Option<TensorMut<'_>>,
    ) -> Result<()> {
        let logprob = self.output("logprob", out.logprob, false)?;
        let entropy = self.output("entropy", out.entropy, false)?;
        let lse = out.lse.map(|t| self.output("lse", t, false)).transpose()?;
        let ranks = Ranks::new(self, checked.classes, out.argmax, out.rank)?;
        let logits = logits.map(|t| self.output("logits", t, true)).transpose()?;
        let call = Call::new(self, checked, upstream)?;
        call.fill(checked, &mut args)?;
        (args.loss, args.z_loss) = (logprob.address, entropy.address);
        args.lse = lse.as_ref().map_or(0, |t| t.address);
        ranks.fill(&mut args);

        let written = match &logits {
            Some(x) => {
                let lines = lines(checked, &x.shape, x.row_stride);
                let rows = self.rows_out(x, &lines, true)?;
                (args.x, args.y) = (rows.address, rows.address);
                (args.x_stride, args.y_stride) = (rows.stride as i64, rows.stride as i64);
                Some((rows, lines))
            }
            None => None,
        };
        let work = if written.is_some() { Work::Fused } else { Work::Forward };
        let loss = if ranks.wanted() { Loss::LogprobEntropyRanked } else { Loss::LogprobEntropy };
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { self.go(loss, data(checked.dtype)?, work, args)? };
        if let (Some((rows, lines)), Some(x)) = (written, &logits) {
            self.settle(rows, x, &lines)?;
        }
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
        let x = self.input("logits", logits)?;
        let rows = self.rows_in(&x, &lines(checked, &x.shape, x.row_stride))?;
        let from = Some((rows.address, rows.stride));
        self.token_gradient(checked, from, lse, &upstream, grad_logits)
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
        from: Option<(u64, usize)>,
        lse: TensorRef<'_>,
        upstream: &LogprobEntropyUpstream<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let lse = self.input("lse", lse)?;
        let grad = self.output("grad_logits", grad_logits, from.is_none())?;
        let call = Call::new(self, checked, upstream)?;
        let lines = lines(checked, &grad.shape, grad.row_stride);
        let rows = self.rows_out(&grad, &lines, from.is_none())?;
        let (x, x_stride) = from.unwrap_or((rows.address, rows.stride));
        let mut args = RowArgs {
            x,
            x_stride: x_stride as i64,
            y: rows.address,
            y_stride: rows.stride as i64,
            lse: lse.address,
            ..RowArgs::default()
        };
        call.fill(checked, &mut args)?;
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        unsafe { self.go(Loss::LogprobEntropy, data(checked.dtype)?, Work::FromLse, args)? };
        self.settle(rows, &grad, &lines)?;
        self.read_back([Some(grad)])
    }
}
