//! The logit transform: scale, then soft-cap.

use super::simd::{Simd, tanh_and_slope};

/// How logits x become z.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transform {
    Linear(Linear),
    Capped(Capped),
}

impl Transform {
    pub(crate) const IDENTITY: Transform = Transform::Linear(Linear { scale: 1.0 });

    pub(crate) fn new(scale: f32, cap: Option<f32>) -> Transform {
        match cap {
            None => Transform::Linear(Linear { scale }),
            Some(cap) => Transform::Capped(Capped { scale, cap }),
        }
    }

    /// The constant part of dz/dx.
    pub(crate) fn slope(self) -> f32 {
        match self {
            Transform::Linear(Linear { scale }) | Transform::Capped(Capped { scale, .. }) => scale,
        }
    }
}

/// The transform as seen from inside a loop.
pub(crate) trait Logit: Copy {
    /// Whether z is x times a constant, so that the slope needs no x.
    const LINEAR: bool;
    /// z(x) − m, and dz/dx over its constant part.
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V);
}

/// z = s·x. The product is not rounded: s·x − m is one fused operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) scale: f32,
}

impl Logit for Linear {
    const LINEAR: bool = true;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        let negative = s.sub(s.splat(-0.0), m);
        (s.fma(x, s.splat(self.scale), negative), s.splat(1.0))
    }
}

/// z = c·tanh(s·x/c), with −∞ kept: a masked class stays masked, its slope is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capped {
    pub(crate) scale: f32,
    pub(crate) cap: f32,
}

impl Logit for Capped {
    const LINEAR: bool = false;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        let lowest = s.splat(f32::NEG_INFINITY);
        let (tanh, slope) = tanh_and_slope(s, s.mul(x, s.splat(self.scale / self.cap)));
        let z = s.select_eq(x, lowest, lowest, s.mul(tanh, s.splat(self.cap)));
        (s.sub(z, m), slope)
    }
}
