//! What is refused, in words that name the argument.

use super::{floats, noise};
use crate::harness::devices;
use warploss::{
    CrossEntropy, CrossEntropyUpstream, DType, Device, Error, LinearCrossEntropy, LinearGradOut,
    LinearInput, LinearPath, Tensor,
};

/// An error's words.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let text = result.expect_err(words[0]).to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} has no {word:?}");
    }
}

fn f32s(shape: &[usize]) -> Tensor {
    floats(DType::F32, shape, &noise(1, shape.iter().product()))
}

#[test]
fn shapes_and_dtypes_are_refused_by_name() {
    let loss = LinearCrossEntropy::default();
    let (x, w, b) = (f32s(&[3, 4]), f32s(&[7, 4]), f32s(&[7]));
    let target = Tensor::from_vec(vec![0i64, 1, 2], &[3]).unwrap();
    for (_, device) in devices() {
        let go = |input: LinearInput<'_>| loss.forward(device, &input);
        let plain = LinearInput::new(x.view(), w.view(), target.view());
        assert!(go(plain).is_ok());
        let [cube, flat, wide] = [f32s(&[3, 2, 2]), f32s(&[28]), f32s(&[7, 5])];
        refused(go(LinearInput { input: cube.view(), ..plain }), &["input", "1 or 2", "3"]);
        refused(
            go(LinearInput { linear_weight: flat.view(), ..plain }),
            &["linear_weight", "2", "1"],
        );
        refused(
            go(LinearInput { linear_weight: wide.view(), ..plain }),
            &["linear_weight", "[V, 4] (the input's features)", "[7, 5]"],
        );
        let half = floats(DType::BF16, &[7, 4], &noise(2, 28));
        refused(
            go(LinearInput { linear_weight: half.view(), ..plain }),
            &["linear_weight", "f32 (the input's)", "bf16"],
        );
        let short = f32s(&[6]);
        refused(go(plain.linear_bias(short.view())), &["linear_bias", "[7]", "[6]"]);
        let two = Tensor::from_vec(vec![0i64, 1], &[2]).unwrap();
        refused(go(LinearInput { target: two.view(), ..plain }), &["target", "[3]", "[2]"]);
        let q = f32s(&[3, 6]);
        refused(go(LinearInput { target: q.view(), ..plain }), &["target", "[3, 7]", "[3, 6]"]);
        refused(go(plain.temperature(b.view())), &["temperature", "[3]", "[7]"]);
        refused(go(plain.row_weight(half.view())), &["row_weight", "[3]", "[7, 4]"]);
    }
}

#[test]
fn values_are_refused_with_their_rows() {
    let loss = LinearCrossEntropy::default();
    let (x, w) = (f32s(&[3, 4]), f32s(&[7, 4]));
    for (_, device) in devices() {
        let go = |device: &Device, input: LinearInput<'_>| loss.forward(device, &input);
        let target = Tensor::from_vec(vec![0i64, 7, 2], &[3]).unwrap();
        let plain = LinearInput::new(x.view(), w.view(), target.view());
        refused(go(device, plain), &["target", "[0, 7)", "7 at row 1"]);
        let target = Tensor::from_vec(vec![0i64, 1, 2], &[3]).unwrap();
        let plain = LinearInput::new(x.view(), w.view(), target.view());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let temperature = floats(DType::F32, &[3], &[1.0, 1.0, bad]);
            refused(
                go(device, plain.temperature(temperature.view())),
                &["temperature", "> 0", "row 2"],
            );
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let weight = floats(DType::F32, &[3], &[1.0, bad, 1.0]);
            refused(go(device, plain.row_weight(weight.view())), &["row_weight", "≥ 0", "row 1"]);
        }
    }
}

#[test]
fn options_and_gradients_are_refused_by_name() {
    let (x, w) = (f32s(&[3, 4]), f32s(&[7, 4]));
    let target = Tensor::from_vec(vec![0i64, 1, 2], &[3]).unwrap();
    let q = f32s(&[3, 7]);
    let plain = LinearInput::new(x.view(), w.view(), target.view());
    let soft = LinearInput { target: q.view(), ..plain };
    let named = LinearCrossEntropy::from(CrossEntropy::default().ignore_index(2));
    let teacher = LinearCrossEntropy::from(CrossEntropy::default().teacher_scale(Some(1.0)));
    for (_, device) in devices() {
        refused(named.forward(device, &soft), &["ignore_index", "2"]);
        refused(teacher.forward(device, &soft), &["teacher_scale", "none"]);
        let loss = LinearCrossEntropy::default();
        let small = loss.clone().max_workspace_bytes(10);
        refused(
            small.forward_backward(device, &plain, 1.0),
            &["max_workspace_bytes", "at least", "10"],
        );
        let mut short = f32s(&[7, 3]);
        let mut bias = f32s(&[7]);
        let go = |gradients: LinearGradOut<'_>| loss.backward_into(device, &plain, 1.0, gradients);
        let out =
            LinearGradOut { linear_weight: Some(short.view_mut()), ..LinearGradOut::default() };
        refused(go(out), &["grad_linear_weight", "[7, 4]", "[7, 3]"]);
        let out = LinearGradOut { linear_bias: Some(bias.view_mut()), ..LinearGradOut::default() };
        refused(go(out), &["grad_linear_bias", "no linear_bias"]);
        let upstream = CrossEntropyUpstream { grad_entropy: 1.0.into(), ..1.0.into() };
        refused(loss.forward_backward(device, &soft, upstream), &["grad_entropy", "class indices"]);
    }
    let tiled = LinearCrossEntropy::default().path(LinearPath::Tiled);
    refused(tiled.forward(&Device::cpu(), &plain), &["path", "chunked", "tiled on cpu"]);
}
