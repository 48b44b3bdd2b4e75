//! Losses of one element of the input and one of the target, block by block.

use super::{POISON, Padded, Results, bits, numbers, tiny};
use warploss::emulator::{Asked, Description};
use warploss::{
    BceWithLogits, Device, ElementwiseGradOut, Error, Float, GradOutput, Huber, KlDiv, L1, Mse,
    Reduction, Result, SmoothL1, TensorMut, TensorRef, Wrt, bf16, f16,
};

/// Tensors of one shape, numbers for each, and some that are broadcast.
struct Case<T> {
    x: Padded<T>,
    y: Padded<T>,
    weight: Padded<T>,
    upstream: Padded<f32>,
    /// A number a column, and a number a row.
    row: Vec<f32>,
    column: Vec<T>,
}

/// Its views, wherever they lie.
#[derive(Clone, Copy)]
struct Views<'a> {
    x: TensorRef<'a>,
    y: TensorRef<'a>,
    weight: TensorRef<'a>,
    upstream: TensorRef<'a>,
    row: TensorRef<'a>,
    column: TensorRef<'a>,
}

const REDUCTIONS: [Reduction; 3] = [Reduction::None, Reduction::Sum, Reduction::Mean];

/// Calls whose results lie beside their inputs.
fn calls(device: &Device, of: &Views<'_>) -> Result<Results> {
    let Views { x, y, weight, upstream, row, column } = *of;
    let mut all = Vec::new();
    for reduction in REDUCTIONS {
        let upstream: GradOutput<'_> = match reduction {
            Reduction::None => upstream.into(),
            _ => 0.5.into(),
        };
        // Weights whose sum divides, weights and positive weights that are broadcast, and none.
        let mse = Mse::default().weight(weight).reduction(reduction);
        let (loss, grads) = mse.forward_backward(device, x, y, upstream, Wrt::Both)?;
        all.push(("mse", bits(loss.view())));
        all.extend(
            [grads.grad_input, grads.grad_target]
                .map(|g| ("mse gradient", bits(g.unwrap().view()))),
        );
        let bce = BceWithLogits::default().weight(column).pos_weight(row).reduction(reduction);
        let (loss, grads) = bce.forward_backward(device, x, y, upstream, Wrt::Target)?;
        all.push(("binary", bits(loss.view())));
        all.push(("binary gradient", bits(grads.grad_target.unwrap().view())));
        let huber = Huber::default().weight(weight).reduction(reduction);
        all.push(("huber", bits(huber.forward(device, x, y)?.view())));
        let grads = huber.backward(device, x, y, upstream, Wrt::Input)?;
        all.push(("huber gradient", bits(grads.grad_input.unwrap().view())));
        all.push(("l1", bits(L1::default().reduction(reduction).forward(device, x, y)?.view())));
    }
    let kl_div = KlDiv::default().log_target(true).reduction(Reduction::BatchMean);
    all.push(("divergence", bits(kl_div.forward(device, x, y)?.view())));
    // A target that is broadcast: the input comes block by block unless a gradient is summed back.
    let smooth = SmoothL1::default();
    let (loss, grads) = smooth.forward_backward(device, x, column, 1.0, Wrt::Input)?;
    all.push(("broadcast", bits(loss.view())));
    all.push(("broadcast gradient", bits(grads.grad_input.unwrap().view())));
    let (loss, grads) = smooth.forward_backward(device, x, column, 1.0, Wrt::Both)?;
    all.push(("broadcast", bits(loss.view())));
    let both =
        [grads.grad_input, grads.grad_target].map(|g| ("summed back", bits(g.unwrap().view())));
    all.extend(both);
    Ok(all)
}

/// Calls whose input becomes its gradient: `x` is what it is in `of`.
fn mse<'w>(of: &Views<'w>) -> Mse<'w> {
    Mse::default().weight(of.weight)
}

impl<T: Float + Copy> Case<T> {
    fn new(seed: u64, shape @ [rows, columns]: [usize; 2], padding: usize) -> Case<T> {
        let positive = |seed| {
            let mut weight = Padded::<T>::new(seed, shape, padding * 2);
            weight.data.iter_mut().for_each(|w| *w = T::from_f32(w.to_f32().abs()));
            weight
        };
        Case {
            x: Padded::new(seed, shape, padding),
            y: positive(seed + 1),
            weight: positive(seed + 2),
            upstream: Padded::new(seed + 3, shape, 0),
            row: numbers::<f32>(seed + 4, columns).iter().map(|w| w.abs()).collect(),
            column: numbers(seed + 5, rows),
        }
    }

