//! A soft-cap in f32 arithmetic, from one end of its range to the other.

/// What x is multiplied by on its way through a soft-cap, in f32 whatever scale and cap are: with
/// v = `first`·x, s·x/c is `rate`·v and s·x is `scale`·v.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CapFactors {
    /// A power of two: 1, unless s/c is beyond f32.
    pub(crate) first: f32,
    /// Never 0, so that it leaves +∞ what it is. Where s/c is less than any f32, a rounded one will
    /// do: s·x/c is so small then that z is s·x.
    pub(crate) rate: f32,
    pub(crate) scale: f32,
}

impl CapFactors {
    pub(crate) fn new(scale: f32, cap: f32) -> CapFactors {
        let ratio = f64::from(scale) / f64::from(cap);
        let first = if ratio > f64::from(f32::MAX) { 127f32.exp2() } else { 1.0 };
        // Beyond 2^254 every logit but 0 is at the cap, as it is with less.
        let rate = (ratio / f64::from(first)).min(f64::from(f32::MAX)) as f32;
        CapFactors { first, rate: rate.max(f32::from_bits(1)), scale: scale / first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounded once each, and in range, from one end of f32 to the other.
    #[test]
    fn the_factors_of_a_cap_fit_f32_whatever_scale_and_cap_are() {
        let ends = [f32::from_bits(1), 1e-42, 1e-38, 1e-20, 0.5, 30.0, 1e20, 1e38, f32::MAX];
        for (scale, cap) in ends.into_iter().flat_map(|s| ends.map(|c| (s, c))) {
            let CapFactors { first, rate, scale: line } = CapFactors::new(scale, cap);
            let at = format!("scale {scale:e}, cap {cap:e}");
            assert!(rate > 0.0 && rate.is_finite() && first.is_finite(), "{at}");
            let ratio = f64::from(scale) / f64::from(cap);
            let formed = f64::from(first) * f64::from(rate);
            // As much of the ratio as any finite logit can tell.
            let top = 254f64.exp2();
            assert!(
                (formed - ratio).abs() <= 1e-7 * ratio
                    || (formed - ratio).abs() <= f64::from(f32::from_bits(1))
                    || (ratio > top && formed > top / 2.0),
                "{at}: {formed:e} for {ratio:e}"
            );
            let kept = f64::from(line) * f64::from(first);
            assert!(first == 1.0 || (kept - f64::from(scale)).abs() <= 1e-6, "{at}");
        }
    }
}
