//! Host tensors on a CUDA device go block by block. They give the bits of resident ones, need the
//! device memory of a few blocks, and are copied both ways at once. On emulated cards, whose chunks
//! are 5000 bytes and blocks four of them, and whose queues get on in an order that is drawn.

mod calls;
mod elements;

use calls::{likelihoods, shards, teachers, tokens};
use warploss::emulator::{Asked, Description};
use warploss::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, Device, Error, Float, LogSoftmax,
    LogSumExp, Nll, Reduction, Result, Tensor, TensorMut, TensorRef, bf16, f16,
};

/// Numbers in about [-8, 8) from a seed.
fn numbers<T: Float>(seed: u64, n: usize) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        T::from_f32(((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 16.0)
    };
    (0..n).map(|_| next()).collect()
}

/// Rows with padding between them, which is poisoned.
#[derive(Clone)]
struct Padded<T> {
    data: Vec<T>,
    shape: [usize; 2],
    stride: usize,
}

const POISON: f32 = 1.0e4;

impl<T: Float + Copy> Padded<T> {
    fn new(seed: u64, shape @ [rows, row]: [usize; 2], padding: usize) -> Padded<T> {
        let stride = row + padding;
        let mut data = vec![T::from_f32(POISON); rows * stride];
        let plain = numbers::<T>(seed, rows * row);
        for (to, from) in data.chunks_mut(stride.max(1)).zip(plain.chunks(row.max(1))) {
            to[..row].copy_from_slice(from);
        }
        Padded { data, shape, stride }
    }

    fn view(&self) -> TensorRef<'_> {
        TensorRef::with_row_stride(&self.data, &self.shape, self.stride).unwrap()
    }

    fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut::with_row_stride(&mut self.data, &self.shape, self.stride).unwrap()
    }

    fn bits(&self) -> Vec<u64> {
        for row in self.data.chunks(self.stride.max(1)) {
            assert!(
                row[self.shape[1]..].iter().all(|v| v.to_f32() == T::from_f32(POISON).to_f32())
            );
        }
        bits(self.view())
    }
}

fn bits(view: TensorRef<'_>) -> Vec<u64> {
    view.to_f64().unwrap().iter().map(|v| v.to_bits()).collect()
}

struct Case<T> {
    logits: Padded<T>,
    upstream: Padded<T>,
    target: Vec<i32>,
    per_row: Vec<f32>,
    weight: Vec<f32>,
}

