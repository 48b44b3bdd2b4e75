//! A permutation of `0..n` that is a pure function of a key: O(1) an image, nothing stored.
//!
//! Up to 16 numbers are shuffled outright (Fisher and Yates), by digits of the key. More go through
//! a Feistel network (Luby and Rackoff 1988), which permutes the numbers of `bits` bits, with `bits`
//! the fewest that hold n − 1. An image that is n or more is permuted again until one is less (cycle
//! walking, Black and Rogaway 2002): since 2^bits < 2n, that takes fewer than two turns on average.
//! All is integer arithmetic of 64 bits, hence the same on every machine.

use crate::base::random::{GOLDEN, mix};

/// Up to so many numbers are shuffled outright: 16! = 2^44 leaves a bias of 2^-20. In the network
/// they would need more than 16 turns until all permutations look as likely.
const SHUFFLED: usize = 16;

/// Turns of the network, two rounds each, for numbers of up to 8 bits and of more. What keeps three
/// images in three million keys from looking independent: 4 turns at 5 bits, 3 at 8.
const TURNS: [u32; 2] = [8, 4];

/// One of the permutations of `0..n`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    key: u64,
    n: u64,
}

impl Permutation {
    #[inline(always)]
    pub(crate) fn new(key: u64, n: u64) -> Permutation {
        Permutation { key, n }
    }

    /// The image of `i`, which is less than n.
    #[inline]
    pub(crate) fn at(&self, i: u64) -> u64 {
        debug_assert!(i < self.n);
        if self.n <= SHUFFLED as u64 { self.shuffled(i) } else { self.walked(i) }
    }

    /// Shuffles as far as the image of `i` depends on it.
    fn shuffled(&self, i: u64) -> u64 {
        let mut numbers: [u8; SHUFFLED] = std::array::from_fn(|number| number as u8);
        let mut fraction = self.key; // of 2^64: its digits in base n, n − 1, …
        for place in 0..=i {
            let product = u128::from(fraction) * u128::from(self.n - place);
            let other = place + (product >> 64) as u64;
            fraction = product as u64;
            numbers.swap(place as usize, other as usize);
        }
        numbers[i as usize].into()
    }

    fn walked(&self, i: u64) -> u64 {
        let network = Network::new(self.key, self.n);
        let mut image = i;
        // The network is a permutation, so the walk comes back to `i` at the latest.
        loop {
            image = network.at(image);
            if image < self.n {
                return image;
            }
        }
    }
}

/// A permutation of the numbers of as many bits as n − 1 has.
#[derive(Debug, Clone, Copy)]
struct Network {
    key: u64,
    turns: u32,
    /// Bits of the lower half of a number; the upper half has as many or one less.
    low_bits: u32,
    low: u64,
    high: u64,
}

impl Network {
    #[inline(always)]
    fn new(key: u64, n: u64) -> Network {
        let bits = 64 - (n - 1).leading_zeros();
        let low_bits = bits.div_ceil(2);
        let mask = |bits: u32| (1u64 << bits) - 1; // at most 32 bits
        let turns = TURNS[usize::from(bits > 8)];
        Network { key, turns, low_bits, low: mask(low_bits), high: mask(bits - low_bits) }
    }

