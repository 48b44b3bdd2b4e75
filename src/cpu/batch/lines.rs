//! Lines of a tensor: the runs of elements that a softmax, or any reduction, goes along.
//!
//! A line that is contiguous is worked on where it lies. Any other is gathered into a thread's
//! scratch memory, a tile of neighbouring lines at a time, worked on there as f32, and scattered
//! back with one rounding. So a loss is written for contiguous rows alone.

use crate::base::error::{Error, Result};
use crate::base::shape::{MAX_RANK, Shape};
use crate::base::tensor::TensorMut;
use crate::cpu::processor::Cpu;
use crate::cpu::simd::Lanes;
use crate::cpu::threads::{Spread, SyncRef};
use std::cell::RefCell;

/// Sizes and strides of some dimensions, neighbours merged where they are contiguous.
#[derive(Debug, Clone, Copy)]
struct Dims {
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

    /// Element offset of index `i`, counted row-major.
    #[inline]
    fn offset(&self, mut i: usize) -> usize {
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
    kept: Dims,
    along: Dims,
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

    fn contiguous(&self) -> bool {
        match self.along.rank {
            0 => true,
            1 => self.along.dims[0].1 == 1,
            _ => false,
        }
    }

    /// Whether neighbouring lines lie next to one another in memory.
    fn interleaved(&self) -> bool {
        self.kept.rank > 0 && self.kept.dims[self.kept.rank - 1].1 == 1
    }

    /// How many lines from `first` on (at most `most`) keep the distance 1 of neighbours.
    fn run(&self, first: usize, most: usize) -> usize {
        if !self.interleaved() {
            return 1;
        }
        let size = self.kept.dims[self.kept.rank - 1].0;
        most.min(size - first % size)
    }

    /// Copies lines `first..first + n` (a [`Lines::run`]) into `tile`, one after another.
    ///
    /// # Safety
    /// `base` is the first element of the tensor that these lines were made for.
    unsafe fn gather<T: Lanes>(&self, base: *const T, first: usize, n: usize, tile: &mut [f32]) {
        let start = self.kept.offset(first);
        for j in 0..self.len {
            let at = start + self.along.offset(j);
            for i in 0..n {
                // SAFETY: line first + i and its element j exist.
                tile[i * self.len + j] = unsafe { base.add(at + i).read() }.to_f32();
            }
        }
    }

    /// The way back of [`Lines::gather`].
    ///
    /// # Safety
    /// As for `gather`, and nobody else touches these lines.
    unsafe fn scatter<T: Lanes>(&self, base: *mut T, first: usize, n: usize, tile: &[f32]) {
        let start = self.kept.offset(first);
        for j in 0..self.len {
            let at = start + self.along.offset(j);
            for i in 0..n {
                // SAFETY: line first + i and its element j exist.
                unsafe { base.add(at + i).write(T::from_f32(tile[i * self.len + j])) };
            }
        }
    }
}

/// A tensor whose lines are read: base pointer and layout.
#[derive(Debug)]
pub(crate) struct Source<T> {
    pub(crate) base: *const T,
    pub(crate) lines: Lines,
}

/// A tensor whose lines are written: base pointer and layout.
#[derive(Debug)]
pub(crate) struct Sink<T> {
    pub(crate) base: *mut T,
    pub(crate) lines: Lines,
}

/// The slice of a host tensor of the same type as `x`, or an error that names the argument.
pub(crate) fn host_like<'a, T: Lanes>(
    _: &Source<T>,
    tensor: TensorMut<'a>,
    argument: &'static str,
) -> Result<&'a mut [T]> {
    let (expected, got) = ("host", "device");
    tensor.into_host().ok_or(Error::Place { argument, expected, got })
}

/// One line's memory: `len` elements at each pointer that the operation uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<X, A, Y> {
    /// Number of the line.
    pub(crate) index: usize,
    pub(crate) len: usize,
    /// The first input.
    pub(crate) x: *const X,
    /// The second input, where there is one.
    pub(crate) a: *const A,
    /// The output, where there is one; may be `x` itself.
    pub(crate) y: *mut Y,
    /// The second output, of the second input's type; may be `a` itself.
    pub(crate) b: *mut A,
    pub(crate) spread: Spread,
}

