//! Some lines between memory and a tile.

use crate::base::dtype::DType;
use crate::base::lines::Lines;
use crate::cpu::batch::lines::{Sink, Source};
use crate::cpu::row::tile::{Ahead, Lane, Lie, ROWS, pitch};
use crate::cpu::simd::{Kernel, Lanes, Level, MAX_LANES, Simd, load_lanes, store_lanes};

/// Results of so many bytes pass the caches, which would have no room for what comes next: a cache line that is
/// written whole need not be read first.
pub(crate) const PAST_THE_CACHES: usize = 8 << 20;

/// Bytes that memory gives and takes at once.
pub(super) const CACHE_LINE: usize = 64;

/// Whether an image's results pass the caches: of f32, and its planes begin alike in their cache lines.
pub(super) fn passes<Y: Lanes>(y: &Sink<Y>) -> bool {
    let bytes = y.lines.count() * y.lines.len() * size_of::<Y>();
    let plane = y.lines.along.offset(1) * size_of::<Y>();
    Y::DTYPE == DType::F32 && bytes >= PAST_THE_CACHES && plane.is_multiple_of(CACHE_LINE)
}

/// Some lines, as many as some tiles have but for the last.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) level: Level,
    pub(super) first: usize,
    pub(super) lines: usize,
    pub(super) lie: Lie,
    /// Whether results pass the caches where they fill cache lines.
    pub(super) past: bool,
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
    /// Where the next tile's lines are, where that is worth asking for: pieces beside one another drive out
    /// of the caches what was asked for too early.
    pub(super) fn ahead<X: Lanes>(self, x: &Source<X>) -> Option<Ahead> {
        let stride = x.lines.stride().filter(|_| self.lie == Lie::Along)?;
        let base = x.base.wrapping_add((self.first + self.lines) * stride).cast();
        let (row, column) = (stride * size_of::<X>(), size_of::<X>());
        Some(Ahead { base, row, column })
    }

    /// The tiles' own lines, each with its number.
    pub(super) fn tiles(self) -> impl Iterator<Item = (usize, Place)> {
        (0..self.lines.div_ceil(ROWS)).map(move |tile| {
            let done = tile * ROWS;
            let (first, lines) = (self.first + done, ROWS.min(self.lines - done));
            (tile, Place { first, lines, ..self })
        })
    }

    /// Where the lines begin and how far their elements are from one another, where they fill several tiles and
    /// are all beside one another.
    fn columns(self, lines: &Lines) -> Option<(usize, usize)> {
        let even =
            lines.along.pairs().len() <= 1 && self.lines > ROWS && self.lines.is_multiple_of(ROWS);
        let beside = even && lines.run(self.first, self.lines) == self.lines;
        beside.then(|| (lines.kept.offset(self.first), lines.along.offset(1)))
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
    /// The lines exist, and the tiles have room for them.
    pub(super) unsafe fn gather<X: Lanes>(
        self,
        from: &Source<X>,
        tiles: &mut [Lane<f32>],
        pad: f32,
    ) {
        if let Some((first, step)) = self.columns(&from.lines) {
            let (line, len) = (from.base.wrapping_add(first), from.lines.len());
            return self.level.run(Columns { line, step, len, tiles, far: self.past });
        }
        let lanes = self.lie.lanes(from.lines.len());
        for (tile, of) in self.tiles() {
            // SAFETY: the tile's lines are some of these.
            unsafe { of.gather_tile(from, &mut tiles[tile * lanes..][..lanes], pad) };
        }
    }

    /// The way back of [`Place::gather`].
    ///
    /// # Safety
    /// As for `gather`, and nobody else touches these lines.
    pub(super) unsafe fn scatter<Y: Lanes>(self, to: &Sink<Y>, tiles: &[Lane<f32>]) {
        if let Some((first, step)) = self.columns(&to.lines) {
            let (line, len) = (to.base.wrapping_add(first), to.lines.len());
            let past = self.past && line.cast::<u8>().align_offset(CACHE_LINE) == 0;
            return self.level.run(ColumnsBack { line, step, len, tiles, past });
        }
        let lanes = self.lie.lanes(to.lines.len());
        for (tile, of) in self.tiles() {
            // SAFETY: the tile's lines are some of these, and so this call's.
            unsafe { of.scatter_tile(to, &tiles[tile * lanes..][..lanes]) };
        }
    }

    /// One tile's lines.
    ///
    /// # Safety
    /// The lines exist, and the tile has room for them.
    unsafe fn gather_tile<X: Lanes>(self, from: &Source<X>, tile: &mut [Lane<f32>], pad: f32) {
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
                let len = tile.len();
                return self.level.run(Columns { line, step, len, tiles: tile, far: false });
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

    /// The way back of [`Place::gather_tile`].
    ///
    /// # Safety
    /// As for `gather_tile`, and nobody else touches these lines.
    unsafe fn scatter_tile<Y: Lanes>(self, to: &Sink<Y>, tile: &[Lane<f32>]) {
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
                let len = tile.len();
                return self.level.run(ColumnsBack { line, step, len, tiles: tile, past: false });
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

/// Lines of some tiles beside one another: an element of all of them is one stretch, `step` from the next.
struct Columns<'t, X> {
    line: *const X,
    step: usize,
    /// Elements of a line.
    len: usize,
    tiles: &'t mut [Lane<f32>],
    /// Whether they come from memory, which has more to do at a time if the next lines are asked for.
    far: bool,
}

impl<X: Lanes> Kernel for Columns<'_, X> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Columns { line, step, len, tiles, far } = self;
        let next = tiles.len() / len * ROWS;
        for c in 0..len {
            for (i, column) in tiles[c..].iter_mut().step_by(len).enumerate() {
                for at in (0..ROWS).step_by(S::LANES) {
                    let p = line.wrapping_add(c * step + i * ROWS + at);
                    if far {
                        s.prefetch_second(p.wrapping_add(next));
                    }
                    // SAFETY: each of the lines has an element c, beside the others'.
                    let v = unsafe { X::load(s, p) };
                    column.store(s, at, v);
                }
            }
        }
    }
}

struct ColumnsBack<'t, Y> {
    line: *mut Y,
    step: usize,
    len: usize,
    tiles: &'t [Lane<f32>],
    /// Whether they pass the caches: f32 that begin cache lines.
    past: bool,
}

impl<Y: Lanes> Kernel for ColumnsBack<'_, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ColumnsBack { line, step, len, tiles, past } = self;
        for c in 0..len {
            for (i, column) in tiles[c..].iter().step_by(len).enumerate() {
                for at in (0..ROWS).step_by(S::LANES) {
                    let v = column.load(s, at);
                    // SAFETY: each of the lines has an element c, beside the others', and is written by this
                    // call alone; what passes the caches is f32 from the beginning of a cache line on.
                    unsafe {
                        let p = line.add(c * step + i * ROWS + at);
                        if past { s.stream(p.cast(), v) } else { Y::store(s, p, v) }
                    }
                }
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
