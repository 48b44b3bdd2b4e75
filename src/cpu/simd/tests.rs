//! Error bounds and conversions, at every level that the machine has.

use super::{
    Kernel, Lanes, Level, MAX_LANES, Powers, Simd, Unit, exp, exp_m1, exp_nonpositive, ln_1p,
    ln_1p_of_unit, ln_plus, load_lanes, minus_ln_1m_half, one_minus_exp, power_of_two, soft_cap,
    store_lanes,
};
use half::{bf16, f16};

/// A function of vectors, applied to a slice.
struct Map<'a, F> {
    x: &'a [f32],
    y: &'a mut [f32],
    f: F,
}

trait Function {
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V;
}

impl<F: Function> Kernel for Map<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in (0..self.x.len()).step_by(S::LANES) {
            let n = S::LANES.min(self.x.len() - i);
            // SAFETY: n elements from i on exist in both slices.
            unsafe {
                let x = load_lanes(s, self.x.as_ptr().add(i), n, 0.0);
                store_lanes(s, self.y.as_mut_ptr().add(i), n, self.f.of(s, x));
            }
        }
    }
}

struct Exp;
impl Function for Exp {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        exp(s, x)
    }
}

struct ExpNonpositive;
impl Function for ExpNonpositive {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        exp_nonpositive(s, x)
    }
}

/// Powers of any number, or of one that is near enough to the largest.
struct Power {
    unit: Unit,
    any: bool,
}
impl Function for Power {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        let powers = Powers::new(s, self.unit);
        if self.any { powers.of::<S, true>(s, x) } else { powers.of::<S, false>(s, x) }
    }
}

struct Tanh {
    slope: bool,
}
impl Function for Tanh {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        let (tanh, slope) = soft_cap(s, x, x, s.splat(1.0));
        if self.slope { slope } else { tanh }
    }
}

/// ln x + c.
struct Ln(f32);
impl Function for Ln {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        ln_plus(s, x, s.splat(self.0))
    }
}

struct Ln1p;
impl Function for Ln1p {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        ln_1p_of_unit(s, x)
    }
}

struct LnOnePlus;
impl Function for LnOnePlus {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        ln_1p(s, x)
    }
}

struct OneMinusExp;
impl Function for OneMinusExp {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        one_minus_exp(s, x)
    }
}

struct MinusLn1mHalf;
impl Function for MinusLn1mHalf {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        minus_ln_1m_half(s, x)
    }
}

struct ExpM1;
impl Function for ExpM1 {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, x: S::V) -> S::V {
        exp_m1(s, x)
    }
}

fn map(level: Level, x: &[f32], f: impl Function) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    level.run(Map { x, y: &mut y, f });
    y
}

/// |got − want| in units of the last place of `want` as f32.
fn ulps(got: f32, want: f64) -> f64 {
    let near = want.abs().max(f64::from(f32::MIN_POSITIVE)) as f32;
    let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
    (f64::from(got) - want).abs() / unit
}

/// Every 64th f32 between two of one sign, and both ends.
fn floats(from: f32, to: f32) -> Vec<f32> {
    let (a, b) = (from.to_bits(), to.to_bits());
    let mut all: Vec<f32> = (a.min(b)..=a.max(b)).step_by(64).map(f32::from_bits).collect();
    all.extend([from, to]);
    all
}

fn worst(x: &[f32], y: &[f32], want: impl Fn(f64) -> f64) -> f64 {
    let errors = x.iter().zip(y).map(|(&x, &y)| ulps(y, want(f64::from(x))));
    errors.fold(0.0, f64::max)
}

#[test]
fn exp_error_bounds() {
    for level in Level::available() {
        for (from, to, bound) in [(-0.0, -8.0, 2.5), (-8.0, -87.33, 6.0)] {
            let x = floats(from, to);
            let near = worst(&x, &map(level, &x, Exp), f64::exp);
            assert!(near <= bound, "{level:?}: {near} ulp on [{to}, {from}]");
            let near = worst(&x, &map(level, &x, ExpNonpositive), f64::exp);
            assert!(near <= bound, "{level:?}: {near} ulp on [{to}, {from}]");
        }
        let x = floats(0.0, 88.37);
        let near = worst(&x, &map(level, &x, Exp), f64::exp);
        assert!(near <= 6.0, "{level:?}: {near} ulp on [0, 88.37]");
    }
}

