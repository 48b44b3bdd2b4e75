//! How long the host takes over a warm call on device memory: checks, workspace, plan, arguments, launches, of a
//! driver that does nothing. `cargo bench --features emulator --bench host_time -- [SECONDS]`: the
//! median of batches of a thousand calls, each.

use std::hint::black_box;
use std::time::{Duration, Instant};
use warploss::emulator::Description;
use warploss::{CrossEntropy, CrossEntropyOut, Device, Mse, Result, Tensor, TensorRef};

/// Calls of a batch.
const CALLS: u32 = 1000;

struct Data {
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    lse: Tensor,
    loss: Tensor,
}

impl Data {
    fn new(device: &Device, rows: usize, classes: usize) -> Data {
        let up = |shape: &[usize]| {
            let zeros = vec![0f32; shape.iter().product()];
            device.upload(TensorRef::new(&zeros, shape).expect("a shape")).expect("memory")
        };
        let target = vec![0i64; rows];
        let target = TensorRef::new(&target, &[rows]).expect("a shape");
        Data {
            logits: up(&[rows, classes]),
            target: device.upload(target).expect("memory"),
            weight: up(&[classes]),
            lse: up(&[rows]),
            loss: up(&[]),
        }
    }
}

type Call = (&'static str, fn(&Device, &mut Data) -> Result<()>);
const MEASURED: &[Call] = &[
    ("cross entropy, forward", |d, b| {
        let out = CrossEntropyOut {
            lse: Some(b.lse.view_mut()),
            ..CrossEntropyOut::loss(b.loss.view_mut())
        };
        CrossEntropy::default().forward_into(d, b.logits.view(), b.target.view(), out)
    }),
    ("cross entropy, fused", |d, b| {
        let (x, out) = (b.logits.view_mut(), CrossEntropyOut::loss(b.loss.view_mut()));
        CrossEntropy::default().forward_backward_in_place(d, x, b.target.view(), 1.0, out)
    }),
    ("cross entropy, fused, class weights", |d, b| {
        let loss = CrossEntropy::default().weight(b.weight.view());
        let (x, out) = (b.logits.view_mut(), CrossEntropyOut::loss(b.loss.view_mut()));
        loss.forward_backward_in_place(d, x, b.target.view(), 1.0, out)
    }),
    ("mse, forward", |d, b| {
        Mse::default().forward_into(d, b.lse.view(), b.lse.view(), b.loss.view_mut())
    }),
];

fn main() {
    let seconds: f64 = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1.0);
    let device = Device::idle(&Description::h100()).expect("a driver that does nothing");
    println!("| call | shape | µs |\n|---|---|---|");
    // A warp a row, a cluster a row, rows that are split.
    for (rows, classes) in [(64, 100), (64, 32_000), (4, 400_000)] {
        let mut data = Data::new(&device, rows, classes);
        for (name, call) in MEASURED {
            let mut batch = || {
                let start = Instant::now();
                (0..CALLS).for_each(|_| black_box(call(&device, &mut data)).expect("a call"));
                start.elapsed() / CALLS
            };
            batch();
            let start = Instant::now();
            let mut times = Vec::new();
            while start.elapsed() < Duration::from_secs_f64(seconds) {
                times.push(batch());
            }
            times.sort();
            let median = times[times.len() / 2].as_secs_f64() * 1e6;
            println!("| {name} | {rows} × {classes} | {median:.2} |");
        }
    }
}
