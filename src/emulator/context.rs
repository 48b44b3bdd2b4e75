//! What all clusters of an emulated launch share.

use super::registry::Kernel;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

/// Words of an emulated launch that all its clusters share.
pub(super) struct Context<'a> {
    pub(super) name: &'a str,
    pub(super) kernel: &'a Kernel,
    pub(super) args: *const c_void,
    pub(super) grid: [u32; 2],
    pub(super) threads: u32,
    pub(super) ranks: u32,
    /// Bytes of dynamic shared memory, and the most a block may have in all.
    pub(super) dynamic: u32,
    pub(super) shared_limit: u32,
    pub(super) allocations: &'a [(u64, u64)],
    /// Bytes of the smallest allocation whose traffic is counted.
    pub(super) counted: u64,
    /// Whether turns lost at banks are counted.
    pub(super) bank_conflicts: bool,
    pub(super) seed: Option<u64>,
    /// It begins early, after a launch that wrote `before`: addresses and bytes, in order.
    pub(super) early: bool,
    pub(super) before: &'a [(u64, u64)],
    /// What it writes itself, where that is remembered.
    pub(super) written: Option<&'a Mutex<Vec<(u64, u64)>>>,
    /// Clusters that run now, and that have ended.
    pub(super) running: AtomicU32,
    pub(super) ended: AtomicU32,
}

// SAFETY: `args` is read by all threads and written by none while the launch runs.
unsafe impl Sync for Context<'_> {}