type Results = Vec<(&'static str, Vec<u64>)>;

impl<T: Float + Copy> Case<T> {
    fn new(seed: u64, shape @ [rows, classes]: [usize; 2], padding: usize) -> Case<T> {
        let target = (0..rows as i32).map(|r| match r % 5 {
            3 => -100,
            _ => (r * 97 + 5) % classes as i32,
        });
        Case {
            logits: Padded::new(seed, shape, padding),
            upstream: Padded::new(seed + 1, shape, padding * 2),
            target: target.collect(),
            per_row: numbers(seed + 2, rows),
            weight: numbers::<f32>(seed + 3, classes).iter().map(|w| w.abs()).collect(),
        }
    }

    fn loss(&self) -> CrossEntropy<'_> {
        let weight = TensorRef::new(&self.weight, &[self.weight.len()]).unwrap();
        CrossEntropy::default().weight(weight).label_smoothing(0.1).lse_square_scale(1e-3)
    }

    /// Every call, on host memory.
    fn on_host(&self, device: &Device) -> Result<Results> {
        let rows = self.target.len();
        let target = TensorRef::new(&self.target, &[rows])?;
        let per_row = TensorRef::new(&self.per_row, &[rows])?;
        let f32s = |data| TensorRef::new(data, &[rows]);
        let mut all = Vec::new();
        let ce = self.loss();
        let (mut loss, mut lse, mut z) = ([f32::NAN], vec![f32::NAN; rows], [f32::NAN]);
        let out = CrossEntropyOut {
            lse: Some(TensorMut::new(&mut lse, &[rows])?),
            z_loss: Some(TensorMut::new(&mut z, &[])?),
            ..CrossEntropyOut::loss(TensorMut::new(&mut loss, &[])?)
        };
        ce.forward_into(device, self.logits.view(), target, out)?;
        all.push(("loss", bits(TensorRef::new(&loss, &[])?)));
        all.push(("z-loss", bits(TensorRef::new(&z, &[])?)));
        all.push(("lse", bits(f32s(&lse)?)));
        let blank = Padded {
            data: vec![T::from_f32(POISON); self.logits.data.len()],
            ..self.logits.clone()
        };
        let mut grad = blank.clone();
        let saved = (target, f32s(&lse)?);
        ce.backward_into(device, self.logits.view(), saved, 0.5, grad.view_mut())?;
        all.push(("gradient", grad.bits()));
        let mut grad = self.logits.clone();
        ce.backward_in_place(device, grad.view_mut(), target, f32s(&lse)?, 0.5)?;
        all.push(("gradient in place", grad.bits()));
        let mut grad = self.logits.clone();
        let none = ce.reduction(Reduction::None);
        let mut losses = vec![f32::NAN; rows];
        let out = CrossEntropyOut::loss(TensorMut::new(&mut losses, &[rows])?);
        none.forward_backward_in_place(device, grad.view_mut(), target, per_row, out)?;
        all.push(("losses", bits(f32s(&losses)?)));
        all.push(("fused gradient", grad.bits()));

        let (softmax, logsumexp) = (LogSoftmax::dim(1), LogSumExp::dims(&[1])?);
        let mut y = blank.clone();
        softmax.forward_into(device, self.logits.view(), y.view_mut())?;
        all.push(("log-softmax", y.bits()));
        let mut y = blank.clone();
        softmax.backward_into(device, self.logits.view(), self.upstream.view(), y.view_mut())?;
        all.push(("log-softmax gradient", y.bits()));
        let mut lse = vec![f32::NAN; rows];
        logsumexp.forward_into(device, self.logits.view(), TensorMut::new(&mut lse, &[rows])?)?;
        all.push(("logsumexp", bits(f32s(&lse)?)));
        let mut y = blank.clone();
        let lse = f32s(&lse)?;
        logsumexp.backward_into(device, self.logits.view(), lse, per_row, y.view_mut())?;
        all.push(("logsumexp gradient", y.bits()));
        all.extend(tokens(device, self.logits.view(), [target, per_row])?);
        let upstream = self.upstream.view();
        all.extend(teachers(device, self.logits.view(), upstream, [target, per_row])?);
        all.extend(likelihoods(device, self.logits.view(), [target, per_row])?);
        all.extend(shards(device, self.logits.view(), [target, per_row])?);
        let mut grad = self.logits.clone();
        let out = TensorMut::new(&mut loss, &[])?;
        Nll::default().forward_backward_in_place(device, grad.view_mut(), target, 2.0, out)?;
        all.push(("likelihood in place", bits(TensorRef::new(&loss, &[])?)));
        all.push(("likelihood gradient in place", grad.bits()));
        let soft = CrossEntropy::default();
        let mut grads = [self.logits.clone(), blank.clone()];
        let [x, y] = &mut grads;
        let gradients = CrossEntropyGradients { logits: x.view_mut(), target: Some(y.view_mut()) };
        let out = CrossEntropyOut::loss(TensorMut::new(&mut loss, &[])?);
        soft.forward_backward_in_place(device, gradients, upstream, 1.0, out)?;
        all.push(("soft loss in place", bits(TensorRef::new(&loss, &[])?)));
        all.push(("soft gradients", grads.each_ref().map(Padded::bits).concat()));
        Ok(all)
    }

    /// The same, on device memory.
    fn resident(&self, device: &Device) -> Result<Results> {
        let rows = self.target.len();
        let target = device.upload(TensorRef::new(&self.target, &[rows])?)?;
        let per_row = device.upload(TensorRef::new(&self.per_row, &[rows])?)?;
        let logits = device.upload(self.logits.view())?;
        let upstream = device.upload(self.upstream.view())?;
        let mut all = Vec::new();
        let mut push = |name, tensor: &Tensor| all.push((name, bits(tensor.view())));
        let ce = self.loss();
        let out = ce.forward(device, logits.view(), target.view())?;
        push("loss", &out.loss);
        push("z-loss", &out.z_loss);
        push("lse", &out.lse);
        let lse = out.lse.view();
        push("gradient", &ce.backward(device, logits.view(), target.view(), lse, 0.5)?);
        let mut grad = logits.clone();
        ce.backward_in_place(device, grad.view_mut(), target.view(), lse, 0.5)?;
        push("gradient in place", &grad);
        let none = ce.reduction(Reduction::None);
        let done = none.forward_backward(device, logits.clone(), target.view(), per_row.view())?;
        push("losses", &done.output.loss);
        push("fused gradient", &done.grad_logits);

        let (softmax, logsumexp) = (LogSoftmax::dim(1), LogSumExp::dims(&[1])?);
        let mut y = logits.clone();
        softmax.forward_into(device, logits.view(), y.view_mut())?;
        push("log-softmax", &y);
        push("log-softmax gradient", &softmax.backward(device, logits.view(), upstream.view())?);
        let lse = logsumexp.forward(device, logits.view())?;
        push("logsumexp", &lse);
        let y = logsumexp.backward(device, logits.view(), lse.view(), per_row.view())?;
        push("logsumexp gradient", &y);
        let rows = [target.view(), per_row.view()];
        all.extend(tokens(device, logits.view(), rows)?);
        all.extend(teachers(device, logits.view(), upstream.view(), rows)?);
        all.extend(likelihoods(device, logits.view(), rows)?);
        all.extend(shards(device, logits.view(), rows)?);
        let mut grad = logits.clone();
        let mut loss = out.loss.clone();
        let view = grad.view_mut();
        Nll::default().forward_backward_in_place(
            device,
            view,
            target.view(),
            2.0,
            loss.view_mut(),
        )?;
        all.push(("likelihood in place", bits(loss.view())));
        all.push(("likelihood gradient in place", bits(grad.view())));
        let soft = CrossEntropy::default();
        let [mut x, mut y, mut loss] = [logits.clone(), logits.clone(), out.loss.clone()];
        let gradients = CrossEntropyGradients { logits: x.view_mut(), target: Some(y.view_mut()) };
        let out = CrossEntropyOut::loss(loss.view_mut());
        soft.forward_backward_in_place(device, gradients, upstream.view(), 1.0, out)?;
        all.push(("soft loss in place", bits(loss.view())));
        all.push(("soft gradients", [x, y].map(|t| bits(t.view())).concat()));
        Ok(all)
    }

    fn check(&self, device: &Device) {
        let shape = self.logits.shape;
        let (got, expected) = (self.on_host(device).unwrap(), self.resident(device).unwrap());
        assert_eq!(got.len(), expected.len());
        for ((name, got), (other, expected)) in got.into_iter().zip(expected) {
            assert_eq!(name, other);
            assert!(got == expected, "{name}, {shape:?} of {}: not the same bits", T::DTYPE);
        }
    }
}

