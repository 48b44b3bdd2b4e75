//! On an imitated card: lookups are grouped and gradients added up on the device.

use super::*;
use warploss::emulator::Description;

pub(super) fn cards() -> [Device; 2] {
    [
        Device::emulated(Description::tiny(), Some(7)).unwrap(),
        Device::emulated(Description::h100(), None).unwrap(),
    ]
}

#[test]
fn a_card_agrees_with_f64_in_chunks_of_any_size() {
    for (case, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
        for (n, padding) in [(0, None), (1, Some(25)), (300, Some(3))] {
            let loss = embedding().padding_idx(padding);
            let parameters = loss.init(dtype, case as u64).unwrap();
            let index = index(n, n as u64 + case as u64);
            let grad = floats(dtype, &[n, FEATURES], 9);
            let (output, grads) = reference(&loss, &parameters, &index, &wide(&grad));
            for card in cards() {
                for workspace in [256 << 20, 5000] {
                    let loss = loss.clone().workspace(workspace);
                    let index = TensorRef::new(&index, &[n]).unwrap();
                    let view = parameters.view();
                    let got = loss.forward(&card, &view, index).unwrap();
                    assert_close("output", &got, &output);
                    let got = loss.backward(&card, &view, index, grad.view()).unwrap();
                    for ((key, got), expected) in got.into_named().iter().zip(&grads) {
                        let chunks = if workspace < 1 << 20 { 8.0 } else { 1.0 };
                        assert_within(&format!("{dtype} {n}: {key}"), got, expected, chunks);
                    }
                }
            }
        }
    }
}

/// As [`assert_close`], of what was rounded so many times.
fn assert_within(what: &str, got: &Tensor, expected: &[f64], times: f64) {
    let size = expected.iter().fold(0f64, |m, e| m.max(e.abs()));
    for (i, (got_value, e)) in wide(got).iter().zip(expected).enumerate() {
        let tolerance =
            times * rounding(got.dtype()) * (e.abs() + (times - 1.0) * size) + 2e-6 * size;
        assert!((got_value - e).abs() <= tolerance, "{what}[{i}]: {got_value}, expected {e}");
    }
}

/// Classes with more lookups than a warp, or a block, adds up at once, and parts in several tiles of
/// the sort.
#[test]
fn frequent_classes_are_added_up_in_order() {
    let loss = AdaptiveEmbedding::new(130, 70_000, &[20, 300]).widths(Some(vec![3, 1]));
    let parameters = loss.init(DType::F32, 4).unwrap();
    let mut seed = 3;
    let index: Vec<i64> = (0..2500)
        .map(|i| match random(&mut seed) % 8 {
            0 => i % 70_000,
            1 => 69_999 - i % 40,
            2 => 299,
            _ => 7,
        })
        .collect();
    let grad = floats(DType::F32, &[2500, 130], 1);
    let index = TensorRef::new(&index, &[2500]).unwrap();
    let view = parameters.view();
    let expected = loss.backward(&Device::cpu(), &view, index, grad.view()).unwrap();
    let [tiny, large] = cards().map(|card| {
        let got = loss.backward(&card, &view, index, grad.view()).unwrap();
        for ((key, got), (_, expected)) in
            got.clone().into_named().iter().zip(expected.clone().into_named())
        {
            assert_close(key, got, &wide(&expected));
        }
        got
    });
    assert_eq!(tiny, large, "the order of threads changes bits");
}

