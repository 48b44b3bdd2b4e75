//! Soft cross entropy, distillation and Jensen–Shannon divergence on every schedule × dtype of the
//! emulator, against the CPU, and what the schedules on chip read and write.

use warploss::emulator::Description;
use warploss::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, Device, Element, JsDivLogits,
    JsDivLogitsGradOut, Tensor, TensorMut, TensorRef, bf16, f16,
};

/// A card, rows and classes that lead to a schedule: multiprocessors, KiB of shared memory, blocks
/// of a cluster.
const ROUTES: [(&str, u32, u32, u32, usize, usize); 6] = [
    ("4 lanes a row", 132, 227, 16, 9, 13),
    ("32 lanes a row", 132, 227, 16, 5, 333),
    ("block a row", 1, 227, 16, 3, 3001),
    ("cluster of", 1, 18, 16, 2, 10_002),
    ("blocks a row, two phases", 2, 3, 1, 4, 9_001),
    ("blocks a row, two phases", 132, 227, 16, 1, 600_003),
];

fn card(multiprocessors: u32, shared_kib: u32, cluster: u32) -> Device {
    let shared_per_block = shared_kib << 10;
    let card = Description { multiprocessors, shared_per_block, cluster, ..Description::h100() };
    Device::emulated(card, Some(7)).unwrap()
}

fn numbers<T: Element>(n: usize, mut seed: u64, of: impl Fn(f32) -> T) -> Vec<T> {
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        of(((seed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 10.0)
    };
    (0..n).map(|_| next()).collect()
}

/// Loss, gradient, and the target's gradient where it has one.
fn results<T: Element>(
    device: &Device,
    loss: &CrossEntropy<'_>,
    [logits, target]: [&[T]; 2],
    shape: &[usize],
    grad_target: bool,
) -> Vec<Vec<f64>> {
    let mut logits = Tensor::from_vec(logits.to_vec(), shape).unwrap();
    let mut gradient = Tensor::from_vec(target.to_vec(), shape).unwrap();
    let target = TensorRef::new(target, shape).unwrap();
    let mut value = [0f32];
    let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[]).unwrap());
    let gradients = CrossEntropyGradients {
        logits: logits.view_mut(),
        target: grad_target.then(|| gradient.view_mut()),
    };
    loss.forward_backward_in_place(device, gradients, target, 0.7, out).unwrap();
    vec![vec![value[0].into()], logits.view().to_f64().unwrap(), gradient.view().to_f64().unwrap()]
}

fn run<T: Element>(device: &Device, rows: usize, classes: usize, of: fn(f32) -> T, tolerance: f64) {
    let (logits, target) =
        (numbers(rows * classes, 1, of), numbers(rows * classes, 2, |x| of(x.abs() * 1e-3)));
    let teacher = numbers(rows * classes, 3, of);
    let weight: Vec<f32> = numbers(classes, 4, |x| 0.5 + x.abs());
    let weight = TensorRef::new(&weight, &[classes]).unwrap();
    let plain = CrossEntropy::default().lse_square_scale(1e-3);
    let full = CrossEntropy::default().weight(weight).label_smoothing(0.1).softcap(Some(30.0));
    let cpu = Device::cpu();
    for (loss, target, grad_target) in [
        (plain.clone(), &target, false),
        (full.clone(), &target, true),
        (plain.teacher_scale(Some(0.5)), &teacher, false),
        (full.teacher_scale(Some(1.5)), &teacher, false),
    ] {
        let (inputs, shape) = ([&logits[..], target], [rows, classes]);
        let got = results(device, &loss, inputs, &shape, grad_target);
        let want = results(&cpu, &loss, inputs, &shape, grad_target);
        for (got, want) in got.iter().zip(&want) {
            let top = want.iter().fold(0f64, |m, e| m.max(e.abs()));
            for (i, (g, e)) in got.iter().zip(want).enumerate() {
                let allowed = tolerance * e.abs() + 2e-6 * top + 6e-8;
                assert!((g - e).abs() <= allowed, "{loss:?}: element {i}: {g}, expected {e}");
            }
        }
        assert_eq!(got, results(device, &loss, inputs, &shape, grad_target), "other bits");
    }
}

