//! Short lines, sixteen at a time: they are brought into a tile, worked on there as f32, and brought back with
//! one rounding. In the tile an element of all lines follows another, which makes a copy of lines that lie
//! beside one another in memory (images); longer lines that lie in one piece each stay in one.

use crate::base::dtype::DType;
use crate::base::lines::Lines;
use crate::cpu::batch::lines::{Operands, Sink, Source, Way, each_chunk};
use crate::cpu::processor::Cpu;
use crate::cpu::row::tile::{Ahead, Lane, Lie, ROWS, SHORT, pitch};
use crate::cpu::simd::{Kernel, Lanes, Level, MAX_LANES, Simd, load_lanes, store_lanes};
use crate::cpu::threads::SyncRef;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Lines in one piece of so many elements stay in one: turning all of them costs more than turning what
/// each comes to.
pub(crate) const ONE_PIECE: usize = 24;

/// Lines that are worth a task of their own.
pub(crate) const CHUNK: usize = 4 * ROWS;

/// Lines of a tile.
pub(crate) struct Lined<'t> {
    /// The first line's number, and how many there are.
    pub(crate) first: usize,
    pub(crate) lines: usize,
    pub(crate) lie: Lie,
    /// Elements of a line.
    pub(crate) len: usize,
    pub(crate) ahead: Ahead,
    /// Their elements; those of lines that there are not may be anything.
    pub(crate) x: &'t mut [Lane<f32>],
    /// Those of the second tensor, where there is one.
    pub(crate) a: &'t mut [Lane<f32>],
}