#[test]
fn power_error_bounds() {
    for level in Level::available() {
        for (scale, largest) in
            [(1.0f32, 0.0f32), (1.0, 11.3), (1.0, -20_000.0), (0.03, 512.0), (40.0, 3.0)]
        {
            let unit = Unit::new(scale, largest).unwrap();
            // Numbers of eight digits, down to where nothing is left.
            let x: Vec<f32> = floats(1e-6, 90.0 / scale)
                .into_iter()
                .map(|d| f32::from_bits((largest - d).to_bits() & !0xffff))
                .filter(|&x| x <= largest)
                .collect();
            for any in [false, true] {
                let inside = |x: &&f32| any || unit.spans(**x, largest);
                let x: Vec<f32> = x.iter().filter(inside).copied().collect();
                let own = f64::from(map(level, &[largest], Power { unit, any })[0]);
                for (x, y) in x.iter().zip(map(level, &x, Power { unit, any })) {
                    let distance = f64::from(scale) * (f64::from(largest) - f64::from(*x));
                    let bound = 4.0 + 2.0 * distance;
                    let want = own * (-distance).exp();
                    let subnormal = want < f64::from(f32::MIN_POSITIVE) * 1.5;
                    let near = ulps(y, want);
                    assert!(
                        near <= bound || subnormal && f64::from(y) <= want * 1.5,
                        "{level:?} {any}: {near} ulp at {x}, scale {scale}, largest {largest}"
                    );
                }
            }
            let y = map(level, &[f32::NEG_INFINITY, -3e38, f32::NAN], Power { unit, any: true });
            assert!(y[0] == 0.0 && y[1] == 0.0 && y[2].is_nan(), "{level:?} {y:?}");
        }
    }
    assert!(Unit::new(1.0, 30_000.0).is_none() && Unit::new(1.0, f32::INFINITY).is_none());
    assert!(Unit::new(1e-38, 1.0).is_none() && Unit::new(1.0, f32::NAN).is_none());
    let powers = [0.0, -1.0, -1022.0, -1023.0, -1e5].map(power_of_two);
    assert_eq!(powers, [1.0, 0.5, f64::MIN_POSITIVE, 0.0, 0.0]);
}

#[test]
fn exp_at_the_ends_of_its_range() {
    let inf = f32::INFINITY;
    for level in Level::available() {
        let y = map(level, &[0.0, -0.0, -inf, -1e30, -88.0, inf, 1e30, 89.0, f32::NAN], Exp);
        assert_eq!(y[..8], [1.0, 1.0, 0.0, 0.0, 0.0, inf, inf, inf], "{level:?}");
        assert!(y[8].is_nan());
        let y = map(level, &[f32::NAN, -inf], ExpNonpositive);
        assert!(y[0].is_nan() && y[1] == 0.0, "{level:?}");
        // Between the last normal result and 0: never more than the smallest normal.
        let x = floats(-87.33, -200.0);
        assert!(map(level, &x, Exp).iter().all(|y| (0.0..=1.2e-38).contains(y)));
    }
}

