//! Stacks of coroutines: cut from large mappings, used again and again.
//!
//! A page without access below each would be the surest guard, but tens of thousands of mappings
//! are more than Linux gives a process. A pattern at the low end is looked at instead.

use corosensei::stack::{Stack, StackPointer};

const STACK_BYTES: usize = 64 * 1024;
const SLAB_STACKS: usize = 256;
const GUARD: u64 = 0x5afe_57ac_5afe_57ac;
const GUARD_WORDS: usize = 32;

/// One stack of a [`Stacks`], which outlives every coroutine on it.
pub(super) struct Slot {
    low: usize,
}

// SAFETY: base and limit are the ends of a mapping of `STACK_BYTES`, page-aligned. In place of a
// guard page stands the pattern, checked after every run (`Stacks::intact`).
unsafe impl Stack for Slot {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.low + STACK_BYTES).expect("a mapping is not at 0")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.low).expect("a mapping is not at 0")
    }
}

/// The stacks of one OS thread.
#[derive(Default)]
pub(super) struct Stacks {
    slabs: Vec<usize>,
}

impl Stacks {
    /// Stack `index`, made where it is not there yet.
    pub(super) fn slot(&mut self, index: usize) -> Slot {
        while index >= self.slabs.len() * SLAB_STACKS {
            self.slabs.push(Self::slab());
        }
        Slot { low: self.low(index) }
    }

    fn low(&self, index: usize) -> usize {
        self.slabs[index / SLAB_STACKS] + index % SLAB_STACKS * STACK_BYTES
    }

    fn slab() -> usize {
        // SAFETY: an anonymous mapping at no address in particular.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SLAB_STACKS * STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "no memory for the stacks of emulated threads");
        for stack in 0..SLAB_STACKS {
            let low = (at as usize + stack * STACK_BYTES) as *mut u64;
            // SAFETY: the low end of a stack that nobody uses yet.
            (0..GUARD_WORDS).for_each(|word| unsafe { low.add(word).write(GUARD) });
        }
        at as usize
    }

    /// Whether a stack's low end is as it was made.
    pub(super) fn intact(&self, index: usize) -> bool {
        let low = self.low(index) as *const u64;
        // SAFETY: inside the slab.
        (0..GUARD_WORDS).all(|word| unsafe { low.add(word).read() } == GUARD)
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        for &slab in &self.slabs {
            // SAFETY: mapped by `slab`; the coroutines are gone, the OS thread ends.
            unsafe { libc::munmap(slab as *mut libc::c_void, SLAB_STACKS * STACK_BYTES) };
        }
    }
}
