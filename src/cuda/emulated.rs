//! The driver of an imitated card.

use super::driver::{Driver, Kernel, Launch};
use super::plan::Card;
use super::variants::Variant;
use crate::emulator::{self, Description, Emulator, Fault, LaunchStats};
use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// An emulator, and the plan's view of its card.
#[derive(Debug)]
pub(crate) struct Emulated {
    emulator: Emulator,
    card: Card,
    variants: Vec<Variant>,
    traffic: Mutex<LaunchStats>,
}

fn fault(fault: Fault) -> Error {
    Error::Device { reason: fault.to_string() }
}

impl Emulated {
    /// A card of this description; with a seed, threads take turns in an order drawn from it.
    pub(crate) fn new(description: Description, seed: Option<u64>) -> Emulated {
        let card = Card {
            name: description.name.clone(),
            arch: description.arch,
            multiprocessors: description.multiprocessors,
            shared_per_block: description.shared_per_block as usize,
            shared_per_multiprocessor: description.shared_per_multiprocessor as usize,
            cluster: description.cluster,
        };
        let emulator = Emulator::new(description);
        let emulator = match seed {
            Some(seed) => emulator.with_seed(seed),
            None => emulator,
        };
        Emulated { emulator, card, variants: Variant::all(), traffic: Mutex::default() }
    }
}

impl Driver for Emulated {
    fn name(&self) -> &'static str {
        "emulated"
    }

    fn card(&self) -> &Card {
        &self.card
    }

    fn allocate(&self, argument: &'static str, bytes: usize) -> Result<u64> {
        self.emulator.alloc(bytes as u64).map_err(|_| Error::OutOfMemory { argument, bytes })
    }

    unsafe fn free(&self, address: u64) {
        // Only what was allocated comes here.
        let _ = self.emulator.free(address);
    }

    unsafe fn reused(&self, address: u64, bytes: usize) -> Result<()> {
        self.emulator.forget(address, bytes as u64).map_err(fault)
    }

    unsafe fn copy_in(&self, to: u64, from: &[u8]) -> Result<()> {
        self.emulator.copy_to_device(to, from).map_err(fault)
    }

    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()> {
        if !self.emulator.written(from, to.len() as u64).map_err(fault)? {
            let reason =
                format!("{} bytes at {from:#x} are read back, but not all written", to.len());
            return Err(Error::Device { reason });
        }
        self.emulator.copy_to_host(from, to).map_err(fault)
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.emulator.set(address, 0, bytes as u64).map_err(fault)
    }

    fn kernel(&self, variant: Variant) -> Result<Kernel> {
        // The table's position stands for a kernel.
        let at = self.variants.iter().position(|&v| v == variant);
        at.map(|at| Kernel(at as u64)).ok_or_else(|| Error::Device {
            reason: format!("kernel {} is not in the table", variant.symbol()),
        })
    }

    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        let name = self.variants[launch.kernel.0 as usize].symbol();
        let stats = self
            .emulator
            .launch(&emulator::Launch {
                kernel: &name,
                grid: [launch.blocks, 1],
                threads: launch.threads,
                cluster: launch.cluster,
                shared: launch.shared,
                args: launch.args,
            })
            .map_err(fault)?;
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.bytes_read += stats.bytes_read;
        traffic.bytes_written += stats.bytes_written;
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn traffic(&self) -> Option<(u64, u64)> {
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        Some((traffic.bytes_read, traffic.bytes_written))
    }
}