fn tiny(seed: u64) -> Device {
    Device::emulated(Description::tiny(), Some(seed)).unwrap()
}

/// Rows that fill their blocks and that do not, one block and many, rows shorter and longer than a
/// block and than a chunk, beginning at any place of a pack.
const SHAPES: [[usize; 2]; 8] =
    [[1, 1], [1, 7], [3, 5001], [5, 20_011], [9, 2503], [23, 1111], [64, 313], [701, 29]];

#[test]
fn host_tensors_give_the_bits_of_resident_ones() {
    for device in [tiny(1), Device::emulated(Description::h100(), None).unwrap()] {
        for (i, shape) in SHAPES.into_iter().enumerate() {
            let padding = [0, 3, 5][i % 3];
            Case::<f32>::new(i as u64, shape, padding).check(&device);
            Case::<f16>::new(i as u64, shape, 3 - padding.min(3)).check(&device);
            Case::<bf16>::new(i as u64, shape, padding).check(&device);
        }
    }
}

#[test]
fn whatever_the_queues_do_first_the_bits_are_the_same() {
    let case = Case::<f32>::new(5, [23, 1111], 2);
    let expected = case.resident(&tiny(0)).unwrap();
    for seed in 0..40 {
        let device = tiny(seed);
        for _ in 0..2 {
            assert!(case.on_host(&device).unwrap() == expected, "seed {seed}");
        }
    }
}

