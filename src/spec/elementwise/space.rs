//! Where the elements of several tensors lie, index by index of the shape that they broadcast to.

use crate::base::shape::{MAX_RANK, Shape};
use std::ops::Range;

/// The tensors of a call; each has its strides over the same [`Space`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    Input,
    Target,
    Weight,
    /// A weight of positive targets, or a variance.
    Third,
    Upstream,
    Loss,
    GradInput,
    GradTarget,
    GradThird,
}

#[cfg(gpu)]
impl Operand {
    /// Those that are read.
    pub(crate) const READ: [Operand; 5] =
        [Operand::Input, Operand::Target, Operand::Weight, Operand::Third, Operand::Upstream];
    /// Those that are written.
    pub(crate) const WRITTEN: [Operand; 4] =
        [Operand::Loss, Operand::GradInput, Operand::GradTarget, Operand::GradThird];
}

/// Number of [`Operand`]s.
pub(crate) const OPERANDS: usize = 9;

/// Strides of each operand along each dimension; 0 for an operand that is absent.
pub(crate) type Strides = [[usize; MAX_RANK]; OPERANDS];

/// The indices of a shape, row-major, with neighbouring dimensions merged where that leaves every
/// operand's strides constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    rank: usize,
    sizes: [usize; MAX_RANK],
    strides: Strides,
    /// Offset of each operand's first element.
    base: [usize; OPERANDS],
}

