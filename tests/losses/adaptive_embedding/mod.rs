//! Adaptive embeddings: against a plain f64 computation, tied to a softmax, and what they refuse.

#[cfg(feature = "emulator")]
mod device;

use std::sync::Arc;
use warploss::check::reference::adaptive_embedding;
use warploss::{
    AdaptiveEmbedding, AdaptiveEmbeddingParameters, AdaptiveLogSoftmax, ClassOrder, DType, Device,
    Float, LayerGradOut, LayerOut, Tensor, TensorMut, TensorRef, bf16, f16,
};

const FEATURES: usize = 12;
const CLASSES: usize = 300;

fn embedding() -> AdaptiveEmbedding {
    AdaptiveEmbedding::new(FEATURES, CLASSES, &[20, 90, 91]).widths(Some(vec![5, 12, 2]))
}

/// The CPU, and imitated cards where they are built.
fn devices() -> Vec<Device> {
    #[cfg(feature = "emulator")]
    let cards = device::cards();
    #[cfg(not(feature = "emulator"))]
    let cards = [];
    [Device::cpu()].into_iter().chain(cards).collect()
}

/// A small deterministic generator.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn index(n: usize, seed: u64) -> Vec<i64> {
    let mut seed = seed;
    // Classes come again and again, and some never.
    (0..n).map(|_| (random(&mut seed) % (1 + random(&mut seed) % CLASSES as u64)) as i64).collect()
}

fn floats(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    fn of<T: Float>(shape: &[usize], mut seed: u64) -> Tensor {
        let number = |seed: &mut u64| T::from_f32(random(seed) as f32 / 2f32.powi(30) - 1.0);
        let data = (0..shape.iter().product()).map(|_| number(&mut seed)).collect();
        Tensor::from_vec(data, shape).unwrap()
    }
    match dtype {
        DType::F16 => of::<f16>(shape, seed),
        DType::BF16 => of::<bf16>(shape, seed),
        _ => of::<f32>(shape, seed),
    }
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.view().to_f64().unwrap()
}

fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 6e-4,
        DType::BF16 => 5e-3,
        _ => 2e-6,
    }
}

#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &[f64]) {
    let got_values = wide(got);
    assert_eq!(got_values.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0f64, |m, e| m.max(e.abs()));
    for (i, (got_value, e)) in got_values.iter().zip(expected).enumerate() {
        let tolerance = rounding(got.dtype()) * e.abs() + 2e-6 * size;
        assert!((got_value - e).abs() <= tolerance, "{what}[{i}]: {got_value}, expected {e}");
    }
}

/// Outputs and gradients by the definition: the output first, then each parameter's.
fn reference(
    loss: &AdaptiveEmbedding,
    parameters: &AdaptiveEmbeddingParameters<Tensor>,
    index: &[i64],
    grad: &[f64],
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let parameters = parameters.try_map::<_, ()>(|_, p| Ok(wide(p))).unwrap();
    let expected = adaptive_embedding(loss, &parameters, index, grad);
    (expected.output.values, expected.grads.into_iter().map(|grad| grad.values).collect())
}

#[test]
fn lookups_and_gradients_agree_with_f64() {
    for (case, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
        for (n, padding) in [(0, None), (1, Some(25)), (257, None), (1000, Some(3))] {
            let loss = embedding().padding_idx(padding);
            let parameters = loss.init(dtype, case as u64).unwrap();
            let index = index(n, n as u64 + case as u64);
            let grad = floats(dtype, &[n, FEATURES], 9);
            let (output, grads) = reference(&loss, &parameters, &index, &wide(&grad));
            let mut bits = Vec::new();
            for threads in [1, 3] {
                let device = Device::cpu_with_threads(threads).unwrap();
                let index = TensorRef::new(&index, &[n]).unwrap();
                let view = parameters.view();
                let got = loss.forward(&device, &view, index).unwrap();
                assert_close("output", &got, &output);
                let got_grads = loss.backward(&device, &view, index, grad.view()).unwrap();
                for ((key, got), expected) in got_grads.clone().into_named().iter().zip(&grads) {
                    assert_close(key, got, expected);
                }
                bits.push((got, got_grads));
            }
            assert_eq!(bits[0], bits[1], "{dtype}: threads change bits");
        }
    }
}

