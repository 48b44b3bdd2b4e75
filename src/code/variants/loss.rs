//! Losses of rows, as functors of the kernels: the one table of them.

use super::elementwise::snake;
use super::entry::{
    FORWARD, GRADIENT, NEIGHBOURS, SAVED, SECOND, STATES, TWICE, WRITTEN_NEIGHBOURS,
};
use super::{Data, Entry, Module};

/// What the table knows of a functor besides its name in the kernels and its file.
struct Facts {
    /// Words of the functor's mergeable state (`State::WORDS`).
    words: usize,
    /// Words of the sums that need the whole row's state first (`Second::WORDS`); 0: there are none.
    second_words: usize,
    /// Whether its kernels need more registers than others.
    wide: bool,
    beside: Beside,
    /// The schedules that it has kernels of.
    entries: &'static [&'static [Entry]],
}

/// Another tensor that is read beside logits.
enum Beside {
    None,
    /// Of the logits' type.
    Same,
    F32,
}

/// Unless a row says otherwise: a maximum and a sum.
const PLAIN: Facts = Facts {
    words: 2,
    second_words: 0,
    wide: false,
    beside: Beside::None,
    entries: &[FORWARD, GRADIENT, TWICE, NEIGHBOURS],
};

/// A row: the functor, what it is over (`{t}` being the element type, `{narrow}` whether that has 16
/// bits), its source file, and what else is to be known of it.
macro_rules! losses {
    ($($(#[$doc:meta])* $name:ident = $over:literal in $module:ident {
        $($fact:ident: $value:expr,)*
    })*) => {
        /// What a row is reduced to and what is written of it: a functor of the kernels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Loss {
            $($(#[$doc])* $name,)*
        }

        impl Loss {
            pub(crate) const ALL: &'static [Loss] = &[$(Loss::$name),*];

            const fn name(self) -> &'static str {
                match self {
                    $(Loss::$name => stringify!($name),)*
                }
            }

            const fn over(self) -> &'static str {
                match self {
                    $(Loss::$name => $over,)*
                }
            }

            pub(crate) const fn module(self) -> Module {
                match self {
                    $(Loss::$name => Module::$module,)*
                }
            }

            #[allow(clippy::needless_update)] // A row may say all.
            const fn facts(self) -> Facts {
                match self {
                    $(Loss::$name => Facts { $($fact: $value,)* ..PLAIN },)*
                }
            }
        }
    };
}

