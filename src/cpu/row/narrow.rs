//! Rows of 16 bits, whose numbers have few digits: exponentials relative to a power of two, from the
//! numbers themselves, and kept apart, as f32, for the visit that makes the gradient.

use crate::cpu::row::logit::Linear;
use crate::cpu::row::partial::{PREFETCH, Partial};
use crate::cpu::row::room::ROOM;
use crate::cpu::simd::{Kernel, Lanes, Level, Pieces, Powers, Simd, Unit, load_lanes, store_lanes};

/// Whether a type has 16 bits.
pub(crate) const fn is<T>() -> bool {
    size_of::<T>() == 2
}

/// Longest row whose exponentials are kept: what a thread's L2 cache holds, or nearly.
pub(crate) const KEPT: usize = ROOM;

/// The largest and the least of a stretch; `None` where it has a NaN or is empty. By integers: numbers
/// from 0 on are in the order of their bits, those below in the reverse.
///
/// # Safety
/// `len` elements of 16 bits are readable at `x`.
#[inline(always)]
pub(super) unsafe fn ends<T: Lanes>(x: *const T, len: usize) -> Option<[f32; 2]> {
    debug_assert!(is::<T>());
    // SAFETY: the caller vouches for `len` elements of 16 bits, of which every pattern is a u16.
    let bits = unsafe { std::slice::from_raw_parts(x.cast::<u16>(), len) };
    let (mut most, mut last) = (i16::MIN, 0u16);
    for &b in bits {
        most = most.max(b.cast_signed());
        last = last.max(b);
    }
    // Of numbers of one sign, the one with the least bits. (No closure: it would not be compiled for the
    // instruction set.)
    let mut first = u16::MAX;
    if most < 0 || last < SIGN {
        for &b in bits {
            first = first.min(b);
        }
    }
    let largest = if most < 0 { first } else { most.cast_unsigned() };
    let least = if last < SIGN { first } else { last };
    // What comes after an infinity of its sign is NaN.
    let [largest, least] = [number::<T>(largest), number::<T>(least)];
    (!bits.is_empty() && !largest.is_nan() && !least.is_nan()).then_some([largest, least])
}

const SIGN: u16 = 0x8000;

fn number<T: Lanes>(bits: u16) -> f32 {
    assert!(is::<T>());
    // SAFETY: T has 16 bits, as was asserted, and is a float: every pattern is one.
    unsafe { std::mem::transmute_copy::<u16, T>(&bits) }.to_f32()
}

/// Σ of powers of a stretch.
pub(super) struct Accumulate<T, const KEEP: bool, const ANY: bool> {
    pub(super) x: *const T,
    /// Written only with KEEP; in the order of [`Lanes::load2`].
    pub(super) kept: *mut f32,
    pub(super) len: usize,
    pub(super) unit: Unit,
}

impl<T: Lanes, const KEEP: bool, const ANY: bool> Kernel for Accumulate<T, KEEP, ANY> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Accumulate { x, kept, len, unit } = self;
        let powers = Powers::new(s, unit);
        let mut total = s.splat(0.0);
        for piece in Pieces::of::<S>(len, 2) {
            let mut sums = [s.splat(0.0); 2];
            let mut i = piece.start;
            // SAFETY: whoever makes an `Accumulate` vouches for `len` elements at `x`, and at `kept` if
            // they are kept.
            unsafe {
                while i + 2 * S::LANES <= piece.end {
                    let p = x.add(i);
                    s.prefetch(p.wrapping_add(PREFETCH / size_of::<T>()));
                    let [a, b] = T::load2(s, p);
                    let [a, b] = [powers.of::<S, ANY>(s, a), powers.of::<S, ANY>(s, b)];
                    sums = [s.add(sums[0], a), s.add(sums[1], b)];
                    if KEEP {
                        s.store(kept.add(i), a);
                        s.store(kept.add(i + S::LANES), b);
                    }
                    i += 2 * S::LANES;
                }
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    let e = powers.of::<S, true>(s, load_lanes(s, x.add(i), n, f32::NEG_INFINITY));
                    sums[0] = s.add(sums[0], e);
                    if KEEP {
                        store_lanes(s, kept.add(i), n, e);
                    }
                    i += n;
                }
            }
            total = s.add(total, s.add(sums[0], sums[1]));
        }
        s.reduce_add(total)
    }
}