impl Space {
    pub(crate) fn new(shape: &Shape, strides: &Strides) -> Space {
        let mut space = Space {
            rank: 0,
            sizes: [1; MAX_RANK],
            strides: [[0; MAX_RANK]; OPERANDS],
            base: [0; OPERANDS],
        };
        for (d, &size) in shape.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let merge = space.rank > 0
                && (0..OPERANDS).all(|o| {
                    space.strides[o][space.rank - 1] == size.saturating_mul(strides[o][d])
                });
            if merge {
                space.sizes[space.rank - 1] *= size;
            } else {
                space.sizes[space.rank] = size;
                space.rank += 1;
            }
            for (own, strides) in space.strides.iter_mut().zip(strides) {
                own[space.rank - 1] = strides[d];
            }
        }
        space
    }

    /// Number of indices.
    pub(crate) fn count(&self) -> usize {
        self.sizes[..self.rank].iter().product()
    }

    /// Sizes of the merged dimensions, outermost first.
    pub(crate) fn sizes(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }

    pub(crate) fn stride(&self, operand: Operand, d: usize) -> usize {
        self.strides[operand as usize][d]
    }

    /// Size of the innermost dimension.
    pub(crate) fn inner(&self) -> usize {
        self.sizes().last().copied().unwrap_or(1)
    }

    /// Only indices `range` of dimension `d`.
    pub(crate) fn part(&self, d: usize, range: Range<usize>) -> Space {
        let mut part = *self;
        part.sizes[d] = range.len();
        for o in 0..OPERANDS {
            part.base[o] += range.start * self.strides[o][d];
        }
        part
    }

    /// Only the dimensions that `keep` names.
    pub(crate) fn project(&self, keep: impl Fn(usize) -> bool) -> Space {
        let mut space = Space { rank: 0, sizes: [1; MAX_RANK], ..*self };
        for d in (0..self.rank).filter(|&d| keep(d)) {
            space.sizes[space.rank] = self.sizes[d];
            for o in 0..OPERANDS {
                space.strides[o][space.rank] = self.strides[o][d];
            }
            space.rank += 1;
        }
        space
    }

    /// Replaces an operand's strides.
    pub(crate) fn set(&mut self, operand: Operand, strides: &[usize; MAX_RANK]) {
        self.strides[operand as usize] = *strides;
        self.base[operand as usize] = 0;
    }

    /// Strides of a contiguous tensor over the dimensions that `keep` names, and 0 over others.
    pub(crate) fn contiguous(&self, keep: impl Fn(usize) -> bool) -> [usize; MAX_RANK] {
        let mut strides = [0; MAX_RANK];
        let mut stride = 1;
        for d in (0..self.rank).rev().filter(|&d| keep(d)) {
            strides[d] = stride;
            stride *= self.sizes[d];
        }
        strides
    }

    /// Where `operand`'s elements for the indices `range` begin, if they follow one another.
    pub(crate) fn direct(&self, operand: Operand, range: &Range<usize>) -> Option<usize> {
        let strides = &self.strides[operand as usize];
        let Some(last) = self.rank.checked_sub(1) else {
            return Some(self.base[operand as usize]);
        };
        let inner = self.sizes[last];
        let one_run = range.start / inner == (range.end.max(range.start + 1) - 1) / inner;
        let follows = |d: usize| strides[d] == strides[d + 1].saturating_mul(self.sizes[d + 1]);
        let direct = strides[last] == 1 && (one_run || (0..last).all(follows));
        direct.then(|| self.offset(operand, range.start))
    }

    fn offset(&self, operand: Operand, mut index: usize) -> usize {
        let mut offset = self.base[operand as usize];
        for d in (0..self.rank).rev() {
            offset += index % self.sizes[d] * self.strides[operand as usize][d];
            index /= self.sizes[d];
        }
        offset
    }

    /// Calls `each` for every stretch of the innermost dimension among the indices `range`: where
    /// the operand's first element lies, the stretch as indices counted from `range.start`, and
    /// the distance of its elements.
    pub(crate) fn runs(
        &self,
        operand: Operand,
        range: Range<usize>,
        mut each: impl FnMut(usize, Range<usize>, usize),
    ) {
        if range.is_empty() {
            return;
        }
        let Some(last) = self.rank.checked_sub(1) else {
            return each(self.base[operand as usize], 0..range.len(), 0);
        };
        let strides = &self.strides[operand as usize];
        let mut at = [0; MAX_RANK];
        let mut rest = range.start;
        for d in (0..self.rank).rev() {
            at[d] = rest % self.sizes[d];
            rest /= self.sizes[d];
        }
        let mut offset = self.offset(operand, range.start);
        let mut done = 0;
        while done < range.len() {
            let n = (self.sizes[last] - at[last]).min(range.len() - done);
            each(offset, done..done + n, strides[last]);
            done += n;
            // The next stretch: as an odometer counts.
            offset -= at[last] * strides[last];
            at[last] = 0;
            for d in (0..last).rev() {
                at[d] += 1;
                offset += strides[d];
                if at[d] < self.sizes[d] {
                    break;
                }
                offset -= at[d] * strides[d];
                at[d] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strides(input: &[usize], target: &[usize]) -> Strides {
        let mut strides = [[0; MAX_RANK]; OPERANDS];
        strides[Operand::Input as usize][..input.len()].copy_from_slice(input);
        strides[Operand::Target as usize][..target.len()].copy_from_slice(target);
        strides
    }

    fn offsets(space: &Space, operand: Operand, range: Range<usize>) -> Vec<usize> {
        let mut all = vec![usize::MAX; range.len()];
        space.runs(operand, range, |offset, stretch, stride| {
            for (j, i) in stretch.enumerate() {
                all[i] = offset + j * stride;
            }
        });
        all
    }

    #[test]
    fn dimensions_merge_where_every_operand_is_contiguous() {
        let shape = Shape::new(&[4, 1, 3, 5]).unwrap();
        let both = Space::new(&shape, &strides(&[15, 15, 5, 1], &[15, 15, 5, 1]));
        assert_eq!(both.sizes(), [60]);
        let padded = Space::new(&shape, &strides(&[15, 15, 5, 1], &[20, 15, 5, 1]));
        assert_eq!(padded.sizes(), [4, 15]);
        let row = Space::new(&shape, &strides(&[15, 15, 5, 1], &[0, 0, 0, 1]));
        assert_eq!(row.sizes(), [12, 5]);
    }

    #[test]
    fn runs_visit_every_index_in_order() {
        let shape = Shape::new(&[3, 2, 4]).unwrap();
        let space = Space::new(&shape, &strides(&[10, 4, 1], &[0, 1, 0]));
        let all: Vec<usize> = (0..24).map(|i| i / 8 * 10 + i / 4 % 2 * 4 + i % 4).collect();
        for (from, to) in [(0, 24), (3, 4), (5, 21), (7, 8), (9, 9)] {
            assert_eq!(offsets(&space, Operand::Input, from..to), all[from..to]);
            let target: Vec<usize> = (from..to).map(|i| i / 4 % 2).collect();
            assert_eq!(offsets(&space, Operand::Target, from..to), target);
        }
        let part = space.part(0, 1..3);
        assert_eq!(offsets(&part, Operand::Input, 0..16), all[8..]);
    }

    #[test]
    fn a_tile_is_direct_where_its_elements_follow_one_another() {
        let shape = Shape::new(&[3, 8]).unwrap();
        let space = Space::new(&shape, &strides(&[9, 1], &[1, 0]));
        assert_eq!(space.direct(Operand::Input, &(8..16)), Some(9));
        assert_eq!(space.direct(Operand::Input, &(7..9)), None);
        assert_eq!(space.direct(Operand::Target, &(0..8)), None);
    }
}
