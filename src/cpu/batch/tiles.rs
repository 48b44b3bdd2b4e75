//! Short lines, sixteen at a time: they are brought into a tile, worked on there as f32, and brought back with
//! one rounding. In the tile an element of all lines follows another, which makes a copy of lines that lie
//! beside one another in memory (images); longer lines that lie in one piece each stay in one.

use crate::cpu::batch::lines::{Operands, Sink, Source, Way, each_chunk};
use crate::cpu::batch::place::{CACHE_LINE, Place, passes};
use crate::cpu::processor::Cpu;
use crate::cpu::row::tile::{Ahead, Lane, Lie, ROWS, SHORT};
use crate::cpu::simd::{Lanes, Level, settle};
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

/// Most tiles that lines beside one another are brought into at once. Each element of theirs is so far from the
/// next that a cache may hold few of both: what is asked for in one piece is used before it is driven out.
const TILES: usize = 8;

/// Elements of so many tiles' lines, four of the longest.
const ROOM: usize = 4 * SHORT;

/// Memory of tiles on the stack, of which no more is touched than lines need.
pub(crate) struct Memory<const LANES: usize = SHORT>([MaybeUninit<Lane<f32>>; LANES]);

impl<const LANES: usize> Memory<LANES> {
    pub(crate) fn new() -> Self {
        Memory([const { MaybeUninit::uninit() }; LANES])
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

    /// Whether nothing depends on which lines share a tile: tiles of images then begin where cache lines do.
    const APART: bool = false;

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
    let (count, len, level) = (operands.x.lines.count(), operands.x.lines.len(), cpu.level);
    let lie = if one_piece && len >= ONE_PIECE { Lie::Along } else { Lie::Beside };
    // What a line costs besides its elements is some of them.
    let way = Way::of(cpu, count, len + 16);
    // SAFETY: chunks are disjoint ranges of lines, and lines do not overlap: the caller's promise.
    let operands = unsafe { SyncRef::new(&operands) };
    let beside = lie == Lie::Beside && !one_piece;
    let run = |lines: Range<usize>, sum: &mut Op::Sum| {
        let operands = operands.get();
        let past = Op::APART && beside && operands.y.as_ref().is_some_and(passes);
        let job = Job { level, lie, len, past, operands, op };
        let whole = if past { operands.y.as_ref().map_or(0, uneven) } else { 0 };
        // SAFETY: the lines exist in all tensors, and each is some chunk's: the caller's promise.
        unsafe {
            if !beside {
                return job.run::<SHORT>(lines, 1, sum);
            }
            let tiles = (ROOM / len).min(TILES);
            for lines in from_whole(lines, whole, count) {
                job.run::<ROOM>(lines, tiles, sum);
            }
        }
        if past {
            settle();
        }
    };
    each_chunk(cpu, (count, CHUNK), way, run, Op::merge)
}

/// How many lines of an image come before the first whose elements begin a cache line.
fn uneven<Y>(y: &Sink<Y>) -> usize {
    y.base.cast::<u8>().align_offset(CACHE_LINE) / size_of::<Y>()
}

/// The lines of a chunk, where all chunks but the first begin `whole` lines later: what comes before is a piece
/// of its own.
fn from_whole(lines: Range<usize>, whole: usize, count: usize) -> [Range<usize>; 2] {
    let later = |at: usize| (at + whole).min(count);
    let end = if lines.end == count { count } else { later(lines.end) };
    match lines.start {
        0 => [0..later(0).min(end), later(0).min(end)..end],
        start => [0..0, later(start).min(end)..end],
    }
}

/// A call on tiles.
struct Job<'a, X, A, Y, Op> {
    level: Level,
    lie: Lie,
    /// Elements of a line.
    len: usize,
    /// Whether results pass the caches.
    past: bool,
    operands: &'a Operands<X, A, Y>,
    op: &'a Op,
}

impl<X: Lanes, A: Lanes, Y: Lanes, Op: TileOp> Job<'_, X, A, Y, Op> {
    /// Some lines, `tiles` tiles at a time, for which there is room.
    ///
    /// # Safety
    /// As for [`each_tile_of`]; the lines exist, and nobody else works on them.
    unsafe fn run<const LANES: usize>(&self, lines: Range<usize>, tiles: usize, sum: &mut Op::Sum) {
        let Job { level, lie, len, past, operands: Operands { x, a, y, b }, op } = *self;
        let (mut memory, mut beside) = (Memory::<LANES>::new(), Memory::<LANES>::new());
        let lanes = lie.lanes(len);
        let memory = memory.of_len(tiles * lanes);
        let lanes_beside = a.as_ref().map_or(0, |_| lanes);
        let beside = beside.of_len(tiles * lanes_beside);
        for first in lines.clone().step_by(tiles * ROWS) {
            let lines = (tiles * ROWS).min(lines.end - first);
            let at = Place { level, first, lines, lie, past };
            let tiles = lines.div_ceil(ROWS);
            let (memory, beside) =
                (&mut memory[..tiles * lanes], &mut beside[..tiles * lanes_beside]);
            // SAFETY: the lines exist in all tensors, and outputs are this call's: the caller's promise.
            unsafe {
                at.gather(x, memory, f32::NEG_INFINITY);
                if let Some(a) = a {
                    at.gather(a, beside, op.filling());
                }
                for (tile, Place { first, lines, .. }) in at.tiles() {
                    let x_tile = &mut memory[tile * lanes..][..lanes];
                    let a = &mut beside[tile * lanes_beside..][..lanes_beside];
                    let ahead = at.ahead(x).unwrap_or(Ahead::nothing(x_tile));
                    op.tile(Lined { first, lines, lie, len, ahead, x: x_tile, a }, sum);
                }
                if let Some(y) = y {
                    at.scatter(y, memory);
                }
                if let Some(b) = b {
                    at.scatter(b, beside);
                }
            }
        }
    }
}