    fn views(&self) -> Views<'_> {
        Views {
            x: self.x.view(),
            y: self.y.view(),
            weight: self.weight.view(),
            upstream: self.upstream.view(),
            row: TensorRef::new(&self.row, &[self.row.len()]).unwrap(),
            column: TensorRef::new(&self.column, &[self.column.len(), 1]).unwrap(),
        }
    }

    /// Every call, on host memory.
    fn on_host(&self, device: &Device) -> Result<Results> {
        let of = self.views();
        let mut all = calls(device, &of)?;
        let mut x = self.x.clone();
        let mut loss = [f32::NAN];
        let out = TensorMut::new(&mut loss, &[])?;
        mse(&of).forward_backward_in_place(device, x.view_mut(), of.y, 2.0, out)?;
        all.push(("in place", bits(TensorRef::new(&loss, &[])?)));
        all.push(("gradient in place", x.bits()));
        let (mut x, mut loss) = (self.x.clone(), self.upstream.clone());
        let none = mse(&of).reduction(Reduction::None);
        none.forward_backward_in_place(device, x.view_mut(), of.y, of.upstream, loss.view_mut())?;
        all.push(("losses in place", loss.bits()));
        all.push(("gradient of losses in place", x.bits()));
        let (mut dx, mut dy) = (self.x.clone(), self.y.clone());
        let grads = ElementwiseGradOut {
            grad_input: Some(dx.view_mut()),
            grad_target: Some(dy.view_mut()),
            grad_variance: None,
        };
        mse(&of).backward_into(device, of.x, of.y, 0.5, grads)?;
        all.extend([("gradient of x", dx.bits()), ("gradient of y", dy.bits())]);
        Ok(all)
    }

    /// The same, on device memory.
    fn resident(&self, device: &Device) -> Result<Results> {
        let of = self.views();
        let [x, y, weight, upstream, row, column] =
            [of.x, of.y, of.weight, of.upstream, of.row, of.column]
                .map(|t| device.upload(t).unwrap());
        let of = Views {
            x: x.view(),
            y: y.view(),
            weight: weight.view(),
            upstream: upstream.view(),
            row: row.view(),
            column: column.view(),
        };
        let mut all = calls(device, &of)?;
        let (mut dx, mut loss) = (x.clone(), mse(&of).forward(device, of.x, of.y)?);
        mse(&of).forward_backward_in_place(device, dx.view_mut(), of.y, 2.0, loss.view_mut())?;
        all.extend([("in place", bits(loss.view())), ("gradient in place", bits(dx.view()))]);
        let (mut dx, mut loss) = (x.clone(), upstream.clone());
        let none = mse(&of).reduction(Reduction::None);
        none.forward_backward_in_place(device, dx.view_mut(), of.y, of.upstream, loss.view_mut())?;
        all.push(("losses in place", bits(loss.view())));
        all.push(("gradient of losses in place", bits(dx.view())));
        let grads = mse(&of).backward(device, of.x, of.y, 0.5, Wrt::Both)?;
        all.push(("gradient of x", bits(grads.grad_input.unwrap().view())));
        all.push(("gradient of y", bits(grads.grad_target.unwrap().view())));
        Ok(all)
    }

    fn check(&self, device: &Device) {
        let (got, expected) = (self.on_host(device).unwrap(), self.resident(device).unwrap());
        self.compare(got, expected);
    }

    fn compare(&self, got: Results, expected: Results) {
        assert_eq!(got.len(), expected.len());
        for ((name, got), (other, expected)) in got.into_iter().zip(expected) {
            assert_eq!(name, other);
            let shape = self.x.shape;
            assert!(got == expected, "{name}, {shape:?} of {}: not the same bits", T::DTYPE);
        }
    }
}

fn every_type(device: &Device, seed: u64, shape: [usize; 2], padding: usize) {
    Case::<f32>::new(seed, shape, padding).check(device);
    Case::<f16>::new(seed, shape, padding).check(device);
    Case::<bf16>::new(seed, shape, padding).check(device);
}

/// A block of f32 is 4864 elements of one line (19 tiles of 64 packs), one of 16 bits 4608 where
/// something beside it is f32, and 9728 where nothing is: sizes about one block and two.
#[test]
fn elements_of_one_line_give_the_bits_of_resident_ones() {
    let device = tiny(11);
    let sizes = [1, 5, 4607, 4609, 4863, 4864, 4865, 4867, 9215, 9221, 9727, 9729, 9733, 14_595];
    for (seed, n) in sizes.into_iter().enumerate() {
        every_type(&device, seed as u64, [1, n], 0);
    }
    // Rows that are padded on the host are one line on the device.
    every_type(&device, 20, [41, 251], 3);
}

/// Lines longer than a block, some to a block, and so short that each thread has an element.
#[test]
fn lines_of_elements_give_the_bits_of_resident_ones() {
    let device = Device::emulated(Description::h100(), None).unwrap();
    for (seed, shape) in [[3, 5003], [23, 1111], [350, 29], [5001, 3]].into_iter().enumerate() {
        every_type(&device, seed as u64, shape, [0, 3][seed % 2]);
    }
}

/// Where a card is small and its blocks are large, threads come round several times in a block.
#[test]
fn threads_come_round_in_a_block_and_between_blocks() {
    for staging in [5000, 50_000] {
        let card = Description { multiprocessors: 1, staging, ..Description::tiny() };
        let device = Device::emulated(card, Some(3)).unwrap();
        let case = Case::<f32>::new(30, [1, 80_003], 0);
        case.check(&device);
        Case::<bf16>::new(31, [107, 801], 1).check(&device);
    }
}

