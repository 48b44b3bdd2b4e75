//! The one catalogue of losses: a row each. What goes through all losses (`warploss check`, `eval`
//! and `bench`, random calls, digests, tests) goes through this table; a new loss is a row here and a
//! file in `ops/`.
//!
//! Three lists of losses remain, because they list three things. [`Op`]: what a caller can ask for.
//! The kernels' `Loss`: functors, several to an op, known to the build script. The elementwise
//! `Formula`: what devices compute of an element, on which several ops and options meet.

#[cfg(feature = "cli")]
use super::bench::Measured;
use super::call::Call;
#[cfg(feature = "cli")]
use super::call::Setting;
use super::call::bound::Bound;
use super::call::draft::Draft;
use super::case::Case;
use super::elementwise::Description;
use super::entry::Entry;
#[cfg(feature = "cli")]
use super::entry::Evaluated;
use super::ops;
use crate::base::error::Result;
#[cfg(feature = "cli")]
use crate::base::tensor::{Tensor, TensorRef};
#[cfg(feature = "cli")]
use crate::device::Device;

/// A variant, in the order of the command line, and its entry.
macro_rules! catalogue {
    ($($(#[$doc:meta])* $variant:ident $entry:path,)*) => {
        /// A loss, a function of rows, or a layer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op {
            $($(#[$doc])* $variant,)*
        }

        impl Op {
            /// Every op.
            pub const ALL: &[Op] = &[$(Op::$variant),*];

            pub(super) const fn entry(self) -> &'static Entry {
                match self {
                    $(Op::$variant => &$entry,)*
                }
            }
        }
    };
}

catalogue! {
    /// [`crate::CrossEntropy`].
    CrossEntropy ops::cross_entropy::ENTRY,
    /// [`crate::LogSoftmax`].
    LogSoftmax ops::log_softmax::ENTRY,
    /// [`crate::LogSumExp`].
    LogSumExp ops::logsumexp::ENTRY,
    /// [`crate::LogprobEntropy`].
    LogprobEntropy ops::logprob_entropy::ENTRY,
    /// [`crate::Nll`].
    Nll ops::nll::ENTRY,
    /// [`crate::CrossEntropy`] against probabilities or a teacher's logits.
    SoftCrossEntropy ops::soft_cross_entropy::ENTRY,
    /// [`crate::Mse`].
    Mse ops::mse::ENTRY,
    /// [`crate::L1`].
    L1 ops::l1::ENTRY,
    /// [`crate::SmoothL1`].
    SmoothL1 ops::smooth_l1::ENTRY,
    /// [`crate::Huber`].
    Huber ops::huber::ENTRY,
    /// [`crate::BceWithLogits`].
    BceWithLogits ops::bce_with_logits::ENTRY,
    /// [`crate::KlDiv`].
    KlDiv ops::kl_div::ENTRY,
    /// [`crate::JsDiv`].
    JsDiv ops::js_div::ENTRY,
    /// [`crate::JsDivLogits`].
    JsDivLogits ops::js_div_logits::ENTRY,
    /// [`crate::AdaptiveLogSoftmax`].
    AdaptiveLogSoftmax ops::adaptive_log_softmax::ENTRY,
    /// [`crate::AdaptiveEmbedding`].
    AdaptiveEmbedding ops::adaptive_embedding::ENTRY,
    /// [`crate::SampledSoftmax`].
    SampledSoftmax ops::sampled_softmax::ENTRY,
    /// The functions of [`crate::information`].
    Information ops::information::ENTRY,
    /// [`crate::SoftMargin`].
    SoftMargin ops::soft_margin::ENTRY,
    /// [`crate::HingeEmbedding`].
    HingeEmbedding ops::hinge_embedding::ENTRY,
    /// [`crate::Bce`].
    Bce ops::bce::ENTRY,
    /// [`crate::PoissonNll`].
    PoissonNll ops::poisson_nll::ENTRY,
    /// [`crate::SigmoidFocal`].
    SigmoidFocal ops::sigmoid_focal::ENTRY,
    /// [`crate::MultiMargin`].
    MultiMargin ops::multi_margin::ENTRY,
    /// [`crate::GaussianNll`].
    GaussianNll ops::gaussian_nll::ENTRY,
    /// [`crate::LinearCrossEntropy`].
    LinearCrossEntropy ops::linear_cross_entropy::ENTRY,
    /// [`crate::LinearLogprobEntropy`].
    LinearLogprobEntropy ops::linear_logprob_entropy::ENTRY,
    /// [`crate::SubsetCrossEntropy`], and [`crate::LinearCrossEntropy`] over lists of classes.
    SubsetCrossEntropy ops::class_subset::ENTRY,
    /// [`crate::LinearDistillation`].
    LinearDistillation ops::linear_distillation::ENTRY,
}

impl Op {
    /// The name as the command line has it.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Whether cases can be made of any shape of the first tensor, as long as it has rows: of all but
    /// layers, whose inputs have the features that their parameters say.
    pub const fn takes_shape(self) -> bool {
        !self.entry().traits.layer
    }

    /// How `eval` computes it, where that follows from its calls.
    #[cfg(feature = "cli")]
    pub(crate) fn evaluated(self) -> Option<&'static Evaluated> {
        self.entry().evaluated.as_ref()
    }

    /// Makes a call by name, of tensors by name, and returns its results by name.
    ///
    /// # Errors
    /// The engine's.
    #[cfg(feature = "cli")]
    pub(crate) fn call(
        self,
        form: &'static str,
        device: &Device,
        settings: Vec<Setting>,
        read: Vec<(&str, TensorRef<'_>)>,
    ) -> Result<Vec<(String, Tensor)>> {
        let call = Call { form, settings, ..Call::new(self.name(), 0) };
        let bound = Bound::of(&call, device, read);
        run(&bound)?;
        Ok(bound.results.into_inner())
    }

    /// What of it can be measured.
    #[cfg(feature = "cli")]
    pub(crate) fn measured(self) -> &'static [Measured] {
        self.entry().measured
    }

    /// A case: right, hard, and the same for the same seed.
    ///
    /// # Errors
    /// None, unless the views of this crate refuse the shapes made here.
    pub fn case(self, seed: u64) -> Result<Case> {
        self.case_of_shape(seed, None)
    }

    /// As [`Op::case`], with a first tensor of this shape, where one is given; for ops that take any
    /// ([`Op::takes_shape`]).
    ///
    /// # Errors
    /// As [`Op::case`].
    pub fn case_of_shape(self, seed: u64, shape: Option<&[usize]>) -> Result<Case> {
        let entry = self.entry();
        Case::new((entry.name, &entry.cases), (self.stream(), seed), shape)
    }

    /// A right call: the same for the same seed.
    pub(super) fn draft(self, seed: u64) -> Draft {
        let mut draft = Draft::new(self.name(), self.stream(), seed);
        (self.entry().calls.draw)(&mut draft);
        draft
    }

    /// Sets the numbers that ops draw from one seed apart: the place in the table. A new row stands at
    /// its end, so that the others' seeds go on to repeat what they did.
    const fn stream(self) -> u64 {
        self as u64
    }
}

/// The losses of one element of the input and one of the target, described.
pub fn elementwise() -> impl Iterator<Item = &'static Description> {
    Op::ALL.iter().filter_map(|op| op.entry().traits.elementwise)
}

/// The entry whose call this is.
///
/// # Panics
/// Of a call that no op drew.
pub(super) fn of(call: &Call) -> &'static Entry {
    let own = Op::ALL.iter().map(|op| op.entry()).find(|entry| entry.name == call.op);
    own.unwrap_or_else(|| panic!("{} is not in the catalogue", call.op))
}

/// Makes the call.
pub(super) fn run(b: &Bound<'_>) -> Result<()> {
    (of(b.call).calls.run)(b)
}