/// Memory of a tile on the stack, of which no more is touched than a line needs.
pub(crate) struct Memory([MaybeUninit<Lane<f32>>; SHORT]);

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory([const { MaybeUninit::uninit() }; SHORT])
    }

    pub(crate) fn of_len(&mut self, len: usize) -> &mut [Lane<f32>] {
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

    /// What fills up the second tensor's lines.
    fn filling(&self) -> f32 {
        0.0
    }

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
/// As for [`each_tile_of`].
pub(crate) unsafe fn each_tile<X: Lanes, A: Lanes, Y: Lanes, Op: TileOp>(
    cpu: &Cpu,
    x: Source<X>,
    a: Option<Source<A>>,
    y: Option<Sink<Y>>,
    op: &Op,
) -> Op::Sum {
    // SAFETY: the caller's promise, with one output less.
    unsafe { each_tile_of(cpu, Operands { x, a, y, b: None }, op) }
}

/// As [`each_tile`]; `b` is written what the tile of `a` holds then.
///
/// # Safety
/// The layouts are those of valid tensors at the bases, equal in count and length; `y` is `x` itself or
/// overlaps it nowhere, and so with `b` and `a`; nobody else touches the outputs during the call.
pub(crate) unsafe fn each_tile_of<X: Lanes, A: Lanes, Y: Lanes, Op: TileOp>(
    cpu: &Cpu,
    operands: Operands<X, A, Y>,
    op: &Op,
) -> Op::Sum {
    let one_piece = operands.contiguous();
    let Operands { x, a, y, b } = operands;
    let (count, len, level) = (x.lines.count(), x.lines.len(), cpu.level);
    let lie = if one_piece && len >= ONE_PIECE { Lie::Along } else { Lie::Beside };
    // What a line costs besides its elements is some of them.
    let way = Way::of(cpu, count, len + 16);
    let operands = (&x, &a, &y, &b);
    // SAFETY: chunks are disjoint ranges of lines, and lines do not overlap: the caller's promise.
    let operands = unsafe { SyncRef::new(&operands) };
    let run = |lines: Range<usize>, sum: &mut Op::Sum| {
        let (x, a, y, b) = *operands.get();
        let (mut memory, mut beside) = (Memory::new(), Memory::new());
        let tile = memory.of_len(lie.lanes(len));
        let beside = beside.of_len(a.as_ref().map_or(0, |_| lie.lanes(len)));
        for first in lines.clone().step_by(ROWS) {
            let lines = ROWS.min(lines.end - first);
            let at = Place { level, first, lines, lie };
            // SAFETY: the lines exist in all tensors: the caller's promise.
            unsafe {
                at.gather(x, tile, f32::NEG_INFINITY);
                if let Some(a) = a {
                    at.gather(a, beside, op.filling());
                }
                let ahead = at.ahead(x).unwrap_or(Ahead::nothing(tile));
                op.tile(Lined { first, lines, lie, len, ahead, x: tile, a: beside }, sum);
                if let Some(y) = y {
                    at.scatter(y, tile);
                }
                if let Some(b) = b {
                    at.scatter(b, beside);
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
    lie: Lie,
}

/// How lines lie in memory, from `done` on: of so many of them.
enum Run {
    /// An element of all is one stretch, this far from the next.
    Beside(usize),
    /// Each is one stretch.
    Stretches,
    /// Elements this far from one another.
    Apart,
}

impl Place {
    /// Where the next tile's lines are, where that is worth asking for: neighbouring pieces are brought
    /// by the processor.
    fn ahead<X: Lanes>(self, x: &Source<X>) -> Option<Ahead> {
        let size = size_of::<X>();
        let (first, row, column) = match (self.lie, x.lines.stride()) {
            (Lie::Along, Some(stride)) => ((self.first + self.lines) * stride, stride, 1),
            (Lie::Beside, None) if x.lines.run(self.first, ROWS) == ROWS => {
                (x.lines.kept.offset(self.first) + ROWS, 1, x.lines.along.offset(1))
            }
            _ => return None,
        };
        let (row, column) = (row * size, column * size);
        Some(Ahead { base: x.base.wrapping_add(first).cast(), row, column })
    }

    /// Calls `copy` for groups of lines that lie alike: the first one's place in the tile, how many there
    /// are, its offset, and how they lie.
    fn groups(self, lines: &Lines, mut copy: impl FnMut(usize, usize, usize, Run)) {
        let even = lines.along.pairs().len() <= 1;
        let mut done = 0;
        while done < self.lines {
            let line = lines.kept.offset(self.first + done);
            let run = lines.run(self.first + done, self.lines - done);
            let (n, run) = match run {
                ROWS if even => (ROWS, Run::Beside(lines.along.offset(1))),
                _ if lines.contiguous() => (1, Run::Stretches),
                _ => (run, Run::Apart),
            };
            copy(done, n, line, run);
            done += n;
        }
    }

    /// `pad`: what fills lines up.
    ///
    /// # Safety
    /// The lines exist, and the tile has room for them.
    unsafe fn gather<X: Lanes>(self, from: &Source<X>, tile: &mut [Lane<f32>], pad: f32) {
        let Source { base, lines } = from;
        if self.lie == Lie::Along {
            return self.level.run(Along { of: self, base: *base, lines, tile, pad });
        }
        if let (Some(stride), true) = (lines.stride(), self.lines == ROWS) {
            // SAFETY: the first line exists.
            let line = unsafe { base.add(self.first * stride) };
            return self.level.run(Rows { line, stride, tile });
        }
        self.groups(lines, |at, n, line, run| {
            // SAFETY: the line exists.
            let line = unsafe { base.add(line) };
            if let Run::Beside(step) = run {
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
        if self.lie == Lie::Along {
            return self.level.run(AlongBack { of: self, base: *base, lines, tile });
        }
        if let (Some(stride), true) = (lines.stride(), self.lines == ROWS) {
            // SAFETY: the first line exists.
            let line = unsafe { base.add(self.first * stride) };
            return self.level.run(RowsBack { line, stride, tile });
        }
        self.groups(lines, |at, n, line, run| {
            // SAFETY: the line exists.
            let line = unsafe { base.add(line) };
            if let Run::Beside(step) = run {
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

/// Lines in one piece each.
struct Along<'t, X> {
    of: Place,
    base: *const X,
    lines: &'t Lines,
    tile: &'t mut [Lane<f32>],
    pad: f32,
}

impl<X: Lanes> Kernel for Along<'_, X> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.lines.len();
        for (i, tile) in self.tile.chunks_mut(pitch(len)).enumerate().take(self.of.lines) {
            let first = self.lines.kept.offset(self.of.first + i);
            for c in (0..len).step_by(S::LANES) {
                let n = S::LANES.min(len - c);
                // SAFETY: the line exists, and has n elements from c on.
                let v = unsafe { load_lanes(s, self.base.add(first + c), n, self.pad) };
                tile[c / MAX_LANES].store(s, c % MAX_LANES, v);
            }
        }
    }
}

struct AlongBack<'t, Y> {
    of: Place,
    base: *mut Y,
    lines: &'t Lines,
    tile: &'t [Lane<f32>],
}

impl<Y: Lanes> Kernel for AlongBack<'_, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.lines.len();
        for (i, tile) in self.tile.chunks(pitch(len)).enumerate().take(self.of.lines) {
            let first = self.lines.kept.offset(self.of.first + i);
            for c in (0..len).step_by(S::LANES) {
                let n = S::LANES.min(len - c);
                let v = tile[c / MAX_LANES].load(s, c % MAX_LANES);
                // SAFETY: as in `Along`; the line is written by this call alone.
                unsafe { store_lanes(s, self.base.add(first + c), n, v) };
            }
        }
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

/// The first elements of vectors that cover a line: the last one ends with the line, whatever it shares with
/// the one before. A line may be less than a vector.
fn starts<S: Simd>(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(S::LANES).map(move |c| c.min(len.saturating_sub(S::LANES)))
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
        let n = len.min(S::LANES);
        if len < S::LANES && !S::TAILS {
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
                    // SAFETY: the line exists, and has so many elements from c on.
                    *row = unsafe { load_lanes(s, line.add((first + i) * stride + c), n, 0.0) };
                }
                s.transpose(&mut square);
                for (column, v) in tile[c..c + n].iter_mut().zip(square) {
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
        let n = len.min(S::LANES);
        if len < S::LANES && !S::TAILS {
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
                for (v, column) in square.iter_mut().zip(&tile[c..c + n]) {
                    *v = column.load(s, first);
                }
                s.transpose(&mut square);
                for (i, row) in square.into_iter().enumerate().take(S::LANES) {
                    // SAFETY: as in `Rows`; the line is written by this call alone.
                    unsafe { store_lanes(s, line.add((first + i) * stride + c), n, row) };
                }
            }
        }
    }
}
