//! Which divergence lies between a model's distribution Q and a teacher's P.

use crate::base::error::Result;
use crate::spec::js_div::check_beta;

/// How far a model's distribution Q is from a teacher's P.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Divergence {
    /// KL(P‖Q) = Σ P·ln(P/Q): the model has to be likely wherever the teacher is.
    Kl,
    /// KL(Q‖P) = Σ Q·ln(Q/P): the model has to be unlikely wherever the teacher is.
    ReverseKl,
    /// Generalised Jensen–Shannon divergence, with β in [0, 1] the teacher's share of the mixture; 0 is
    /// [`Divergence::Kl`], 1 [`Divergence::ReverseKl`].
    Js(f32),
    /// ½·Σ |P − Q|, at most 1: the probability that cannot be shared. A class of P = Q has no slope.
    TotalVariation,
}

impl Divergence {
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Divergence::Js(beta) => check_beta(beta),
            Divergence::Kl | Divergence::ReverseKl | Divergence::TotalVariation => Ok(()),
        }
    }

    /// β of the Jensen–Shannon divergence that this is; of one that it is not, more than 1.
    pub(crate) fn beta(self) -> f32 {
        match self {
            Divergence::Kl => 0.0,
            Divergence::ReverseKl => 1.0,
            Divergence::Js(beta) => beta,
            Divergence::TotalVariation => 2.0,
        }
    }
}
