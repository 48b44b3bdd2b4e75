//! The card that is imitated.

/// What the emulator says of itself and holds launches to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The name that it reports.
    pub name: String,
    /// 90 for sm_90.
    pub arch: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may ask for.
    pub shared_per_block: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_multiprocessor: u32,
    /// Bytes of the L2 cache.
    pub l2: u32,
    /// Registers of a multiprocessor.
    pub registers: u32,
    /// Blocks of the largest cluster that it runs, whatever its architecture may: 1 without clusters.
    pub cluster: u32,
    /// Bytes of device memory; what is not touched costs nothing.
    pub memory: u64,
    /// Traffic is counted of allocations of so many bytes and more; 0: of all. So the bytes of
    /// large tensors are told from what is a number a row or a thread.
    pub counted: u64,
    /// Turns lost at banks of shared memory are counted, which takes time.
    pub bank_conflicts: bool,
    /// Bytes of the pinned buffers that host tensors go through. Small, so that a small tensor
    /// has many chunks.
    pub staging: usize,
}

impl Description {
    fn new(
        name: &str,
        arch: u32,
        multiprocessors: u32,
        (shared, l2): (u32, u32),
        cluster: u32,
        gib: u64,
    ) -> Self {
        Description {
            name: name.into(),
            arch,
            multiprocessors,
            shared_per_block: (shared - 1) << 10,
            shared_per_multiprocessor: shared << 10,
            l2: l2 << 20,
            registers: 65536,
            cluster,
            memory: gib << 30,
            counted: 0,
            bank_conflicts: false,
            staging: 5000,
        }
    }

    /// A100: no clusters.
    pub fn a100() -> Description {
        Description::new("emulated A100", 80, 108, (164, 40), 1, 80)
    }

    /// GeForce RTX 4090: no clusters, 99 KiB of shared memory a block.
    pub fn rtx_4090() -> Description {
        Description::new("emulated RTX 4090", 89, 128, (100, 72), 1, 24)
    }

    /// H100.
    pub fn h100() -> Description {
        Description::new("emulated H100", 90, 132, (228, 50), 16, 80)
    }

    /// B200.
    pub fn b200() -> Description {
        Description::new("emulated B200", 100, 148, (228, 126), 16, 180)
    }

    /// GeForce RTX 5090: clusters of 8, 99 KiB of shared memory a block.
    pub fn rtx_5090() -> Description {
        Description::new("emulated RTX 5090", 120, 170, (100, 96), 8, 32)
    }

    /// The smallest slice of an H100 (MIG 1g): few multiprocessors, and no large clusters.
    pub fn h100_slice() -> Description {
        Description {
            multiprocessors: 14,
            cluster: 8,
            ..Description::new("emulated H100 MIG 1g.10gb", 90, 132, (228, 6), 16, 10)
        }
    }

    /// A card of few multiprocessors and little shared memory: every schedule at small shapes.
    pub fn tiny() -> Description {
        Description { cluster: 4, ..Description::new("emulated tiny card", 90, 2, (17, 1), 4, 4) }
    }
}

impl Default for Description {
    /// [`Description::h100`].
    fn default() -> Self {
        Description::h100()
    }
}

/// What a device's driver was asked, in order: for tests of what waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A copy of one chunk to the device.
    Upload,
    /// A copy of one chunk from the device.
    Download,
    /// A wait for such a copy from the device.
    AwaitDownload,
    /// That stream and copies meet.
    Meet,
    /// A kernel.
    Launch,
    /// A few bytes, waited for.
    CopyOut,
}
