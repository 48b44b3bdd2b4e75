//! Random numbers as pure functions of a key and a counter: the same on every machine, on any
//! number of threads.

/// 2^64 divided by the golden ratio, the step of SplitMix64.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
#[inline(always)]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key made from another and one more word; for one key, different words give different keys.
#[inline(always)]
pub(crate) fn extend(key: u64, word: u64) -> u64 {
    mix((key ^ word).wrapping_add(GOLDEN))
}

/// A number in [0, 1), of 53 random bits.
#[inline(always)]
pub(crate) fn unit(key: u64, word: u64) -> f64 {
    (extend(key, word) >> 11) as f64 / (1u64 << 53) as f64
}
