//! What a device says of itself.

/// What a device's driver was asked, where an emulator counts it: what tells whether a call
/// allocates or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriverCalls {
    /// Memory taken, on the device or pinned.
    pub allocations: u64,
    /// Memory given back.
    pub frees: u64,
    /// Copies to, from and on the device.
    pub copies: u64,
    /// Bytes that were copied from the device to the host.
    pub bytes_to_host: u64,
    /// Times that the host waited for the device.
    pub waits: u64,
    /// Times that a stream was made to wait for another.
    pub orders: u64,
    /// Kernels launched.
    pub launches: u64,
    /// Terms of all products of matrices: of an m by k matrix and a k by n one m·n·k.
    pub terms: u64,
    /// Of the kernels, such as may begin before the one before is done.
    pub early: u64,
    /// Memory set to zero.
    pub clears: u64,
    /// Turns that lanes of a warp have lost to each other at banks of shared memory, where the card's description
    /// has them counted.
    pub bank_conflicts: u64,
}

/// What the CPU device runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuInfo {
    /// Threads that a call may use.
    pub threads: usize,
    /// The vector instruction set in use.
    pub simd: &'static str,
}
