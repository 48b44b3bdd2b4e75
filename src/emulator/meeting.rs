//! Where threads wait for each other: collectives of a warp, barriers of a block, of a cluster.

use super::calls::{current, fail, suspend};
use super::cluster::{Cluster, Site, Thread, WARP, Wait, bits};
use super::fault::FaultKind;
use std::ffi::c_char;

/// The operations of `WlEmuCollective`.
mod op {
    pub(super) const XOR: u32 = 0;
    pub(super) const DOWN: u32 = 1;
    pub(super) const UP: u32 = 2;
    pub(super) const IDX: u32 = 3;
    pub(super) const BALLOT: u32 = 4;
    pub(super) const SYNCWARP: u32 = 5;
    pub(super) const ADD: u32 = 6;
    pub(super) const MIN: u32 = 7;
    pub(super) const MAX: u32 = 8;
    pub(super) const OR: u32 = 9;

    pub(super) const NAMES: [&str; 10] = [
        "shfl_xor",
        "shfl_down",
        "shfl_up",
        "shfl",
        "ballot",
        "syncwarp",
        "redux_add",
        "redux_min",
        "redux_max",
        "redux_or",
    ];

    /// `WlEmuBarrier`.
    pub(super) const BARRIER_OR: u32 = 1;
    pub(super) const BARRIER_AND: u32 = 2;
    pub(super) const BARRIER_COUNT: u32 = 3;
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_collective(
    op: u32,
    mask: u32,
    value: u64,
    arg: u32,
    width: u32,
    file: *const c_char,
    line: u32,
) -> u64 {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); the reference
    // that `meet` is given ends before the fiber is suspended.
    unsafe {
        (*thread).wait = Wait { op, mask, arg, width, value, site };
        match meet(&mut *cluster, (*thread).index) {
            Err((kind, detail)) => fail(site, kind, detail),
            Ok(true) => (),
            Ok(false) => suspend(thread),
        }
        (*thread).result
    }
}

/// A thread comes to a collective. True: it was the last, and every lane has its result.
fn meet(cluster: &mut Cluster, index: u32) -> Result<bool, (FaultKind, String)> {
    let thread = &cluster.threads[index as usize];
    let (wait, bit, first) = (thread.wait, 1u32 << thread.lane, thread.warp * WARP);
    let Wait { op, mask, width, .. } = wait;
    let number = thread.warp as usize;
    let warp = &mut cluster.warps[number];
    let missing = |lanes: u32, why: &str| {
        let lane = lanes.trailing_zeros();
        Err((
            FaultKind::MissingLane,
            format!("{} with mask {mask:#010x}: lane {lane} {why}", op::NAMES[op as usize]),
        ))
    };
    if mask & bit == 0 {
        return missing(bit, "calls it and is not in the mask");
    }
    if mask & !warp.all != 0 {
        return missing(mask & !warp.all, "does not exist in this warp");
    }
    if mask & warp.exited != 0 {
        return missing(mask & warp.exited, "has exited");
    }
    if mask & (warp.barrier | warp.cluster) != 0 {
        return missing(mask & (warp.barrier | warp.cluster), "waits at a barrier");
    }
    if !(width.is_power_of_two() && width <= WARP) {
        return Err((FaultKind::LanesDisagree, format!("a shuffle of width {width}")));
    }
    warp.ready &= !bit;
    warp.collective |= bit;
    let mut here = bit;
    for lane in bits(mask & warp.collective & !bit) {
        let other = &cluster.threads[(first + lane) as usize].wait;
        if (other.op, other.mask, other.site) == (op, mask, wait.site) {
            here |= 1 << lane;
        } else if other.mask & bit != 0 {
            let detail = format!(
                "{} with mask {mask:#010x} meets lane {lane}'s {} with mask {:#010x} at {}:{}",
                op::NAMES[op as usize],
                op::NAMES[other.op as usize],
                other.mask,
                other.site.file(),
                other.site.line,
            );
            return Err((FaultKind::LanesDisagree, detail));
        }
        // Else that lane meets others first, and then comes here.
        if here != bit && mask & !warp.collective != 0 {
            // Not the last; this lane agrees, and so do those that it has met.
            return Ok(false);
        }
    }
    if here != mask {
        return Ok(false);
    }
    let lanes = &mut cluster.threads[first as usize..(first + WARP) as usize];
    let values = |lanes: &[Thread], f: fn(u64, u64) -> u64| {
        bits(mask).map(|l| lanes[l as usize].wait.value).reduce(f).unwrap_or(0)
    };
    let all = match op {
        op::BALLOT => bits(mask).map(|l| lanes[l as usize].wait.value << l).sum(),
        op::ADD => values(lanes, |a, b| u64::from((a as u32).wrapping_add(b as u32))),
        op::MIN => values(lanes, u64::min),
        op::MAX => values(lanes, u64::max),
        op::OR => values(lanes, |a, b| a | b),
        _ => 0,
    };
    if op == op::SYNCWARP && mask == warp.all & !warp.exited {
        warp.syncs += 1;
    }
    for lane in bits(mask) {
        let Wait { arg, width, .. } = lanes[lane as usize].wait;
        let (low, high) = (lane & !(width - 1), lane | (width - 1));
        let source = match op {
            op::XOR => Some(lane ^ arg).filter(|&s| s <= high),
            op::DOWN => lane.checked_add(arg).filter(|&s| s <= high),
            op::UP => lane.checked_sub(arg).filter(|&s| s >= low),
            op::IDX => Some(low | arg & (width - 1)),
            _ => None,
        };
        let source = source.unwrap_or(lane);
        if source < WARP && mask & (1 << source) == 0 {
            return missing(1 << source, &format!("is read by lane {lane} and not in the mask"));
        }
        lanes[lane as usize].result =
            if op <= op::IDX { lanes[source as usize].wait.value } else { all };
    }
    let warp = &mut cluster.warps[number];
    warp.collective &= !mask;
    warp.ready |= mask;
    Ok(true)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_barrier(op: u32, value: u32, file: *const c_char, line: u32) -> u32 {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); the reference
    // that the barrier is given ends before the fiber is suspended.
    unsafe {
        (*thread).wait.site = site;
        match block_barrier(&mut *cluster, (*thread).index, op, value, site) {
            Err((kind, detail)) => fail(site, kind, detail),
            Ok(true) => (),
            Ok(false) => suspend(thread),
        }
        (&(*cluster).blocks)[(*thread).block as usize].result
    }
}

