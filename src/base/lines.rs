//! Lines of a tensor: the runs of elements that a softmax, or any reduction, goes along. Which there
//! are and how they lie, from the shape alone.

use crate::base::shape::{MAX_RANK, Shape};

/// Sizes and strides of some dimensions, neighbours merged where they are contiguous.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims {
    dims: [(usize, usize); MAX_RANK],
    rank: usize,
}

impl Dims {
    const NONE: Dims = Dims { dims: [(1, 1); MAX_RANK], rank: 0 };

    fn push(&mut self, size: usize, stride: usize) {
        if size == 1 {
            return;
        }
        if let Some(last) = self.rank.checked_sub(1) {
            let (outer, outer_stride) = self.dims[last];
            if size != 0 && outer_stride == size * stride {
                self.dims[last] = (outer * size, stride);
                return;
            }
        }
        self.dims[self.rank] = (size, stride);
        self.rank += 1;
    }

    fn count(&self) -> usize {
        self.dims[..self.rank].iter().map(|d| d.0).product()
    }

    /// Sizes and strides, of more than one index each.
    pub(crate) fn pairs(&self) -> &[(usize, usize)] {
        &self.dims[..self.rank]
    }

    /// Element offset of index `i`, counted row-major.
    #[inline]
    pub(crate) fn offset(&self, mut i: usize) -> usize {
        match self.rank {
            0 => 0,
            1 => i * self.dims[0].1,
            _ => {
                let mut offset = 0;
                for &(size, stride) in self.dims[..self.rank].iter().rev() {
                    offset += i % size * stride;
                    i /= size;
                }
                offset
            }
        }
    }
}

/// The lines of a tensor along some of its dimensions, numbered row-major over the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) kept: Dims,
    pub(crate) along: Dims,
    count: usize,
    len: usize,
}

impl Lines {
    /// Lines along the dimensions that `along` names, of a tensor whose dimension 0 has stride
    /// `row_stride` and whose others are contiguous.
    pub(crate) fn new(shape: &Shape, row_stride: usize, along: impl Fn(usize) -> bool) -> Lines {
        let mut lines = Lines { kept: Dims::NONE, along: Dims::NONE, count: 0, len: 0 };
        for (d, &size) in shape.iter().enumerate() {
            let stride = match d {
                0 => row_stride,
                _ => shape[d + 1..].iter().product(),
            };
            if along(d) {
                lines.along.push(size, stride);
            } else {
                lines.kept.push(size, stride);
            }
        }
        lines.count = lines.kept.count();
        lines.len = lines.along.count();
        lines
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether each is a run of neighbours.
    pub(crate) fn contiguous(&self) -> bool {
        matches!(self.along.pairs(), [] | [(_, 1)])
    }

    /// The distance between lines, where they are contiguous and evenly spaced.
    pub(crate) fn stride(&self) -> Option<usize> {
        match self.kept.pairs() {
            _ if self.count * self.len == 0 => Some(self.len),
            [] if self.contiguous() => Some(self.len),
            [(_, stride)] if self.contiguous() => Some(*stride),
            _ => None,
        }
    }

    /// Whether neighbouring lines lie next to one another in memory.
    fn interleaved(&self) -> bool {
        self.kept.rank > 0 && self.kept.dims[self.kept.rank - 1].1 == 1
    }

    /// How many lines from `first` on (at most `most`) keep the distance 1 of neighbours.
    pub(crate) fn run(&self, first: usize, most: usize) -> usize {
        if !self.interleaved() {
            return 1;
        }
        let size = self.kept.dims[self.kept.rank - 1].0;
        most.min(size - first % size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(lines: &Lines, line: usize) -> Vec<usize> {
        let start = lines.kept.offset(line);
        (0..lines.len()).map(|j| start + lines.along.offset(j)).collect()
    }

    #[test]
    fn lines_follow_the_strides() {
        let shape = Shape::new(&[2, 3, 4]).unwrap();
        let classes = Lines::new(&shape, 20, |d| d == 1);
        assert_eq!((classes.count(), classes.len()), (8, 3));
        assert_eq!(offsets(&classes, 0), [0, 4, 8]);
        assert_eq!(offsets(&classes, 5), [21, 25, 29]);
        assert!(!classes.contiguous() && classes.interleaved());

        let ends = Lines::new(&shape, 12, |d| d != 1);
        assert_eq!(offsets(&ends, 1), [4, 5, 6, 7, 16, 17, 18, 19]);

        let all = Lines::new(&shape, 12, |_| true);
        assert_eq!((all.count(), all.len()), (1, 24));
        assert!(all.contiguous());
    }

    #[test]
    fn runs_end_where_neighbours_stop_being_adjacent() {
        let shape = Shape::new(&[2, 3, 4]).unwrap();
        let lines = Lines::new(&shape, 12, |d| d == 1);
        assert_eq!(lines.run(0, 16), 4);
        assert_eq!(lines.run(3, 16), 1);
        assert_eq!(lines.run(4, 16), 4);
        let rows = Lines::new(&Shape::new(&[5, 3]).unwrap(), 7, |d| d == 1);
        assert_eq!(rows.run(0, 16), 1);
    }

    #[test]
    fn rows_are_evenly_spaced_and_other_lines_are_not() {
        let stride = |sizes: &[usize], row: usize, along: usize| {
            Lines::new(&Shape::new(sizes).unwrap(), row, |d| d == along).stride()
        };
        assert_eq!(stride(&[5, 7], 7, 1), Some(7));
        assert_eq!(stride(&[5, 7], 9, 1), Some(9));
        assert_eq!(stride(&[2, 3, 7], 21, 2), Some(7));
        assert_eq!(stride(&[7], 1, 0), Some(7));
        assert_eq!(stride(&[5, 1], 3, 1), Some(3));
        assert_eq!(stride(&[0, 7], 7, 1), Some(7));
        assert_eq!(stride(&[2, 3, 7], 25, 2), None);
        assert_eq!(stride(&[2, 7, 3], 21, 1), None);
    }
}
