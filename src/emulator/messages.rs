//! What blocks of a cluster send each other, and the mbarriers that count it.
//!
//! Bytes are there as soon as they are sent, and whoever touches them before a wait has said so is at fault:
//! on a GPU they may come as late as that.
//!
//! SAFETY, here as in `calls.rs`: these functions run on a fiber of the scheduler.

use super::calls::{access_or_end, current, fail, suspend};
use super::cluster::{Cluster, Mbarrier, Site, WARP, bits};
use super::fault::FaultKind;
use super::shared::Access;
use std::ffi::c_char;

/// Shared addresses of peers: a mark, the rank, the offset.
const PEER: u32 = 1 << 31;
const PEER_SHIFT: u32 = 20;
/// Bytes of a message, and of an mbarrier.
const BYTES: u32 = 8;

impl Cluster {
    /// A block has ended: whether something is still sent to it, or was and nobody waited.
    pub(super) fn unheard(&mut self, index: u32, block: usize) -> bool {
        let mut mbarriers = self.blocks[block].mbarriers.iter();
        let Some(one) = mbarriers.find(|one| one.left > 0 || !one.awaited) else { return false };
        let (site, left) = (one.site, one.left);
        let detail =
            format!("the block ends, waits for nothing here, and {left} bytes are to come");
        self.note(index, site, FaultKind::TransactionCount, detail);
        true
    }

    /// After a barrier every thread of the block knows of what has come as much as any.
    pub(super) fn tell_each_other(&mut self, block: usize) {
        let each = self.threads.len() / self.blocks.len();
        let threads = &mut self.threads[block * each..(block + 1) * each];
        let all = threads.iter().fold(0, |all, thread| all | thread.met);
        threads.iter_mut().for_each(|thread| thread.met = all);
    }

    /// All that an mbarrier counts has come: who waits for it goes on.
    fn come(&mut self, block: usize, number: u32) {
        let warps = self.warps.len() / self.blocks.len();
        for at in block * warps..(block + 1) * warps {
            for lane in bits(self.warps[at].mbarrier) {
                if self.threads[at * WARP as usize + lane as usize].wait.arg == number {
                    self.warps[at].mbarrier &= !(1 << lane);
                    self.warps[at].ready |= 1 << lane;
                }
            }
        }
    }

    fn mbarrier(&self, block: usize, offset: u32, site: Site) -> usize {
        let made = self.blocks[block].mbarriers.iter().rposition(|one| one.offset == offset);
        made.unwrap_or_else(|| {
            let detail = format!("no mbarrier at byte {offset}");
            fail(site, FaultKind::TransactionCount, detail)
        })
    }
}

/// The address of an offset in a peer's shared memory.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_peer(offset: u32, rank: u32, file: *const c_char, line: u32) -> u32 {
    let (_, cluster) = current();
    // SAFETY: the cluster of the fiber that runs is alive (`current`).
    let ranks = unsafe { (*cluster).blocks.len() };
    if rank as usize >= ranks {
        let detail = format!("rank {rank} of a cluster of {ranks} blocks");
        fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail);
    }
    PEER | rank << PEER_SHIFT | offset
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_mbarrier_init(offset: u32, bytes: u32, file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); no reference
    // into them is held while the fiber is suspended.
    unsafe {
        let (index, block) = ((*thread).index, (*thread).block as usize);
        let range = (offset, BYTES);
        access_or_end(thread, &mut *cluster, (index, block), range, Access::Init, site);
        let mbarriers = &mut (&mut (*cluster).blocks)[block].mbarriers;
        if mbarriers.len() == u64::BITS as usize {
            fail(site, FaultKind::TransactionCount, "more mbarriers than the emulator has".into());
        }
        mbarriers.push(Mbarrier { offset, left: bytes, awaited: false, site });
        (*thread).unshown = true;
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_mbarrier_show() {
    let (thread, _) = current();
    // SAFETY: the thread whose fiber this is is alive (`current`).
    unsafe { (*thread).unshown = false };
}

/// Where an address that `wl_emu_peer` gave lies: block and offset.
fn place(address: u32, cluster: &Cluster, site: Site) -> (usize, u32) {
    let rank = ((address & !PEER) >> PEER_SHIFT) as usize;
    let offset = address & ((1 << PEER_SHIFT) - 1);
    let known = address & PEER != 0 && rank < cluster.blocks.len();
    if !known || offset + BYTES > cluster.shared_used {
        let detail = format!("{BYTES} bytes at {address:#x}: no address that wl_peer gave");
        fail(site, FaultKind::SharedOutOfBounds, detail);
    }
    if !offset.is_multiple_of(BYTES) {
        let detail = format!("{BYTES} bytes at byte {offset}, needs a multiple of {BYTES}");
        fail(site, FaultKind::SharedMisaligned, detail);
    }
    (rank, offset)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_st_async(to: u32, bar: u32, value: u64, file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); the offset was compared
    // with what the blocks use; no reference into them is held while the fiber is suspended.
    unsafe {
        let (block, offset) = place(to, &*cluster, site);
        let (counting, at) = place(bar, &*cluster, site);
        if counting != block {
            let detail = format!("sent to block {block}, and counted by block {counting}'s");
            fail(site, FaultKind::TransactionCount, detail);
        }
        if block != (*thread).block as usize {
            if (&(*cluster).blocks)[block].live == 0 {
                let detail = format!("block {block} of the cluster has exited");
                fail(site, FaultKind::PeerExited, detail);
            }
            if (*thread).waited == 0 {
                let detail = format!(
                    "block {block} of the cluster may not have started: no cluster barrier yet"
                );
                fail(site, FaultKind::PeerNotStarted, detail);
            }
        }
        let who = ((*thread).index, block);
        access_or_end(thread, &mut *cluster, who, (at, BYTES), Access::Count, site);
        let number = (*cluster).mbarrier(block, at, site);
        let sent = Access::Send(number as u32);
        access_or_end(thread, &mut *cluster, who, (offset, BYTES), sent, site);
        let memory = &mut (&mut (*(*cluster).worker).shared)[block];
        let to = memory.bytes.as_mut_ptr().cast::<u8>().add(offset as usize);
        to.cast::<u64>().write(value);
        let one = &mut (&mut (*cluster).blocks)[block].mbarriers[number];
        let Some(left) = one.left.checked_sub(BYTES) else {
            let detail = format!("{BYTES} bytes are sent, and {} are to come", one.left);
            fail(site, FaultKind::TransactionCount, detail);
        };
        one.left = left;
        if left == 0 {
            (*cluster).come(block, number as u32);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_mbarrier_wait(offset: u32, file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); no reference
    // into them is held while the fiber is suspended.
    unsafe {
        let who = ((*thread).index, (*thread).block as usize);
        access_or_end(thread, &mut *cluster, who, (offset, BYTES), Access::Count, site);
        let number = (*cluster).mbarrier(who.1, offset, site);
        let one = &mut (&mut (*cluster).blocks)[who.1].mbarriers[number];
        one.awaited = true;
        if one.left > 0 {
            ((*thread).wait.site, (*thread).wait.arg) = (site, number as u32);
            let bit = 1 << (*thread).lane;
            let warp = &mut (&mut (*cluster).warps)[(*thread).warp as usize];
            warp.ready &= !bit;
            warp.mbarrier |= bit;
            suspend(thread);
        }
        (*thread).met |= 1 << number;
    }
}