/// The divergence: loss and both gradients, and the loss alone.
fn divergences<T: Element>(
    device: &Device,
    js: &JsDivLogits<'_>,
    [logits, target]: [&[T]; 2],
    shape: &[usize],
) -> Vec<Vec<f64>> {
    let mut logits = Tensor::from_vec(logits.to_vec(), shape).unwrap();
    let mut gradient = Tensor::from_vec(target.to_vec(), shape).unwrap();
    let target = TensorRef::new(target, shape).unwrap();
    let alone = js.forward(device, logits.view(), target).unwrap();
    let mut value = [0f32];
    let loss = TensorMut::new(&mut value, &[]).unwrap();
    let (logits_out, target_out) = (logits.view_mut(), Some(gradient.view_mut()));
    let gradients = JsDivLogitsGradOut { logits: logits_out, target: target_out };
    js.forward_backward_in_place(device, gradients, target, 0.7, loss).unwrap();
    let [alone, x, y] = [&alone, &logits, &gradient].map(|t| t.view().to_f64().unwrap());
    assert_eq!(alone, [f64::from(value[0])], "the loss alone has other bits");
    vec![alone, x, y]
}

fn run_js<T: Element>(device: &Device, rows: usize, classes: usize, of: fn(f32) -> T, share: f64) {
    let [logits, teacher] = [1, 3].map(|seed| numbers(rows * classes, seed, of));
    let labels: Vec<i64> = (0..rows as i64).map(|row| if row == 1 { -100 } else { 0 }).collect();
    let labels = TensorRef::new(&labels, &[rows]).unwrap();
    let cpu = Device::cpu();
    for js in [
        JsDivLogits::default(),
        JsDivLogits::default().beta(0.2).logit_scale(0.5).teacher_scale(1.5).labels(labels),
        JsDivLogits::default().beta(0.0),
        JsDivLogits::default().beta(1.0).labels(labels),
    ] {
        let (inputs, shape) = ([&logits[..], &teacher[..]], [rows, classes]);
        let got = divergences(device, &js, inputs, &shape);
        let want = divergences(&cpu, &js, inputs, &shape);
        for (got, want) in got.iter().zip(&want) {
            let top = want.iter().fold(0f64, |m, e| m.max(e.abs()));
            for (i, (g, e)) in got.iter().zip(want).enumerate() {
                let allowed = share * e.abs() + 4e-6 * top + 6e-8;
                assert!((g - e).abs() <= allowed, "{js:?}: element {i}: {g}, expected {e}");
            }
        }
        assert_eq!(got, divergences(device, &js, inputs, &shape), "other bits");
    }
}

#[test]
fn every_schedule_agrees_with_the_cpu_for_every_dtype() {
    for (name, multiprocessors, shared, cluster, rows, classes) in ROUTES {
        let device = card(multiprocessors, shared, cluster);
        run::<f32>(&device, rows, classes, |x| x, 1e-5);
        run::<f16>(&device, rows, classes, f16::from_f32, 1e-3);
        run::<bf16>(&device, rows, classes, bf16::from_f32, 8e-3);
        run_js::<f32>(&device, rows, classes, |x| x, 2e-5);
        run_js::<f16>(&device, rows, classes, f16::from_f32, 1e-3);
        run_js::<bf16>(&device, rows, classes, bf16::from_f32, 8e-3);
        let notes = device.schedules();
        for loss in ["SoftCrossEntropy", "SoftCrossEntropyFull", "Distillation", "JsDivLogits"] {
            for dtype in ["f32", "f16", "bf16"] {
                let start = format!("{loss} {dtype} Fused");
                let reached = notes.iter().any(|n| n.starts_with(&start) && n.contains(name));
                assert!(reached, "{start}, {name}: {notes:#?}");
            }
        }
    }
}

