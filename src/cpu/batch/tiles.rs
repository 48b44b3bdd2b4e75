//! Short lines side by side: they are brought into a tile, an element of sixteen lines after another,
//! worked on there as f32, and brought back with one rounding. Where lines that are neighbours lie beside
//! one another in memory (images) that is a copy.

use crate::base::dtype::DType;
use crate::base::lines::Lines;
use crate::cpu::batch::lines::{Sink, Source, Way, each_chunk};
use crate::cpu::processor::Cpu;
use crate::cpu::row::tile::{Lane, ROWS, SHORT};
use crate::cpu::simd::{Kernel, Lanes, Level, MAX_LANES, Simd, load_lanes, store_lanes};
use crate::cpu::threads::SyncRef;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Lines that are worth a task of their own.
const CHUNK: usize = 4 * ROWS;

/// Lines of a tile.
pub(crate) struct Lined<'t> {
    /// The first line's number, and how many there are.
    pub(crate) first: usize,
    pub(crate) lines: usize,
    /// Their elements; those of lines that there are not may be anything.
    pub(crate) x: &'t mut [Lane<f32>],
    /// Those of the second tensor, where there is one.
    pub(crate) a: &'t mut [Lane<f32>],
}

/// Memory of a tile on the stack, of which no more is touched than a line needs.
struct Memory([MaybeUninit<Lane<f32>>; SHORT]);

impl Memory {
    fn new() -> Memory {
        Memory([const { MaybeUninit::uninit() }; SHORT])
    }

