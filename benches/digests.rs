//! A hash of all that random calls write, return or say, op by op: two builds that print the same
//! lines compute the same bits.
//!
//! `cargo bench --bench digests [--features emulator] -- [CALLS]`: on the CPU at every instruction
//! set that the machine has, and on an emulated card. A line is device, op, seed and hash.

use warploss::Device;
use warploss::check::catalogue::Op;
use warploss::check::differential::digest;

/// Calls of each op on each device, unless told otherwise.
const CALLS: u64 = 200;

fn main() {
    // A panic is hashed as what it says.
    std::panic::set_hook(Box::new(|_| {}));
    let calls = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    for (name, device) in devices() {
        for &op in Op::ALL {
            for seed in 0..calls.unwrap_or(CALLS) {
                println!("{name} {} {seed} {:016x}", op.name(), digest(op, seed, &device));
            }
        }
    }
}

fn devices() -> Vec<(String, Device)> {
    let cpus = Device::cpu_levels().into_iter();
    #[allow(unused_mut)] // Without the emulator the CPU is all.
    let mut devices: Vec<_> =
        cpus.map(|cpu| (format!("cpu-{}", cpu.cpu_info().simd), cpu)).collect();
    #[cfg(feature = "emulator")]
    {
        let card = warploss::emulator::Description::h100();
        let card = Device::emulated(card, None).expect("memory for a card");
        devices.push(("emulated".into(), card));
    }
    devices
}
