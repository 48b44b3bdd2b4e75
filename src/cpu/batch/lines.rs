//! Lines of a tensor: the runs of elements that a softmax, or any reduction, goes along.
//!
//! A line that is contiguous is worked on where it lies. Any other is gathered into a thread's
//! scratch memory, a tile of neighbouring lines at a time, worked on there as f32, and scattered
//! back with one rounding. So a loss is written for contiguous rows alone.

use crate::base::error::{Error, Result};
use crate::base::lines::Lines;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::processor::Cpu;
use crate::cpu::simd::{Lanes, ask_for};
use crate::cpu::threads::{Spread, SyncRef};
use std::cell::RefCell;
use std::ops::Range;

impl Lines {
    /// Copies lines `first..first + n` (a [`Lines::run`]) into `tile`, one after another.
    ///
    /// # Safety
    /// `base` is the first element of the tensor that these lines were made for.
    unsafe fn gather<T: Lanes>(&self, base: *const T, first: usize, n: usize, tile: &mut [f32]) {
        let start = self.kept.offset(first);
        for j in 0..self.len() {
            let at = start + self.along.offset(j);
            for i in 0..n {
                // SAFETY: line first + i and its element j exist.
                tile[i * self.len() + j] = unsafe { base.add(at + i).read() }.to_f32();
            }
        }
    }

