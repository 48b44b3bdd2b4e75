//! Elementwise losses on emulated cards, by the code that drives a GPU: every formula, type, pass
//! and layout against the CPU device, and what a pass reads and writes.

mod layouts;

use crate::elementwise::{kl_div, mse};
use layouts::{Case, Layout, Numbers, PASSES, Pass, data, seen, up, view, view_mut};
use warploss::check::catalogue;
use warploss::check::elementwise::{Description, ElementLoss, Given, Weights};
use warploss::check::option::{Choice, Scalar};
use warploss::emulator::Description as Card;
use warploss::{
    Device, Element, ElementwiseGradOut, GradOutput, Huber, Mse, Reduction, Result, Tensor,
    TensorMut, TensorRef, bf16, f16,
};

/// Every loss with its defaults, and the other way round where options are flags.
fn losses() -> Vec<ElementLoss> {
    let turned = |choice: &Choice| match choice.default {
        Scalar::Flag(flag) => Scalar::Flag(!flag).number(),
        Scalar::Number(number) => number as f32,
    };
    let flagged = |of: &&Description| {
        of.options.iter().any(|choice| matches!(choice.default, Scalar::Flag(_)))
    };
    let other = catalogue::elementwise()
        .filter(flagged)
        .map(|of| of.with(&of.options.iter().map(turned).collect::<Vec<f32>>()));
    catalogue::elementwise().map(|of| of.with(&[])).chain(other).collect()
}

/// What a call is made of besides its layouts.
#[derive(Debug, Clone, Copy)]
struct Run {
    loss: ElementLoss,
    reduction: Reduction,
    pass: Pass,
    wild: bool,
    /// The upstream gradient is a tensor of the input's type.
    tensor: bool,
}

/// The loss, and whole buffers of the gradients; what was not to be written is as it was.
fn run<T: Element + Copy>(
    device: &Device,
    case: &Case,
    run: Run,
    of: fn(f32) -> T,
) -> Result<[Vec<f64>; 4]> {
    const UNTOUCHED: f32 = 7.0;
    let [x, y] = data(run.loss, case, run.wild);
    let mut x = up(device, &x, of);
    let y = up(device, &y, of);
    let mut numbers = Numbers(99);
    let mut weights = |layout: Option<Layout>, f32: bool| {
        let layout = layout?;
        let v = numbers.many(layout.len(), |n| n.next() + 0.25);
        let weight = if f32 { up(device, &v, |v| v) } else { up(device, &v, of) };
        Some((weight, layout))
    };
    let weight = weights(case.weight, true);
    let third = weights(case.third, false);
    let (seen_weight, seen_third) = (seen(&weight), seen(&third));

    let shape: Vec<usize> = {
        let (a, b) = (case.x.0, case.y.0);
        let rank = a.len().max(b.len());
        let at = |s: &[usize], d: usize| (d + s.len()).checked_sub(rank).map_or(1, |d| s[d]);
        (0..rank).map(|d| if at(a, d) == 1 { at(b, d) } else { at(a, d) }).collect()
    };
    let loss_shape = if run.reduction == Reduction::None { shape } else { vec![] };
    let elements: usize = loss_shape.iter().product();
    let row: usize = loss_shape.iter().skip(1).product::<usize>().max(1);
    let mut value = up(device, &vec![UNTOUCHED; elements], |v| v);
    let upstream = numbers.many(elements, |n| if n.next() < 0.1 { 0.0 } else { n.next() - 0.4 });
    let upstream = up(device, &upstream, of);
    let g = || match run.tensor {
        true => GradOutput::Tensor(upstream.view_as(&loss_shape, row).unwrap()),
        false => GradOutput::Number(0.75),
    };
    let wider = |layout: Layout, by: usize| Layout(layout.0, layout.1 + by);
    let (gx, gy) = (wider(case.x, case.wider[0]), wider(case.y, case.wider[1]));
    let mut grad_x = up(device, &vec![UNTOUCHED; gx.len()], of);
    let mut grad_y = up(device, &vec![UNTOUCHED; gy.len()], of);
    let mut loss_out = match loss_shape.len() {
        0 => value.view_as_mut(&[], 1)?,
        _ => value.view_as_mut(&loss_shape, row)?,
    };
    let (into_x, into_y) = (view_mut(&mut grad_x, gx), view_mut(&mut grad_y, gy));
    // Of a variance, where the target's is wanted.
    let gz = case.third.filter(|_| run.loss.of().third.is_some_and(|third| third.slope.is_some()));
    let mut grad_z = up(device, &vec![UNTOUCHED; gz.map_or(0, Layout::len)], of);
    let into_z = gz.map(|gz| view_mut(&mut grad_z, gz));
    let grads = |wanted: [bool; 2]| ElementwiseGradOut {
        grad_input: wanted[0].then_some(into_x),
        grad_target: wanted[1].then_some(into_y),
        grad_variance: into_z.filter(|_| wanted[1]),
    };
    let given = Given { weight: seen_weight, third: seen_third, reduction: run.reduction };
    let loss = run.loss.make(given);
    match run.pass {
        Pass::Forward => {
            loss.forward_into(device, view(&x, case.x), view(&y, case.y), loss_out.reborrow())
        }
        Pass::Backward(wanted) => {
            let (x, y) = (view(&x, case.x), view(&y, case.y));
            loss.backward_into(device, x, y, g(), grads(wanted))
        }
        Pass::Fused(wanted) => {
            let (x, y) = (view(&x, case.x), view(&y, case.y));
            let out = (loss_out.reborrow(), grads(wanted));
            loss.forward_backward_into(device, x, y, g(), out)
        }
        Pass::InPlace => {
            let (x, y) = (view_mut(&mut x, case.x), view(&y, case.y));
            loss.forward_backward_in_place(device, x, y, g(), loss_out.reborrow())
        }
    }?;
    let grad = if run.pass == Pass::InPlace { &x } else { &grad_x };
    let numbers = |t: &Tensor| t.to_host()?.view().to_f64();
    Ok([numbers(&value)?, numbers(grad)?, numbers(&grad_y)?, numbers(&grad_z)?])
}

