//! The logit transform: scale, then soft-cap.

use crate::cpu::simd::{Simd, soft_cap};
use crate::spec::soft_cap::CapFactors;

/// How logits x become z.
///
/// A linear z is never formed: distances are s·(x − m) with a reference m among the logits
/// themselves, so that a common offset costs nothing. Under a cap, references are values of z.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transform {
    Linear(Linear),
    Capped(Capped),
}

/// A transform that multiplies by a constant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Linear {
    Plain(Plain),
    Scaled(Scaled),
}

impl Linear {
    #[inline(always)]
    pub(crate) fn scale(self) -> f32 {
        match self {
            Linear::Plain(Plain) => 1.0,
            Linear::Scaled(Scaled { scale }) => scale,
        }
    }
}

impl Transform {
    pub(crate) const IDENTITY: Transform = Transform::Linear(Linear::Plain(Plain));

    pub(crate) fn new(scale: f32, cap: Option<f32>) -> Transform {
        match cap {
            None if scale == 1.0 => Transform::IDENTITY,
            None => Transform::Linear(Linear::Scaled(Scaled { scale })),
            Some(cap) => Transform::Capped(Capped::new(scale, cap)),
        }
    }

    /// The constant part of dz/dx.
    #[inline(always)]
    pub(crate) fn slope(self) -> f32 {
        match self {
            Transform::Linear(linear) => linear.scale(),
            Transform::Capped(_) => 1.0,
        }
    }

    /// z at a reference.
    #[inline(always)]
    pub(crate) fn z(self, reference: f32) -> f64 {
        match self {
            Transform::Linear(_) => f64::from(self.slope()) * f64::from(reference),
            Transform::Capped(_) => f64::from(reference),
        }
    }

    /// z and dz/dx of one logit.
    pub(crate) fn at(self, x: f32) -> (f64, f64) {
        let (x, scale) = (f64::from(x), f64::from(self.slope()));
        match self {
            Transform::Linear(_) => (scale * x, scale),
            Transform::Capped(_) if x == f64::NEG_INFINITY => (x, 0.0),
            Transform::Capped(Capped { scale, cap, .. }) => {
                let (scale, cap) = (f64::from(scale), f64::from(cap));
                let u = scale * x / cap;
                // 1 − tanh² near the cap, as no difference.
                let q = (-2.0 * u.abs()).exp();
                (cap * u.tanh(), scale * 4.0 * q / ((1.0 + q) * (1.0 + q)))
            }
        }
    }

    /// The reference nearest to a z.
    pub(crate) fn reference(self, z: f32) -> f32 {
        match self {
            Transform::Linear(_) => (f64::from(z) / f64::from(self.slope())) as f32,
            Transform::Capped(_) => z,
        }
    }
}

/// Runs `$body` with `$logit` bound to the transform's loop side.
macro_rules! each_logit {
    ($transform:expr, $logit:ident => $body:expr) => {
        match $transform {
            Transform::Linear(Linear::Plain($logit)) => $body,
            Transform::Linear(Linear::Scaled($logit)) => $body,
            Transform::Capped($logit) => $body,
        }
    };
}
pub(crate) use each_logit;

/// The transform as seen from inside a loop.
pub(crate) trait Logit: Copy {
    /// Whether z is x times a constant, so that the slope needs no x.
    const LINEAR: bool;
    /// z(x) − z(m) for a reference m, and dz/dx over [`Transform::slope`].
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V);
    /// The reference that stands for a logit.
    fn reference<S: Simd>(self, s: S, x: S::V) -> S::V;
}

/// z = x.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

impl Logit for Plain {
    const LINEAR: bool = true;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        (s.sub(x, m), s.splat(1.0))
    }
    #[inline(always)]
    fn reference<S: Simd>(self, _: S, x: S::V) -> S::V {
        x
    }
}

/// z = s·x.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaled {
    scale: f32,
}

impl Logit for Scaled {
    const LINEAR: bool = true;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        (s.mul(s.sub(x, m), s.splat(self.scale)), s.splat(1.0))
    }
    #[inline(always)]
    fn reference<S: Simd>(self, _: S, x: S::V) -> S::V {
        x
    }
}

/// z = c·tanh(s·x/c), with −∞ kept: a masked class stays masked, its slope is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capped {
    scale: f32,
    cap: f32,
    factors: CapFactors,
}

impl Capped {
    fn new(scale: f32, cap: f32) -> Capped {
        Capped { scale, cap, factors: CapFactors::new(scale, cap) }
    }
}

impl Logit for Capped {
    const LINEAR: bool = false;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        let CapFactors { first, rate, scale } = self.factors;
        let lowest = s.splat(f32::NEG_INFINITY);
        let v = s.mul(x, s.splat(first));
        let (u, line) = (s.mul(v, s.splat(rate)), s.mul(v, s.splat(scale)));
        let (z, slope) = soft_cap(s, u, line, s.splat(self.cap));
        let z = s.select_eq(x, lowest, lowest, z);
        (s.sub(z, m), s.mul(slope, s.splat(self.scale)))
    }
    #[inline(always)]
    fn reference<S: Simd>(self, s: S, x: S::V) -> S::V {
        self.distance(s, x, s.splat(0.0)).0
    }
}
