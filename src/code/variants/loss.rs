//! Losses of rows, as functors of the kernels.

use super::{Data, Entry, Module};

/// What a row is reduced to and what is written of it: a functor of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// Nothing but class weights, ignored rows, a logit scale and a z-loss.
    CrossEntropy,
    /// Soft-cap and label smoothing as well.
    CrossEntropyFull,
    /// Log-probabilities in f32.
    LogSoftmax,
    /// Log-probabilities in the input's type.
    LogSoftmaxNarrow,
    /// Gradient of a log-softmax whose upstream gradient is f32.
    LogSoftmaxGradient,
    /// The same with an upstream gradient of the input's type.
    LogSoftmaxGradientNarrow,
    /// Log-sum-exp, and its gradient.
    LogSumExp,
    /// Cross entropy with every option, argmax and the target's rank.
    CrossEntropyRanked,
    /// Log-probability of the target and entropy.
    LogprobEntropy,
    /// The same with argmax and the target's rank.
    LogprobEntropyRanked,
    /// Against probabilities: nothing but a logit scale and a z-loss.
    SoftCrossEntropy,
    /// All options, and the gradient of the probabilities.
    SoftCrossEntropyFull,
    /// Against a teacher's logits, with all options.
    Distillation,
    /// Jensen–Shannon divergence from a teacher's logits.
    JsDivLogits,
    /// Entropy and its kin, of probabilities.
    Information,
}

