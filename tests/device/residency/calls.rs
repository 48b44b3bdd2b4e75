//! Calls on device memory, and their buffers: a new one is a row of [`CALLS`].

use warploss::emulator::Description;
use warploss::{
    BceWithLogits, CrossEntropy, CrossEntropyOut, Device, ElementwiseGradOut, Huber, L1,
    LogSoftmax, LogSumExp, Mse, Result, Tensor, TensorRef,
};

pub(super) const ROWS: usize = 6;
pub(super) const CLASSES: usize = 301;

pub(super) fn card() -> Device {
    Device::emulated(Description::tiny(), Some(3)).unwrap()
}

/// Numbers in about [-8, 8) from a seed.
pub(crate) fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 16.0
    };
    (0..n).map(|_| next()).collect()
}

/// What every call below needs, on a device or (for the CPU) on the host.
pub(super) struct Buffers {
    pub(super) logits: Tensor,
    /// `[2, C, 3]`: classes in the middle.
    pub(super) positions: Tensor,
    pub(super) grad: Tensor,
    pub(super) target: Tensor,
    pub(super) weight: Tensor,
    pub(super) per_row: Tensor,
    pub(super) lse: Tensor,
    pub(super) loss: Tensor,
}

impl Buffers {
    pub(super) fn new(device: &Device, seed: u64) -> Buffers {
        let shape = [ROWS, CLASSES];
        let up = |v: Vec<f32>, shape: &[usize]| {
            device.upload(TensorRef::new(&v, shape).unwrap()).unwrap()
        };
        let target: Vec<i64> = (0..ROWS as i64).map(|r| (r * 97 + 5) % CLASSES as i64).collect();
        let weight = numbers(seed + 1, CLASSES).iter().map(|w| w.abs() + 0.1).collect();
        Buffers {
            logits: up(numbers(seed, ROWS * CLASSES), &shape),
            positions: up(numbers(seed, ROWS * CLASSES), &[2, CLASSES, 3]),
            grad: up(vec![f32::NAN; ROWS * CLASSES], &shape),
            target: device.upload(TensorRef::new(&target, &[ROWS]).unwrap()).unwrap(),
            weight: up(weight, &[CLASSES]),
            per_row: up(numbers(seed + 2, ROWS), &[ROWS]),
            lse: up(vec![f32::NAN; ROWS], &[ROWS]),
            loss: up(vec![f32::NAN], &[]),
        }
    }

    pub(super) fn results(&self) -> Vec<Vec<u32>> {
        let all = [&self.logits, &self.positions, &self.grad, &self.weight, &self.lse, &self.loss];
        all.map(bits).into()
    }
}

pub(super) fn bits(tensor: &Tensor) -> Vec<u32> {
    let host = tensor.to_host().unwrap();
    host.as_slice::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
}

pub(super) fn every_option(weight: &Tensor) -> CrossEntropy<'_> {
    CrossEntropy::default()
        .weight(weight.view())
        .label_smoothing(0.1)
        .lse_square_scale(1e-3)
        .softcap(Some(20.0))
}

/// A call into the caller's buffers; a loss adds its own.
pub(super) type Call = (&'static str, fn(&Device, &mut Buffers) -> Result<()>);
pub(super) const CALLS: &[Call] = &[
    ("cross entropy forward", |device, b| {
        let out = CrossEntropyOut {
            lse: Some(b.lse.view_mut()),
            ..CrossEntropyOut::loss(b.loss.view_mut())
        };
        CrossEntropy::default().forward_into(device, b.logits.view(), b.target.view(), out)
    }),
    ("cross entropy backward", |device, b| {
        let saved = (b.target.view(), b.lse.view());
        CrossEntropy::default().backward_into(
            device,
            b.logits.view(),
            saved,
            0.5,
            b.grad.view_mut(),
        )
    }),
    ("cross entropy backward in place", |device, b| {
        let (target, lse) = (b.target.view(), b.lse.view());
        CrossEntropy::default().backward_in_place(device, b.logits.view_mut(), target, lse, 0.5)
    }),
    ("cross entropy fused, every option", |device, b| {
        let out = CrossEntropyOut {
            lse: Some(b.lse.view_mut()),
            ..CrossEntropyOut::loss(b.loss.view_mut())
        };
        every_option(&b.weight).forward_backward_in_place(
            device,
            b.logits.view_mut(),
            b.target.view(),
            0.5,
            out,
        )
    }),
    ("cross entropy fused, classes in the middle", |device, b| {
        let target = b.target.view_as(&[2, 3], 3)?;
        let out = CrossEntropyOut::loss(b.loss.view_mut());
        CrossEntropy::default().forward_backward_in_place(
            device,
            b.positions.view_mut(),
            target,
            0.5,
            out,
        )
    }),
    ("log-softmax forward", |device, b| {
        LogSoftmax::dim(1).forward_into(device, b.logits.view(), b.grad.view_mut())
    }),
    ("log-softmax backward along the outer dimension", |device, b| {
        let (x, grad) = (b.logits.view(), b.grad.view_mut());
        LogSoftmax::dim(0).backward_into(device, x, b.logits.view(), grad)
    }),
    ("logsumexp forward", |device, b| {
        LogSumExp::dims(&[1])?.forward_into(device, b.logits.view(), b.lse.view_mut())
    }),
    ("logsumexp backward", |device, b| {
        let (x, g) = (b.logits.view(), b.per_row.view());
        LogSumExp::dims(&[1])?.backward_into(device, x, b.lse.view(), g, b.grad.view_mut())
    }),
    ("mse forward", |device, b| {
        let target = b.positions.view_as(&[ROWS, CLASSES], CLASSES)?;
        Mse::default().forward_into(device, b.logits.view(), target, b.loss.view_mut())
    }),
    ("bce backward, every weight", |device, b| {
        let target = b.positions.view_as(&[ROWS, CLASSES], CLASSES)?;
        let weight = b.per_row.view_as(&[ROWS, 1], 1)?;
        let loss = BceWithLogits::default().weight(weight).pos_weight(b.weight.view());
        let grads =
            ElementwiseGradOut { grad_input: Some(b.grad.view_mut()), ..Default::default() };
        loss.backward_into(device, b.logits.view(), target, 0.5, grads)
    }),
    ("huber fused, the target's gradient summed back", |device, b| {
        // One row serves all: its gradient is a sum over rows.
        let target = b.positions.view_as(&[CLASSES], 1)?;
        let grads = ElementwiseGradOut {
            grad_input: Some(b.grad.view_mut()),
            grad_target: Some(b.weight.view_mut()),
            grad_variance: None,
        };
        let out = (b.loss.view_mut(), grads);
        Huber::default().forward_backward_into(device, b.logits.view(), target, 0.5, out)
    }),
    ("l1 in place, weighted", |device, b| {
        let target = b.positions.view_as(&[ROWS, CLASSES], CLASSES)?;
        let weight = b.grad.view();
        let (x, loss) = (b.logits.view_mut(), b.loss.view_mut());
        L1::default().weight(weight).forward_backward_in_place(device, x, target, 0.5, loss)
    }),
];
