//! Banks of shared memory. A warp's access takes a turn for each 128 bytes that its lanes ask for, and another
//! for each further word of a bank that lanes of one turn want. What is counted is those.
//!
//! Lanes do not run side by side here: a lane's n-th access at a place, since its warp last met, belongs to the
//! others' n-th there.

use std::collections::HashMap;

/// Lanes of a warp.
const WARP: u32 = 32;
/// Banks, of a word of 4 bytes each.
const BANKS: u32 = 32;
/// Bytes of a turn.
const TURN: u32 = 4 * BANKS;
/// Bytes of a lane's largest access.
const WIDEST: u32 = 16;

/// An instruction of a warp, as far as a lane knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Instruction {
    file: usize,
    line: u32,
    size: u32,
    write: bool,
    /// How often the lane has been there since the warp met.
    number: u32,
}

/// What the lanes of a warp have asked for since they met.
#[derive(Default)]
struct Warp {
    /// The barriers and warp-wide meetings that it has come from.
    met: (u32, u32),
    been: HashMap<(u32, Instruction), u32>,
    asked: HashMap<Instruction, Vec<(u32, u32)>>,
}

/// The accesses of a cluster's warps.
pub(super) struct Banks {
    warps: Vec<Warp>,
    conflicts: u64,
}

impl Banks {
    pub(super) fn new(warps: u32) -> Banks {
        Banks { warps: (0..warps).map(|_| Warp::default()).collect(), conflicts: 0 }
    }

    /// A lane accesses `size` bytes at `offset`, by a line of a file.
    pub(super) fn ask(
        &mut self,
        (warp, lane): (u32, u32),
        met: (u32, u32),
        (offset, size, align): (u32, u32, u32),
        write: bool,
        (file, line): (usize, u32),
    ) {
        let warp = &mut self.warps[warp as usize];
        if warp.met != met {
            self.conflicts += warp.settle();
            warp.met = met;
        }
        // A structure is taken piece by piece.
        let piece = if size.is_power_of_two() && size <= WIDEST { size } else { align.min(WIDEST) };
        for at in (offset..offset + size).step_by(piece as usize) {
            let first = Instruction { file, line, size: piece, write, number: 0 };
            let number = warp.been.entry((lane, first)).or_default();
            let instruction = Instruction { number: *number, ..first };
            *number += 1;
            warp.asked.entry(instruction).or_default().push((lane, at));
        }
    }

    /// Turns that lanes have lost to each other, when all warps have ended.
    pub(super) fn conflicts(&mut self) -> u64 {
        self.conflicts += self.warps.iter_mut().map(Warp::settle).sum::<u64>();
        self.conflicts
    }
}

impl Warp {
    fn settle(&mut self) -> u64 {
        self.been.clear();
        self.asked.drain().map(|(instruction, lanes)| lost(instruction.size, &lanes)).sum()
    }
}

/// Turns beyond the first of each part of the warp that has one: of lanes, and the bytes where they ask for so many.
fn lost(size: u32, asked: &[(u32, u32)]) -> u64 {
    let lanes = (TURN / size).min(WARP);
    let mut words: Vec<(u32, u32, u32)> = Vec::new();
    for &(lane, at) in asked {
        for word in at / 4..(at + size).div_ceil(4) {
            words.push((lane / lanes, word % BANKS, word));
        }
    }
    words.sort_unstable();
    words.dedup();
    let of_bank =
        words.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).map(|same| (same[0].0, same.len()));
    let mut turns: HashMap<u32, u64> = HashMap::new();
    for (part, wanted) in of_bank {
        let turn = turns.entry(part).or_default();
        *turn = (*turn).max(wanted as u64 - 1);
    }
    turns.values().sum()
}

#[cfg(test)]
mod tests {
    use super::lost;

    fn of(size: u32, at: impl Fn(u32) -> u32) -> u64 {
        let lanes: Vec<_> = (0..32).map(|lane| (lane, at(lane))).collect();
        lost(size, &lanes)
    }

    #[test]
    fn lanes_that_want_one_bank_wait_for_each_other() {
        assert_eq!(of(4, |lane| 4 * lane), 0);
        assert_eq!(of(4, |lane| 4 * 33 * lane), 0);
        assert_eq!(of(4, |_| 400), 0, "a word is for all");
        assert_eq!(of(4, |lane| 8 * lane), 1);
        assert_eq!(of(4, |lane| 128 * lane), 31);
        assert_eq!(of(2, |lane| 2 * lane), 0);
        assert_eq!(of(4, |lane| 4 * lane % 16 + 128 * (lane / 16)), 1);
        // Half a warp a turn, then a quarter.
        assert_eq!(of(8, |lane| 8 * lane), 0);
        assert_eq!(of(8, |lane| 128 * lane), 2 * 15);
        assert_eq!(of(16, |lane| 16 * lane), 0);
        assert_eq!(of(16, |lane| 144 * lane), 0);
        assert_eq!(of(16, |lane| 32 * lane), 4);
    }
}
