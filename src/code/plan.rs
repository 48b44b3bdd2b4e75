//! Which schedule works on a row: a pure function of the shape, the pass and the card.
//!
//! | schedule | a row is read | for |
//! |---|---|---|
//! | lanes | once, into registers | rows up to 2 KiB |
//! | stream | once (forward alone) | any row, when rows fill the card |
//! | block | once, into shared memory | rows that fit one block |
//! | cluster | once, into the shared memory of neighbours | rows that fit a cluster (sm_90 on) |
//! | twice | twice, the second time from L2 | gradients of rows that no cluster holds, where a few fit L2 |
//! | split | once forward, twice with a gradient | anything else, and few rows |
//! | side by side | once, into shared memory with a gradient | rows of an image (`plan/neighbours.rs`) |

use super::card::{Block, Card, STATIC_SHARED};
use super::variants::{Data, Entry, PACK_BYTES};
use std::fmt;

// A path of its own, as the roofline's table has this file elsewhere in its tree.
#[path = "plan/neighbours.rs"]
mod neighbours;

/// What a kernel is to do with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    /// Reduce it to a few numbers.
    Forward,
    /// Reduce it, then write as many elements as were read.
    Gradient,
}

/// The rows of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    pub(crate) data: Data,
    /// Every row begins with a pack.
    pub(crate) aligned: bool,
    /// Packs that are kept on chip for each pack of logits: 1, and those of a tensor that is read
    /// beside them.
    pub(crate) streams: usize,
    /// What a split row's gradient takes is summed by one visit, and there are kernels that make both visits in
    /// one launch.
    pub(crate) twice: bool,
}

impl Rows {
    /// The most packs that a row touches; `None` where kernels cannot number them in 32 bits.
    fn packs(&self) -> Option<usize> {
        let lanes = self.data.lanes();
        // A row that begins in the middle of a pack touches one more.
        let slack = if self.aligned { 0 } else { lanes - 1 };
        let packs = self.classes.checked_add(slack + lanes - 1)? / lanes;
        fit(packs)?;
        Some(packs)
    }
}

/// How one row is spread over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Schedule {
    /// This many lanes of a warp a row, the row in registers.
    Lanes(u32),
    /// A block a row, read as it comes.
    Stream,
    /// A block a row, kept in shared memory.
    Block,
    /// This many blocks a row, each with its slice in shared memory.
    Cluster(u32),
    /// This many blocks a row, which meet in global memory.
    Split(u32),
    /// The same for either visit, in one launch: so many parts of rows are read before the first is read again.
    Twice { parts: u32, lead: u32 },
    /// This many threads a row, of rows whose elements lie side by side.
    SideBySide(u32),
}

impl Schedule {
    fn parts(self) -> u32 {
        match self {
            Schedule::Cluster(n) | Schedule::Split(n) | Schedule::Twice { parts: n, .. } => n,
            Schedule::Lanes(_) | Schedule::Stream | Schedule::Block | Schedule::SideBySide(_) => 1,
        }
    }

    /// Blocks that a launch has for each row.
    fn blocks(self) -> usize {
        let visits = if matches!(self, Schedule::Twice { .. }) { 2 } else { 1 };
        self.parts() as usize * visits
    }
}

/// A schedule that is asked for, to see that each of them is right wherever it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // Only the command line asks.
pub(crate) enum Forced {
    /// A block a row: kept on chip where a gradient is written.
    Block,
    /// So many blocks a row, where a gradient is written.
    Cluster(u32),
    /// Blocks that meet in global memory.
    Split,
    /// The same for both visits in one launch, where a gradient is written.
    Twice,
}

/// How a call is launched: a plain value that prints itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Blocks of the launch that reads the logits.
    pub(crate) blocks: u32,
    /// Packs of a row that one block owns (the last may own fewer).
    pub(crate) slice: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub(crate) shared: u32,
}

/// Packs that one lane keeps in registers (16 registers).
pub(crate) const LANE_PACKS: usize = 4;
/// Lanes of the smallest share of a warp: ten classes are three packs.
const FEW_LANES: usize = 4;
const WARP: usize = 32;
/// Threads of a block of the lanes schedule: small, so that few rows spread over the card.
const LANES_BLOCK: u32 = 128;