/// Both devices err by what the comparison with f64 allows each.
fn compare(got: &[f64], expected: &[f64], ulp: f64, said: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), expected.len(), "{said:?}");
    let finite = expected.iter().filter(|e| e.is_finite()).map(|e| e.abs());
    let largest = finite.fold(0.0, f64::max);
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let same = g == e || (g.is_nan() && e.is_nan());
        let close = (g - e).abs() <= (2e-5_f64).max(ulp) * e.abs() + 2e-6 * largest.min(1e6) + 1e-7;
        assert!(same || (e.is_finite() && close), "{said:?}, element {i}: {g}, expected {e}");
    }
}

fn check<T: Element + Copy>(device: &Device, case: &Case, what: Run, of: fn(f32) -> T, ulp: f64) {
    let (cpu, said) = (Device::cpu(), (case, what, T::DTYPE));
    let expected = run(&cpu, case, what, of).unwrap_or_else(|e| panic!("{said:?}: {e}"));
    let got = run(device, case, what, of).unwrap_or_else(|e| panic!("{said:?}: {e}"));
    compare(&got[0], &expected[0], 0.0, &said);
    compare(&got[1], &expected[1], ulp, &said);
    compare(&got[2], &expected[2], ulp, &said);
    compare(&got[3], &expected[3], ulp, &said);
    if case.x.len() < 400 {
        assert_eq!(bits(&run(device, case, what, of).unwrap()), bits(&got), "{said:?}");
    }
}

fn bits(all: &[Vec<f64>; 4]) -> Vec<u64> {
    all.iter().flatten().map(|v| v.to_bits()).collect()
}

fn every_type(device: &Device, case: &Case, what: Run) {
    check::<f32>(device, case, what, |v| v, 0.0);
    check::<bf16>(device, case, what, bf16::from_f32, 1.0 / 128.0);
    check::<f16>(device, case, what, f16::from_f32, 1.0 / 1024.0);
}

fn cards() -> [Device; 2] {
    [
        Device::emulated(Card::tiny(), Some(5)).unwrap(),
        Device::emulated(Card::h100(), None).unwrap(),
    ]
}

