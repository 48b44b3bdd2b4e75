//! What a plan needs to know of a device, and a block of a launch.

/// Bytes of shared memory that kernels use besides: a state a warp, and what the system reserves.
pub(crate) const STATIC_SHARED: usize = 2048;

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
    /// Bytes of the L2 cache.
    pub(crate) l2: usize,
    /// Blocks of the largest cluster that its architecture may have, the non-portable sizes included;
    /// 1 without clusters. Whether it runs those of a kernel is asked of the driver.
    pub(crate) cluster: u32,
}

impl Card {
    /// Blocks that a multiprocessor holds of a kernel whose threads take 64 registers, as the kernels' bounds
    /// have it: what an imitated card says. A device is asked, kernel by kernel.
    #[cfg_attr(not(any(test, feature = "emulator")), allow(dead_code))]
    pub(crate) fn places(&self, block: Block) -> u32 {
        let threads = block.threads.next_multiple_of(32).max(1);
        // Consumer parts have fewer.
        let (of_threads, of_blocks) = match self.arch {
            80 | 90 | 100 => (2048, 32),
            _ => (1536, 24),
        };
        let shared = self.shared_per_multiprocessor / (block.shared as usize + STATIC_SHARED);
        (of_threads.min(65536 / 64) / threads).min(of_blocks).min(shared as u32)
    }
}

/// A block of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
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
            l2: 50 << 20,
            cluster: 16,
        }
    }
}
