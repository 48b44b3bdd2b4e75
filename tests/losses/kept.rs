//! Loss and gradient from logits that are kept: the bits of the call over them, whatever the rows and the schedule, and
//! one read and one write of memory.

use crate::data::{Data, FLOATS, Rng};
use crate::harness::devices;
use warploss::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, CrossEntropyUpstream, DType, Device,
    GradOutput, Reduction,
};

/// Rows side by side in tiles and vectors, of one block, of several, shared out among threads; lines of images; one
/// row and none.
const SHAPES: [&[usize]; 9] = [
    &[37, 7],
    &[19, 100],
    &[21, 333],
    &[9, 2049],
    &[2, 70_001],
    &[3, 61, 5, 2],
    &[2, 333, 7],
    &[11],
    &[0, 5],
];

struct Batch {
    logits: Data,
    indices: Data,
    probabilities: Data,
    weight: Data,
    given: [Data; 3],
}

impl Batch {
    fn new(dtype: DType, shape: &[usize]) -> Batch {
        let mut rng = Rng(shape.iter().sum::<usize>() as u64);
        let (axis, n) = (usize::from(shape.len() > 1), shape.iter().product());
        let rows: Vec<usize> = [&shape[..axis], &shape[axis + 1..]].concat();
        let count: usize = rows.iter().product();
        let classes = shape[axis];
        let mut logits = rng.normals(n, 3.0);
        let target: Vec<i64> = (0..count)
            .map(|row| if row % 5 == 3 { -100 } else { rng.below(classes) as i64 })
            .collect();
        // What an ignored row holds is not read.
        let inner: usize = shape[axis + 1..].iter().product();
        for row in (0..count).filter(|row| target[*row] < 0) {
            let (outer, at) = (row / inner, row % inner);
            for class in 0..classes {
                logits[(outer * classes + class) * inner + at] = f64::NAN;
            }
        }
        let share = 1.0 / classes as f64;
        let probabilities: Vec<f64> = rng.normals(n, share).iter().map(|p| p.abs()).collect();
        let weight: Vec<f64> = rng.normals(classes, 1.0).iter().map(|w| w.abs()).collect();
        let given = [1.0, 0.5, 0.25].map(|scale| rng.normals(count, scale));
        Batch {
            logits: Data::floats(dtype, shape, &logits).padded(3),
            indices: Data::indices(DType::I64, &rows, &target),
            probabilities: Data::floats(dtype, shape, &probabilities),
            weight: Data::floats(DType::F32, &[classes], &weight),
            given: given.map(|given| Data::floats(DType::F32, &rows, &given)),
        }
    }
}

/// What a call is tried with.
#[derive(Debug, Clone, Copy)]
struct With {
    /// Soft-cap, smoothing, weights and a z-loss.
    options: bool,
    /// Log-probability, entropy and upstream gradients of both.
    tokens: bool,
    soft: bool,
}

fn same(device: &Device, dtype: DType, shape: &[usize], with: With) {
    let mut batch = Batch::new(dtype, shape);
    if with.soft {
        // No row is ignored here.
        let finite: Vec<f64> =
            batch.logits.values().iter().map(|x| if x.is_nan() { 0.5 } else { *x }).collect();
        batch.logits = Data::floats(dtype, shape, &finite).padded(3);
    }
    let options = CrossEntropy::default().reduction(Reduction::None);
    let options = match with.options {
        true => options
            .weight(batch.weight.view())
            .label_smoothing(0.1)
            .lse_square_scale(1e-3)
            .softcap(Some(20.0)),
        false => options,
    };
    let [loss, logprob, entropy] = batch.given.each_ref().map(|g| GradOutput::Tensor(g.view()));
    let zero = || GradOutput::from(0.0);
    let upstream = |tokens: bool| CrossEntropyUpstream {
        grad_output: loss,
        grad_logprob: if tokens { logprob } else { zero() },
        grad_entropy: if tokens { entropy } else { zero() },
    };
    let target = if with.soft { batch.probabilities.view() } else { batch.indices.view() };
    let run = |keep: bool| {
        let rows = batch.indices.shape();
        let mut f32s: [Data; 5] = std::array::from_fn(|_| Data::poison(DType::F32, rows));
        let mut of_target = Data::poison(dtype, shape);
        let mut grad = match keep {
            true => Data::poison(dtype, shape).padded(8),
            false => batch.logits.clone(),
        };
        let [losses, lse, z_loss, logprob, entropy] = f32s.each_mut().map(Data::view_mut);
        let out = CrossEntropyOut {
            lse: Some(lse),
            z_loss: Some(z_loss),
            logprob: with.tokens.then_some(logprob),
            entropy: with.tokens.then_some(entropy),
            ..CrossEntropyOut::loss(losses)
        };
        let gradients = CrossEntropyGradients {
            logits: grad.view_mut(),
            target: with.soft.then(|| of_target.view_mut()),
        };
        let (logits, upstream) = (batch.logits.view(), upstream(with.tokens));
        match keep {
            true => options.forward_backward_into(device, logits, target, upstream, gradients, out),
            false => options.forward_backward_in_place(device, gradients, target, upstream, out),
        }
        .unwrap();
        grad.assert_padding_is_poison("grad_logits");
        let bits = |data: &Data| data.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let mut all: Vec<_> = f32s.iter().map(bits).collect();
        all.extend([bits(&grad), bits(&of_target)]);
        all
    };
    let before = batch.logits.bits();
    let (kept, over) = (run(true), run(false));
    assert!(batch.logits.bits() == before, "{dtype} {shape:?} {with:?}: logits were written to");
    for (i, (kept, over)) in kept.iter().zip(&over).enumerate() {
        let differ = kept.iter().zip(over).position(|(a, b)| a != b);
        let what = differ.map(|at| (at, [kept[at], over[at]].map(f64::from_bits)));
        assert_eq!(what, None, "{} {dtype} {shape:?} {with:?}: result {i}", device.name());
    }
}

