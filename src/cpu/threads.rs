//! Work for all threads. One loop serves every loss, through a pointer to what is done: a closure
//! of its own for each loss and type would bring a copy of rayon's machinery each, which is most
//! of what the CPU device used to be compiled for.

use crate::cpu::batch::lines::SyncPtr;
use crate::cpu::processor::Cpu;
use rayon::prelude::*;

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