#[test]
fn ln_error_bounds() {
    let inf = f32::INFINITY;
    for level in Level::available() {
        let x = floats(f32::from_bits(1), f32::MAX);
        let near = worst(&x, &map(level, &x, Ln(0.0)), f64::ln);
        assert!(near <= 1.5, "{level:?}: ln {near} ulp");
        // Every float about 1, where ln is as small as its argument's distance.
        let x: Vec<f32> = (0x3f7f_0000..0x3f81_0000).map(f32::from_bits).collect();
        let near = worst(&x, &map(level, &x, Ln(0.0)), f64::ln);
        assert!(near <= 1.5, "{level:?}: ln {near} ulp about 1");
        let x = floats(f32::from_bits(1), 1.0);
        let near = worst(&x, &map(level, &x, Ln1p), f64::ln_1p);
        assert!(near <= 1.5, "{level:?}: ln(1 + e) {near} ulp");

        let x = floats(1e-30, 1.0);
        let near = worst(&x, &map(level, &x, MinusLn1mHalf), |m| -(-m / 2.0).ln_1p());
        assert!(near <= 2.0, "{level:?}: -ln(1 - m/2) {near} ulp");

        let x: Vec<f32> = floats(1e-30, 0.999_999).iter().flat_map(|&x| [x, -x]).collect();
        let near = worst(&x, &map(level, &x, LnOnePlus), f64::ln_1p);
        assert!(near <= 2.5, "{level:?}: ln(1 + f) {near} ulp");
        let y = map(level, &[0.0, -1.0], LnOnePlus);
        assert_eq!(y, [0.0, -inf], "{level:?}");
        let y = map(level, &[f32::NAN, -1.5], LnOnePlus);
        assert!(y.iter().all(|y| y.is_nan()), "{level:?} {y:?}");

        let y = map(level, &[1.0, 0.0, -0.0, inf], Ln(0.0));
        assert_eq!(y, [0.0, -inf, -inf, inf], "{level:?}");
        let y = map(level, &[-1.0, -inf, f32::NAN, -f32::from_bits(1)], Ln(0.0));
        assert!(y.iter().all(|y| y.is_nan()), "{level:?} {y:?}");
        assert_eq!(map(level, &[0.0, 1.0], Ln1p), [0.0, std::f32::consts::LN_2], "{level:?}");
        assert!(map(level, &[f32::NAN], Ln1p)[0].is_nan());
    }
}

#[test]
fn a_number_next_to_minus_ln_x_costs_ln_x_no_digits() {
    for level in Level::available() {
        for x in [1e-30f32, 1.3e-9, 0.037, 0.9, 7.5, 6.1e22] {
            let c = -x.ln();
            let want = f64::from(x).ln() + f64::from(c);
            let got = f64::from(map(level, &[x], Ln(c))[0]);
            assert!((got - want).abs() < 1e-7, "{level:?} {x}: {got} for {want}");
        }
    }
}

#[test]
fn exp_m1_error_bounds() {
    for level in Level::available() {
        let x: Vec<f32> = floats(1e-30, 90.0).iter().map(|x| -x).collect();
        let near = worst(&x, &map(level, &x, ExpM1), f64::exp_m1);
        assert!(near <= 8.0, "{level:?}: e^x - 1 {near} ulp");
        assert_eq!(map(level, &[0.0, f32::NEG_INFINITY], ExpM1), [0.0, -1.0], "{level:?}");
        assert!(map(level, &[f32::NAN], ExpM1)[0].is_nan());

        let x = floats(1e-30, 90.0);
        let near = worst(&x, &map(level, &x, OneMinusExp), |t| -(-t).exp_m1());
        assert!(near <= 3.0, "{level:?}: 1 - e^-t {near} ulp");
        assert_eq!(map(level, &[0.0, f32::INFINITY], OneMinusExp), [0.0, 1.0], "{level:?}");
        assert!(map(level, &[f32::NAN], OneMinusExp)[0].is_nan());
    }
}

#[test]
fn tanh_error_bounds() {
    for level in Level::available() {
        for sign in [1.0, -1.0] {
            let x: Vec<f32> = floats(1e-30, 40.0).iter().map(|x| sign * x).collect();
            let near = worst(&x, &map(level, &x, Tanh { slope: false }), f64::tanh);
            assert!(near <= 6.0, "{level:?}: tanh {near} ulp");
            let slope = |x: f64| {
                let q = (-2.0 * x.abs()).exp();
                4.0 * q / ((1.0 + q) * (1.0 + q))
            };
            let near = worst(&x, &map(level, &x, Tanh { slope: true }), slope);
            assert!(near <= 12.0, "{level:?}: slope {near} ulp");
        }
        let ends = map(level, &[f32::INFINITY, f32::NEG_INFINITY], Tanh { slope: false });
        assert_eq!(ends, [1.0, -1.0]);
    }
}