#[test]
fn threads_with_host_tensors_do_not_meet() {
    let device = tiny(3);
    let other = device.another_stream().unwrap();
    let serial: Vec<_> = (0..4)
        .map(|seed| Case::<f32>::new(seed, [19 + seed as usize, 1301], 1).resident(&device))
        .map(Result::unwrap)
        .collect();
    std::thread::scope(|scope| {
        for (seed, expected) in serial.iter().enumerate() {
            for device in [&device, &device, &other] {
                scope.spawn(move || {
                    let case = Case::<f32>::new(seed as u64, [19 + seed, 1301], 1);
                    for _ in 0..3 {
                        assert!(case.on_host(device).unwrap() == *expected, "case {seed}");
                    }
                });
            }
        }
    });
}

/// Memory on the device or not, tensor by tensor.
#[test]
fn some_tensors_may_be_resident_and_others_not() {
    let device = tiny(4);
    let case = Case::<f32>::new(6, [23, 1111], 2);
    let (logits, upstream) = (&case.logits, &case.upstream);
    let [x, g] = [logits, upstream].map(|t| device.upload(t.view()).unwrap());
    let softmax = LogSoftmax::dim(1);
    let expected = bits(softmax.backward(&device, x.view(), g.view()).unwrap().view());
    for which in 0..8 {
        let x = if which & 1 == 0 { logits.view() } else { x.view() };
        let g = if which & 2 == 0 { upstream.view() } else { g.view() };
        let got = if which & 4 == 0 {
            let mut y = case.logits.clone();
            softmax.backward_into(&device, x, g, y.view_mut()).unwrap();
            y.bits()
        } else {
            let mut y = device.upload(logits.view()).unwrap();
            softmax.backward_into(&device, x, g, y.view_mut()).unwrap();
            bits(y.view())
        };
        assert!(got == expected, "{which:03b}");
    }
    // Nothing is sent, no error can be found: only the result's way back waits for the kernels.
    let rows = [case.target.len()];
    let logsumexp = LogSumExp::dims(&[1]).unwrap();
    let expected = bits(logsumexp.forward(&device, x.view()).unwrap().view());
    for _ in 0..20 {
        let mut lse = vec![f32::NAN; rows[0]];
        let out = TensorMut::new(&mut lse, &rows).unwrap();
        logsumexp.forward_into(&device, x.view(), out).unwrap();
        assert!(bits(TensorRef::new(&lse, &rows).unwrap()) == expected);
    }
}

/// What kernels find is told before the first block comes back, wherever it is found.
#[test]
fn a_bad_target_or_weight_writes_nothing() {
    let device = tiny(5);
    let case = Case::<f32>::new(7, [40, 1111], 2);
    let rows = case.target.len();
    for bad in [0, 17, rows - 1] {
        let mut target = case.target.clone();
        target[bad] = 1111;
        let target = TensorRef::new(&target, &[rows]).unwrap();
        let (mut logits, mut loss) = (case.logits.clone(), [f32::NAN]);
        let mut lse = vec![f32::NAN; rows];
        let out = CrossEntropyOut {
            lse: Some(TensorMut::new(&mut lse, &[rows]).unwrap()),
            ..CrossEntropyOut::loss(TensorMut::new(&mut loss, &[]).unwrap())
        };
        let ce = case.loss();
        let view = logits.view_mut();
        let error = ce.forward_backward_in_place(&device, view, target, 1.0, out).unwrap_err();
        assert!(matches!(error, Error::Target { row, value: 1111, .. } if row == bad), "{error}");
        assert!(loss[0].is_nan() && lse.iter().all(|v| v.is_nan()));
        let zeros = vec![0.0; rows];
        let saved = (target, TensorRef::new(&zeros, &[rows]).unwrap());
        let grad = logits.view_mut();
        let error = ce.backward_into(&device, case.logits.view(), saved, 1.0, grad).unwrap_err();
        assert!(matches!(error, Error::Target { row, .. } if row == bad), "{error}");
        assert!(logits.data == case.logits.data, "row {bad}: something was written");
    }
    let mut weight = case.weight.clone();
    weight[1000] = f32::INFINITY;
    let ce = CrossEntropy::default().weight(TensorRef::new(&weight, &[1111]).unwrap());
    let target = TensorRef::new(&case.target, &[rows]).unwrap();
    let (mut logits, mut loss) = (case.logits.clone(), [f32::NAN]);
    let out = CrossEntropyOut::loss(TensorMut::new(&mut loss, &[]).unwrap());
    let view = logits.view_mut();
    let error = ce.forward_backward_in_place(&device, view, target, 1.0, out).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index: 1000, .. }), "{error}");
    assert!(loss[0].is_nan() && logits.data == case.logits.data);
    // And the device is as it was.
    case.check(&device);
}

