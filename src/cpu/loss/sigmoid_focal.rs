//! The focal loss over vectors, from q = e^(−|x|) alone. With p = σ(x), the probability of what is not
//! the target, u = (1 − t)·p + t·(1 − p), is a sum, and where it is a tail its logarithm is no logarithm
//! of one.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::loss::bce_with_logits::{tail, term};
use crate::cpu::simd::{Simd, exp_m1, exp_to_the_end, ln_1p_of_unit, ln_plus};
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct SigmoidFocal {
    /// Below 0: none.
    alpha: f32,
    gamma: f32,
    /// γ is a whole number and a rest: a product has more digits than the exponential of a logarithm.
    whole: u32,
    rest: f32,
}

/// One does for every power here.
pub(crate) type SigmoidFocalOfPower = SigmoidFocal;

/// What value and slopes are made of.
struct Parts<V> {
    q: V,
    /// 1/(1 + q), the larger of p and 1 − p.
    near: V,
    /// u^γ.
    power: V,
    /// Binary cross entropy.
    entropy: V,
    /// The same over u, which tends to 1 where u tends to 0.
    ratio: V,
    /// α_t.
    alpha: V,
}

impl SigmoidFocal {
    /// u to the whole number.
    #[inline(always)]
    fn power<S: Simd>(self, s: S, u: S::V) -> S::V {
        let (mut power, mut square, mut left) = (s.splat(1.0), u, self.whole);
        while left > 0 {
            if left % 2 == 1 {
                power = s.mul(power, square);
            }
            square = s.mul(square, square);
            left /= 2;
        }
        power
    }

    #[inline(always)]
    fn parts<S: Simd>(self, s: S, Element { x, y, .. }: Element<S::V>) -> Parts<S::V> {
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let (q, other) = (tail(s, x), s.sub(one, y));
        let near = s.div(one, s.add(one, q));
        let l = ln_1p_of_unit(s, q);
        // u = near·rest. Without a share of the larger of p and 1 − p it is the tail, q·near.
        let share = s.select_lt(x, zero, y, other);
        let rest = s.fma(s.select_lt(x, zero, other, y), q, share);
        let u = s.mul(near, rest);
        // t·softplus(−x) + (1 − t)·softplus(x), whose coefficients have the sum 1.
        let entropy = s.select_eq(share, zero, l, s.fma(share, s.abs(x), l));
        let mut power = self.power(s, u);
        if self.rest > 0.0 {
            let of = s.select_eq(share, zero, one, rest);
            let shift = s.select_eq(share, zero, s.sub(zero, s.abs(x)), zero);
            let ln = s.sub(ln_plus(s, of, shift), l);
            power = s.mul(power, exp_to_the_end(s, s.mul(s.splat(self.rest), ln)));
        }
        // NaN of a label that is infinite, u^0 as well.
        let power = s.fma(rest, zero, power);
        let of_tail = s.select_lt(q, s.splat(1e-8), one, s.div(l, u));
        let ratio = s.select_eq(share, zero, of_tail, s.div(entropy, u));
        let alpha = match self.alpha < 0.0 {
            true => one,
            false => s.fma(s.splat(self.alpha), y, s.mul(s.splat(1.0 - self.alpha), other)),
        };
        Parts { q, near, power, entropy, ratio, alpha }
    }
}

/// a·b, 0 where a is.
#[inline(always)]
fn silenced<S: Simd>(s: S, a: S::V, b: S::V) -> S::V {
    s.select_eq(a, s.splat(0.0), a, s.mul(a, b))
}

impl ElementLoss for SigmoidFocal {
    /// Of logits that are sure of t = 0.
    const PAD: f32 = -200.0;

    fn new([alpha, gamma]: Options) -> Self {
        // Beyond, u to it is what it is to 2^31: 1, infinite or next to nothing.
        let whole = gamma.min(2_147_483_648.0) as u32;
        SigmoidFocal { alpha, gamma, whole, rest: gamma.fract() }
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let p = self.parts(s, e);
        s.mul(e.weight, term(s, p.alpha, term(s, p.power, p.entropy)))
    }

    /// α_t·u^γ·(∂entropy/∂x + γ·(1 − 2t)·entropy/u·p·(1 − p)).
    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (p, zero, one) = (self.parts(s, e), s.splat(0.0), s.splat(1.0));
        let far = s.mul(p.q, p.near);
        let sigma = s.select_lt(e.x, zero, far, p.near);
        let other = s.select_lt(e.x, zero, p.near, far);
        let mut slope = s.sub(s.mul(s.sub(one, e.y), sigma), s.mul(e.y, other));
        if self.gamma != 0.0 {
            let focus = silenced(s, s.mul(s.splat(self.gamma), s.mul(far, p.near)), p.ratio);
            slope = s.fma(s.fma(e.y, s.splat(-2.0), one), focus, slope);
        }
        s.mul(s.mul(s.mul(p.alpha, p.power), slope), factor)
    }

    /// u^γ·((2α − 1)·entropy − α_t·x + α_t·γ·entropy/u·(1 − 2p)).
    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (p, zero) = (self.parts(s, e), s.splat(0.0));
        let lean = if self.alpha < 0.0 { 0.0 } else { 2.0 * self.alpha - 1.0 };
        let mut slope = s.sub(term(s, s.splat(lean), p.entropy), term(s, p.alpha, e.x));
        if self.gamma != 0.0 {
            // (1 − q)/(1 + q), no difference of near numbers, is |1 − 2p|.
            let size = s.sub(zero, s.mul(exp_m1(s, s.sub(zero, s.abs(e.x))), p.near));
            let lean = s.select_lt(e.x, zero, size, s.sub(zero, size));
            let share = s.mul(s.splat(self.gamma), p.alpha);
            slope = s.add(slope, silenced(s, share, s.mul(p.ratio, lean)));
        }
        s.mul(silenced(s, p.power, slope), factor)
    }
}