/// Lanes that wait in a collective for a thread which now waits elsewhere.
fn waited_for(cluster: &Cluster, index: u32) -> Result<(), (FaultKind, String)> {
    let thread = &cluster.threads[index as usize];
    for lane in bits(cluster.warps[thread.warp as usize].collective) {
        let wait = &cluster.threads[(thread.warp * WARP + lane) as usize].wait;
        if wait.mask & 1 << thread.lane != 0 {
            let (name, file, line) =
                (op::NAMES[wait.op as usize], wait.site.file(), wait.site.line);
            let detail =
                format!("lane {lane} waits for lane {} in {name} at {file}:{line}", thread.lane);
            return Err((FaultKind::MissingLane, detail));
        }
    }
    Ok(())
}

fn block_barrier(
    cluster: &mut Cluster,
    index: u32,
    op: u32,
    value: u32,
    site: Site,
) -> Result<bool, (FaultKind, String)> {
    waited_for(cluster, index)?;
    let thread = &cluster.threads[index as usize];
    let (number, bit) = (thread.block as usize, 1u32 << thread.lane);
    let warps = cluster.warps.len() / cluster.blocks.len();
    let threads = cluster.context().threads;
    let block = &mut cluster.blocks[number];
    if block.live < threads {
        let gone = threads - block.live;
        let detail = format!("{gone} threads of the block have exited before this barrier");
        return Err((FaultKind::BarrierDivergence, detail));
    }
    if block.arrived > 0 && (block.op, block.site) != (op, site) {
        let (file, line) = (block.site.file(), block.site.line);
        let detail = format!("other threads of the block wait at {file}:{line}");
        return Err((FaultKind::BarrierDivergence, detail));
    }
    if block.arrived == 0 {
        (block.op, block.site, block.count) = (op, site, 0);
    }
    block.arrived += 1;
    block.count += u32::from(value != 0);
    let warp = &mut cluster.warps[thread.warp as usize];
    warp.ready &= !bit;
    warp.barrier |= bit;
    if block.arrived < threads {
        return Ok(false);
    }
    block.arrived = 0;
    block.barriers += 1;
    block.result = match op {
        op::BARRIER_OR => u32::from(block.count > 0),
        op::BARRIER_AND => u32::from(block.count == threads),
        op::BARRIER_COUNT => block.count,
        _ => 0,
    };
    let several = !block.mbarriers.is_empty();
    for warp in &mut cluster.warps[number * warps..(number + 1) * warps] {
        warp.ready |= std::mem::take(&mut warp.barrier);
    }
    if several {
        cluster.tell_each_other(number);
    }
    Ok(true)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cluster_arrive(file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); no reference
    // into them is held while the fiber is suspended.
    unsafe {
        if (*thread).arrived != (*thread).waited {
            fail(site, FaultKind::ClusterBarrier, "arrives twice without a wait".into());
        }
        if (*thread).unshown {
            let detail = "arrives with an mbarrier that was not shown".into();
            fail(site, FaultKind::ClusterBarrier, detail);
        }
        (*thread).arrived += 1;
        (*cluster).arrived += 1;
        (*cluster).cluster_barrier();
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cluster_wait(file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); no reference
    // into them is held while the fiber is suspended.
    unsafe {
        if (*thread).arrived == (*thread).waited {
            fail(site, FaultKind::ClusterBarrier, "waits without having arrived".into());
        }
        if (*cluster).barriers < (*thread).arrived {
            (*thread).wait.site = site;
            if let Err((kind, detail)) = waited_for(&*cluster, (*thread).index) {
                fail(site, kind, detail);
            }
            let bit = 1 << (*thread).lane;
            let warp = &mut (&mut (*cluster).warps)[(*thread).warp as usize];
            warp.ready &= !bit;
            warp.cluster |= bit;
            suspend(thread);
        }
        (*thread).waited += 1;
    }
}