fn is_legal(loss: ElementLoss, case: &Case, pass: Pass) -> bool {
    let of = loss.of();
    let broadcasts = of.broadcasts && case.weight.is_none();
    let larger = |a: &[usize], b: &[usize]| {
        a.len() >= b.len() && b.iter().rev().zip(a.iter().rev()).all(|(b, a)| b == a || *b == 1)
    };
    (broadcasts || case.equal())
        && (of.weights != Weights::None || case.weight.is_none())
        && (of.third.is_some() || case.third.is_none())
        && (pass != Pass::InPlace || larger(case.x.0, case.y.0))
}

fn all(cases: &[Case], reductions: &[(Reduction, bool, bool)]) {
    for device in &cards() {
        for case in cases {
            for loss in losses() {
                for pass in PASSES.into_iter().filter(|&pass| is_legal(loss, case, pass)) {
                    for &(reduction, tensor, wild) in reductions {
                        every_type(device, case, Run { loss, reduction, pass, wild, tensor });
                    }
                }
            }
        }
    }
}

/// Each element's result by itself, so that one NaN hides no other.
const BY_ELEMENT: &[(Reduction, bool, bool)] = &[(Reduction::None, true, true)];
const SUMMED: &[(Reduction, bool, bool)] =
    &[(Reduction::Mean, true, false), (Reduction::Sum, false, false)];

#[test]
fn equal_shapes() {
    let same = |shape| Case::new(Layout::dense(shape), Layout::dense(shape));
    let cases = [&[][..], &[1], &[0], &[7], &[3, 5, 41], &[2, 0], &[2500]].map(same);
    all(&cases, BY_ELEMENT);
    all(&cases, SUMMED);
}

/// Rows of every alignment, each tensor with its own, long enough for packs or not.
#[test]
fn padded_rows() {
    let padded = |shape: &'static [usize], strides: [usize; 2], wider| Case {
        wider,
        ..Case::new(Layout(shape, strides[0]), Layout(shape, strides[1]))
    };
    let cases = [
        padded(&[5, 301], [301, 303], [1, 0]),
        padded(&[5, 301], [304, 304], [0, 0]),
        padded(&[4, 600], [607, 607], [0, 2]),
        padded(&[6, 10], [12, 10], [0, 3]),
        padded(&[9], [3, 1], [1, 2]),
    ];
    all(&cases, BY_ELEMENT);
    all(&cases, &SUMMED[..1]);
}

#[test]
fn broadcast_shapes() {
    let case = |x, y| Case::new(Layout::dense(x), Layout::dense(y));
    let cases = [
        case(&[6, 301], &[301]),
        case(&[6, 301], &[6, 1]),
        case(&[1, 301], &[6, 1]),
        case(&[], &[5, 33]),
        case(&[4, 1, 65], &[3, 1]),
        case(&[2, 3, 4, 1, 5], &[3, 1, 7, 5]),
        case(&[0, 3], &[1, 3]),
        case(&[3, 0], &[3, 1]),
        case(&[1, 3], &[3]),
        Case { wider: [3, 2], ..case(&[40, 9], &[40, 1]) },
        Case { wider: [0, 5], ..case(&[2, 9, 70], &[2, 1, 70]) },
    ];
    all(&cases, BY_ELEMENT);
    all(&cases, SUMMED);
}

/// Sums of more terms than one part has.
#[test]
fn long_sums_are_cut_into_parts() {
    let case = |x, y| Case::new(Layout::dense(x), Layout::dense(y));
    let cases = [case(&[20_000], &[1]), case(&[900, 9], &[9]), case(&[3, 5000], &[3, 1])];
    for device in &cards() {
        for case in &cases {
            for loss in [mse(), kl_div(false)] {
                let pass = Pass::Fused([true, true]);
                let run = Run { loss, reduction: Reduction::Mean, pass, wild: false, tensor: true };
                every_type(device, case, run);
            }
        }
    }
}

#[test]
fn element_weights() {
    let weighted = |shape: &'static [usize], stride: usize| Case {
        weight: Some(Layout(shape, stride)),
        ..Case::new(Layout::dense(shape), Layout::dense(shape))
    };
    let cases =
        [weighted(&[5, 301], 303), weighted(&[4, 9], 9), weighted(&[], 1), weighted(&[0], 1)];
    all(&cases, BY_ELEMENT);
    all(&cases, SUMMED);
}