    #[inline(always)]
    fn at(&self, number: u64) -> u64 {
        let (mut low, mut high) = (number & self.low, number >> self.low_bits);
        let mut key = self.key;
        for _ in 0..self.turns {
            key = key.wrapping_add(GOLDEN);
            low ^= mix(key ^ high) & self.low;
            key = key.wrapping_add(GOLDEN);
            high ^= mix(key ^ low) & self.high;
        }
        high << self.low_bits | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::extend;

    fn images(key: u64, n: u64) -> Vec<u64> {
        let permutation = Permutation::new(key, n);
        (0..n).map(|i| permutation.at(i)).collect()
    }

    /// Σ (seen − expected)² / expected, in standard deviations from its mean.
    fn chi_square(seen: &[u64], expected: f64) -> f64 {
        let sum: f64 = seen.iter().map(|&s| (s as f64 - expected).powi(2) / expected).sum();
        let freedom = seen.len() as f64 - 1.0;
        (sum - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn every_number_has_one_image() {
        for n in (1..=130).chain([255, 256, 257, 1000, 65_535, 65_537, 100_003]) {
            let mut sorted = images(extend(7, n), n);
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..n), "{n}");
        }
    }

    #[test]
    fn the_largest_sizes_stay_in_range() {
        for n in [1 << 32, (1 << 32) + 1, (1 << 63) + 1, u64::MAX] {
            let permutation = Permutation::new(3, n);
            for i in [0, 1, n / 2, n - 1] {
                assert!(permutation.at(i) < n);
            }
        }
    }

    #[test]
    fn all_permutations_of_a_few_are_as_frequent() {
        for n in 2..=8u64 {
            let count = (1..=n).product::<u64>();
            let keys = 50 * count;
            let mut seen = vec![0; count as usize];
            for key in 0..keys {
                seen[rank(&images(extend(1, key), n))] += 1;
            }
            let sigmas = chi_square(&seen, 50.0);
            assert!(sigmas.abs() < 4.0, "{n}: {sigmas}");
        }
    }

    /// The place of a permutation among all, in lexicographic order.
    fn rank(images: &[u64]) -> usize {
        images.iter().enumerate().fold(0, |rank, (i, image)| {
            let later = &images[i + 1..];
            rank * (later.len() + 1) + later.iter().filter(|&other| other < image).count()
        })
    }

    #[test]
    fn three_images_are_any_three_numbers() {
        let keys = 400_000;
        for n in [16u64, 17, 31, 32, 33, 64] {
            for at in [[0, 1, 2], [0, n / 2, n - 1], [n - 1, 5, 3]] {
                let mut seen = vec![0; (n * (n - 1) * (n - 2)) as usize];
                for key in 0..keys {
                    let permutation = Permutation::new(extend(2, key), n);
                    let [a, b, c] = at.map(|i| permutation.at(i));
                    let (b, c) = (b - u64::from(b > a), c - u64::from(c > a) - u64::from(c > b));
                    seen[((a * (n - 1) + b) * (n - 2) + c) as usize] += 1;
                }
                let sigmas = chi_square(&seen, keys as f64 / seen.len() as f64);
                assert!(sigmas.abs() < 4.0, "{n} {at:?}: {sigmas}");
            }
        }
    }

    #[test]
    fn large_permutations_scatter_every_stretch() {
        // Where a stretch of neighbours goes, in 64 equal parts of the range: as if drawn without
        // replacement, of which there is so much that chi-square holds.
        for n in [1_000_003u64, 1 << 20, (1 << 40) + 7] {
            for key in 0..20 {
                let permutation = Permutation::new(extend(3, key), n);
                let mut seen = [0; 64];
                for i in 0..20_000 {
                    let image = u128::from(permutation.at(i + n / 3));
                    seen[(image * 64 / u128::from(n)) as usize] += 1;
                }
                let sigmas = chi_square(&seen, 20_000.0 / 64.0);
                assert!(sigmas.abs() < 4.5, "{n} {key}: {sigmas}");
            }
        }
    }

    #[test]
    fn keys_that_follow_one_another_give_permutations_that_do_not() {
        // Numbers that two independent permutations map alike: Poisson with mean 1.
        let n = 1000;
        let pairs = 2000;
        let all: Vec<_> = (0..=pairs).map(|key| images(key, n)).collect();
        let fixed: usize = all
            .windows(2)
            .map(|pair| pair[0].iter().zip(&pair[1]).filter(|(a, b)| a == b).count())
            .sum();
        let sigmas = (fixed as f64 - pairs as f64) / (pairs as f64).sqrt();
        assert!(sigmas.abs() < 4.0, "{fixed}");
    }
}