/// What is done with each line.
pub(crate) trait LineOp: Sync {
    /// What lines add up to, in a fixed order.
    type Sum: Copy + Default + Send;

    /// # Safety
    /// The line's pointers are good for `len` elements (`y` for writing), nobody else touches
    /// `y`'s, and `y` is `x`, or does not overlap the inputs.
    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sum: &mut Self::Sum);

    fn merge(total: &mut Self::Sum, part: &Self::Sum);
}

/// Lines are summed in at most this many chunks, whatever the number of threads.
const CHUNKS: usize = 256;
/// Fewer elements than this are not worth waking a thread for: about 10 µs of work.
const ALONE_ELEMENTS: usize = 16 * 1024;
/// A line of this many elements is worth sharing among threads.
const SHARED_LINE: usize = 32 * 1024;
/// Elements of a gathered tile: 1 MiB of f32, as much as an L2 cache holds.
const TILE_ELEMENTS: usize = 256 * 1024;
/// Lines of a tile: a cache line of f32.
const TILE_LINES: usize = 16;

thread_local! {
    /// Tiles of this thread, kept so that calls in the steady state allocate nothing.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The tensors of a call, all of as many lines.
pub(crate) struct Operands<X, A, Y> {
    pub(crate) x: Source<X>,
    pub(crate) a: Option<Source<A>>,
    pub(crate) y: Option<Sink<Y>>,
    pub(crate) b: Option<Sink<A>>,
}

/// Does `op` on every line of `x` (with `a` and `y` of as many lines), on the threads of `cpu`.
///
/// # Safety
/// As for [`each_line_of`].
pub(crate) unsafe fn each_line<X: Lanes, A: Lanes, Y: Lanes, Op: LineOp>(
    cpu: &Cpu,
    x: Source<X>,
    a: Option<Source<A>>,
    y: Option<Sink<Y>>,
    op: &Op,
) -> Op::Sum {
    // SAFETY: the operands' layouts are those of valid tensors, equal in count and length, and
    // outputs lie apart: what this function asks of its caller is what `each_line_of` asks.
    unsafe { each_line_of(cpu, Operands { x, a, y, b: None }, op) }
}

/// Does `op` on every line of the operands, on the threads of `cpu`.
///
/// # Safety
/// The layouts are those of valid tensors at the bases, equal in count and length; `y` is `x`
/// itself or overlaps nothing else, `b` likewise is `a` or apart; nobody else touches the outputs
/// during the call.
pub(crate) unsafe fn each_line_of<X: Lanes, A: Lanes, Y: Lanes, Op: LineOp>(
    cpu: &Cpu,
    operands: Operands<X, A, Y>,
    op: &Op,
) -> Op::Sum {
    let Operands { x, a, y, b } = operands;
    let (count, len) = (x.lines.count(), x.lines.len());
    let contiguous = x.lines.contiguous()
        && a.as_ref().is_none_or(|a| a.lines.contiguous())
        && y.as_ref().is_none_or(|y| y.lines.contiguous())
        && b.as_ref().is_none_or(|b| b.lines.contiguous());
    let per_chunk = count.div_ceil(CHUNKS).max(1);
    let mut sums = [Op::Sum::default(); CHUNKS];
    let sums = &mut sums[..count.div_ceil(per_chunk)];
    let job = Job { x: &x, a: &a, y: &y, b: &b, op };
    // SAFETY: chunks are disjoint ranges of lines, and the caller vouches that lines do not overlap.
    let job = unsafe { SyncRef::new(&job) };
    let run = |chunk: usize, spread: Spread, sum: &mut Op::Sum| {
        let lines = chunk * per_chunk..((chunk + 1) * per_chunk).min(count);
        // SAFETY: the caller's contract; chunks are disjoint ranges of lines.
        unsafe {
            if contiguous {
                job.get().in_place(lines, spread, sum);
            } else {
                job.get().in_tiles(lines, sum);
            }
        }
    };
    let threads = cpu.threads();
    let small = count.saturating_mul(len) < ALONE_ELEMENTS || threads == 1;
    let few = contiguous && count < 4 * threads && len >= SHARED_LINE;
    if small || few {
        let spread = if small { Spread::Alone } else { Spread::Shared };
        let all = |sums: &mut [Op::Sum]| {
            for (chunk, sum) in sums.iter_mut().enumerate() {
                run(chunk, spread, sum);
            }
        };
        if small {
            all(sums);
        } else {
            cpu.install(&mut || all(sums));
        }
    } else {
        cpu.share_items(sums, |chunk, sum| run(chunk, Spread::Alone, sum));
    }
    let mut total = Op::Sum::default();
    for sum in sums.iter() {
        Op::merge(&mut total, sum);
    }
    total
}

struct Job<'a, X, A, Y, Op> {
    x: &'a Source<X>,
    a: &'a Option<Source<A>>,
    y: &'a Option<Sink<Y>>,
    b: &'a Option<Sink<A>>,
    op: &'a Op,
}