#[test]
fn a_batch_larger_than_the_card_is_worked_on_in_place() {
    // 1.1 MB of logits; three blocks are 60 KB.
    let memory = 256 << 10;
    let small = Device::emulated(Description { memory, ..Description::tiny() }, Some(1)).unwrap();
    let case = Case::<f32>::new(8, [250, 1111], 1);
    let error = small.upload(case.logits.view()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let expected = case.resident(&tiny(2)).unwrap();
    assert!(case.on_host(&small).unwrap() == expected);
}

/// Memory that cannot be had is known before anything is written.
#[test]
fn a_card_without_memory_for_a_few_blocks_writes_nothing() {
    let memory = 48 << 10;
    let small = Device::emulated(Description { memory, ..Description::tiny() }, Some(1)).unwrap();
    let case = Case::<f32>::new(8, [250, 1111], 1);
    let target = TensorRef::new(&case.target, &[250]).unwrap();
    let (mut logits, mut loss) = (case.logits.clone(), [f32::NAN]);
    let out = CrossEntropyOut::loss(TensorMut::new(&mut loss, &[]).unwrap());
    let ce = CrossEntropy::default();
    let view = logits.view_mut();
    let error = ce.forward_backward_in_place(&small, view, target, 1.0, out).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(loss[0].is_nan() && logits.data == case.logits.data);
}

/// In every step but the first and the last few: a block is on its way to the device before what
/// was put on its way back is waited for, with a launch between two meetings.
#[test]
fn copies_go_both_ways_beside_the_kernels() {
    let device = tiny(6);
    // Blocks of four rows of 5000 bytes: a chunk a row.
    let (rows, block) = (40, 4);
    let case = Case::<f32>::new(9, [rows, 1250], 0);
    let target = TensorRef::new(&case.target, &[rows]).unwrap();
    let mut logits = case.logits.clone();
    let mut loss = [f32::NAN];
    let asked = device.asked(|| {
        let out = CrossEntropyOut::loss(TensorMut::new(&mut loss, &[])?);
        let ce = CrossEntropy::default();
        ce.forward_backward_in_place(&device, logits.view_mut(), target, 1.0, out)
    });
    let asked = asked.unwrap();
    let steps: Vec<&[Asked]> = asked.split(|&a| a == Asked::Meet).collect();
    let count = |step: &[Asked], what| step.iter().filter(|&&a| a == what).count();
    let full: Vec<_> = steps
        .iter()
        .filter(|step| {
            count(step, Asked::Upload) == block
                && count(step, Asked::Download) == block
                && count(step, Asked::Launch) > 0
        })
        .collect();
    assert_eq!(full.len(), rows / block - 2, "{asked:?}");
    for step in full {
        // The host never waits for what it has just put on the way, and the stream not at all.
        let upload = step.iter().position(|&a| a == Asked::Upload).unwrap();
        let launch = step.iter().position(|&a| a == Asked::Launch).unwrap();
        let wait = step.iter().position(|&a| a == Asked::AwaitDownload).unwrap();
        assert!(launch < upload && upload < wait, "{step:?}");
        assert_eq!(count(step, Asked::CopyOut), 0);
    }
    // The census's verdict comes after the first block was sent, before any comes back.
    let verdict = asked.iter().position(|&a| a == Asked::CopyOut).unwrap();
    assert!(count(&asked[..verdict], Asked::Upload) > block);
    assert_eq!(count(&asked[..verdict], Asked::Download), 0);
}