/// All of a stretch in one: its unit's exponent, its largest, the power of that, and the sum.
struct Stretch<T, const KEEP: bool> {
    x: *const T,
    kept: *mut f32,
    len: usize,
    scale: f32,
}

impl<T: Lanes, const KEEP: bool> Kernel for Stretch<T, KEEP> {
    type Out = Option<(f32, f32, f32, f32)>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let Stretch { x, kept, len, scale } = self;
        // SAFETY: whoever makes a `Stretch` vouches for `len` elements at `x`, and at `kept` if they are
        // kept.
        unsafe {
            let [largest, least] = ends(x, len)?;
            if largest == f32::NEG_INFINITY {
                if KEEP {
                    kept.write_bytes(0, len);
                }
                return Some((0.0, largest, 1.0, 0.0));
            }
            let unit = Unit::new(scale, largest)?;
            let sum = match unit.spans(least, largest) {
                true => Accumulate::<T, KEEP, false> { x, kept, len, unit }.run(s),
                false => Accumulate::<T, KEEP, true> { x, kept, len, unit }.run(s),
            };
            Some((unit.exponent(), largest, PowerOf { unit, x: largest }.run(s), sum))
        }
    }
}

/// The power of one number: what powers are divided by to be relative to it, so that its own is 1.
pub(super) struct PowerOf {
    pub(super) unit: Unit,
    pub(super) x: f32,
}

impl Kernel for PowerOf {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        s.reduce_max(Powers::new(s, self.unit).of::<S, false>(s, s.splat(self.x)))
    }
}

/// The same of a number whose own the unit is.
pub(crate) fn own(level: Level, unit: Unit, x: f32) -> f64 {
    f64::from(level.run(PowerOf { unit, x }))
}

/// Log-sum-exp terms of a stretch, whose exponentials are kept if there is room; `None` where f32 has
/// not the digits, and where there is a NaN or +∞.
///
/// # Safety
/// `len` elements of 16 bits are readable at `x`, and as many f32 writable at `kept`.
pub(crate) unsafe fn accumulate<T: Lanes>(
    level: Level,
    linear: Linear,
    x: *const T,
    kept: Option<*mut f32>,
    len: usize,
) -> Option<Partial> {
    let (exponent, max, power, sum) = match kept {
        Some(kept) => level.run(Stretch::<T, true> { x, kept, len, scale: linear.scale() }),
        None => {
            let kept = std::ptr::null_mut();
            level.run(Stretch::<T, false> { x, kept, len, scale: linear.scale() })
        }
    }?;
    // Relative to its largest, whose own power is made 1 by that.
    let sum = (f64::from(sum) / f64::from(power)) as f32;
    Some(Partial { max, sum, others: sum - 1.0, moment: 0.0, exponent })
}

/// Exponentials that were kept to a gradient without class weights: `e·factor − smooth`.
pub(crate) struct Rescale<T> {
    pub(crate) kept: *const f32,
    pub(crate) out: *mut T,
    pub(crate) len: usize,
    pub(crate) factor: f32,
    pub(crate) smooth: f32,
}

impl<T: Lanes> Kernel for Rescale<T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rescale { kept, out, len, factor, smooth } = self;
        let (factor, smooth) = (s.splat(plain(factor)), s.splat(plain(-smooth)));
        let mut i = 0;
        // SAFETY: whoever makes a `Rescale` vouches for `len` elements at `kept` and `out`.
        unsafe {
            while i + 2 * S::LANES <= len {
                let [a, b] = [s.load(kept.add(i)), s.load(kept.add(i + S::LANES))];
                T::store2(s, out.add(i), [s.fma(a, factor, smooth), s.fma(b, factor, smooth)]);
                i += 2 * S::LANES;
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let e = load_lanes(s, kept.add(i), n, 0.0);
                store_lanes(s, out.add(i), n, s.fma(e, factor, smooth));
                i += n;
            }
        }
    }
}

/// The number, or a NaN whose low bits are clear: [`Lanes::store2`] asks for it.
fn plain(x: f32) -> f32 {
    if x.is_nan() { f32::NAN } else { x }
}
