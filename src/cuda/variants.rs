//! The one table of kernels: what is compiled and what a launch looks up are both made of it.
//!
//! Used by the build script too, so it knows nothing of the rest of the crate.

// Paths of their own, as the build script has this file elsewhere in its tree.
#[path = "variants/batch.rs"]
mod batch;
#[path = "variants/elementwise.rs"]
mod elementwise;
#[path = "variants/module.rs"]
mod module;

pub(crate) use batch::{BATCH_THREADS, Batch};
pub(crate) use elementwise::{ELEMENT_THREADS, ElementEntry, ElementLoss};
pub(crate) use module::Module;

/// Bytes of one vector access.
pub(crate) const PACK_BYTES: usize = 16;

/// Element types of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Data {
    F32,
    F16,
    BF16,
}

impl Data {
    pub(crate) const ALL: [Data; 3] = [Data::F32, Data::F16, Data::BF16];

    /// Elements of a pack.
    pub(crate) const fn lanes(self) -> usize {
        PACK_BYTES / self.size()
    }

    pub(crate) const fn size(self) -> usize {
        match self {
            Data::F32 => 4,
            Data::F16 | Data::BF16 => 2,
        }
    }

    /// The type's name in the kernels and in symbols.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Data::F32 => "f32",
            Data::F16 => "f16",
            Data::BF16 => "bf16",
        }
    }
}

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

    const fn symbol(self) -> &'static str {
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
    fn functor(self, data: Data) -> String {
        let t = data.name();
        match self {
            Loss::CrossEntropy => format!("CrossEntropy<{t}, false>"),
            Loss::CrossEntropyFull => format!("CrossEntropy<{t}, true>"),
            Loss::LogSoftmax => format!("LogSoftmax<{t}, f32>"),
            Loss::LogSoftmaxNarrow => format!("LogSoftmax<{t}, {t}>"),
            Loss::LogSoftmaxGradient => format!("LogSoftmaxGradient<{t}, f32>"),
            Loss::LogSoftmaxGradientNarrow => format!("LogSoftmaxGradient<{t}, {t}>"),
            Loss::LogSumExp => format!("LogSumExp<{t}>"),
            Loss::CrossEntropyRanked => format!("Ranked<CrossEntropy<{t}, true>>"),
            Loss::LogprobEntropy => format!("LogprobEntropy<{t}>"),
            Loss::LogprobEntropyRanked => format!("Ranked<LogprobEntropy<{t}>>"),
            Loss::SoftCrossEntropy => format!("SoftCrossEntropy<{t}, false, false>"),
            Loss::SoftCrossEntropyFull => format!("SoftCrossEntropy<{t}, false, true>"),
            Loss::Distillation => format!("SoftCrossEntropy<{t}, true, true>"),
            Loss::JsDivLogits => format!("JsDivLogits<{t}>"),
            Loss::Information => format!("InformationOf<{t}>"),
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
    const fn wide(self) -> bool {
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
    const fn has(self, entry: Entry) -> bool {
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
                | Entry::SplitTarget => false,
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

/// A schedule's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Entry {
    FewForward,
    FewGradient,
    WarpForward,
    WarpGradient,
    Stream,
    Block,
    /// From sm_90 on.
    Cluster,
    SplitSum,
    /// Sums that need the whole row's state.
    SplitSecond,
    SplitFinish,
    SplitGradient,
    /// Gradient from a saved lse: one read.
    SplitBackward,
    /// The target's element of it.
    SplitTarget,
}

impl Entry {
    pub(crate) const ALL: [Entry; 13] = [
        Entry::FewForward,
        Entry::FewGradient,
        Entry::WarpForward,
        Entry::WarpGradient,
        Entry::Stream,
        Entry::Block,
        Entry::Cluster,
        Entry::SplitSum,
        Entry::SplitSecond,
        Entry::SplitFinish,
        Entry::SplitGradient,
        Entry::SplitBackward,
        Entry::SplitTarget,
    ];

    const fn symbol(self) -> &'static str {
        match self {
            Entry::FewForward => "few_forward",
            Entry::FewGradient => "few_gradient",
            Entry::WarpForward => "warp_forward",
            Entry::WarpGradient => "warp_gradient",
            Entry::Stream => "stream",
            Entry::Block => "block",
            Entry::Cluster => "cluster",
            Entry::SplitSum => "split_sum",
            Entry::SplitSecond => "split_second",
            Entry::SplitFinish => "split_finish",
            Entry::SplitGradient => "split_gradient",
            Entry::SplitBackward => "split_backward",
            Entry::SplitTarget => "split_target",
        }
    }

    /// The body in `row.cuh`, given a functor.
    fn body(self, functor: &str) -> String {
        match self {
            Entry::FewForward => format!("lanes_row<{functor}, 4, false>"),
            Entry::FewGradient => format!("lanes_row<{functor}, 4, true>"),
            Entry::WarpForward => format!("lanes_row<{functor}, 32, false>"),
            Entry::WarpGradient => format!("lanes_row<{functor}, 32, true>"),
            Entry::Stream => format!("stream_row<{functor}>"),
            Entry::Block => format!("on_chip_row<{functor}, false>"),
            Entry::Cluster => format!("on_chip_row<{functor}, true>"),
            Entry::SplitSum => format!("split_sum<{functor}>"),
            Entry::SplitSecond => format!("split_second<{functor}>"),
            Entry::SplitFinish => format!("split_finish<{functor}>"),
            Entry::SplitGradient => format!("split_gradient<{functor}>"),
            Entry::SplitBackward => format!("split_backward<{functor}>"),
            Entry::SplitTarget => format!("split_target<{functor}>"),
        }
    }

    /// Most threads of a block, and blocks that a multiprocessor shall hold at the least.
    const fn bounds(self) -> (u32, u32) {
        match self {
            Entry::FewForward
            | Entry::FewGradient
            | Entry::WarpForward
            | Entry::WarpGradient
            | Entry::SplitFinish
            | Entry::SplitTarget => (128, 8),
            Entry::Stream
            | Entry::Block
            | Entry::Cluster
            | Entry::SplitSum
            | Entry::SplitSecond
            | Entry::SplitGradient
            | Entry::SplitBackward => (512, 2),
        }
    }
}

impl Entry {
    /// Threads of a launch whose row schedule has `threads` a block.
    pub(crate) const fn block(self, threads: u32) -> u32 {
        match self {
            Entry::SplitFinish | Entry::SplitTarget => self.bounds().0,
            _ => threads,
        }
    }
}

/// One kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Variant {
    Row(Loss, Entry, Data),
    Element(ElementLoss, ElementEntry, Data),
    Batch(Batch),
}

impl Variant {
    /// The table.
    pub(crate) fn all() -> Vec<Variant> {
        let mut all: Vec<Variant> = Batch::ALL.iter().map(|&b| Variant::Batch(b)).collect();
        for loss in Loss::ALL {
            for entry in Entry::ALL.into_iter().filter(|&e| loss.has(e)) {
                for data in Data::ALL {
                    let narrow =
                        matches!(loss, Loss::LogSoftmaxNarrow | Loss::LogSoftmaxGradientNarrow);
                    // In the input's own type f32 is the plain variant.
                    if !(narrow && data == Data::F32) {
                        all.push(Variant::Row(loss, entry, data));
                    }
                }
            }
        }
        for loss in ElementLoss::ALL {
            for entry in ElementEntry::ALL {
                all.extend(Data::ALL.map(|data| Variant::Element(loss, entry, data)));
            }
        }
        all
    }

    pub(crate) fn module(self) -> Module {
        match self {
            Variant::Row(loss, ..) => loss.module(),
            Variant::Element(loss, ..) => loss.module(),
            Variant::Batch(batch) => batch.module(),
        }
    }

    /// Whether the architecture has what the kernel needs.
    #[allow(dead_code)] // The build script's.
    pub(crate) fn runs_on(self, arch: u32) -> bool {
        arch >= 90 || !matches!(self, Variant::Row(_, Entry::Cluster, _))
    }

    /// The kernel's name in a compiled module.
    pub(crate) fn symbol(self) -> String {
        match self {
            Variant::Row(loss, entry, data) => {
                format!("{}_{}_{}", loss.symbol(), entry.symbol(), data.name())
            }
            Variant::Element(loss, entry, data) => elementwise::symbol(loss, entry, data),
            Variant::Batch(batch) => batch.body().into(),
        }
    }

    /// Most threads of a block, and blocks that a multiprocessor shall hold at the least.
    pub(crate) fn bounds(self) -> (u32, u32) {
        match self {
            Variant::Row(loss, entry, data) => {
                let (threads, blocks) = entry.bounds();
                // The options' terms need more registers than so many blocks leave, and so do
                // rows in registers beside targets, or a gradient beside a tensor of a larger type.
                let large = loss.wide()
                    || match entry {
                        Entry::FewForward | Entry::WarpForward => loss == Loss::SoftCrossEntropy,
                        Entry::FewGradient | Entry::WarpGradient => {
                            loss == Loss::SoftCrossEntropy || loss.beside(data) > 1
                        }
                        _ => false,
                    };
                (threads, if large { blocks / 2 } else { blocks })
            }
            Variant::Element(_, entry, _) => (ELEMENT_THREADS, entry.blocks()),
            // Tiles wait for memory alone, and more of them at once hide it.
            Variant::Batch(Batch::PermuteTiled) => (BATCH_THREADS, 4),
            // While one block waits for its tile, another multiplies.
            Variant::Batch(batch) if batch.module() == Module::LinearSoftmax => (BATCH_THREADS, 2),
            Variant::Batch(_) => (BATCH_THREADS, 1),
        }
    }

    /// The line that makes the kernel of its module's templates.
    pub(crate) fn instance(self) -> String {
        let (threads, blocks) = self.bounds();
        let body = match self {
            Variant::Row(loss, entry, data) => entry.body(&loss.functor(data)),
            Variant::Element(loss, entry, data) => elementwise::body(loss, entry, data),
            Variant::Batch(batch) => format!("{}_body", batch.body()),
        };
        let args = self.module().arguments();
        format!("WL_KERNEL({}, {args}, {threads}, {blocks}) {{ {body}(args); }}", self.symbol())
    }

    /// A translation unit of some kernels of one module.
    pub(crate) fn source(module: Module, variants: &[Variant]) -> String {
        let mut text = format!("#include \"{}\"\n", module.file());
        for variant in variants.iter().filter(|v| v.module() == module) {
            text.push_str(&variant.instance());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_names_of_their_own_and_a_module_has_them_all() {
        let all = Variant::all();
        let mut names: Vec<_> = all.iter().map(|v| v.symbol()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let units: String = Module::ALL.iter().map(|&m| Variant::source(m, &all)).collect();
        assert!(names.iter().all(|name| units.contains(&format!("WL_KERNEL({name},"))));
    }
}
