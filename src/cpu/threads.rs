//! Work for all threads. One loop serves every loss, through a pointer to what is done: a closure
//! of its own for each loss and type would bring a copy of rayon's machinery each, which is most
//! of what the CPU device used to be compiled for.

use crate::cpu::processor::Cpu;
use rayon::prelude::*;

/// Who works on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// The calling thread alone.
    Alone,
    /// All threads of the current pool.
    Shared,
}

/// A pointer that may cross threads; whoever uses it says why the accesses are disjoint.
#[derive(Debug)]
pub(crate) struct SyncPtr<T>(pub(crate) *mut T);

impl<T> Clone for SyncPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SyncPtr<T> {}
// SAFETY: dereferencing is unsafe at every use, where disjointness is argued.
unsafe impl<T> Send for SyncPtr<T> {}
// SAFETY: as for Send: no access goes through a shared pointer but by unsafe code that argues it.
unsafe impl<T> Sync for SyncPtr<T> {}

impl<T> SyncPtr<T> {
    /// A method, so that closures capture the wrapper and not the bare pointer.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// A reference that may cross threads, though what it refers to holds raw pointers.
pub(crate) struct SyncRef<'a, T>(&'a T);
// SAFETY: whoever made it with `new` has vouched that threads access disjoint memory through it.
unsafe impl<T> Send for SyncRef<'_, T> {}
// SAFETY: the promise made to `SyncRef::new`, as for Send.
unsafe impl<T> Sync for SyncRef<'_, T> {}

impl<'a, T> SyncRef<'a, T> {
    /// # Safety
    /// What several threads write through the pointers in `of` is disjoint, and nobody reads it
    /// meanwhile.
    pub(crate) unsafe fn new(of: &'a T) -> Self {
        SyncRef(of)
    }

    /// A method, so that closures capture the wrapper and not the bare reference.
    pub(crate) fn get(&self) -> &'a T {
        self.0
    }
}

/// Calls `work` with each of `0..n` once, on the threads of the current pool, at least `least` of
/// them a time. In no order that matters.
pub(crate) fn share(n: usize, least: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..n).into_par_iter().with_min_len(least).for_each(work);
}

impl Cpu {
    /// Runs `work` on a thread of the pool, so that what it shares out starts there.
    pub(crate) fn install(&self, work: &mut (dyn FnMut() + Send)) {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => drop(rayon::join(work, || ())),
        }
    }

    /// As [`share`], on this device's threads.
    pub(crate) fn share(&self, n: usize, least: usize, work: &(dyn Fn(usize) + Sync)) {
        self.install(&mut || share(n, least, work));
    }

    /// Calls `work` with each of `items` and its number, on this device's threads.
    pub(crate) fn share_items<T: Send>(
        &self,
        items: &mut [T],
        work: impl Fn(usize, &mut T) + Sync,
    ) {
        let first = SyncPtr(items.as_mut_ptr());
        // SAFETY: the item exists, and each number comes once.
        self.share(items.len(), 1, &|i| work(i, unsafe { &mut *first.get().add(i) }));
    }
}
