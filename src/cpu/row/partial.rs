//! What a stretch of a row comes to, however its exponentials were taken.

/// What one stretch of a row adds to its log-sum-exp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partial {
    /// The largest logit as a reference, NaN disregarded; −∞ for a stretch that is empty or all −∞.
    pub(crate) max: f32,
    /// Σ e^(z − z(max)); NaN where the stretch holds a NaN, +∞ where it holds +∞ and no NaN.
    pub(crate) sum: f32,
    /// The sum without one copy of the largest, with the digits that a sum barely above 1 has
    /// not, where the moment was asked for.
    pub(crate) others: f32,
    /// Σ e^(z − z(max))·(z − z(max)), where it was asked for; a masked class adds 0.
    pub(crate) moment: f32,
    /// The power of two that exponentials were relative to where they were kept apart; else NaN.
    pub(crate) exponent: f32,
}

impl Partial {
    pub(crate) const EMPTY: Partial =
        Partial { max: f32::NEG_INFINITY, sum: 0.0, others: 0.0, moment: 0.0, exponent: 0.0 };
}

/// How far ahead of the exponentials memory is asked for: a block, which is the stretch that the
/// next call finds its maximum in. Exponentials are computed meanwhile.
pub(crate) const PREFETCH: usize = 8 * 1024;
