//! Every schedule × dtype × pass on the emulator, against the CPU, and what each reads and writes.
#![cfg(feature = "emulator")]

use warploss::emulator::Description;
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, Element, Tensor, TensorMut, TensorRef, bf16, f16,
};

/// A card, rows and classes that lead to a schedule.
const ROUTES: [(&str, u32, u32, u32, usize, usize); 7] = [
    ("4 lanes a row", 132, 227, 16, 9, 13),
    ("32 lanes a row", 132, 227, 16, 5, 333),
    ("block a row", 1, 227, 16, 3, 3001),
    ("cluster of", 1, 18, 16, 2, 5001 * 2),
    ("cluster of", 1, 8, 16, 2, 20_001),
    ("blocks a row, two phases", 2, 3, 1, 4, 9_001),
    ("blocks a row, two phases", 132, 227, 16, 1, 700_003),
];

fn card(multiprocessors: u32, shared_kib: u32, cluster: u32) -> Device {
    let shared_per_block = shared_kib << 10;
    let card = Description { multiprocessors, shared_per_block, cluster, ..Description::h100() };
    Device::emulated(card, Some(7)).unwrap()
}

trait Data: Element {
    const TOLERANCE: f64;
    fn of(x: f32) -> Self;
}
impl Data for f32 {
    const TOLERANCE: f64 = 1e-5;
    fn of(x: f32) -> f32 {
        x
    }
}
impl Data for f16 {
    const TOLERANCE: f64 = 1e-3;
    fn of(x: f32) -> f16 {
        f16::from_f32(x)
    }
}
impl Data for bf16 {
    const TOLERANCE: f64 = 8e-3;
    fn of(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

fn logits<T: Data>(n: usize) -> Vec<T> {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        T::of(((seed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 20.0)
    };
    (0..n).map(|_| next()).collect()
}

fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    let top = expected.iter().fold(0f64, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let allowed = tolerance * e.abs() + 1e-6 * top + 6e-8;
        assert!((g - e).abs() <= allowed, "{what}: element {i}: {g}, expected {e}");
    }
}

fn run<T: Data>(device: &Device, cpu: &Device, rows: usize, classes: usize) {
    let data = logits::<T>(rows * classes);
    let target: Vec<i64> = (0..rows as i64).map(|r| r * 7919 % classes as i64).collect();
    let target = TensorRef::new(&target, &[rows]).unwrap();
    let shape = [rows, classes];
    for loss in [
        CrossEntropy::default().lse_square_scale(1e-3),
        CrossEntropy::default().label_smoothing(0.1).softcap(Some(30.0)),
    ] {
        let view = TensorRef::new(&data, &shape).unwrap();
        let (got, expected) =
            (loss.forward(device, view, target).unwrap(), loss.forward(cpu, view, target).unwrap());
        let f64s = |t: &Tensor| t.view().to_f64().unwrap();
        close("loss", &f64s(&got.loss), &f64s(&expected.loss), 2e-6);
        close("lse", &f64s(&got.lse), &f64s(&expected.lse), 2e-6);
        let got = loss.backward(device, view, target, expected.lse.view(), 0.7).unwrap();
        let want = loss.backward(cpu, view, target, expected.lse.view(), 0.7).unwrap();
        close("backward", &f64s(&got), &f64s(&want), T::TOLERANCE);
        let tensor = || Tensor::from_vec(data.clone(), &shape).unwrap();
        let got = loss.forward_backward(device, tensor(), target, 0.7).unwrap();
        let want = loss.forward_backward(cpu, tensor(), target, 0.7).unwrap();
        close("fused loss", &f64s(&got.output.loss), &f64s(&want.output.loss), 2e-6);
        close("fused", &f64s(&got.grad_logits), &f64s(&want.grad_logits), T::TOLERANCE);
        let again = loss.forward_backward(device, tensor(), target, 0.7).unwrap();
        assert!(f64s(&again.grad_logits).iter().zip(f64s(&got.grad_logits)).all(|(a, b)| *a == b));
    }
}

#[test]
fn every_schedule_agrees_with_the_cpu_for_every_dtype_and_pass() {
    let cpu = Device::cpu();
    for (name, multiprocessors, shared, cluster, rows, classes) in ROUTES {
        let device = card(multiprocessors, shared, cluster);
        run::<f32>(&device, &cpu, rows, classes);
        run::<f16>(&device, &cpu, rows, classes);
        run::<bf16>(&device, &cpu, rows, classes);
        let notes = device.schedules();
        for dtype in ["f32", "f16", "bf16"] {
            for work in ["Fused", "FromLse"] {
                let reached = |n: &&String| {
                    n.starts_with(&format!("CrossEntropy {dtype} {work}")) && n.contains(name)
                };
                assert!(notes.iter().any(|n| reached(&n)), "{name} {dtype} {work}: {notes:#?}");
            }
        }
        println!("{notes:#?}");
    }
}

#[test]
fn rows_on_chip_are_read_once_and_written_once() {
    let (rows, classes) = (4usize, 60_000usize);
    for (shared, cluster) in [(227, 16), (227, 2), (227, 8)] {
        let device = card(2, shared, cluster);
        let mut data = logits::<f32>(rows * classes);
        let target = vec![5i32; rows];
        let (mut loss, bytes) = ([0f32], (rows * classes * 4) as u64);
        let before = device.traffic().unwrap();
        CrossEntropy::default()
            .forward_backward_in_place(
                &device,
                TensorMut::new(&mut data, &[rows, classes]).unwrap(),
                TensorRef::new(&target, &[rows]).unwrap(),
                1.0,
                CrossEntropyOut::loss(TensorMut::new(&mut loss, &[]).unwrap()),
            )
            .unwrap();
        let after = device.traffic().unwrap();
        // Every thread reads its row's target and the like: not a function of the classes.
        let threads = 16 * 512;
        assert!(
            after.0 - before.0 <= bytes + (rows * threads * 40) as u64,
            "{before:?} {after:?} {bytes}"
        );
        assert!(
            after.1 - before.1 <= bytes + (rows * 64 + 1024) as u64,
            "{before:?} {after:?} {bytes}"
        );
        println!("{:?} {:?}", device.schedules(), (after.0 - before.0, after.1 - before.1, bytes));
    }
}

#[test]
fn a_bad_target_is_reported_and_nothing_is_written() {
    let device = card(132, 227, 16);
    let logits = vec![1f32; 3 * 5000];
    let target = [1i64, 5000, 2];
    let error = CrossEntropy::default()
        .forward(
            &device,
            TensorRef::new(&logits, &[3, 5000]).unwrap(),
            TensorRef::new(&target, &[3]).unwrap(),
        )
        .unwrap_err();
    assert!(matches!(error, warploss::Error::Target { row: 1, value: 5000, .. }), "{error}");
    device.check().unwrap();
}
