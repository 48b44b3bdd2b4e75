//! Memory of a thread's own for what a row keeps from one visit to the next.

use std::cell::Cell;

/// What is worth keeping: 768 KiB of f32, in an L2 cache, or nearly.
pub(crate) const ROOM: usize = 192 * 1024;

thread_local! {
    static NUMBERS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Room for `len` numbers, up to [`ROOM`]: of any value before they are written.
pub(crate) fn with_room<R>(len: usize, work: impl FnOnce(*mut f32) -> R) -> R {
    // Taken and put back: while a row is shared out, its thread may come to another call's row.
    let mut room = NUMBERS.take();
    if room.len() < len {
        room.resize(len, 0.0);
    }
    let result = work(room.as_mut_ptr());
    NUMBERS.set(room);
    result
}
