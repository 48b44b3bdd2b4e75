//! Random cases of cross entropy.

use super::{CrossEntropyCase, Upstream, target_shape};
use crate::data::{Data, FLOATS, Logits, Rng};
use proptest::prelude::*;
use warploss::check::reference::Lines;
use warploss::{DType, Reduction};

/// What a random case is made from; printed when it fails.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) padding: usize,
    pub(crate) dtypes: (DType, DType),
    pub(crate) logits: Logits,
    pub(crate) weights: Weights,
    pub(crate) ignored: Ignored,
    pub(crate) upstream: UpstreamKind,
    pub(crate) reduction: Reduction,
    pub(crate) smoothing: f64,
    pub(crate) extensions: (f64, f32, Option<f32>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weights {
    None,
    /// In [0, 2), a fifth of them exactly 0, in f32 or in the logits' dtype.
    Positive(bool),
    /// Some negative.
    Mixed,
    Zero,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ignored {
    None,
    /// About every third row, its logits poisoned.
    Some,
    All,
    /// Label 0: a class like others.
    Class,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum UpstreamKind {
    One,
    Number,
    /// Per row where the loss is, NaN on ignored rows; in f32 or in the logits' dtype.
    Tensor(bool),
}

/// Sizes about the widths of vectors (8, 16, 32) and of blocks (2048, 4096).
const CLASSES: &[usize] = &[1, 2, 7, 8, 9, 16, 31, 33, 65, 100, 1000, 2047, 2048, 2049, 4097];

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    let classes = || prop::sample::select(CLASSES);
    // Where positions are many, classes are few.
    let few = || prop::sample::select(&CLASSES[..10]);
    prop_oneof![
        1 => classes().prop_map(|c| vec![c]),
        6 => (0usize..7, classes()).prop_map(|(n, c)| vec![n, c]),
        2 => (0usize..4, few(), 0usize..9).prop_map(|(n, c, d)| vec![n, c, d]),
        1 => (1usize..4, few(), 1usize..5, 1usize..4).prop_map(|(n, c, d, e)| vec![n, c, d, e]),
    ]
}

pub(crate) fn recipes() -> impl Strategy<Value = Recipe> {
    use prop::sample::select;
    let index = select(&[DType::I64, DType::I32, DType::U32, DType::U8][..]);
    let weights = prop_oneof![
        4 => Just(Weights::None),
        4 => any::<bool>().prop_map(Weights::Positive),
        2 => Just(Weights::Mixed),
        1 => Just(Weights::Zero),
    ];
    let ignored =
        select(&[Ignored::None, Ignored::Some, Ignored::Some, Ignored::All, Ignored::Class][..]);
    let upstream = prop_oneof![
        Just(UpstreamKind::One),
        Just(UpstreamKind::Number),
        any::<bool>().prop_map(UpstreamKind::Tensor),
    ];
    let extensions = prop_oneof![
        2 => Just((0.0, 1.0, None)),
        1 => Just((1e-2, 1.0, None)),
        1 => Just((0.0, 0.6, None)),
        1 => Just((0.0, 1.7, Some(5.0))),
        1 => Just((1e-4, 0.6, Some(30.0))),
    ];
    (
        any::<u64>(),
        shapes(),
        0usize..6,
        (select(&FLOATS[..]), index),
        select(&Logits::ALL[..]),
        weights,
        ignored,
        upstream,
        select(&[Reduction::None, Reduction::Sum, Reduction::Mean][..]),
        // Not 1: equal logits then have a gradient of 0 everywhere, a difference of equal terms,
        // and a tolerance relative to the largest gradient would ask for exactness.
        select(&[0.0, 0.0, 0.1, 0.9][..]),
        extensions,
    )
        .prop_map(
            |(
                seed,
                shape,
                padding,
                dtypes,
                logits,
                weights,
                ignored,
                upstream,
                reduction,
                smoothing,
                extensions,
            )| Recipe {
                seed,
                shape,
                padding,
                dtypes,
                logits,
                weights,
                ignored,
                upstream,
                reduction,
                smoothing,
                extensions,
            },
        )
}

impl Recipe {
    pub(crate) fn case(&self) -> CrossEntropyCase {
        let mut rng = Rng(self.seed);
        let (dtype, index) = self.dtypes;
        let class_dim = usize::from(self.shape.len() > 1);
        let classes = self.shape[class_dim];
        let lines = Lines::new(&self.shape, &[class_dim]);
        let rows = lines.bases.len();

        let ignore_index = match (self.ignored, index) {
            (Ignored::Class, _) => 0,
            (_, DType::U32 | DType::U8) => 255,
            _ => -100,
        };
        let limit = if index == DType::U8 { classes.min(256) } else { classes };
        let target: Vec<i64> = (0..rows)
            .map(|_| match self.ignored {
                Ignored::All => ignore_index,
                Ignored::Some if rng.unit() < 0.35 => ignore_index,
                Ignored::None | Ignored::Some | Ignored::Class => rng.below(limit) as i64,
            })
            .collect();

        // With one class left of two, every gradient may be 0, a difference of equal terms: a
        // tolerance relative to the largest gradient would ask for exactness.
        let logits = match self.logits {
            Logits::Masked | Logits::MaskedFront if classes == 2 => Logits::Normal,
            logits => logits,
        };
        let by_row = logits.values(&mut rng, rows, classes);
        let mut logits = vec![0.0; by_row.len()];
        for (row, base) in lines.bases.iter().enumerate() {
            let broken = target[row] == ignore_index;
            for (class, offset) in lines.offsets.iter().enumerate() {
                let value = if broken { f64::NAN } else { by_row[row * classes + class] };
                logits[base + offset] = value;
            }
        }

        let weight = |own: bool, value: &mut dyn FnMut() -> f64| {
            let values: Vec<f64> = (0..classes).map(|_| value()).collect();
            Data::floats(if own { dtype } else { DType::F32 }, &[classes], &values)
        };
        let weight = match self.weights {
            Weights::None => None,
            Weights::Positive(own) => Some(weight(own, &mut || {
                if rng.unit() < 0.2 { 0.0 } else { 2.0 * rng.unit() }
            })),
            Weights::Mixed => Some(weight(false, &mut || 2.0 * rng.unit() - 0.5)),
            Weights::Zero => Some(weight(false, &mut || 0.0)),
        };

        let upstream = match self.upstream {
            UpstreamKind::One => Upstream::Number(1.0),
            UpstreamKind::Number => Upstream::Number(-1.75),
            UpstreamKind::Tensor(own) => {
                let dtype = if own { dtype } else { DType::F32 };
                let shape = target_shape(&self.shape);
                Upstream::Tensor(match self.reduction {
                    Reduction::None => {
                        let g = |&t: &i64| if t == ignore_index { f64::NAN } else { rng.normal() };
                        Data::floats(dtype, &shape, &target.iter().map(g).collect::<Vec<_>>())
                    }
                    Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                        Data::floats(dtype, &[], &[rng.normal()])
                    }
                })
            }
        };

        let (lse_square_scale, logit_scale, softcap) = self.extensions;
        CrossEntropyCase {
            logits: Data::floats(dtype, &self.shape, &logits).padded(self.padding),
            target: Data::indices(index, &target_shape(&self.shape), &target),
            weight,
            upstream,
            ignore_index,
            reduction: self.reduction,
            label_smoothing: self.smoothing,
            lse_square_scale,
            logit_scale,
            softcap,
        }
    }
}
