//! Which schedule works on a row: a pure function of the shape, the pass and the card.
//!
//! | schedule | a row is read | for |
//! |---|---|---|
//! | lanes | once, into registers | rows up to 2 KiB |
//! | stream | once (forward alone) | any row, when rows fill the card |
//! | block | once, into shared memory | rows that fit one block |
//! | cluster | once, into the shared memory of neighbours | rows that fit a cluster (sm_90 on) |
//! | split | once forward, twice with a gradient | anything else, and few rows |

use super::variants::{Data, Entry, PACK_BYTES};
use std::fmt;

/// What a plan needs to know of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) name: String,
    /// 90 for sm_90.
    pub(crate) arch: u32,
    pub(crate) multiprocessors: u32,
    /// Bytes of shared memory that one block may ask for.
    pub(crate) shared_per_block: usize,
    /// Bytes of shared memory of a multiprocessor.
    pub(crate) shared_per_multiprocessor: usize,
    /// Blocks of the largest cluster that its architecture may have, the non-portable sizes included;
    /// 1 without clusters. Whether it runs those of a kernel is asked of the driver.
    pub(crate) cluster: u32,
}

/// Blocks of a cluster that every device with clusters may run, if it has as many multiprocessors.
pub(crate) const PORTABLE_CLUSTER: u32 = 8;

/// Blocks of the largest cluster of an architecture.
#[allow(dead_code)] // The roofline's cards are given.
pub(crate) const fn largest_cluster(arch: u32) -> u32 {
    match arch {
        // Data-centre parts take 16 with the non-portable attribute.
        90..=109 => 2 * PORTABLE_CLUSTER,
        110.. => PORTABLE_CLUSTER,
        _ => 1,
    }
}

#[cfg(test)]
impl Card {
    /// An H100 SXM.
    pub(crate) fn h100() -> Card {
        Card {
            name: "H100".into(),
            arch: 90,
            multiprocessors: 132,
            shared_per_block: 227 * 1024,
            shared_per_multiprocessor: 228 * 1024,
            cluster: 16,
        }
    }
}

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
/// Bytes of shared memory that kernels use besides: a state a warp, and what the system reserves.
pub(crate) const STATIC_SHARED: usize = 2048;
/// Packs a thread loads at once before it waits: 128 bytes in flight a thread. Predicted.
const THREAD_PACKS: usize = 8;
const MIN_THREADS: usize = 64;
const MAX_THREADS: usize = 512;
/// Bytes of a row that a part of a split row is worth a block of its own for. Predicted.
const PART_BYTES: usize = 16 * 1024;
/// Blocks a multiprocessor is given when rows are split: twice as many as it holds at once of the largest.
/// Predicted.
const SPLIT_BLOCKS: usize = 4;
/// Most parts of a row: what the second phase reads of each row stays small beside the row.
pub(crate) const MAX_PARTS: usize = 2048;
/// Bytes of a whole call under which splitting costs more in launches than it wins. Predicted.
const SPLIT_CALL_BYTES: usize = 1 << 20;