const WAYS: [With; 5] = [
    With { options: false, tokens: false, soft: false },
    With { options: true, tokens: false, soft: false },
    With { options: false, tokens: true, soft: false },
    With { options: false, tokens: false, soft: true },
    With { options: true, tokens: false, soft: true },
];

#[test]
fn a_gradient_elsewhere_has_the_bits_of_one_in_place() {
    for (_, device) in devices() {
        for (i, shape) in SHAPES.into_iter().enumerate() {
            for (j, with) in WAYS.into_iter().enumerate() {
                same(device, FLOATS[(i + j) % 3], shape, with);
                if device.name() == "cpu" || j == 0 {
                    same(device, DType::F32, shape, with);
                }
            }
        }
    }
}

#[test]
fn threads_share_the_copy_of_a_row_and_no_bit_changes() {
    let one = Device::cpu_with_threads(1).unwrap();
    let three = Device::cpu_with_threads(3).unwrap();
    for device in [&one, &three] {
        same(device, DType::F32, &[2, 200_003], WAYS[0]);
    }
}

#[cfg(feature = "emulator")]
#[test]
fn every_schedule_reads_logits_that_are_kept_and_writes_their_gradient_once() {
    use crate::schedules::OF_F32;
    use warploss::emulator::Description;
    for route in OF_F32 {
        let shape = [route.rows, route.classes];
        let device = route.device();
        same(&device, DType::F32, &shape, WAYS[0]);
        assert!(device.schedules().iter().any(|s| s.contains(route.schedule)), "{route:?}");
    }
    // On a card of its own each, so that what is counted is one call's.
    let shape = [16, 5003];
    let bytes = (16 * 5003 * 4) as u64;
    let (counted, staging) = (bytes, bytes as usize);
    let card = Description { multiprocessors: 1, counted, staging, ..Description::h100() };
    let mut rng = Rng(5);
    let logits = Data::floats(DType::F32, &shape, &rng.normals(16 * 5003, 2.0));
    let target: Vec<i64> = (0..16).map(|_| rng.below(5003) as i64).collect();
    let target = Data::indices(DType::I64, &[16], &target);
    let traffic = |keep: bool| {
        let device = Device::emulated(card.clone(), Some(3)).unwrap();
        let mut grad = if keep { Data::poison(DType::F32, &shape) } else { logits.clone() };
        let mut loss = Data::poison(DType::F32, &[]);
        let out = CrossEntropyOut::loss(loss.view_mut());
        let call = CrossEntropy::default();
        let (x, t, dx) = (logits.view(), target.view(), grad.view_mut());
        match keep {
            true => call.forward_backward_into(&device, x, t, 1.0, dx, out),
            false => call.forward_backward_in_place(&device, dx, t, 1.0, out),
        }
        .unwrap();
        (device.traffic().unwrap(), device.schedules())
    };
    let (kept, over) = (traffic(true), traffic(false));
    assert_eq!(kept, over);
    let ((read, written), schedules) = kept;
    // Targets besides: each thread of a row reads its logit, and its gradient is written again.
    assert!((bytes..bytes + bytes / 8).contains(&read), "{read} of {bytes}: {schedules:?}");
    assert!((bytes..bytes + 4096).contains(&written), "{written} of {bytes}: {schedules:?}");
}

#[test]
fn memory_that_does_not_hold_the_gradient_is_refused_by_name() {
    let batch = Batch::new(DType::F32, &[4, 6]);
    let loss_and = |grad: &mut Data, device: &Device| {
        let mut loss = Data::poison(DType::F32, &[]);
        let out = CrossEntropyOut::loss(loss.view_mut());
        let (logits, target) = (batch.logits.view(), batch.indices.view());
        let call = CrossEntropy::default();
        let done = call.forward_backward_into(device, logits, target, 1.0, grad.view_mut(), out);
        let poison = Data::poison(DType::F32, &[]).bits();
        assert!(loss.bits() == poison, "something was written");
        done.unwrap_err().to_string()
    };
    for (_, device) in devices() {
        let short = loss_and(&mut Data::poison(DType::F32, &[4, 5]), device);
        assert!(["grad_logits", "[4, 6]", "[4, 5]"].iter().all(|p| short.contains(p)), "{short}");
        let narrow = loss_and(&mut Data::poison(DType::F16, &[4, 6]), device);
        assert!(["grad_logits", "f32", "f16"].iter().all(|p| narrow.contains(p)), "{narrow}");
    }
}
