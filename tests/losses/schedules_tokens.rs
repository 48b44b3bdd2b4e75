//! Log-probability, entropy and ranks on every schedule of the CUDA device, in the emulator.

use crate::cross_entropy::CrossEntropyCase;
use crate::data::{Data, FLOATS, Logits};
use crate::harness::{Case, check_on};
use crate::logprob_entropy::LogprobEntropyCase;
use crate::ranks::RanksCase;
use warploss::emulator::Description;
use warploss::{
    DType, Device, LogprobEntropy, LogprobEntropyUpstream, Reduction, TensorMut, TensorRef,
};

/// A schedule, a card that comes to it (multiprocessors, KiB of shared memory, blocks of a
/// cluster), rows and classes.
const ROUTES: [(&str, u32, u32, u32, usize, usize); 6] = [
    ("4 lanes a row", 132, 227, 16, 9, 13),
    ("32 lanes a row", 132, 227, 16, 5, 333),
    ("block a row, on chip", 1, 227, 16, 3, 3001),
    ("cluster of", 1, 18, 16, 2, 5001 * 2),
    ("blocks a row, two phases", 2, 3, 1, 4, 9001),
    ("blocks a row, two phases", 132, 227, 16, 1, 700_003),
];

fn card(multiprocessors: u32, shared_kib: u32, cluster: u32) -> Device {
    let shared_per_block = shared_kib << 10;
    let card = Description { multiprocessors, shared_per_block, cluster, ..Description::h100() };
    Device::emulated(card, Some(7)).expect("an emulated card")
}

#[test]
fn every_schedule_agrees_with_the_reference_for_every_dtype_and_pass() {
    for (name, multiprocessors, shared, cluster, rows, classes) in ROUTES {
        let device = card(multiprocessors, shared, cluster);
        for dtype in FLOATS {
            let check = |case: &dyn Case| check_on(name, &device, case, &case.expected());
            let mut case = LogprobEntropyCase::random(3, dtype, rows, classes, Logits::Masked);
            case.logits = case.logits.padded(5);
            check(&LogprobEntropyCase { softcap: Some(20.0), ..case.clone() });
            check(&case);
            // Without an entropy gradient the saved log-sum-exp is enough.
            let zero = Data::floats(DType::F32, &[], &[0.0]);
            check(&LogprobEntropyCase { grad_entropy: zero, ..case });
            for kind in [Logits::Ties, Logits::Broken] {
                let case = CrossEntropyCase::random(4, dtype, rows, classes, kind);
                let reduction = Reduction::None;
                check(&RanksCase(CrossEntropyCase { label_smoothing: 0.1, reduction, ..case }));
            }
        }
        let notes = device.schedules();
        for loss in [
            "LogprobEntropy f16 FromLse",
            "LogprobEntropy bf16 Fused",
            "LogprobEntropyRanked f32 Fused",
            "CrossEntropyRanked bf16 Fused",
        ] {
            let reached = |n: &&String| n.starts_with(loss) && n.contains(name);
            assert!(notes.iter().any(|n| reached(&n)), "{name} {loss}: {notes:#?}");
        }
    }
}

/// On chip once each way; split without an entropy gradient too, with one a read more.
#[test]
fn rows_are_read_as_often_as_stated() {
    let (rows, classes) = (4usize, 60_000usize);
    let bytes = (rows * classes * 4) as u64;
    for (shared, cluster, grad_entropy, reads) in
        [(227, 16, 0.5, 1), (227, 2, 0.5, 1), (3, 1, 0.0, 1), (3, 1, 0.5, 2)]
    {
        let device = card(2, shared, cluster);
        let logits: Vec<f32> = (0..rows * classes).map(|i| (i * 7919 % 113) as f32 * 0.1).collect();
        let target = vec![5i32; rows];
        let (mut grad, lse) = (vec![0f32; rows * classes], vec![22f32; rows]);
        let before = device.traffic().expect("an emulator");
        let upstream = LogprobEntropyUpstream {
            grad_entropy: grad_entropy.into(),
            ..LogprobEntropyUpstream::default()
        };
        let view = |v| TensorRef::new(v, &[rows, classes]).expect("a view");
        let target = TensorRef::new(&target, &[rows]).expect("a view");
        let saved = (target, TensorRef::new(&lse, &[rows]).expect("a view"));
        let out = TensorMut::new(&mut grad, &[rows, classes]).expect("a view");
        let op = LogprobEntropy::default();
        op.backward_into(&device, view(&logits), saved, upstream, out).expect("a legal call");
        let after = device.traffic().expect("an emulator");
        let (read, written) = (after.0 - before.0, after.1 - before.1);
        // Every thread reads its row's target and the like: not a function of the classes.
        let threads = (rows * 64 * 512 * 60) as u64;
        println!("{:?} {read} {written} of {bytes}", device.schedules());
        assert!(read >= reads * bytes && read <= reads * bytes + threads, "{read} of {bytes}");
        assert!(written <= bytes + (rows * 1024 + 4096) as u64, "{written} of {bytes}");
    }
}
