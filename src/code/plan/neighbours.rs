//! The plan of rows whose elements lie apart and whose neighbours lie side by side: of an image its pixels,
//! along whose classes they go. Where there is none, rows are turned and go by another.

use super::{Card, Pass, Plan, Rows, STATIC_SHARED, Schedule, WARP, fit};

/// Classes at most. Beyond, few rows fit a multiprocessor, and few loads are on their way.
const CLASSES: usize = 1024;
/// Bytes of a row that one thread takes: so much shared memory a thread leaves a multiprocessor 900 of them.
/// Predicted.
const THREAD_BYTES: usize = 256;
/// Threads of a row at most; 32 rows of so many are a block (`WL_MOST_THREADS`).
const SHARES: usize = 8;
/// Elements of a turn (`WL_TURN`): no thread without one.
const TURN: usize = 8;
/// Warps of a multiprocessor that hide memory's latency. Predicted.
const WARPS: usize = 16;
/// Threads of a block, unless a row takes more.
const BLOCK: usize = 128;

impl Plan {
    /// The plan of rows side by side; `None` where they are too long for it.
    pub(crate) fn side_by_side(rows: Rows, pass: Pass, card: &Card) -> Option<Plan> {
        let size = rows.data.size();
        let shared = |rows_of_block: usize| match pass {
            Pass::Forward => 0,
            Pass::Gradient => rows.classes * rows_of_block * size * rows.streams.max(1),
        };
        let limit = card.shared_per_block.saturating_sub(STATIC_SHARED_OF_STATES);
        if rows.classes > CLASSES || shared(WARP) > limit {
            return None;
        }
        let wanted = card.multiprocessors.max(1) as usize * WARPS;
        let few = |shares: usize| rows.rows.div_ceil(WARP) * shares < wanted;
        let long = |shares: usize| rows.classes * size > THREAD_BYTES * shares;
        let mut shares = 1;
        while shares < SHARES
            && (long(shares)
                || few(shares) && rows.classes > TURN * shares
                || shared(BLOCK / shares.min(BLOCK / WARP)) > limit)
        {
            shares *= 2;
        }
        let threads = BLOCK.max(WARP * shares);
        let rows_of_block = threads / shares;
        Some(Plan {
            schedule: Schedule::SideBySide(fit(shares)?),
            threads: fit(threads)?,
            blocks: fit(rows.rows.div_ceil(rows_of_block))?,
            slice: fit(shares)?,
            shared: fit(shared(rows_of_block))?,
        })
    }
}

/// Shared memory besides: a state of at most nine words a thread, and what the system reserves.
const STATIC_SHARED_OF_STATES: usize = STATIC_SHARED + 9 * 4 * WARP * SHARES;