/// Bytes of a row, with what lies beside it, that one block of a cluster keeps. Six such blocks share an H100's
/// multiprocessor, so that some load while others compute; QuACK uses 32 KiB as well. Predicted,
/// not measured.
pub(crate) const SLICE_BYTES: usize = 32 * 1024;
/// Packs a thread loads at once before it waits: 128 bytes in flight a thread. Predicted.
const THREAD_PACKS: usize = 8;
const MIN_THREADS: usize = 64;
const MAX_THREADS: usize = 512;
/// Bytes of a row that a part of a split row is worth a block of its own for. Predicted.
const PART_BYTES: usize = 16 * 1024;
/// Blocks that a place is given, one after another, where rows are split. Predicted.
const SPLIT_WAVES: usize = 2;
/// Bytes of a part of a row that is visited twice: what the largest block has on its way at once. Predicted.
const TWICE_BYTES: usize = MAX_THREADS * THREAD_PACKS * PACK_BYTES;
/// Most parts of a row: what the second phase reads of each row stays small beside the row.
pub(crate) const MAX_PARTS: usize = 2048;
/// Bytes of a whole call under which splitting costs more in launches than it wins. Predicted.
const SPLIT_CALL_BYTES: usize = 1 << 20;

/// Who says how many such blocks of a kernel a multiprocessor holds at once.
pub(crate) trait Places<E>: FnMut(Entry, Block) -> Result<u32, E> {}
impl<E, F: FnMut(Entry, Block) -> Result<u32, E>> Places<E> for F {}

impl Plan {
    /// The plan for some rows; `None` where a launch cannot count them.
    ///
    /// # Errors
    /// What `places` reports.
    pub(crate) fn new<E>(
        rows: Rows,
        pass: Pass,
        card: &Card,
        places: &mut impl Places<E>,
    ) -> Result<Option<Plan>, E> {
        let Some(packs) = rows.packs() else { return Ok(None) };
        let bytes = packs * PACK_BYTES;
        let streams = rows.streams.max(1);
        let multiprocessors = card.multiprocessors.max(1) as usize;

        if let Some(width) = [FEW_LANES, WARP].into_iter().find(|n| packs <= n * LANE_PACKS) {
            return Ok(Plan::lanes(width, rows.rows, packs));
        }

        let total = rows.rows.saturating_mul(bytes);
        let fills = |blocks: usize| blocks >= multiprocessors || total < SPLIT_CALL_BYTES;
        let spread = Spread { rows: rows.rows, packs, pass };
        if pass == Pass::Forward && fills(rows.rows) {
            return spread.over(Schedule::Stream, 0, places);
        }
        if pass == Pass::Gradient {
            let fits = |n: usize, limit: usize| packs.div_ceil(n) * PACK_BYTES * streams <= limit;
            let limit = card.shared_per_block.saturating_sub(STATIC_SHARED);
            let largest = 1 << card.cluster.max(1).ilog2();
            let mut sizes = std::iter::successors(Some(1), |n| Some(n * 2));
            let n = sizes.find(|&n| n >= largest || fits(n, SLICE_BYTES.min(limit)));
            let n = n.filter(|&n| fits(n, limit));
            // Split moves three times the row where this moves two, over all multiprocessors.
            let filled = |n: usize| rows.rows.saturating_mul(n) * 3 >= multiprocessors * 2;
            if let Some(n) = n.filter(|&n| filled(n) || total < SPLIT_CALL_BYTES) {
                let schedule = match n {
                    1 => Schedule::Block,
                    n => Schedule::Cluster(n as u32),
                };
                return spread.over(schedule, streams, places);
            }
        }
        // What fits L2 as a whole is there for another launch as well.
        if total.saturating_mul(streams) > card.l2
            && let Some((plan, between)) = spread.twice(rows, card, places)?
            && between <= card.l2 / 2
        {
            return Ok(Some(plan));
        }
        // Not one block more than the places of the largest take in whole turns: it would be a turn of its own.
        let Some(Plan { threads, .. }) = spread.over(Schedule::Split(1), 0, places)? else {
            return Ok(None);
        };
        let block = Block { threads, shared: 0 };
        let mut held = places(Entry::SplitSum, block)?;
        if pass == Pass::Gradient {
            held = held.min(places(Entry::SplitGradient, block)?);
        }
        let wanted = SPLIT_WAVES * held.max(1) as usize * multiprocessors / rows.rows.max(1);
        let parts = wanted.clamp(1, MAX_PARTS).min(bytes.div_ceil(PART_BYTES));
        spread.over(Schedule::Split(parts as u32), 0, places)
    }