#[test]
fn parameters_without_features_may_have_any_row_stride() {
    let loss = AdaptiveEmbedding::new(FEATURES, 9, &[2, 5]).widths(Some(vec![0, 3]));
    let index = [0i64, 4, 8, 3, 2];
    for device in devices() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let parameters = loss.init(dtype, 1).unwrap();
            let mut view = parameters.view();
            view.tails[0].weight = parameters.tails[0].weight.view_as(&[3, 0], 7).unwrap();
            view.tails[0].projection =
                parameters.tails[0].projection.view_as(&[0, FEATURES], 20).unwrap();
            let of = TensorRef::new(&index, &[5]).unwrap();
            let got = loss.forward(&device, &view, of).unwrap();
            let same = loss.forward(&device, &parameters.view(), of).unwrap();
            assert_eq!(got, same, "{dtype} on {}", device.name());
            let grad = floats(dtype, &[5, FEATURES], 3);
            let got = loss.backward(&device, &view, of, grad.view()).unwrap();
            let same = loss.backward(&device, &parameters.view(), of, grad.view()).unwrap();
            assert_eq!(got, same, "{dtype} on {}", device.name());
        }
    }
}

#[test]
fn an_index_may_have_any_shape_and_rows_padding() {
    devices().iter().for_each(any_shape_and_padding);
}

fn any_shape_and_padding(device: &Device) {
    let loss = embedding();
    let parameters = loss.init(DType::F32, 1).unwrap();
    let flat: Vec<u32> = index(24, 5).iter().map(|&i| i as u32).collect();
    let of = |shape: &[usize]| {
        let index = TensorRef::new(&flat[..shape.iter().product()], shape).unwrap();
        loss.forward(device, &parameters.view(), index).unwrap()
    };
    let line = of(&[24]);
    for shape in [&[2, 3, 4][..], &[24, 1], &[]] {
        let got = of(shape);
        assert_eq!(*got.shape(), [shape, &[FEATURES]].concat()[..]);
        let n = got.shape().iter().product::<usize>();
        assert_eq!(got.as_slice::<f32>().unwrap(), &line.as_slice::<f32>().unwrap()[..n]);
    }
    let mut padded = vec![f32::NAN; 24 * 15];
    let out = TensorMut::with_row_stride(&mut padded, &[24, FEATURES], 15).unwrap();
    let index = TensorRef::new(&flat, &[24]).unwrap();
    loss.forward_into(device, &parameters.view(), index, out).unwrap();
    let rows = line.as_slice::<f32>().unwrap().chunks(FEATURES);
    for (got, expected) in padded.chunks(15).zip(rows) {
        assert_eq!(&got[..FEATURES], expected);
        assert!(got[FEATURES..].iter().all(|x| x.is_nan()), "padding is written");
    }
}

#[test]
fn an_order_renames_classes() {
    devices().iter().for_each(order_renames);
}

fn order_renames(device: &Device) {
    let classes: Vec<u32> = (0..CLASSES as u32).map(|i| (i * 7 + 3) % CLASSES as u32).collect();
    let order = Arc::new(ClassOrder::from_classes(classes.clone()).unwrap());
    let (plain, renamed) = (embedding(), embedding().class_order(Some(order)));
    let parameters = plain.init(DType::F32, 3).unwrap();
    let places = index(100, 8);
    let names: Vec<i64> = places.iter().map(|&p| i64::from(classes[p as usize])).collect();
    let [a, b] = [(&plain, &places), (&renamed, &names)].map(|(loss, index)| {
        let index = TensorRef::new(index, &[100]).unwrap();
        loss.forward(device, &parameters.view(), index).unwrap()
    });
    assert_eq!(a, b);
}

