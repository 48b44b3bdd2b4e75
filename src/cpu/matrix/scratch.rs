//! Memory that a call needs for a while: kept by its thread, or new.

use crate::base::error::{Error, Result};
use std::cell::RefCell;

thread_local! {
    /// Memory that is not in use, kept so that later calls need not ask for it. What was given back
    /// last goes out first: calls within a call find the same pieces again.
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with memory for as many f32 elements, whatever they hold.
pub(crate) fn with_scratch<const N: usize, R>(
    sizes: [usize; N],
    work: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    let mut memory = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    grow(&mut memory, sizes.iter().sum());
    let mut rest = &mut memory[..];
    let result = work(sizes.map(|size| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(size);
        rest = after;
        piece
    }));
    KEPT.with_borrow_mut(|kept| kept.push(memory));
    result
}

/// As [`with_scratch`], of memory that is large, or an error that says what it was for.
pub(crate) fn with_large<R>(
    argument: &'static str,
    len: usize,
    work: impl FnOnce(&mut [f32]) -> R,
) -> Result<R> {
    let mut memory = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    let more = len.saturating_sub(memory.len());
    memory.try_reserve_exact(more).map_err(|_| no_memory(argument, len))?;
    grow(&mut memory, len);
    let result = work(&mut memory[..len]);
    KEPT.with_borrow_mut(|kept| kept.push(memory));
    Ok(result)
}

fn grow(memory: &mut Vec<f32>, needed: usize) {
    if memory.len() < needed {
        memory.resize(needed, 0.0);
    }
}

fn no_memory(argument: &'static str, len: usize) -> Error {
    Error::no_memory(argument, len.saturating_mul(size_of::<f32>()))
}

/// Zeros, or an error that says what they were for.
pub(crate) fn zeros(argument: &'static str, len: usize) -> Result<Vec<f32>> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| no_memory(argument, len))?;
    data.resize(len, 0.0);
    Ok(data)
}