    fn of_len(&mut self, len: usize) -> &mut [Lane<f32>] {
        for lane in &mut self.0[..len] {
            lane.write(Lane::of(0.0));
        }
        // SAFETY: so many were just written, and a `MaybeUninit` lies as what it may hold.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// What is done with each tile.
pub(crate) trait TileOp: Sync {
    /// What lines add up to, in a fixed order.
    type Sum: Copy + Default + Send;

    fn tile(&self, tile: Lined<'_>, sum: &mut Self::Sum);

    fn merge(total: &mut Self::Sum, part: &Self::Sum);
}

/// Whether lines are worked on side by side.
pub(crate) fn short<X>(x: &Source<X>) -> bool {
    (1..=SHORT).contains(&x.lines.len())
}

/// Does `op` on every tile of the lines of `x`, which are [`short`], and of `a`; `y` is written what the
/// tile of `x` holds then.
///
/// # Safety
/// The layouts are those of valid tensors at the bases, equal in count and length; `y` is `x` itself or
/// overlaps it nowhere; nobody else touches the output during the call.
pub(crate) unsafe fn each_tile<X: Lanes, A: Lanes, Y: Lanes, Op: TileOp>(
    cpu: &Cpu,
    x: Source<X>,
    a: Option<Source<A>>,
    y: Option<Sink<Y>>,
    op: &Op,
) -> Op::Sum {
    let (count, level) = (x.lines.count(), cpu.level);
    // What a line costs besides its elements is some of them.
    let way = Way::of(cpu, count, x.lines.len() + 16);
    let operands = (&x, &a, &y);
    // SAFETY: chunks are disjoint ranges of lines, and lines do not overlap: the caller's promise.
    let operands = unsafe { SyncRef::new(&operands) };
    let run = |lines: Range<usize>, sum: &mut Op::Sum| {
        let (x, a, y) = *operands.get();
        let (mut memory, mut beside) = (Memory::new(), Memory::new());
        let tile = memory.of_len(x.lines.len());
        let beside = beside.of_len(a.as_ref().map_or(0, |a| a.lines.len()));
        for first in lines.clone().step_by(ROWS) {
            let lines = ROWS.min(lines.end - first);
            let at = Place { level, first, lines };
            // SAFETY: the lines exist in all tensors: the caller's promise.
            unsafe {
                at.gather(x, tile);
                if let Some(a) = a {
                    at.gather(a, beside);
                }
                op.tile(Lined { first, lines, x: tile, a: beside }, sum);
                if let Some(y) = y {
                    at.scatter(y, tile);
                }
            }
        }
    };
    each_chunk(cpu, (count, CHUNK), way, run, Op::merge)
}

/// Some lines, at most as many as a tile has.
#[derive(Clone, Copy)]
struct Place {
    level: Level,
    first: usize,
    lines: usize,
}

/// How lines lie, from `done` on: of so many of them.
enum Lie {
    /// An element of all is one stretch, this far from the next.
    Beside(usize),
    /// Each is one stretch.
    Stretches,
    /// Elements this far from one another.
    Apart,
}

impl Place {
    /// Calls `copy` for groups of lines that lie alike: the first one's place in the tile, how many there
    /// are, its offset, and how they lie.
    fn groups(self, lines: &Lines, mut copy: impl FnMut(usize, usize, usize, Lie)) {
        let even = lines.along.pairs().len() <= 1;
        let mut done = 0;
        while done < self.lines {
            let line = lines.kept.offset(self.first + done);
            let run = lines.run(self.first + done, self.lines - done);
            let (n, lie) = match run {
                ROWS if even => (ROWS, Lie::Beside(lines.along.offset(1))),
                _ if lines.contiguous() => (1, Lie::Stretches),
                _ => (run, Lie::Apart),
            };
            copy(done, n, line, lie);
            done += n;
        }
    }

    /// # Safety
    /// The lines exist, and are as long as the tile.
    unsafe fn gather<X: Lanes>(self, from: &Source<X>, tile: &mut [Lane<f32>]) {
        let Source { base, lines } = from;
        if let (Some(stride), true) = (lines.stride(), self.lines == ROWS) {
            // SAFETY: the first line exists.
            let line = unsafe { base.add(self.first * stride) };
            return self.level.run(Rows { line, stride, tile });
        }
        self.groups(lines, |at, n, line, lie| {
            // SAFETY: the line exists.
            let line = unsafe { base.add(line) };
            if let Lie::Beside(step) = lie {
                return self.level.run(Columns { line, step, tile });
            }
            for (c, column) in tile.iter_mut().enumerate() {
                let element = lines.along.offset(c);
                for i in 0..n {
                    // SAFETY: the lines, which keep a distance of 1, have an element c there.
                    column.0[at + i] = unsafe { line.add(element + i).read() }.to_f32();
                }
            }
        });
    }

    /// The way back of [`Place::gather`].
    ///
    /// # Safety
    /// As for `gather`, and nobody else touches these lines.
    unsafe fn scatter<Y: Lanes>(self, to: &Sink<Y>, tile: &[Lane<f32>]) {
        let Sink { base, lines } = to;
        if let (Some(stride), true) = (lines.stride(), self.lines == ROWS) {
            // SAFETY: the first line exists.
            let line = unsafe { base.add(self.first * stride) };
            return self.level.run(RowsBack { line, stride, tile });
        }
        self.groups(lines, |at, n, line, lie| {
            // SAFETY: the line exists.
            let line = unsafe { base.add(line) };
            if let Lie::Beside(step) = lie {
                return self.level.run(ColumnsBack { line, step, tile });
            }
            for (c, column) in tile.iter().enumerate() {
                let element = lines.along.offset(c);
                for i in 0..n {
                    // SAFETY: the lines, which keep a distance of 1, have an element c there.
                    unsafe { line.add(element + i).write(Y::from_f32(column.0[at + i])) };
                }
            }
        });
    }
}

/// Lines beside one another: an element of all of them is one stretch, `step` from the next.
struct Columns<'t, X> {
    line: *const X,
    step: usize,
    tile: &'t mut [Lane<f32>],
}

impl<X: Lanes> Kernel for Columns<'_, X> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (c, column) in self.tile.iter_mut().enumerate() {
            for at in (0..ROWS).step_by(S::LANES) {
                // SAFETY: each of the lines has an element c, beside the others'.
                let v = unsafe { X::load(s, self.line.add(c * self.step + at)) };
                column.store(s, at, v);
            }
        }
    }
}

