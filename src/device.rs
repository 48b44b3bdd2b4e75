//! Where a loss is computed.

use crate::cpu::Cpu;
use crate::{Error, Result};
use std::sync::Arc;

/// A place that computes losses: cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Device {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Cpu(Arc<Cpu>),
}

/// What the CPU device runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuInfo {
    /// Threads that a call may use.
    pub threads: usize,
    /// The vector instruction set in use.
    pub simd: &'static str,
}

impl Device {
    /// The best device present: the CPU, where there is no other.
    pub fn best() -> Device {
        Device::cpu()
    }

    /// The CPU, with the threads of rayon's global pool (or of the pool that the caller is in).
    pub fn cpu() -> Device {
        Device { kind: Kind::Cpu(Arc::new(Cpu::new())) }
    }

    /// The CPU, with a pool of `threads` threads of its own.
    ///
    /// # Errors
    /// `threads` is 0, or the threads cannot be had.
    pub fn cpu_with_threads(threads: usize) -> Result<Device> {
        Ok(Device { kind: Kind::Cpu(Arc::new(Cpu::with_threads(threads)?)) })
    }

    /// The name as the command line takes it: `cpu`.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Cpu(_) => "cpu",
        }
    }

    /// What the CPU device runs on.
    pub fn cpu_info(&self) -> CpuInfo {
        match &self.kind {
            Kind::Cpu(cpu) => CpuInfo { threads: cpu.threads(), simd: cpu.simd() },
        }
    }

    /// The CPU, if all memory is the host's.
    pub(crate) fn cpu_for(&self, argument: &'static str, places: &[&'static str]) -> Result<&Cpu> {
        match &self.kind {
            Kind::Cpu(cpu) => match places.iter().find(|&&place| place != "host") {
                None => Ok(cpu),
                Some(got) => Err(Error::Place { argument, expected: "host", got }),
            },
        }
    }
}
