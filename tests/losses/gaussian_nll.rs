//! What a variance brings along: its shapes, its gradient, and that it is not negative.

use warploss::emulator::Description;
use warploss::{
    Device, ElementwiseGradOut, Error, GaussianNll, Mse, Reduction, Result, TensorMut, TensorRef,
    Wrt,
};

fn numbers(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7 + seed).sin() * 3.0).collect()
}

fn positive(n: usize) -> Vec<f32> {
    numbers(n, 5.0).iter().map(|v| v.abs() + 0.05).collect()
}

fn view<'a>(data: &'a [f32], shape: &[usize]) -> TensorRef<'a> {
    TensorRef::new(data, shape).unwrap()
}

fn bits(t: TensorRef<'_>) -> Vec<u64> {
    t.to_f64().unwrap().iter().map(|v| v.to_bits()).collect()
}

fn tiny() -> Device {
    Device::emulated(Description::tiny(), Some(2)).unwrap()
}

/// The loss and its three gradients.
fn all(
    device: &Device,
    [x, t, s]: [TensorRef<'_>; 3],
    reduction: Reduction,
) -> Result<Vec<Vec<u64>>> {
    let loss = GaussianNll::default().variance(s).full(true).reduction(reduction);
    let (value, grads) = loss.forward_backward(device, x, t, -1.5, Wrt::All)?;
    let grads = [grads.grad_input, grads.grad_target, grads.grad_variance];
    let grads = grads.map(|grad| bits(grad.unwrap().view()));
    Ok([vec![bits(value.view())], grads.to_vec()].concat())
}

/// Along the last dimension, a variance without it is one of size 1; where sizes would let it be a row
/// as well, too.
#[test]
fn a_variance_may_lack_the_last_dimension() {
    for device in [Device::cpu(), tiny()] {
        for shape in [[3, 5], [4, 4], [6, 1], [30, 300]] {
            let n = shape.iter().product();
            let (x, t, s) = (numbers(n, 0.0), numbers(n, 1.0), positive(shape[0]));
            let (x, t) = (view(&x, &shape), view(&t, &shape));
            let [lacks, has] = [&shape[..1], &[shape[0], 1]]
                .map(|own| all(&device, [x, t, view(&s, own)], Reduction::None).unwrap());
            assert!(lacks == has, "{shape:?}");
            let mut every = vec![0.0; n];
            for (row, s) in every.chunks_mut(shape[1]).zip(&s) {
                row.fill(*s);
            }
            let full = all(&device, [x, t, view(&every, &shape)], Reduction::None).unwrap();
            assert!(full[..3] == has[..3], "{shape:?}");
        }
    }
}

#[test]
fn a_negative_variance_is_named_and_nothing_is_written() {
    // On the emulated card 7 blocks of 5000 elements.
    let shape = [7, 4999];
    let n = shape.iter().product();
    let (x, t) = (numbers(n, 0.0), numbers(n, 1.0));
    for (device, resident) in [(Device::cpu(), false), (tiny(), false), (tiny(), true)] {
        for (own, first) in [(&shape[..], 17_003), (&[7, 1], 5), (&[7], 2), (&[], 0)] {
            let mut s = positive(own.iter().product());
            s[first] = -0.5;
            if let Some(last) = s.get_mut(first + 1) {
                *last = -2.0;
            }
            // NaN is not negative, and −0 neither.
            if first > 1 {
                (s[0], s[1]) = (f32::NAN, -0.0);
            }
            let uploaded = device.upload(view(&s, own)).unwrap();
            let variance = if resident { uploaded.view() } else { view(&s, own) };
            let loss = GaussianNll::default().variance(variance);
            let (mut into, mut value, mut dx) = (x.clone(), [7.0], vec![7.0; n]);
            let of = |error: Error| {
                let said = error.to_string();
                let names = said.contains("variance") && said.contains(&format!("-0.5 at {first}"));
                assert!(names, "{said}");
            };
            let out = TensorMut::new(&mut value, &[]).unwrap();
            let input = TensorMut::new(&mut into, &shape).unwrap();
            let target = view(&t, &shape);
            of(loss.forward_backward_in_place(&device, input, target, 1.0, out).unwrap_err());
            let grads = ElementwiseGradOut {
                grad_input: Some(TensorMut::new(&mut dx, &shape).unwrap()),
                ..Default::default()
            };
            of(loss.backward_into(&device, view(&x, &shape), target, 1.0, grads).unwrap_err());
            assert!(into == x && value == [7.0] && dx.iter().all(|&v| v == 7.0), "{own:?}");
            if resident {
                // Nobody waits: the error comes where the result is read.
                let [x, t] = [&x, &t].map(|data| device.upload(view(data, &shape)).unwrap());
                let value = loss.forward(&device, x.view(), t.view()).unwrap();
                of(value.to_host().unwrap_err());
                // Once.
                let fine = GaussianNll::default().forward(&device, x.view(), t.view()).unwrap();
                assert!(fine.to_host().is_ok());
            }
        }
    }
}

#[test]
fn wrong_variances_are_named() {
    let device = Device::cpu();
    let (x, s) = (numbers(12, 0.0), positive(12));
    let (x, y) = (view(&x, &[3, 4]), view(&s, &[3, 4]));
    let said = |variance: TensorRef<'_>| {
        let loss = GaussianNll::default().variance(variance);
        loss.forward(&device, x, y).unwrap_err().to_string()
    };
    for shape in [&[3, 2][..], &[2, 3, 1], &[2]] {
        let wrong = positive(shape.iter().product());
        let said = said(view(&wrong, shape));
        assert!(said.contains("variance") && said.contains("[3, 4]"), "{said}");
    }
    let half = [warploss::f16::from_f32(1.0); 12];
    let said = said(TensorRef::new(&half, &[3, 4]).unwrap());
    assert!(said.contains("variance") && said.contains("f16"), "{said}");
    for eps in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let loss = GaussianNll::default().eps(eps);
        let said = loss.forward(&device, x, y).unwrap_err().to_string();
        assert!(said.contains("eps"), "{said}");
    }
    // Only a variance has its gradient.
    let mut gradient = [7.0f32; 12];
    for gaussian in [true, false] {
        let grads = ElementwiseGradOut {
            grad_variance: Some(TensorMut::new(&mut gradient, &[3, 4]).unwrap()),
            ..Default::default()
        };
        let result = match gaussian {
            true => GaussianNll::default().backward_into(&device, x, y, 1.0, grads),
            false => Mse::default().backward_into(&device, x, y, 1.0, grads),
        };
        let said = result.unwrap_err().to_string();
        assert!(said.contains("grad_variance"), "{said}");
    }
    assert_eq!(gradient, [7.0; 12]);
}

