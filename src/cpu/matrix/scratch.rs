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
    let len = sizes.iter().sum();
    grow(&mut memory, len);
    spoil(&mut memory[..len]);
    let mut rest = &mut memory[..];
    let result = work(sizes.map(|size| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(size);
        rest = after;
        piece
    }));
    keep(memory);
    result
}

/// As [`with_scratch`], of memory that is large, or an error that says what it was for.
pub(crate) fn with_large<R>(
    argument: &'static str,
    len: usize,
    work: impl FnOnce(&mut [f32]) -> R,
) -> Result<R> {
    let mut memory = take(argument, len)?;
    let result = work(&mut memory[..len]);
    keep(memory);
    Ok(result)
}

/// Memory as [`with_large`] has it: so many elements at least. Whoever is done with it has it kept.
pub(crate) fn take(argument: &'static str, len: usize) -> Result<Vec<f32>> {
    let mut memory = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.len() < len {
        // What was there would be copied, and be there beside the new.
        memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|_| no_memory(argument, len))?;
        memory.resize(len, 0.0);
    }
    spoil(&mut memory[..len]);
    Ok(memory)
}

/// Whoever reads what nobody wrote shall not find the zeros of new memory, nor what was right a call ago: of a build
/// with checks such memory is NaN.
fn spoil(memory: &mut [f32]) {
    if cfg!(debug_assertions) {
        memory.fill(f32::NAN);
    }
}

/// Keeps memory for later calls.
pub(crate) fn keep(memory: Vec<f32>) {
    KEPT.with_borrow_mut(|kept| kept.push(memory));
}

fn grow(memory: &mut Vec<f32>, needed: usize) {
    if memory.len() < needed {
        // Freed first, not copied.
        *memory = Vec::new();
        *memory = vec![0.0; needed];
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

#[cfg(test)]
mod tests {
    use super::{keep, take, with_large, with_scratch};

    #[test]
    fn memory_holds_what_nobody_takes_for_a_number() {
        for _ in 0..2 {
            with_scratch([3, 5], |pieces| {
                for piece in pieces {
                    assert!(piece.iter().all(|v| v.is_nan()), "{piece:?}");
                    piece.fill(0.0);
                }
            });
            with_large("a piece", 4, |memory| {
                assert!(memory.iter().all(|v| v.is_nan()), "{memory:?}");
                memory.fill(1.0);
            })
            .unwrap();
            let memory = take("a piece", 7).unwrap();
            assert!(memory[..7].iter().all(|v| v.is_nan()), "{memory:?}");
            keep(memory);
        }
    }
}