impl Plan {
    /// The plan for some rows; `None` where a launch cannot count them.
    pub(crate) fn new(rows: Rows, pass: Pass, card: &Card) -> Option<Plan> {
        let packs = rows.packs()?;
        let bytes = packs * PACK_BYTES;
        let streams = rows.streams.max(1);
        let multiprocessors = card.multiprocessors.max(1) as usize;

        for width in [FEW_LANES, WARP] {
            if packs <= width * LANE_PACKS {
                let a_block = LANES_BLOCK as usize / width;
                return Some(Plan {
                    schedule: Schedule::Lanes(width as u32),
                    threads: LANES_BLOCK,
                    blocks: fit(rows.rows.div_ceil(a_block))?,
                    slice: fit(packs)?,
                    shared: 0,
                });
            }
        }

        let total = rows.rows.saturating_mul(bytes);
        let fills = |blocks: usize| blocks >= multiprocessors || total < SPLIT_CALL_BYTES;
        if pass == Pass::Forward && fills(rows.rows) {
            return Plan::blocks_a_row(Schedule::Stream, rows.rows, packs, 1, 0);
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
                return Plan::blocks_a_row(schedule, rows.rows, packs, n, streams);
            }
        }
        // Not one block more than there are places: it would be a wave of its own.
        let wanted = SPLIT_BLOCKS * multiprocessors / rows.rows.max(1);
        let parts = wanted.clamp(1, MAX_PARTS).min(bytes.div_ceil(PART_BYTES));
        Plan::blocks_a_row(Schedule::Split(parts as u32), rows.rows, packs, parts, 0)
    }

    /// The plan for some rows by a schedule that somebody asks for; where their rows cannot go by it,
    /// the plan that [`Plan::new`] has.
    pub(crate) fn forced(rows: Rows, pass: Pass, card: &Card, forced: Forced) -> Option<Plan> {
        let plan = Plan::new(rows, pass, card)?;
        let packs = rows.packs()?;
        let streams = rows.streams.max(1);
        let limit = card.shared_per_block.saturating_sub(STATIC_SHARED);
        let on_chip = |n: u32| {
            let shared = packs.div_ceil(n as usize).saturating_mul(PACK_BYTES * streams);
            pass == Pass::Gradient && n <= card.cluster.max(1) && shared <= limit
        };
        if matches!(plan.schedule, Schedule::Lanes(_)) {
            return Some(plan);
        }
        match forced {
            Forced::Block if pass == Pass::Forward => {
                Plan::blocks_a_row(Schedule::Stream, rows.rows, packs, 1, 0)
            }
            Forced::Block if on_chip(1) => {
                Plan::blocks_a_row(Schedule::Block, rows.rows, packs, 1, streams)
            }
            Forced::Cluster(n) if on_chip(n) => {
                Plan::blocks_a_row(Schedule::Cluster(n), rows.rows, packs, n as usize, streams)
            }
            Forced::Split => {
                let parts = (packs * PACK_BYTES).div_ceil(PART_BYTES).clamp(1, MAX_PARTS);
                let schedule = Schedule::Split(parts as u32);
                Plan::blocks_a_row(schedule, rows.rows, packs, parts, 0)
            }
            Forced::Block | Forced::Cluster(_) => Some(plan),
        }
    }

    /// The plan whose clusters run: where `runs` says that those of a plan do not, that of a card with
    /// smaller ones.
    ///
    /// # Errors
    /// What `runs` reports.
    pub(crate) fn running<E>(
        rows: Rows,
        pass: Pass,
        card: &Card,
        mut runs: impl FnMut(&Plan) -> Result<bool, E>,
    ) -> Result<Option<Plan>, E> {
        let mut plan = Plan::new(rows, pass, card);
        while let Some(large) = plan.filter(|plan| plan.cluster() > 1) {
            if runs(&large)? {
                break;
            }
            let smaller = Card { cluster: large.cluster() / 2, ..card.clone() };
            plan = Plan::new(rows, pass, &smaller);
        }
        Ok(plan)
    }

    fn blocks_a_row(
        schedule: Schedule,
        rows: usize,
        packs: usize,
        parts: usize,
        streams: usize,
    ) -> Option<Plan> {
        let slice = packs.div_ceil(parts);
        let threads = slice.div_ceil(THREAD_PACKS).clamp(MIN_THREADS, MAX_THREADS);
        Some(Plan {
            schedule,
            threads: fit(threads.next_multiple_of(WARP))?,
            blocks: fit(rows.checked_mul(parts)?)?,
            slice: fit(slice)?,
            shared: fit(slice * PACK_BYTES * streams)?,
        })
    }

    /// The same for fewer rows: each is worked on as before, to the same bits.
    pub(crate) fn over(self, rows: usize) -> Plan {
        let blocks = match self.schedule {
            Schedule::Lanes(width) => rows.div_ceil((self.threads / width) as usize),
            _ => rows * self.parts() as usize,
        };
        Plan { blocks: self.blocks.min(blocks as u32), ..self }
    }

    /// Blocks that share a row.
    pub(crate) fn parts(&self) -> u32 {
        match self.schedule {
            Schedule::Cluster(n) | Schedule::Split(n) => n,
            Schedule::Lanes(_) | Schedule::Stream | Schedule::Block => 1,
        }
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
        }
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
