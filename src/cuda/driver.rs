//! What the launches need of a device: memory, kernels, a stream. The one implementation is
//! cudarc's (`real.rs`), the other the emulator's: everything above is the same for both.

use super::plan::Card;
use super::variants::Variant;
use crate::Result;

/// A kernel that a driver has loaded: its own number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel(pub(crate) u64);

/// One launch. The grid and the blocks have one dimension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    /// Blocks of a cluster; 1: none.
    pub(crate) cluster: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    /// The kernel's one argument, aligned to 8 bytes.
    pub(crate) args: &'a [u8],
}

/// A device and the stream that everything on it is ordered by.
///
/// Addresses are the device's. Errors are [`crate::Error::Device`], but for
/// [`crate::Error::OutOfMemory`] from `allocate`.
pub(crate) trait Driver: Send + Sync + std::fmt::Debug {
    /// The name that the command line has for this kind of device.
    fn name(&self) -> &'static str;

    /// What plans are made for.
    fn card(&self) -> &Card;

    /// Memory for `argument` (named in the error), aligned to 256 bytes, undefined.
    fn allocate(&self, argument: &'static str, bytes: usize) -> Result<u64>;

    /// Gives memory back once the stream has come here.
    ///
    /// # Safety
    /// The address came from `allocate` and is used no more.
    unsafe fn free(&self, address: u64);

    /// Told of memory that a pool hands out again; it is undefined from now on.
    ///
    /// # Safety
    /// The bytes at `address` are allocated, and nothing needs their contents.
    unsafe fn reused(&self, address: u64, bytes: usize) -> Result<()> {
        let _ = (address, bytes);
        Ok(())
    }

    /// Copies host bytes to the device; `from` may be reused when this returns.
    ///
    /// # Safety
    /// The bytes at `to` are allocated.
    unsafe fn copy_in(&self, to: u64, from: &[u8]) -> Result<()>;

    /// Copies device bytes to the host and waits for them.
    ///
    /// # Safety
    /// The bytes at `from` are allocated and initialised.
    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()>;

    /// Zeros `bytes` bytes.
    ///
    /// # Safety
    /// They are allocated.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Finds (and where needed compiles and loads) a kernel.
    fn kernel(&self, variant: Variant) -> Result<Kernel>;

    /// Puts a launch on the stream.
    ///
    /// # Safety
    /// `args` is the kernel's own struct, and the memory it names is allocated and as long as
    /// it says.
    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()>;

    /// Waits until the stream has come here.
    fn synchronize(&self) -> Result<()>;

    /// Bytes of global memory that kernels have read and written so far, where they are counted.
    fn traffic(&self) -> Option<(u64, u64)> {
        None
    }
}