struct Convert<'a, T> {
    narrow: &'a [T],
    wide: &'a mut [f32],
    back: &'a mut [T],
}

impl<T: Lanes> Kernel for Convert<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in (0..self.narrow.len()).step_by(S::LANES) {
            let n = S::LANES.min(self.narrow.len() - i);
            // SAFETY: n elements from i on exist in all three slices.
            unsafe {
                let v = load_lanes(s, self.narrow.as_ptr().add(i), n, 0.0);
                store_lanes(s, self.wide.as_mut_ptr().add(i), n, v);
                store_lanes(s, self.back.as_mut_ptr().add(i), n, v);
            }
        }
    }
}

/// Widening is exact and rounding is to nearest even, as the `half` crate has them.
fn conversions_agree<T: Lanes + PartialEq>(all: Vec<T>) {
    for level in Level::available() {
        let (mut wide, mut back) = (vec![0.0; all.len()], vec![T::default(); all.len()]);
        level.run(Convert { narrow: &all, wide: &mut wide, back: &mut back });
        for ((&n, &w), &b) in all.iter().zip(&wide).zip(&back) {
            let want = n.to_f32();
            assert!(w == want || (w.is_nan() && want.is_nan()), "{level:?} {n:?} {w}");
            assert!(b == n || want.is_nan() && b.to_f32().is_nan(), "{level:?} {n:?} {b:?}");
        }
        // Values between the representable ones, ties included.
        let between: Vec<f32> = wide
            .windows(2)
            .flat_map(|w| [0.25, 0.5, 0.75].map(|t| w[0] + (w[1] - w[0]) * t))
            .collect();
        let mut rounded = vec![T::default(); between.len()];
        level.run(Round { wide: &between, narrow: &mut rounded });
        for (&x, &got) in between.iter().zip(&rounded) {
            let want = T::from_f32(x);
            assert!(got == want || x.is_nan() && got.to_f32().is_nan(), "{level:?} {x} {got:?}");
        }
    }
}

struct Round<'a, T> {
    wide: &'a [f32],
    narrow: &'a mut [T],
}

impl<T: Lanes> Kernel for Round<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in (0..self.wide.len()).step_by(S::LANES) {
            let n = S::LANES.min(self.wide.len() - i);
            // SAFETY: n elements from i on exist in both slices.
            unsafe {
                let v = load_lanes(s, self.wide.as_ptr().add(i), n, 0.0);
                store_lanes(s, self.narrow.as_mut_ptr().add(i), n, v);
            }
        }
    }
}

#[test]
fn half_precision_is_widened_exactly_and_rounded_to_nearest_even() {
    conversions_agree((0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>());
    conversions_agree((0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>());
}

struct Transposed<'a>(&'a mut [[f32; 16]; 16]);
impl Kernel for Transposed<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut m = [s.splat(0.0); MAX_LANES];
        // SAFETY: each row holds a vector.
        unsafe {
            for (v, row) in m.iter_mut().zip(self.0.iter()).take(S::LANES) {
                *v = s.load(row.as_ptr());
            }
            s.transpose(&mut m);
            for (v, row) in m.into_iter().zip(self.0.iter_mut()).take(S::LANES) {
                s.store(row.as_mut_ptr(), v);
            }
        }
        // What no vector reaches says how large the square was.
        self.0[15][15] = S::LANES as f32;
    }
}

#[test]
fn squares_are_transposed() {
    for level in Level::available() {
        let mut m = std::array::from_fn(|r| std::array::from_fn(|c| (16 * r + c) as f32));
        level.run(Transposed(&mut m));
        let lanes = m[15][15] as usize;
        for (r, row) in m.iter().enumerate().take(lanes) {
            for (c, &x) in row.iter().enumerate().take(lanes).filter(|&(c, _)| (r, c) != (15, 15)) {
                assert_eq!(x, (16 * c + r) as f32, "{} [{r}, {c}]", level.name());
            }
        }
    }
}