/// Both tensors cross the bus once, and the gradient once.
#[test]
fn rows_on_chip_are_read_once_and_written_once() {
    let (rows, classes) = (4usize, 40_000usize);
    let bytes = (rows * classes * 4) as u64;
    for (shared, cluster) in [(227, 16), (227, 2)] {
        for teacher in [None, Some(1.0)] {
            let device = card(2, shared, cluster);
            let mut logits = numbers(rows * classes, 1, |x| x);
            let target = numbers(rows * classes, 2, |x| x.abs());
            let mut value = [0f32];
            let before = device.traffic().unwrap();
            let shape = [rows, classes];
            CrossEntropy::default()
                .teacher_scale(teacher)
                .forward_backward_in_place(
                    &device,
                    TensorMut::new(&mut logits, &shape).unwrap(),
                    TensorRef::new(&target, &shape).unwrap(),
                    1.0,
                    CrossEntropyOut::loss(TensorMut::new(&mut value, &[]).unwrap()),
                )
                .unwrap();
            let after = device.traffic().unwrap();
            // What threads read of their row besides: not a function of the classes.
            let slack = (rows * 16 * 512 * 16) as u64;
            let (read, written) = (after.0 - before.0, after.1 - before.1);
            assert!((2 * bytes..2 * bytes + slack).contains(&read), "read {read} of {bytes}");
            assert!((bytes..bytes + slack).contains(&written), "written {written} of {bytes}");
            assert!(slack < bytes, "the slack would hide a second pass");
        }
    }
}

/// The divergence goes through its rows three times and reads them once.
#[test]
fn divergent_rows_on_chip_are_read_once_and_written_once() {
    let (rows, classes) = (4usize, 40_000usize);
    let bytes = (rows * classes * 4) as u64;
    let device = card(2, 227, 16);
    let mut logits = numbers(rows * classes, 1, |x| x);
    let target = numbers(rows * classes, 2, |x| x);
    let shape = [rows, classes];
    let target = TensorRef::new(&target, &shape).unwrap();
    let js = JsDivLogits::default();
    let slack = (rows * 16 * 512 * 16) as u64;
    let traffic = |work: &mut dyn FnMut(TensorMut<'_>)| {
        let mut value = [0f32];
        let before = device.traffic().unwrap();
        work(TensorMut::new(&mut value, &[]).unwrap());
        let after = device.traffic().unwrap();
        (after.0 - before.0, after.1 - before.1)
    };
    let (read, written) = traffic(&mut |loss| {
        let logits = TensorRef::new(&logits, &shape).unwrap();
        js.forward_into(&device, logits, target, loss).unwrap();
    });
    assert!((2 * bytes..2 * bytes + slack).contains(&read), "forward: read {read} of {bytes}");
    assert!(written < slack, "forward: written {written}");
    let (read, written) = traffic(&mut |loss| {
        let logits = TensorMut::new(&mut logits, &shape).unwrap();
        js.forward_backward_in_place(&device, logits, target, 1.0, loss).unwrap();
    });
    assert!((2 * bytes..2 * bytes + slack).contains(&read), "read {read} of {bytes}");
    assert!((bytes..bytes + slack).contains(&written), "written {written} of {bytes}");
}

/// The gradient of a log-likelihood is written once, whatever the layout.
#[test]
fn a_likelihoods_gradient_is_written_once() {
    for shape in [vec![64, 5001], vec![2, 33, 1003], vec![3, 70, 4096]] {
        let device = card(132, 227, 16);
        let mut grad = vec![0f32; shape.iter().product()];
        let rows: Vec<usize> = [&shape[..1], &shape[2..]].concat();
        let target = vec![5i64; rows.iter().product()];
        let before = device.traffic().unwrap();
        warploss::Nll::default()
            .backward_into(
                &device,
                TensorRef::new(&target, &rows).unwrap(),
                1.0,
                TensorMut::new(&mut grad, &shape).unwrap(),
            )
            .unwrap();
        let written = device.traffic().unwrap().1 - before.1;
        let bytes = 4 * grad.len() as u64;
        assert!((bytes..bytes + 4096).contains(&written), "{shape:?}: {written} of {bytes}");
        let nonzero = grad.iter().filter(|g| **g != 0.0).count();
        assert_eq!(nonzero, target.len());
    }
}