    /// The plan for some rows by a schedule that somebody asks for; where their rows cannot go by it,
    /// the plan that [`Plan::new`] has.
    ///
    /// # Errors
    /// What `places` reports.
    pub(crate) fn forced<E>(
        rows: Rows,
        pass: Pass,
        card: &Card,
        forced: Forced,
        places: &mut impl Places<E>,
    ) -> Result<Option<Plan>, E> {
        let (plan, packs) = (Plan::new(rows, pass, card, places)?, rows.packs());
        let (Some(plan), Some(packs)) = (plan, packs) else { return Ok(None) };
        let streams = rows.streams.max(1);
        let limit = card.shared_per_block.saturating_sub(STATIC_SHARED);
        let on_chip = |n: u32| {
            let shared = packs.div_ceil(n as usize).saturating_mul(PACK_BYTES * streams);
            pass == Pass::Gradient && n <= card.cluster.max(1) && shared <= limit
        };
        if matches!(plan.schedule, Schedule::Lanes(_)) {
            return Ok(Some(plan));
        }
        let spread = Spread { rows: rows.rows, packs, pass };
        match forced {
            Forced::Block if pass == Pass::Forward => spread.over(Schedule::Stream, 0, places),
            Forced::Block if on_chip(1) => spread.over(Schedule::Block, streams, places),
            Forced::Cluster(n) if on_chip(n) => spread.over(Schedule::Cluster(n), streams, places),
            Forced::Split => {
                let parts = (packs * PACK_BYTES).div_ceil(PART_BYTES).clamp(1, MAX_PARTS);
                spread.over(Schedule::Split(parts as u32), 0, places)
            }
            Forced::Twice => {
                let twice = spread.twice(rows, card, places)?;
                Ok(Some(twice.map_or(plan, |(twice, _)| twice)))
            }
            Forced::Block | Forced::Cluster(_) => Ok(Some(plan)),
        }
    }

    /// The plan whose clusters run: where `runs` says that those of a plan do not, that of a card with
    /// smaller ones.
    ///
    /// # Errors
    /// What `runs` and `places` report.
    pub(crate) fn running<E>(
        rows: Rows,
        pass: Pass,
        card: &Card,
        mut runs: impl FnMut(&Plan) -> Result<bool, E>,
        places: &mut impl Places<E>,
    ) -> Result<Option<Plan>, E> {
        let mut plan = Plan::new(rows, pass, card, places)?;
        while let Some(large) = plan.filter(|plan| plan.cluster() > 1) {
            if runs(&large)? {
                break;
            }
            let smaller = Card { cluster: large.cluster() / 2, ..card.clone() };
            plan = Plan::new(rows, pass, &smaller, places)?;
        }
        Ok(plan)
    }

    fn lanes(width: usize, rows: usize, packs: usize) -> Option<Plan> {
        Some(Plan {
            schedule: Schedule::Lanes(width as u32),
            threads: LANES_BLOCK,
            blocks: fit(rows.div_ceil(LANES_BLOCK as usize / width))?,
            slice: fit(packs)?,
            shared: 0,
        })
    }

    /// The same for fewer rows: each is worked on as before, to the same bits.
    pub(crate) fn over(self, rows: usize) -> Plan {
        let blocks = match self.schedule {
            Schedule::Lanes(threads) | Schedule::SideBySide(threads) => {
                rows.div_ceil((self.threads / threads) as usize)
            }
            schedule => rows * schedule.blocks(),
        };
        Plan { blocks: self.blocks.min(blocks as u32), ..self }
    }

    /// Blocks that share a row.
    pub(crate) fn parts(&self) -> u32 {
        self.schedule.parts()
    }

    /// Blocks of a cluster.
    pub(crate) fn cluster(&self) -> u32 {
        match self.schedule {
            Schedule::Cluster(n) => n,
            _ => 1,
        }
    }

    /// The kernel that reads the row first.
    pub(crate) fn entry(&self, pass: Pass) -> Entry {
        match (self.schedule, pass) {
            (Schedule::Lanes(n), Pass::Forward) if n as usize == FEW_LANES => Entry::FewForward,
            (Schedule::Lanes(n), Pass::Gradient) if n as usize == FEW_LANES => Entry::FewGradient,
            (Schedule::Lanes(_), Pass::Forward) => Entry::WarpForward,
            (Schedule::Lanes(_), Pass::Gradient) => Entry::WarpGradient,
            (Schedule::Stream | Schedule::Block, Pass::Forward) => Entry::Stream,
            (Schedule::Stream | Schedule::Block, Pass::Gradient) => Entry::Block,
            (Schedule::Cluster(_), _) => Entry::Cluster,
            (Schedule::Split(_), _) => Entry::SplitSum,
            (Schedule::Twice { .. }, _) => Entry::SplitTwice,
            (Schedule::SideBySide(_), Pass::Forward) => Entry::NeighboursForward,
            (Schedule::SideBySide(_), Pass::Gradient) => Entry::NeighboursGradient,
        }
    }
}

