//! Options of cross entropy, and of log-probability and entropy, wherever logits come from.

use crate::base::reduction::Reduction;
use crate::cli::failure::Failure;
use crate::cli::file::Input;
use crate::cli::number::zero_or_f32;
use crate::spec::cross_entropy::CrossEntropy;
use crate::spec::grad_output::GradOutput;
use crate::spec::logprob_entropy::{LogprobEntropy, LogprobEntropyUpstream};
use clap::Args;

/// What the loss does with logits and labels.
#[derive(Debug, Args)]
pub(super) struct OfLogits {
    /// The label of rows that do not count
    #[arg(long, value_name = "LABEL", default_value_t = -100, allow_hyphen_values = true)]
    pub(super) ignore_index: i64,

    /// In [0, 1]: mix the target with the uniform distribution
    #[arg(long, value_name = "E", default_value_t = 0.0, allow_hyphen_values = true)]
    label_smoothing: f64,

    /// Add this times the square of the row's log-sum-exp
    #[arg(long, value_name = "L", default_value_t = 0.0, allow_hyphen_values = true)]
    z_loss: f64,

    /// Cap the logits smoothly at ±C, as C·tanh(x/C); 0: no cap
    #[arg(long, value_name = "C", default_value_t = 0.0, allow_hyphen_values = true, value_parser = zero_or_f32)]
    softcap: f32,

    /// Multiply the logits by this first (an inverse temperature)
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_hyphen_values = true)]
    pub(super) logit_scale: f32,
}

impl OfLogits {
    /// The first option that is not as by default, and that a divergence does not have.
    pub(super) fn of_targets(&self) -> Option<&'static str> {
        let said = [
            ("--label-smoothing", self.label_smoothing != 0.0),
            ("--z-loss", self.z_loss != 0.0),
            ("--softcap", self.softcap != 0.0),
        ];
        said.into_iter().find(|(_, said)| *said).map(|(name, _)| name)
    }

    pub(super) fn options(&self, reduction: Reduction) -> CrossEntropy<'static> {
        CrossEntropy::default()
            .reduction(reduction)
            .ignore_index(self.ignore_index)
            .label_smoothing(self.label_smoothing)
            .lse_square_scale(self.z_loss)
            .logit_scale(self.logit_scale)
            .softcap((self.softcap != 0.0).then_some(self.softcap))
    }
}

/// What log-probability and entropy do with logits and labels.
#[derive(Debug, Args)]
pub(super) struct OfTokens {
    /// The label of rows that do not count
    #[arg(long, value_name = "LABEL", default_value_t = -100, allow_hyphen_values = true)]
    pub(super) ignore_index: i64,

    /// Cap the logits smoothly at ±C, as C·tanh(x/C); 0: no cap
    #[arg(long, value_name = "C", default_value_t = 0.0, allow_hyphen_values = true, value_parser = zero_or_f32)]
    softcap: f32,

    /// Multiply the logits by this first (an inverse temperature)
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_hyphen_values = true)]
    logit_scale: f32,

    /// Write argmax (the best class) and rank (classes that beat the target) too, i64, one per row
    #[arg(long)]
    pub(super) ranks: bool,
}

impl OfTokens {
    pub(super) fn options(&self) -> LogprobEntropy {
        LogprobEntropy::default()
            .ignore_index(self.ignore_index)
            .logit_scale(self.logit_scale)
            .softcap((self.softcap != 0.0).then_some(self.softcap))
    }

    /// Upstream gradients of log-probability and entropy; 1 and 0 where the file has none.
    pub(super) fn upstream<'a>(
        &self,
        [logprob, entropy]: &'a [Option<Input<'_>>; 2],
    ) -> Result<LogprobEntropyUpstream<'a>, Failure> {
        let mut given = LogprobEntropyUpstream::default();
        if let Some(tensor) = logprob {
            given.grad_logprob = GradOutput::Tensor(tensor.view()?);
        }
        if let Some(tensor) = entropy {
            given.grad_entropy = GradOutput::Tensor(tensor.view()?);
        }
        Ok(given)
    }
}