impl<X: Lanes, A: Lanes, Y: Lanes, Op: LineOp> Job<'_, X, A, Y, Op> {
    /// # Safety
    /// As for [`each_line`]; nobody else works on these lines.
    unsafe fn in_place(&self, lines: std::ops::Range<usize>, spread: Spread, sum: &mut Op::Sum) {
        for index in lines {
            // SAFETY: the line lies inside each tensor.
            unsafe {
                let line = Line {
                    index,
                    len: self.x.lines.len,
                    x: self.x.base.add(self.x.lines.kept.offset(index)),
                    a: match self.a {
                        Some(a) => a.base.add(a.lines.kept.offset(index)),
                        None => std::ptr::null(),
                    },
                    y: match self.y {
                        Some(y) => y.base.add(y.lines.kept.offset(index)),
                        None => std::ptr::null_mut(),
                    },
                    b: match self.b {
                        Some(b) => b.base.add(b.lines.kept.offset(index)),
                        None => std::ptr::null_mut(),
                    },
                    spread,
                };
                self.op.line(line, sum);
            }
        }
    }

    /// # Safety
    /// As for [`each_line`]; nobody else works on these lines.
    unsafe fn in_tiles(&self, lines: std::ops::Range<usize>, sum: &mut Op::Sum) {
        let len = self.x.lines.len;
        let most = (TILE_ELEMENTS / len.max(1)).clamp(1, TILE_LINES);
        let operands = if self.a.is_some() { 2 } else { 1 };
        SCRATCH.with_borrow_mut(|scratch| {
            let need = operands * most * len;
            if scratch.len() < need {
                scratch.resize(need, 0.0);
            }
            let (tile, second) = scratch.split_at_mut(most * len);
            let mut first = lines.start;
            while first < lines.end {
                // All operands have the kept shape, so the shortest run serves each of them.
                let mut n = self.x.lines.run(first, most.min(lines.end - first));
                if let Some(a) = self.a {
                    n = a.lines.run(first, n);
                }
                if let Some(y) = self.y {
                    n = y.lines.run(first, n);
                }
                if let Some(b) = self.b {
                    n = b.lines.run(first, n);
                }
                // SAFETY: lines first..first + n exist in each tensor, and the tiles hold them.
                unsafe {
                    self.x.lines.gather(self.x.base, first, n, tile);
                    if let Some(a) = self.a {
                        a.lines.gather(a.base, first, n, second);
                    }
                    for i in 0..n {
                        let x = tile.as_mut_ptr().add(i * len);
                        let a = match self.a {
                            Some(_) => second.as_mut_ptr().add(i * len),
                            None => std::ptr::null_mut(),
                        };
                        let y = match self.y {
                            Some(_) => x,
                            None => std::ptr::null_mut(),
                        };
                        let b = match self.b {
                            Some(_) => a,
                            None => std::ptr::null_mut(),
                        };
                        let (index, spread) = (first + i, Spread::Alone);
                        let (x, a) = (x.cast_const(), a.cast_const());
                        let line = Line { index, len, x, a, y, b, spread };
                        self.op.line::<f32, f32, f32>(line, sum);
                    }
                    if let Some(y) = self.y {
                        y.lines.scatter(y.base, first, n, tile);
                    }
                    if let Some(b) = self.b {
                        b.lines.scatter(b.base, first, n, second);
                    }
                }
                first += n;
            }
        });
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
}
