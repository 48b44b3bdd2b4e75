//! How many numbers a lane of a sum takes, whatever the number of lanes.

use crate::cpu::simd::vector::Simd;
use std::ops::Range;

/// Additions that a lane takes one after another. Each rounds by 2^-25 of the sum so far and more, and of
/// equal numbers all may round to the same side: 64 are off by 1.9e-6 of their sum at most, on the way to a
/// result that may be off by 2e-6.
const ADDITIONS: usize = 64;

/// Pieces of a stretch, of which each is added up in vectors of its own and then added to the others: the
/// fewer lanes, the shorter.
#[derive(Clone, Copy)]
pub(crate) struct Pieces {
    at: usize,
    len: usize,
    each: usize,
}

impl Pieces {
    /// Of `len` elements that `vectors` vectors add up in turn.
    #[inline(always)]
    pub(crate) fn of<S: Simd>(len: usize, vectors: usize) -> Pieces {
        Pieces { at: 0, len, each: ADDITIONS * vectors * S::LANES }
    }

    /// Of `steps` additions of one vector.
    #[inline(always)]
    pub(crate) fn of_steps(steps: usize) -> Pieces {
        Pieces { at: 0, len: steps, each: ADDITIONS }
    }
}

impl Iterator for Pieces {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        let at = self.at;
        if at >= self.len {
            return None;
        }
        self.at = (at + self.each).min(self.len);
        Some(at..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::row::softmax::Sum;
    use crate::cpu::simd::{Kernel, Level};

    struct Cut(usize);

    impl Kernel for Cut {
        type Out = Vec<Range<usize>>;

        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> Self::Out {
            Pieces::of::<S>(self.0, 2).collect()
        }
    }

    #[test]
    fn pieces_cover_every_element_once() {
        for level in Level::available() {
            for len in [0, 1, 127, 128, 129, 2047, 2048, 2049, 10_000] {
                let pieces = level.run(Cut(len));
                let all: Vec<usize> = pieces.into_iter().flatten().collect();
                assert!(all.iter().copied().eq(0..len), "{level:?}: {len}");
            }
        }
    }

    /// Equal numbers whose additions may all round to the same side.
    #[test]
    fn a_block_of_equal_numbers_keeps_its_sum_at_every_level() {
        for level in Level::available() {
            for len in [255, 256, 2047, 2048] {
                for i in 0..200 {
                    let x = vec![(1.0 + 0.37 * i as f32) / len as f32; len];
                    let sum = f64::from(level.run(Sum { x: x.as_ptr(), len }));
                    let exact = f64::from(x[0]) * len as f64;
                    assert!((sum / exact - 1.0).abs() <= 2e-6, "{level:?}: {len} of {}", x[0]);
                }
            }
        }
    }
}