struct ColumnsBack<'t, Y> {
    line: *mut Y,
    step: usize,
    tile: &'t [Lane<f32>],
}

impl<Y: Lanes> Kernel for ColumnsBack<'_, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (c, column) in self.tile.iter().enumerate() {
            for at in (0..ROWS).step_by(S::LANES) {
                // SAFETY: as in `Columns`; these lines are written by this call alone.
                unsafe { Y::store(s, self.line.add(c * self.step + at), column.load(s, at)) };
            }
        }
    }
}

/// The first elements of vectors that cover a line of no less than a vector: the last one ends with the
/// line, whatever it shares with the one before.
fn starts<S: Simd>(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(S::LANES).map(move |c| c.min(len - S::LANES))
}

/// As many contiguous lines as a tile has, `stride` apart: squares of them are turned in registers.
struct Rows<'t, X> {
    line: *const X,
    stride: usize,
    tile: &'t mut [Lane<f32>],
}

impl<X: Lanes> Kernel for Rows<'_, X> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rows { line, stride, tile } = self;
        let len = tile.len();
        if len < S::LANES {
            for lane in 0..ROWS {
                // SAFETY: the line exists.
                let line = unsafe { line.add(lane * stride) };
                if X::DTYPE == DType::F16 {
                    let mut wide = [0.0; MAX_LANES];
                    // SAFETY: the line is as long as the tile, and `wide` holds a vector.
                    unsafe { s.store(wide.as_mut_ptr(), load_lanes(s, line, len, 0.0)) };
                    for (column, x) in tile.iter_mut().zip(wide) {
                        column.0[lane] = x;
                    }
                    continue;
                }
                for (c, column) in tile.iter_mut().enumerate() {
                    // SAFETY: the line is as long as the tile.
                    column.0[lane] = unsafe { line.add(c).read() }.to_f32();
                }
            }
            return;
        }
        for first in (0..ROWS).step_by(S::LANES) {
            for c in starts::<S>(len) {
                let mut square = [s.splat(0.0); MAX_LANES];
                for (i, row) in square.iter_mut().enumerate().take(S::LANES) {
                    // SAFETY: the line exists, and has a vector from c on.
                    *row = unsafe { X::load(s, line.add((first + i) * stride + c)) };
                }
                s.transpose(&mut square);
                for (column, v) in tile[c..c + S::LANES].iter_mut().zip(square) {
                    column.store(s, first, v);
                }
            }
        }
    }
}

struct RowsBack<'t, Y> {
    line: *mut Y,
    stride: usize,
    tile: &'t [Lane<f32>],
}

impl<Y: Lanes> Kernel for RowsBack<'_, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RowsBack { line, stride, tile } = self;
        let len = tile.len();
        if len < S::LANES {
            for lane in 0..ROWS {
                // SAFETY: the line exists.
                let line = unsafe { line.add(lane * stride) };
                if Y::DTYPE == DType::F32 {
                    for (c, column) in tile.iter().enumerate() {
                        // SAFETY: the line is as long as the tile, and this call's alone.
                        unsafe { line.add(c).write(Y::from_f32(column.0[lane])) };
                    }
                    continue;
                }
                let mut wide = [0.0; MAX_LANES];
                for (x, column) in wide.iter_mut().zip(tile) {
                    *x = column.0[lane];
                }
                // SAFETY: as above, and `wide` holds a vector.
                unsafe { store_lanes(s, line, len, s.load(wide.as_ptr())) };
            }
            return;
        }
        for first in (0..ROWS).step_by(S::LANES) {
            for c in starts::<S>(len) {
                let mut square = [s.splat(0.0); MAX_LANES];
                for (v, column) in square.iter_mut().zip(&tile[c..c + S::LANES]) {
                    *v = column.load(s, first);
                }
                s.transpose(&mut square);
                for (i, row) in square.into_iter().enumerate().take(S::LANES) {
                    // SAFETY: as in `Rows`; the line is written by this call alone.
                    unsafe { Y::store(s, line.add((first + i) * stride + c), row) };
                }
            }
        }
    }
}