#[test]
fn a_third_tensor_broadcasts() {
    let shape = Layout::dense(&[6, 301]);
    let case = Case::new(shape, shape);
    let (row, column) = (Some(Layout::dense(&[301])), Some(Layout::dense(&[6, 1])));
    let cases = [
        Case { weight: column, third: row, ..case },
        Case { weight: row, third: column, ..case },
        Case { third: Some(Layout::dense(&[])), ..case },
        Case { third: Some(shape), ..case },
        Case { third: row, ..case },
        Case { third: column, ..case },
    ];
    let losses = losses().into_iter().filter(|loss| loss.of().third.is_some());
    let losses: Vec<_> = losses.collect();
    for device in &cards() {
        for case in &cases {
            for &loss in &losses {
                for pass in PASSES.into_iter().filter(|&pass| is_legal(loss, case, pass)) {
                    for &(reduction, tensor, wild) in BY_ELEMENT.iter().chain(SUMMED) {
                        every_type(device, case, Run { loss, reduction, pass, wild, tensor });
                    }
                }
            }
        }
    }
}

/// Weights of sum 0 make NaN where the mean divides by it.
#[test]
fn weights_of_sum_0() {
    let (x, zeros) = ([1.0f32, 2.0, 3.0], [0.0f32; 3]);
    for device in cards() {
        let up = |v: &[f32]| device.upload(TensorRef::new(v, &[3]).unwrap()).unwrap();
        let (x, w) = (up(&x), up(&zeros));
        let mse = Mse::default().weight(w.view());
        let loss = mse.forward(&device, x.view(), w.view()).unwrap();
        assert!(loss.item().unwrap().is_nan());
        let grad = mse.backward(&device, x.view(), w.view(), 1.0, Default::default()).unwrap();
        let grad = grad.grad_input.unwrap().to_host().unwrap();
        assert!(grad.as_slice::<f32>().unwrap().iter().all(|g| g.is_nan()));
        let huber = Huber::default().weight(w.view());
        let loss = huber.forward(&device, x.view(), w.view()).unwrap();
        assert_eq!(loss.item().unwrap(), 0.0);
    }
}

/// Each input once, each output once, and a number or two a block.
#[test]
fn a_pass_moves_what_it_must() {
    fn moved<T: Element + Copy>(device: &Device, of: fn(f32) -> T) {
        const N: usize = 50_000;
        let mut numbers = Numbers(1);
        let mut x = up(device, &numbers.many(N, |n| n.next()), of);
        let y = up(device, &numbers.many(N, |n| n.next()), of);
        let mut grad = up(device, &vec![0.0; N], of);
        let mut loss = up(device, &[0.0], |v| v);
        let bytes = (N * size_of::<T>()) as u64;
        // A partial sum a block, written and read, and the loss.
        let few = bytes / 100;
        let mut measure =
            |read: u64, written: u64, call: &mut dyn FnMut(TensorMut<'_>) -> Result<()>| {
                let before = device.traffic().unwrap();
                call(loss.view_as_mut(&[], 1).unwrap()).unwrap();
                let after = device.traffic().unwrap();
                let (r, w) = (after.0 - before.0, after.1 - before.1);
                assert!((read..=read + few).contains(&r), "{:?}: {r} read, not {read}", T::DTYPE);
                assert!((written..=written + few).contains(&w), "{:?}: {w} written", T::DTYPE);
            };
        for loss in [Mse::default(), Mse::default().reduction(Reduction::Sum)] {
            measure(2 * bytes, 0, &mut |out| loss.forward_into(device, x.view(), y.view(), out));
            measure(2 * bytes, bytes, &mut |out| {
                let grads =
                    ElementwiseGradOut { grad_input: Some(grad.view_mut()), ..Default::default() };
                loss.forward_backward_into(device, x.view(), y.view(), 1.0, (out, grads))
            });
            measure(2 * bytes, bytes, &mut |_| {
                let grads =
                    ElementwiseGradOut { grad_input: Some(grad.view_mut()), ..Default::default() };
                loss.backward_into(device, x.view(), y.view(), 1.0, grads)
            });
            measure(2 * bytes, bytes, &mut |out| {
                loss.forward_backward_in_place(device, x.view_mut(), y.view(), 1.0, out)
            });
        }
    }
    for device in &cards() {
        moved::<f32>(device, |v| v);
        moved::<bf16>(device, bf16::from_f32);
    }
}
