//! The one table of what is computed of an element. The build script uses it too, so it knows nothing
//! of the rest of the crate.

/// Hands the table to a macro. A row is a functor's name on every device, and the file that has it,
/// both in `cpu/loss/` and in `kernels/loss/`.
macro_rules! each_functor {
    ($then:ident) => {
        $then! {
            /// (x − y)².
            Mse in mse,
            /// |x − y|.
            L1 in l1,
            /// With c = min(|x − y|, threshold): c·(|x − y| − c/2) / divisor. Options: threshold,
            /// divisor. Smooth L1 divides by its threshold, Huber by 1.
            Huber in huber,
            /// Binary cross entropy of a logit x and a probability y.
            BceWithLogits in bce_with_logits,
            /// y·(ln y − x).
            KlDiv in kl_div,
            /// e^y·(y − x).
            KlDivLogTarget in kl_div,
            /// e^x·(x − y).
            KlDivReversed in js_div,
            /// β·e^y·(y − ln M) + (1 − β)·e^x·(x − ln M), M = β·e^y + (1 − β)·e^x. Option: β inside
            /// (0, 1).
            JsDiv in js_div,
            /// ln(1 + e^(−x·y)).
            SoftMargin in soft_margin,
            /// x unless y is −1, and max(0, margin − x) unless y is 1. Option: margin.
            HingeEmbedding in hinge_embedding,
            /// −y·ln x − (1 − y)·ln(1 − x) of a probability x, logarithms at least −100.
            Bce in bce,
            /// e^x − x·y. Options: whether Stirling's terms are added, (none).
            PoissonNll in poisson_nll,
            /// x − y·ln(x + ε). Options: whether Stirling's terms are added, ε.
            PoissonNllOfRate in poisson_nll,
            /// α_y·u^2·binary cross entropy of a logit x, u = (1 − y)·σ(x) + y·σ(−x). Option: α, below 0
            /// for none.
            SigmoidFocal in sigmoid_focal,
            /// The same with u^γ. Options: α, γ.
            SigmoidFocalOfPower in sigmoid_focal,
            /// ½(ln v + (x − y)²/v) of a third number r, v = max(r, ε). Options: ε, whether ½·ln 2π is added.
            GaussianNll in gaussian_nll,
        }
    };
}
#[allow(unused_imports)] // The devices', not the build script's.
pub(crate) use each_functor;

macro_rules! functors {
    ($($(#[$doc:meta])* $name:ident in $file:ident,)*) => {
        /// What is computed of an element.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Functor {
            $($(#[$doc])* $name,)*
        }

        #[allow(dead_code)] // Kernels are made of it.
        impl Functor {
            pub(crate) const ALL: &'static [Functor] = &[$(Functor::$name),*];

            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Functor::$name => stringify!($name),)*
                }
            }

            /// The file of its kernels, as `folder/name` under `kernels/`.
            pub(crate) const fn file(self) -> &'static str {
                match self {
                    $(Functor::$name => concat!("loss/", stringify!($file), ".cu"),)*
                }
            }
        }
    };
}

each_functor!(functors);