/// A model whose input embeddings are its output's classes: both gradients in one memory.
#[test]
fn tied_gradients_add_up() {
    devices().iter().for_each(tied_gradients);
}

fn tied_gradients(device: &Device) {
    let softmax = AdaptiveLogSoftmax::new(FEATURES, CLASSES, &[20, 90]).head_bias(true);
    let loss = AdaptiveEmbedding::of(&softmax);
    let parameters = softmax.init(DType::F32, 11).unwrap();
    let tokens = index(64, 2);
    let tokens = TensorRef::new(&tokens, &[64]).unwrap();
    let targets = index(64, 4);
    let targets = TensorRef::new(&targets, &[64]).unwrap();
    let view = parameters.view();
    let tied = AdaptiveEmbeddingParameters::tied(&loss, &view).unwrap();
    let hidden = loss.forward(device, &tied, tokens).unwrap();
    let grad = softmax.forward_backward(device, &view, hidden.view(), targets, 1.0).unwrap();
    let apart = loss.backward(device, &tied, tokens, grad.input.view()).unwrap();

    let mut output = Tensor::from_vec(vec![0f32; 64], &[64]).unwrap();
    let mut mean = Tensor::from_vec(vec![0f32], &[]).unwrap();
    let (mut d_hidden, mut grads) = (hidden.clone(), parameters.clone());
    let out = LayerOut { output: output.view_mut(), loss: mean.view_mut() };
    let gradients = LayerGradOut {
        input: Some(d_hidden.view_mut()),
        parameters: Some(grads.view_mut()),
        accumulate: false,
    };
    let data = (hidden.view(), targets);
    softmax.forward_backward_into(device, &view, data, 1.0, (out, gradients)).unwrap();
    let both = AdaptiveEmbeddingParameters::tied_mut(&loss, grads.view_mut()).unwrap();
    loss.backward_into(device, &tied, (tokens, d_hidden.view()), (both, true)).unwrap();

    assert_eq!(grads.head_bias, grad.parameters.head_bias);
    let head = wide(&grads.head_weight);
    let sum = |a: &Tensor, b: &Tensor| {
        wide(a).iter().zip(wide(b)).map(|(a, b)| a + b).collect::<Vec<f64>>()
    };
    // The columns that stand for clusters belong to no embedding.
    let n = 20 * FEATURES;
    let expected = sum(&grad.parameters.head_weight, &apart.shortlist);
    for (i, (got, expected)) in head[..n].iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() < 1e-6, "shortlist[{i}]: {got}, expected {expected}");
    }
    assert_eq!(head[n..], wide(&grad.parameters.head_weight)[n..]);
    for (i, got) in grads.tails.iter().enumerate() {
        let (of_softmax, of_embedding) = (&grad.parameters.tails[i], &apart.tails[i]);
        let expected = sum(&of_softmax.projection, &of_embedding.projection);
        assert_close("projection", &got.projection, &expected);
        assert_close("weight", &got.weight, &sum(&of_softmax.weight, &of_embedding.weight));
    }
}