#[test]
fn resident_tensors_stay_and_nobody_waits() {
    let loss = embedding().padding_idx(Some(2));
    let parameters = loss.init(DType::BF16, 5).unwrap();
    let (numbers, grad) = (index(90, 6), floats(DType::BF16, &[90, FEATURES], 2));
    let index = Tensor::from_vec(numbers, &[90]).unwrap();
    for card in cards() {
        let up = |tensor: &Tensor| card.upload(tensor.view()).unwrap();
        let (i, g) = (up(&index), up(&grad));
        let resident = parameters.try_map::<_, ()>(|_, p| Ok(up(p))).unwrap();
        let mut sums = parameters.try_map::<_, ()>(|_, p| Ok(up(p))).unwrap();
        let waits = card.driver_calls().unwrap().waits;
        let out = loss.forward(&card, &resident.view(), i.view()).unwrap();
        let grads = loss.backward(&card, &resident.view(), i.view(), g.view()).unwrap();
        let (view, data) = (resident.view(), (i.view(), g.view()));
        loss.backward_into(&card, &view, data, (sums.view_mut(), true)).unwrap();
        assert_eq!(card.driver_calls().unwrap().waits, waits, "a call waits");
        assert!(out.is_on_device() && grads.shortlist.is_on_device());
        card.check().unwrap();
        let host = parameters.view();
        let from_host = loss.forward(&card, &host, index.view()).unwrap();
        assert_eq!(out.to_host().unwrap(), from_host);
        let from_host = loss.backward(&card, &host, index.view(), grad.view()).unwrap();
        let all = grads.into_named().into_iter().zip(from_host.into_named());
        let after = sums.into_named().into_iter().zip(parameters.clone().into_named());
        for (((key, got), (_, expected)), ((_, sum), (_, before))) in all.zip(after) {
            assert_eq!(got.to_host().unwrap(), expected, "{key}");
            let expected: Vec<f64> =
                wide(&before).iter().zip(wide(&expected)).map(|(a, b)| a + b).collect();
            assert_within(&key, &sum.to_host().unwrap(), &expected, 2.0);
        }
    }
}

#[test]
fn a_bad_index_on_the_card_is_told_by_check() {
    let loss = embedding();
    let parameters = loss.init(DType::F32, 5).unwrap();
    for card in cards() {
        let up = |tensor: &Tensor| card.upload(tensor.view()).unwrap();
        let index = up(&Tensor::from_vec(vec![4i64, 5, 300, -2], &[4]).unwrap());
        let resident = parameters.try_map::<_, ()>(|_, p| Ok(up(p))).unwrap();
        let out = loss.forward(&card, &resident.view(), index.view()).unwrap();
        let expected = "index: expected a class in [0, 300), got 300 at 2";
        assert_eq!(card.check().unwrap_err().to_string(), expected);
        // Rows with no class are 0, the others are there.
        let out = wide(&out.to_host().unwrap());
        assert!(out[..24].iter().all(|&x| x != 0.0) && out[24..].iter().all(|&x| x == 0.0));
        card.check().unwrap();
    }
}

#[test]
fn a_captured_call_gives_the_same_bits_when_it_is_replayed() {
    let loss = embedding();
    let parameters = loss.init(DType::F16, 5).unwrap();
    let (index, grad) = (index(70, 6), floats(DType::F16, &[70, FEATURES], 2));
    let index = Tensor::from_vec(index, &[70]).unwrap();
    for card in cards() {
        let up = |tensor: &Tensor| card.upload(tensor.view()).unwrap();
        let (i, g) = (up(&index), up(&grad));
        let resident = parameters.try_map::<_, ()>(|_, p| Ok(up(p))).unwrap();
        let (mut grads, mut out) = (resident.clone(), up(&grad));
        let mut call = || {
            let view = resident.view();
            loss.forward_into(&card, &view, i.view(), out.view_mut())?;
            loss.backward_into(&card, &view, (i.view(), g.view()), (grads.view_mut(), false))
        };
        call().unwrap();
        let graph = card.capture(call).unwrap();
        let expected = loss.forward(&card, &parameters.view(), index.view()).unwrap();
        let of_grads = loss.backward(&card, &parameters.view(), index.view(), grad.view());
        graph.replay().unwrap();
        assert_eq!(out.to_host().unwrap(), expected);
        let named = grads.into_named().into_iter().zip(of_grads.unwrap().into_named());
        for ((key, got), (_, expected)) in named {
            assert_eq!(got.to_host().unwrap(), expected, "{key}");
        }
    }
}
