//! The likeliest classes of a row.

use crate::cpu::row::softmax::MaximumOf;
use crate::cpu::simd::Level;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The k best classes so far: larger beats smaller, NaN beats every number, and of equals the lower
/// class beats the higher.
pub(crate) struct Best {
    pub(crate) k: usize,
    /// The worst on top.
    heap: BinaryHeap<Reverse<(u32, Reverse<usize>)>>,
}

/// Numbers in the order of their values, both zeros the same, NaN last.
fn key(value: f32) -> u32 {
    if value.is_nan() {
        return u32::MAX;
    }
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn value(key: u32) -> f32 {
    match key {
        u32::MAX => f32::NAN,
        key if key >> 31 == 1 => f32::from_bits(key & !(1 << 31)),
        key => f32::from_bits(!key),
    }
}

impl Best {
    pub(crate) fn new(k: usize) -> Best {
        Best { k, heap: BinaryHeap::new() }
    }

    /// Whether there can be room for a class of this value.
    pub(crate) fn admits(&self, value: f32) -> bool {
        match self.heap.peek() {
            Some(Reverse((worst, _))) if self.heap.len() == self.k => key(value) >= *worst,
            _ => true,
        }
    }

    pub(crate) fn offer(&mut self, value: f32, class: usize) {
        let new = Reverse((key(value), Reverse(class)));
        if self.heap.len() < self.k {
            self.heap.push(new);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && new.0 > worst.0
        {
            *worst = new;
        }
    }

    /// Offers a stretch of classes, whose maximum says whether it is worth looking at.
    pub(crate) fn offer_all(
        &mut self,
        level: Level,
        values: &[f32],
        class: impl Fn(usize) -> usize,
    ) {
        /// Values that are looked at or not.
        const STRETCH: usize = 128;
        for (n, stretch) in values.chunks(STRETCH).enumerate() {
            let best = level.run(MaximumOf { x: stretch.as_ptr(), len: stretch.len() });
            // The maximum disregards NaN, and nothing but NaN leaves −∞.
            if self.admits(best) || stretch.iter().any(|x| x.is_nan()) {
                for (i, &value) in stretch.iter().enumerate() {
                    self.offer(value, class(n * STRETCH + i));
                }
            }
        }
    }

    /// From best to worst.
    pub(crate) fn sorted(self) -> Vec<(f32, usize)> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|Reverse((key, Reverse(class)))| (value(key), class)).collect()
    }
}