#[test]
fn new_embeddings_have_their_deviation_and_the_padding_none() {
    let loss = AdaptiveEmbedding::new(64, 4000, &[1000, 2000]).padding_idx(Some(1500));
    let parameters = loss.init(DType::F32, 5).unwrap();
    for (key, p) in parameters.clone().into_named() {
        let numbers = wide(&p);
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let deviation = (numbers.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
        let expected = match key.ends_with(".0.weight") {
            true => (2.0 / (p.shape()[0] + p.shape()[1]) as f64).sqrt(),
            false => 1.0 / (p.shape()[1] as f64).sqrt(),
        };
        let off = 4.0 / n.sqrt();
        assert!(mean.abs() < off * expected, "{key}: mean {mean}");
        assert!((deviation / expected - 1.0).abs() < off, "{key}: {deviation}, not {expected}");
    }
    let zeros = |row: &[f32]| row.iter().all(|&x| x == 0.0);
    let rows = parameters.tails[0].weight.as_slice::<f32>().unwrap().chunks(16);
    let zero: Vec<_> = rows.enumerate().filter(|(_, row)| zeros(row)).map(|(i, _)| i).collect();
    assert_eq!(zero, [500]);
}

#[test]
fn a_bad_call_is_named_and_writes_nothing() {
    devices().iter().for_each(bad_calls);
}

fn bad_calls(device: &Device) {
    let loss = embedding();
    let parameters = loss.init(DType::F32, 1).unwrap();
    let message = |index: TensorRef<'_>, out: &mut Tensor, loss: &AdaptiveEmbedding| {
        let before = out.clone();
        let view = parameters.view();
        let result = loss.forward_into(device, &view, index, out.view_mut());
        assert_eq!(*out, before, "written");
        result.expect_err("an error").to_string()
    };
    let full = |shape: &[usize]| floats(DType::F32, shape, 3);
    let good = TensorRef::new(&[1i64, 299], &[2]).unwrap();
    let bad = [[300i64, 0], [0, -1]].map(|b| Tensor::from_vec(b.to_vec(), &[2]).unwrap());
    let (real, strided) = ([0f32; 2], [1i64; 5]);
    let narrow = loss.clone().widths(Some(vec![5, 12, 3]));
    for (loss, index, mut out, expected) in [
        (&loss, bad[0].view(), full(&[2, 12]), "index: expected a class in [0, 300), got 300 at 0"),
        (&loss, bad[1].view(), full(&[2, 12]), "index: expected a class in [0, 300), got -1 at 1"),
        (
            &loss,
            TensorRef::new(&real, &[2]).unwrap(),
            full(&[2, 12]),
            "index: expected dtype i64, i32, u32 or u8 (class indices), got f32",
        ),
        (
            &loss,
            TensorRef::with_row_stride(&strided, &[2, 1], 3).unwrap(),
            full(&[2, 1, 12]),
            "index: expected rows without padding, row stride 1, got row stride 3",
        ),
        (
            &loss,
            good,
            full(&[2, 11]),
            "output: expected shape [2, 12] (the index's, and the features), got [2, 11]",
        ),
        (
            &loss,
            good,
            floats(DType::F16, &[2, 12], 1),
            "output: expected dtype f32 (the parameters'), got f16",
        ),
        (
            &narrow,
            good,
            full(&[2, 12]),
            "parameters: expected `tail.2.0.weight` [3, 12] of f32 (the shortlist's), \
             got [2, 12] of f32",
        ),
        (
            &loss.clone().padding_idx(Some(300)),
            good,
            full(&[2, 12]),
            "padding_idx: expected a class in [0, 300), got 300",
        ),
    ] {
        let got = message(index, &mut out, loss);
        assert_eq!(got, expected);
    }
    // Gradients as well, the index's errors before anything is cleared.
    let mut grads = loss.init(DType::F32, 7).unwrap();
    let before = grads.clone();
    let grad_output = full(&[2, 12]);
    let call = (bad[0].view(), grad_output.view());
    let view = parameters.view();
    let result = loss.backward_into(device, &view, call, (grads.view_mut(), false));
    assert!(result.unwrap_err().to_string().starts_with("index: "));
    assert_eq!(grads, before, "written");
    let head = AdaptiveLogSoftmax::new(FEATURES, 10, &[3]).init(DType::F32, 0).unwrap();
    let tied = AdaptiveEmbeddingParameters::tied(&loss, &head.view()).unwrap_err().to_string();
    assert_eq!(
        tied,
        "parameters: expected `head.weight` of at least 20 rows (the shortlist), got [4, 12]"
    );
}