/// Rows of so many packs, a block or more for each.
#[derive(Clone, Copy)]
struct Spread {
    rows: usize,
    packs: usize,
    pass: Pass,
}

impl Spread {
    /// By such a schedule, `kept` packs in shared memory for each of the row.
    fn over<E>(
        self,
        schedule: Schedule,
        kept: usize,
        places: &mut impl Places<E>,
    ) -> Result<Option<Plan>, E> {
        let Some(mut plan) = self.at_most(schedule, kept) else { return Ok(None) };
        let entry = plan.entry(self.pass);
        // A block a little smaller may have one more place: as many threads as a multiprocessor can hold.
        let mut most = 0;
        for threads in (plan.threads * 3 / 4..=plan.threads).rev().filter(|n| n % WARP as u32 == 0)
        {
            let held = threads * places(entry, Block { threads, shared: plan.shared })?;
            if held > most {
                (most, plan.threads) = (held, threads);
            }
        }
        Ok(Some(plan))
    }

    /// The same with as many threads as there is work for.
    fn at_most(self, schedule: Schedule, kept: usize) -> Option<Plan> {
        let slice = self.packs.div_ceil(schedule.parts() as usize);
        let threads = slice.div_ceil(THREAD_PACKS).clamp(MIN_THREADS, MAX_THREADS);
        Some(Plan {
            schedule,
            threads: fit(threads.next_multiple_of(WARP))?,
            blocks: fit(self.rows.checked_mul(schedule.blocks())?)?,
            slice: fit(slice)?,
            shared: fit(slice * PACK_BYTES * kept)?,
        })
    }

    /// Both visits in one launch where that can be, and the bytes that are read and written between them.
    fn twice<E>(
        self,
        rows: Rows,
        card: &Card,
        places: &mut impl Places<E>,
    ) -> Result<Option<(Plan, usize)>, E> {
        if self.pass == Pass::Forward || !rows.twice {
            return Ok(None);
        }
        let bytes = self.packs * PACK_BYTES * rows.streams.max(1);
        let parts = bytes.div_ceil(TWICE_BYTES).min(MAX_PARTS) as u32;
        let plan = self.over(Schedule::Twice { parts, lead: 0 }, 0, places)?;
        let Some(plan) = plan else { return Ok(None) };
        let held = places(Entry::SplitTwice, Block { threads: plan.threads, shared: 0 })?;
        // When a row's first part has its turn to be written, the last to be summed is no longer among those that
        // run: every other turn is of its kind.
        let lead = parts + (held * card.multiprocessors).div_ceil(2);
        // As many are read between the visits, and as many written.
        let between = 2 * lead as usize * bytes.div_ceil(parts as usize);
        let schedule = Schedule::Twice { parts, lead };
        Ok(Some((Plan { schedule, ..plan }, between)))
    }
}

/// Grid dimensions and counts are 31 bits wide.
fn fit(n: usize) -> Option<u32> {
    i32::try_from(n).ok().map(|n| n as u32)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Lanes(n) => write!(f, "{n} lanes a row"),
            Schedule::Stream => f.write_str("block a row, streamed"),
            Schedule::Block => f.write_str("block a row, on chip"),
            Schedule::Cluster(n) => write!(f, "cluster of {n} a row, on chip"),
            Schedule::Split(n) => write!(f, "{n} blocks a row, two phases"),
            Schedule::Twice { parts, lead } => {
                write!(f, "{parts} blocks a row for each of two visits, {lead} ahead")
            }
            Schedule::SideBySide(1) => f.write_str("side by side, a thread a row"),
            Schedule::SideBySide(n) => write!(f, "side by side, {n} threads a row"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { schedule, threads, blocks, shared, .. } = self;
        write!(f, "{schedule}: {blocks} blocks of {threads} threads, {shared} bytes shared")
    }
}

#[cfg(test)]
mod tests;