#[test]
fn whatever_the_queues_do_first_elements_have_the_same_bits() {
    let case = Case::<f32>::new(5, [1, 24_001], 0);
    let expected = case.resident(&tiny(0)).unwrap();
    for seed in 0..10 {
        case.compare(case.on_host(&tiny(seed)).unwrap(), expected.clone());
    }
}

#[test]
fn some_tensors_of_elements_may_be_resident_and_others_not() {
    let device = tiny(4);
    let case = Case::<f16>::new(6, [19, 1111], 2);
    let here = case.views();
    let [x, y, weight] = [here.x, here.y, here.weight].map(|t| device.upload(t).unwrap());
    let expected = case.resident(&device).unwrap();
    for which in 1..7 {
        let place = |bit, host, there| if which & bit == 0 { host } else { there };
        let of = Views {
            x: place(1, here.x, x.view()),
            y: place(2, here.y, y.view()),
            weight: place(4, here.weight, weight.view()),
            ..here
        };
        let got = calls(&device, &of).unwrap();
        case.compare(got.clone(), expected[..got.len()].to_vec());
    }
}

/// Tensors of 1.1 MB each, beside the sums of threads and a few blocks of each: 20 KB a block.
#[test]
fn tensors_of_elements_may_be_larger_than_the_card() {
    let memory = 640 << 10;
    let small = Device::emulated(Description { memory, ..Description::tiny() }, Some(1)).unwrap();
    let case = Case::<f32>::new(8, [250, 1111], 1);
    let error = small.upload(case.x.view()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let large = tiny(2);
    let (here, there) = (case.views(), case.resident(&large).unwrap());
    let expected = |name| &there.iter().find(|(other, _)| *other == name).unwrap().1;
    for (reduction, names) in [
        (Reduction::Mean, ["in place", "gradient in place"]),
        (Reduction::None, ["losses in place", "gradient of losses in place"]),
    ] {
        let call = mse(&here).reduction(reduction);
        let mut x = case.x.clone();
        let (losses, grad) = match reduction {
            Reduction::None => {
                let mut loss = case.upstream.clone();
                let out = loss.view_mut();
                call.forward_backward_in_place(&small, x.view_mut(), here.y, here.upstream, out)
                    .unwrap();
                (loss.bits(), x.bits())
            }
            _ => {
                let mut loss = [f32::NAN];
                let out = TensorMut::new(&mut loss, &[]).unwrap();
                call.forward_backward_in_place(&small, x.view_mut(), here.y, 2.0, out).unwrap();
                (bits(TensorRef::new(&loss, &[]).unwrap()), x.bits())
            }
        };
        assert!(&losses == expected(names[0]) && &grad == expected(names[1]), "{names:?}");
    }
    // And all other calls but those that sum a gradient back.
    let bce = BceWithLogits::default().weight(here.column).pos_weight(here.row);
    let (loss, grads) = bce.forward_backward(&small, here.x, here.y, 0.5, Wrt::Target).unwrap();
    let got = [bits(loss.view()), bits(grads.grad_target.unwrap().view())];
    let names = ["binary", "binary gradient"];
    for (name, got) in names.into_iter().zip(got) {
        let last = there.iter().rev().find(|(other, _)| *other == name);
        assert!(got == last.unwrap().1, "{name}");
    }
    let error =
        SmoothL1::default().backward(&small, here.x, here.column, 1.0, Wrt::Both).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}

/// Memory that cannot be had is known before anything is written.
#[test]
fn a_card_without_memory_for_blocks_of_elements_writes_nothing() {
    let memory = 48 << 10;
    let small = Device::emulated(Description { memory, ..Description::tiny() }, Some(1)).unwrap();
    let case = Case::<f32>::new(8, [250, 1111], 1);
    let (mut x, mut loss) = (case.x.clone(), [f32::NAN]);
    let out = TensorMut::new(&mut loss, &[]).unwrap();
    let y = case.y.view();
    let error =
        Mse::default().forward_backward_in_place(&small, x.view_mut(), y, 1.0, out).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(loss[0].is_nan() && x.data == case.x.data);
    assert!(x.data.iter().any(|v| v.to_f32() != POISON));
}

/// In the middle of a call a block comes, one is worked on and one goes, between two meetings.
#[test]
fn elements_come_and_go_beside_the_kernels() {
    let device = tiny(6);
    let case = Case::<f32>::new(9, [1, 48_640], 0);
    let of = case.views();
    let (mut x, mut loss) = (case.x.clone(), [f32::NAN]);
    let asked = device.asked(|| {
        let out = TensorMut::new(&mut loss, &[])?;
        Mse::default().forward_backward_in_place(&device, x.view_mut(), of.y, 1.0, out)
    });
    let asked = asked.unwrap();
    let steps = asked.split(|&a| a == Asked::Meet);
    let count = |step: &[Asked], what| step.iter().filter(|&&a| a == what).count();
    // A block is four chunks of x, of y and of the gradient.
    let full = steps.filter(|step| {
        count(step, Asked::Upload) == 8
            && count(step, Asked::Download) == 4
            && count(step, Asked::Launch) == 1
    });
    assert_eq!(full.count(), 10 - 2, "{asked:?}");
}