losses! {
    /// Nothing but class weights, ignored rows, a logit scale and a z-loss.
    CrossEntropy = "CrossEntropy<WL_PLAIN>, {t}" in CrossEntropy {
        entries: &[FORWARD, GRADIENT, TWICE, SAVED, STATES, NEIGHBOURS],
    }
    /// Soft-cap and label smoothing as well.
    CrossEntropyFull = "CrossEntropy<WL_OPTIONS>, {t}" in CrossEntropy {
        words: 4,
        wide: true,
        entries: &[FORWARD, GRADIENT, TWICE, SAVED, STATES, NEIGHBOURS],
    }
    /// The first of logits that lack a bias, which are f32.
    CrossEntropyBiased = "Biased<CrossEntropy<WL_PLAIN>>, {t}" in CrossEntropy {
        beside: Beside::Same,
        entries: &[FORWARD, GRADIENT, TWICE],
    }
    /// Log-probabilities in f32.
    LogSoftmax = "LogSoftmax, {t}, f32" in LogSoftmax {
        entries: &[GRADIENT, TWICE, WRITTEN_NEIGHBOURS],
    }
    /// Log-probabilities in the input's type.
    LogSoftmaxNarrow = "LogSoftmax, {t}" in LogSoftmax {
        entries: &[GRADIENT, TWICE, WRITTEN_NEIGHBOURS],
    }
    /// Those of logits that lack a bias, which are f32.
    LogSoftmaxBiased = "Biased<LogSoftmax>, {t}" in LogSoftmax {
        beside: Beside::Same,
        entries: &[GRADIENT, TWICE],
    }
    /// Gradient of a log-softmax whose upstream gradient is f32.
    LogSoftmaxGradient = "LogSoftmaxGradient, {t}, {t}, f32" in LogSoftmax {
        words: 3,
        beside: Beside::F32,
        entries: &[GRADIENT, TWICE, WRITTEN_NEIGHBOURS],
    }
    /// The same with an upstream gradient of the input's type.
    LogSoftmaxGradientNarrow = "LogSoftmaxGradient, {t}" in LogSoftmax {
        words: 3,
        beside: Beside::Same,
        entries: &[GRADIENT, TWICE, WRITTEN_NEIGHBOURS],
    }
    /// Log-sum-exp, and its gradient.
    LogSumExp = "LogSumExp, {t}" in LogSumExp {}
    /// Cross entropy with every option, argmax and the target's rank.
    CrossEntropyRanked = "Ranked<CrossEntropy<WL_OPTIONS>>, {t}" in CrossEntropy {
        words: 7,
        wide: true,
    }
    /// Cross entropy with every option, log-probability, entropy and their gradients.
    CrossEntropyTokens = "CrossEntropy<WL_TOKENS>, {t}" in CrossEntropy {
        words: 5,
        wide: true,
    }
    /// The same with argmax and the target's rank.
    CrossEntropyTokensRanked = "Ranked<CrossEntropy<WL_TOKENS>>, {t}" in CrossEntropy {
        words: 8,
        wide: true,
    }
    /// And with the likeliest classes. Without a gradient too: numbers alone are written then.
    CrossEntropyTop = "Top<Ranked<CrossEntropy<WL_TOKENS>>>, {t}" in CrossEntropy {
        words: 24,
        second_words: 32,
        wide: true,
        entries: &[GRADIENT, SECOND],
    }
    /// Log-probability of the target and entropy.
    LogprobEntropy = "LogprobEntropy, {t}" in LogprobEntropy {
        words: 3,
        entries: &[FORWARD, GRADIENT, TWICE, SAVED, NEIGHBOURS],
    }
    /// The same with argmax and the target's rank.
    LogprobEntropyRanked = "Ranked<LogprobEntropy>, {t}" in LogprobEntropy {
        words: 6,
        wide: true,
    }
    /// Against probabilities: nothing but a logit scale and a z-loss.
    SoftCrossEntropy = "SoftCrossEntropy<false, false>, {t}" in SoftCrossEntropy {
        words: 4,
        beside: Beside::Same,
    }
    /// All options, and the gradient of the probabilities.
    SoftCrossEntropyFull = "SoftCrossEntropy<false, true>, {t}" in SoftCrossEntropy {
        words: 4,
        wide: true,
        beside: Beside::Same,
    }
    /// Against a teacher's logits, with all options.
    Distillation = "SoftCrossEntropy<true, true>, {t}" in SoftCrossEntropy {
        words: 9,
        wide: true,
        beside: Beside::Same,
    }
    /// Jensen–Shannon divergence from a teacher's logits. Without a gradient too: numbers alone are written
    /// then.
    JsDivLogits = "JsDivLogits<{narrow}>, {t}" in JsDivLogits {
        words: 5,
        second_words: 3,
        wide: true,
        beside: Beside::Same,
        entries: &[GRADIENT, SECOND],
    }
    /// What other scores lack of a margin.
    MultiMargin = "MultiMargin, {t}" in MultiMargin {}
    /// Entropy and its kin, of probabilities.
    Information = "InformationOf<{narrow}>, {t}" in Information {
        words: 1,
        beside: Beside::Same,
        entries: &[FORWARD],
    }
}

impl Loss {
    pub(super) fn symbol(self) -> String {
        // One word, as the function is called.
        if self == Loss::LogSumExp { "logsumexp".into() } else { snake(self.name()) }
    }

    /// The functor over elements of a type.
    pub(super) fn functor(self, data: Data) -> String {
        let narrow = if data.size() == 2 { "true" } else { "false" };
        let over = self.over().replace("{t}", data.name()).replace("{narrow}", narrow);
        format!("Over<{over}>")
    }

    pub(crate) const fn words(self) -> usize {
        self.facts().words
    }

    pub(crate) const fn second_words(self) -> usize {
        self.facts().second_words
    }

    /// Bytes of shared memory that its kernels of rows on chip have besides the rows: a state a warp, and a
    /// cluster's of each round.
    #[allow(dead_code)] // Launches ask, the build script does not.
    pub(crate) const fn static_shared(self) -> usize {
        let (words, second) = (self.words(), self.second_words());
        let (largest, rounds) =
            (if words > second { words } else { second }, 1 + (second > 0) as usize);
        32 * 4 * largest + rounds * 16 * 8 * largest.div_ceil(2) + 512
    }

    pub(super) const fn wide(self) -> bool {
        self.facts().wide
    }

    /// Packs of another tensor that lie beside one pack of logits (`Beside::PACKS`).
    pub(crate) const fn beside(self, data: Data) -> usize {
        match self.facts().beside {
            Beside::None => 0,
            Beside::Same => 1,
            Beside::F32 => data.lanes() / Data::F32.lanes(),
        }
    }

    /// Whether it has kernels over elements of this type.
    pub(super) const fn takes(self, data: Data) -> bool {
        let wide = matches!(data, Data::F32);
        match self {
            // In the input's own type f32 is the plain variant.
            Loss::LogSoftmaxNarrow | Loss::LogSoftmaxGradientNarrow => !wide,
            Loss::CrossEntropyBiased | Loss::LogSoftmaxBiased => wide,
            _ => true,
        }
    }

    /// Whether the schedule's entry is a kernel of this loss.
    pub(crate) fn has(self, entry: Entry) -> bool {
        self.facts().entries.iter().any(|of| of.contains(&entry))
    }
}