    /// The way back of [`Lines::gather`].
    ///
    /// # Safety
    /// As for `gather`, and nobody else touches these lines.
    unsafe fn scatter<T: Lanes>(&self, base: *mut T, first: usize, n: usize, tile: &[f32]) {
        let start = self.kept.offset(first);
        for j in 0..self.len() {
            let at = start + self.along.offset(j);
            for i in 0..n {
                // SAFETY: line first + i and its element j exist.
                unsafe { base.add(at + i).write(T::from_f32(tile[i * self.len() + j])) };
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

/// The slice of host logits that are kept, of the same type as `y`, or an error that names them.
pub(crate) fn kept<'a, T: Lanes>(_: &Source<T>, logits: TensorRef<'a>) -> Result<&'a [T]> {
    let (expected, got) = ("host", "device");
    logits.host().ok_or(Error::Place { argument: "logits", expected, got })
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

impl<X, A, Y> Line<X, A, Y> {
    /// The same, with its output for the first input: they are of one type.
    pub(crate) fn at_output(self) -> Self {
        Line { x: self.y.cast_const().cast(), ..self }
    }

    /// Asks for an element of the line that most likely comes next, right behind this one.
    pub(crate) fn ask_for_next(&self, element: Option<usize>) {
        if let Some(element) = element {
            ask_for(self.x.wrapping_add(self.len + element));
        }
    }
}

/// What is done with each line.
pub(crate) trait LineOp: Sync {
    /// What lines add up to, in a fixed order.
    type Sum: Copy + Default + Send;

    /// # Safety
    /// The line's pointers are good for `len` elements (`y` for writing), nobody else touches
    /// `y`'s, and `y` is `x`, or does not overlap the inputs.
    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sum: &mut Self::Sum);

    /// Does lines that follow one another, at most [`GROUP`] of them, where several at once are less work than
    /// one by one; else nothing, and says so.
    ///
    /// # Safety
    /// As for [`LineOp::line`], of each.
    unsafe fn group<X: Lanes, A: Lanes, Y: Lanes>(
        &self,
        _: &[Line<X, A, Y>],
        _: &mut Self::Sum,
    ) -> bool {
        false
    }

    fn merge(total: &mut Self::Sum, part: &Self::Sum);
}

/// Lines that an operation is offered at once.
pub(crate) const GROUP: usize = 8;
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

/// Lines of so many elements that are gathered at once.
fn tile_lines(len: usize) -> usize {
    (TILE_ELEMENTS / len.max(1)).clamp(1, TILE_LINES)
}

/// Bytes that a thread takes to gather lines of so many elements, of two tensors at most.
pub(crate) fn gathered(len: usize) -> usize {
    2 * 4 * tile_lines(len) * len
}

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

impl<X, A, Y> Operands<X, A, Y> {
    /// Whether lines lie in one piece each, in all of them.
    pub(crate) fn contiguous(&self) -> bool {
        let Operands { x, a, y, b } = self;
        x.lines.contiguous()
            && a.as_ref().is_none_or(|a| a.lines.contiguous())
            && y.as_ref().is_none_or(|y| y.lines.contiguous())
            && b.as_ref().is_none_or(|b| b.lines.contiguous())
    }
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
    let contiguous = operands.contiguous();
    let Operands { x, a, y, b } = operands;
    let (count, len) = (x.lines.count(), x.lines.len());
    let job = Job { x: &x, a: &a, y: &y, b: &b, op };
    // SAFETY: chunks are disjoint ranges of lines, and the caller vouches that lines do not overlap.
    let job = unsafe { SyncRef::new(&job) };
    let way = Way::of(cpu, count, len);
    let few = contiguous && count < 4 * cpu.threads() && len >= SHARED_LINE;
    let way = if few && way == Way::Chunks { Way::Lines } else { way };
    let spread = if way == Way::Lines { Spread::Shared } else { Spread::Alone };
    let run = |lines: Range<usize>, sum: &mut Op::Sum| {
        // SAFETY: the caller's contract; chunks are disjoint ranges of lines.
        unsafe {
            if contiguous {
                job.get().in_place(lines, spread, sum);
            } else {
                job.get().in_tiles(lines, sum);
            }
        }
    };
    each_chunk(cpu, (count, 1), way, run, Op::merge)
}

/// Who works on chunks of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The calling thread.
    Caller,
    /// A thread of the pool, which shares out each line.
    Lines,
    /// All threads, a chunk at a time.
    Chunks,
}

impl Way {
    /// For so many lines of some length.
    pub(crate) fn of(cpu: &Cpu, count: usize, len: usize) -> Way {
        let small = count.saturating_mul(len) < ALONE_ELEMENTS || cpu.threads() == 1;
        if small { Way::Caller } else { Way::Chunks }
    }
}

/// Adds up what `run` makes of each chunk of `count` lines, a multiple of `whole` of them but for the last
/// chunk. Chunks depend on the number of lines alone, and are added up in their order.
pub(crate) fn each_chunk<Sum: Copy + Default + Send>(
    cpu: &Cpu,
    (count, whole): (usize, usize),
    way: Way,
    run: impl Fn(Range<usize>, &mut Sum) + Sync,
    merge: impl Fn(&mut Sum, &Sum),
) -> Sum {
    let per_chunk = count.div_ceil(CHUNKS).next_multiple_of(whole).max(whole);
    let mut sums = [Sum::default(); CHUNKS];
    let sums = &mut sums[..count.div_ceil(per_chunk)];
    let run = |chunk: usize, sum: &mut Sum| {
        run(chunk * per_chunk..((chunk + 1) * per_chunk).min(count), sum);
    };
    let all = |sums: &mut [Sum]| {
        for (chunk, sum) in sums.iter_mut().enumerate() {
            run(chunk, sum);
        }
    };
    match way {
        Way::Caller => all(sums),
        Way::Lines => cpu.install(&mut || all(sums)),
        Way::Chunks => cpu.share_items(sums, run),
    }
    let mut total = Sum::default();
    for sum in sums.iter() {
        merge(&mut total, sum);
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
    unsafe fn in_place(&self, lines: Range<usize>, spread: Spread, sum: &mut Op::Sum) {
        let line = |index| {
            // SAFETY: the line lies inside each tensor.
            unsafe {
                Line {
                    index,
                    len: self.x.lines.len(),
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
                }
            }
        };
        for first in lines.clone().step_by(GROUP) {
            let last = lines.end - 1;
            let group: [_; GROUP] = std::array::from_fn(|i| line((first + i).min(last)));
            let group = &group[..GROUP.min(lines.end - first)];
            // SAFETY: the caller's promise, of each of the lines.
            unsafe {
                if !self.op.group(group, sum) {
                    for line in group {
                        self.op.line(*line, sum);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`each_line`]; nobody else works on these lines.
    unsafe fn in_tiles(&self, lines: Range<usize>, sum: &mut Op::Sum) {
        let len = self.x.lines.len();
        let most = tile_lines(len);
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
