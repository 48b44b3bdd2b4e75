//! A driver that does nothing of what it is asked, at once: what is left of a call is the host's own time.

use crate::base::error::{Error, Result};
use crate::code::card::{Block, Card};
use crate::code::variants::Variant;
use crate::cuda::driver::product::Product;
use crate::cuda::driver::{Driver, Kernel, Launch, Pinned, Resources};
use crate::cuda::emulated::driver::card_of;
use crate::emulator::Description;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of a card that there is not.
#[derive(Debug)]
pub(crate) struct Idle {
    card: Card,
    /// Addresses from here on are nobody's.
    next: AtomicU64,
}

impl Idle {
    pub(crate) fn new(description: &Description) -> Idle {
        let card = card_of(description);
        Idle { card, next: AtomicU64::new(1 << 20) }
    }
}

/// What it is asked for can only be had of a driver that works.
fn idle() -> Error {
    Error::Device { reason: "this driver does nothing".into() }
}

impl Driver for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn card(&self) -> &Card {
        &self.card
    }

    fn ordinal(&self) -> usize {
        usize::MAX
    }

    fn space(&self) -> u64 {
        0
    }

    fn another_stream(&self) -> Result<Arc<dyn Driver>> {
        Err(idle())
    }

    fn capturing(&self) -> Result<bool> {
        Ok(false)
    }

    fn after(&self, _: &dyn Driver) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, _: &'static str, bytes: usize) -> Result<u64> {
        Ok(self.next.fetch_add((bytes as u64).next_multiple_of(256), Ordering::Relaxed))
    }

    unsafe fn free(&self, _: u64) {}

    unsafe fn copy_out(&self, _: &mut [u8], _: u64) -> Result<()> {
        Err(idle())
    }

    unsafe fn copy_within(&self, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn clear(&self, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn kernel(&self, _: Variant) -> Result<Kernel> {
        Ok(Kernel(0))
    }

    fn resources(&self, _: Kernel) -> Result<Resources> {
        Err(idle())
    }

    fn places(&self, _: Kernel, block: Block) -> Result<u32> {
        Ok(self.card.places(block))
    }

    fn active_clusters(&self, _: Kernel, _: Block, _: u32) -> Result<Option<u32>> {
        Ok(None)
    }

    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        std::hint::black_box(launch.args);
        Ok(())
    }

    unsafe fn product(&self, _: &Product) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn pinned(&self, bytes: usize) -> Result<Pinned> {
        let memory = Box::into_raw(vec![0u8; bytes].into_boxed_slice());
        Ok(Pinned { address: memory.cast(), bytes, event: 0 })
    }

    unsafe fn free_pinned(&self, buffer: Pinned) {
        let memory = std::ptr::slice_from_raw_parts_mut(buffer.address, buffer.bytes);
        // SAFETY: `pinned` made it of a box of that length; the caller uses it no more.
        drop(unsafe { Box::from_raw(memory) });
    }

    unsafe fn upload(&self, _: &Pinned, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, _: &Pinned, _: u64, _: usize) -> Result<()> {
        Err(idle())
    }

    fn await_copy(&self, _: &Pinned) -> Result<()> {
        Ok(())
    }

    fn copied(&self, _: &Pinned) -> bool {
        true
    }

    fn meet(&self) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