impl Loss {
    pub(crate) const ALL: [Loss; 15] = [
        Loss::CrossEntropy,
        Loss::CrossEntropyFull,
        Loss::LogSoftmax,
        Loss::LogSoftmaxNarrow,
        Loss::LogSoftmaxGradient,
        Loss::LogSoftmaxGradientNarrow,
        Loss::LogSumExp,
        Loss::CrossEntropyRanked,
        Loss::LogprobEntropy,
        Loss::LogprobEntropyRanked,
        Loss::SoftCrossEntropy,
        Loss::SoftCrossEntropyFull,
        Loss::Distillation,
        Loss::JsDivLogits,
        Loss::Information,
    ];

    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Loss::CrossEntropy => "cross_entropy",
            Loss::CrossEntropyFull => "cross_entropy_full",
            Loss::LogSoftmax => "log_softmax",
            Loss::LogSoftmaxNarrow => "log_softmax_narrow",
            Loss::LogSoftmaxGradient => "log_softmax_gradient",
            Loss::LogSoftmaxGradientNarrow => "log_softmax_gradient_narrow",
            Loss::LogSumExp => "logsumexp",
            Loss::CrossEntropyRanked => "cross_entropy_ranked",
            Loss::LogprobEntropy => "logprob_entropy",
            Loss::LogprobEntropyRanked => "logprob_entropy_ranked",
            Loss::SoftCrossEntropy => "soft_cross_entropy",
            Loss::SoftCrossEntropyFull => "soft_cross_entropy_full",
            Loss::Distillation => "distillation",
            Loss::JsDivLogits => "js_div_logits",
            Loss::Information => "information",
        }
    }

    /// The functor over elements of a type.
    pub(super) fn functor(self, data: Data) -> String {
        let (t, narrow) = (data.name(), data.size() == 2);
        match self {
            Loss::CrossEntropy => format!("Over<CrossEntropy<false>, {t}>"),
            Loss::CrossEntropyFull => format!("Over<CrossEntropy<true>, {t}>"),
            Loss::LogSoftmax => format!("Over<LogSoftmax, {t}, f32>"),
            Loss::LogSoftmaxNarrow => format!("Over<LogSoftmax, {t}>"),
            Loss::LogSoftmaxGradient => format!("Over<LogSoftmaxGradient, {t}, {t}, f32>"),
            Loss::LogSoftmaxGradientNarrow => format!("Over<LogSoftmaxGradient, {t}>"),
            Loss::LogSumExp => format!("Over<LogSumExp, {t}>"),
            Loss::CrossEntropyRanked => format!("Over<Ranked<CrossEntropy<true>>, {t}>"),
            Loss::LogprobEntropy => format!("Over<LogprobEntropy, {t}>"),
            Loss::LogprobEntropyRanked => format!("Over<Ranked<LogprobEntropy>, {t}>"),
            Loss::SoftCrossEntropy => format!("Over<SoftCrossEntropy<false, false>, {t}>"),
            Loss::SoftCrossEntropyFull => format!("Over<SoftCrossEntropy<false, true>, {t}>"),
            Loss::Distillation => format!("Over<SoftCrossEntropy<true, true>, {t}>"),
            Loss::JsDivLogits => format!("Over<JsDivLogits<{narrow}>, {t}>"),
            Loss::Information => format!("Over<InformationOf<{narrow}>, {t}>"),
        }
    }

    /// Words of the functor's mergeable state (`State::WORDS`).
    pub(crate) const fn words(self) -> usize {
        match self {
            Loss::Information => 1,
            Loss::CrossEntropy | Loss::LogSoftmax | Loss::LogSoftmaxNarrow | Loss::LogSumExp => 2,
            Loss::LogSoftmaxGradient | Loss::LogSoftmaxGradientNarrow | Loss::LogprobEntropy => 3,
            Loss::CrossEntropyFull | Loss::SoftCrossEntropy | Loss::SoftCrossEntropyFull => 4,
            Loss::JsDivLogits => 5,
            Loss::LogprobEntropyRanked => 6,
            Loss::CrossEntropyRanked => 7,
            Loss::Distillation => 9,
        }
    }

    /// Words of the sums that need the whole row's state first (`Second::WORDS`); 0: there are none.
    pub(crate) const fn second_words(self) -> usize {
        match self {
            Loss::JsDivLogits => 3,
            _ => 0,
        }
    }

    /// Whether its kernels need more registers than others.
    pub(super) const fn wide(self) -> bool {
        matches!(
            self,
            Loss::CrossEntropyFull
                | Loss::CrossEntropyRanked
                | Loss::LogprobEntropyRanked
                | Loss::SoftCrossEntropyFull
                | Loss::Distillation
                | Loss::JsDivLogits
        )
    }

    /// Packs of another tensor that lie beside one pack of logits (`Beside::PACKS`).
    pub(crate) const fn beside(self, data: Data) -> usize {
        match self {
            Loss::LogSoftmaxGradient => data.lanes() / Data::F32.lanes(),
            Loss::LogSoftmaxGradientNarrow
            | Loss::SoftCrossEntropy
            | Loss::SoftCrossEntropyFull
            | Loss::Distillation
            | Loss::JsDivLogits
            | Loss::Information => 1,
            Loss::CrossEntropy
            | Loss::CrossEntropyFull
            | Loss::CrossEntropyRanked
            | Loss::LogprobEntropy
            | Loss::LogprobEntropyRanked
            | Loss::LogSoftmax
            | Loss::LogSoftmaxNarrow
            | Loss::LogSumExp => 0,
        }
    }

    /// The source file, which is a module of its own.
    pub(crate) const fn module(self) -> Module {
        match self {
            Loss::CrossEntropy | Loss::CrossEntropyFull | Loss::CrossEntropyRanked => {
                Module::CrossEntropy
            }
            Loss::LogSoftmax
            | Loss::LogSoftmaxNarrow
            | Loss::LogSoftmaxGradient
            | Loss::LogSoftmaxGradientNarrow => Module::LogSoftmax,
            Loss::LogSumExp => Module::LogSumExp,
            Loss::LogprobEntropy | Loss::LogprobEntropyRanked => Module::LogprobEntropy,
            Loss::SoftCrossEntropy | Loss::SoftCrossEntropyFull | Loss::Distillation => {
                Module::SoftCrossEntropy
            }
            Loss::JsDivLogits => Module::JsDivLogits,
            Loss::Information => Module::Information,
        }
    }

    /// Whether the schedule's entry is a kernel of this loss.
    pub(super) const fn has(self, entry: Entry) -> bool {
        if entry.of_states() {
            return matches!(self, Loss::CrossEntropy | Loss::CrossEntropyFull);
        }
        match self {
            Loss::CrossEntropy | Loss::CrossEntropyFull | Loss::LogprobEntropy => {
                !matches!(entry, Entry::SplitSecond)
            }
            Loss::Information => matches!(
                entry,
                Entry::FewForward
                    | Entry::WarpForward
                    | Entry::Stream
                    | Entry::SplitSum
                    | Entry::SplitFinish
            ),
            // Without a gradient too: numbers alone are written then.
            Loss::JsDivLogits => matches!(
                entry,
                Entry::FewGradient
                    | Entry::WarpGradient
                    | Entry::Block
                    | Entry::Cluster
                    | Entry::SplitSum
                    | Entry::SplitSecond
                    | Entry::SplitGradient
            ),
            Loss::LogSoftmax
            | Loss::LogSoftmaxNarrow
            | Loss::LogSoftmaxGradient
            | Loss::LogSoftmaxGradientNarrow => match entry {
                Entry::FewForward
                | Entry::WarpForward
                | Entry::Stream
                | Entry::SplitFinish
                | Entry::SplitSecond
                | Entry::SplitBackward
                | Entry::SplitTarget
                | Entry::State
                | Entry::StateFinish
                | Entry::StateSlopes
                | Entry::StateGradient => false,
                Entry::FewGradient
                | Entry::WarpGradient
                | Entry::Block
                | Entry::Cluster
                | Entry::SplitSum
                | Entry::SplitGradient => true,
            },
            Loss::LogSumExp
            | Loss::CrossEntropyRanked
            | Loss::LogprobEntropyRanked
            | Loss::SoftCrossEntropy
            | Loss::SoftCrossEntropyFull
            | Loss::Distillation => {
                !matches!(entry, Entry::SplitSecond | Entry::SplitBackward | Entry::SplitTarget)
            }
        }
    }
}