/// A variance comes block by block, and its gradient goes so; one that is broadcast is there as a whole.
#[test]
fn host_tensors_give_the_bits_of_resident_ones() {
    let device = tiny();
    for shape in [[1, 14_595], [13, 1201], [700, 29]] {
        let n = shape.iter().product();
        let (x, t) = (numbers(n, 0.0), numbers(n, 1.0));
        for own in [&shape[..], &[shape[0], 1], &shape[..1], &shape[1..]] {
            let s = positive(own.iter().product());
            let here = [view(&x, &shape), view(&t, &shape), view(&s, own)];
            let there = here.map(|t| device.upload(t).unwrap());
            for reduction in [Reduction::None, Reduction::Mean] {
                let got = all(&device, here, reduction).unwrap();
                let expected = all(&device, there.each_ref().map(|t| t.view()), reduction).unwrap();
                assert!(got == expected, "{shape:?}, variance {own:?}, {reduction}");
            }
        }
    }
}

#[test]
fn four_tensors_and_four_results_may_be_larger_than_the_card() {
    // 1.1 MB each.
    let memory = 640 << 10;
    let small = Device::emulated(Description { memory, ..Description::tiny() }, Some(1)).unwrap();
    let n = 277_750;
    let (x, t, s) = (numbers(n, 0.0), numbers(n, 1.0), positive(n));
    let here = [&x, &t, &s].map(|data| view(data, &[n]));
    let got = all(&small, here, Reduction::None).unwrap();
    assert!(got == all(&tiny(), here, Reduction::None).unwrap());
    assert!(matches!(small.upload(here[0]), Err(Error::OutOfMemory { .. })));
}
