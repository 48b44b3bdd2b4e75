//! Bad input: an error that names it, and nothing written.

use super::*;
use std::sync::Arc;
use warploss::{ClassOrder, Reduction, Shape, TensorMut};

fn message<T: std::fmt::Debug>(result: warploss::Result<T>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn options_are_named_with_what_was_expected() {
    let new = |cutoffs: &[usize]| AdaptiveLogSoftmax::new(4, 10, cutoffs);
    let order = Arc::new(ClassOrder::from_counts(&[1, 2, 3]).unwrap());
    for (loss, expected) in [
        (AdaptiveLogSoftmax::new(0, 10, &[3]), "in_features: expected at least 1, got 0"),
        (new(&[]), "cutoffs: expected at least one, got none"),
        (
            new(&[0, 3]),
            "cutoffs: expected a number in [1, 10) at 0 (rising, below V), got 0 in [0, 3]",
        ),
        (new(&[3, 3]), "in [4, 10) at 1 (rising, below V), got 3 in [3, 3]"),
        (new(&[5, 3]), "in [6, 10) at 1 (rising, below V), got 3 in [5, 3]"),
        (new(&[3, 10]), "in [4, 10) at 1 (rising, below V), got 10 in [3, 10]"),
        (
            new(&[3, 5]).widths(Some(vec![2])),
            "widths: expected one for each of 2 clusters (cutoffs), got 1",
        ),
        (
            new(&[3]).widths(Some(vec![usize::MAX])),
            "widths: expected sizes within reach, got [18446744073709551615]",
        ),
        (new(&[3]).div_value(0.0), "div_value: expected a finite number > 0, got 0"),
        (new(&[3]).div_value(f64::NAN), "div_value: expected a finite number > 0, got NaN"),
        (new(&[3, 5]).div_value(1e-300), "div_value: expected one that leaves widths in reach"),
        (new(&[3]).reduction(Reduction::BatchMean), "reduction: expected none, sum or mean"),
        (new(&[3]).class_order(Some(order)), "class_order: expected an order of 10 classes, got 3"),
    ] {
        let got = message(loss.init(DType::F32, 0));
        assert!(got.contains(expected), "{got}");
    }
    assert!(message(new(&[3]).init(DType::I64, 0)).contains("dtype: expected dtype f32"), "dtype");
    let classes = message(ClassOrder::from_classes(vec![0, 2, 2]));
    assert_eq!(classes, "classes: expected each number below 3 once, got 2 at place 2");
}

#[test]
fn a_state_dict_that_does_not_fit_has_its_key_named() {
    let loss = AdaptiveLogSoftmax::new(4, 10, &[3]);
    let whole = || {
        let parameters = loss.init(DType::F32, 0).unwrap();
        parameters.into_named().into_iter().collect::<Vec<_>>()
    };
    let load = |named: Vec<(String, Tensor)>| loss.parameters_from("", named, Tensor::shape);
    assert!(load(whole()).is_ok());
    let mut missing = whole();
    missing.retain(|(key, _)| key != "tail.0.1.weight");
    assert_eq!(
        message(load(missing)),
        "state_dict: expected `tail.0.1.weight` of shape [7, 1], got no such key"
    );
    let mut extra = whole();
    extra.push(("head.bias".into(), floats(DType::F32, &[4], &[0.0; 4])));
    assert!(message(load(extra)).contains("got `head.bias` as well"));
    let mut misshapen = whole();
    misshapen[0].1 = floats(DType::F32, &[4, 3], &[0.0; 12]);
    assert_eq!(
        message(load(misshapen)),
        "state_dict: expected `head.weight` of shape [4, 4], got shape [4, 3]"
    );
}

#[test]
fn a_bad_call_is_named_and_writes_nothing() {
    let loss = AdaptiveLogSoftmax::new(4, 10, &[3]).reduction(Reduction::None);
    let parameters = loss.init(DType::F32, 0).unwrap();
    let x = [0.5f32; 8];
    let input = TensorRef::new(&x, &[2, 4]).unwrap();
    let target = TensorRef::new(&[0i64, 9], &[2]).unwrap();
    let half = loss.init(DType::BF16, 0).unwrap();
    let biased = loss.clone().head_bias(true).init(DType::F32, 0).unwrap();
    let two = AdaptiveLogSoftmax::new(4, 10, &[3, 5]).init(DType::F32, 0).unwrap();
    let [a, b] = [&[4, 2][..], &[2, 2, 2]].map(|shape| TensorRef::new(&x, shape).unwrap());
    let integers = TensorRef::new(&[1i64; 8], &[2, 4]).unwrap();
    let short = TensorRef::new(&[1i64], &[1]).unwrap();
    let [below, above, ignored] = [[0, -1], [10, 0], [-100, 0]]
        .map(|t: [i64; 2]| Tensor::from_vec(t.to_vec(), &[2]).unwrap());
    let weights = [[1.0f32, -1.0], [f32::NAN, 1.0]];
    let weights = weights.each_ref().map(|w| TensorRef::new(w, &[2]).unwrap());
    type Case<'a> = (
        AdaptiveLogSoftmax<'a>,
        &'a AdaptiveParameters<Tensor>,
        TensorRef<'a>,
        TensorRef<'a>,
        &'a str,
    );
    let plain = || loss.clone();
    let cases: [Case<'_>; 14] = [
        (plain(), &parameters, a, target, "input: expected shape […, 4] (in_features), got [4, 2]"),
        (plain(), &parameters, b, target, "input: expected 1 or 2 dimensions, got 3"),
        (plain(), &parameters, integers, target, "input: expected dtype f32, f16 or bf16, got i64"),
        (plain(), &parameters, input, short, "target: expected shape [2]"),
        (plain(), &parameters, input, input, "target: expected dtype i64, i32, u32 or u8"),
        (
            plain(),
            &parameters,
            input,
            below.view(),
            "target: expected a class in [0, 10), got -1 at row 1",
        ),
        (
            plain(),
            &parameters,
            input,
            above.view(),
            "target: expected a class in [0, 10), got 10 at row 0",
        ),
        (plain(), &parameters, input, ignored.view(), "got -100 at row 0"),
        (
            plain(),
            &half,
            input,
            target,
            "parameters: expected `head.weight` [4, 4] of f32 (the input's), got [4, 4] of bf16",
        ),
        (
            plain(),
            &biased,
            input,
            target,
            "parameters: expected no head.bias (head_bias), got head.bias",
        ),
        (plain(), &two, input, target, "parameters: expected 1 tail (cutoffs), got 2"),
        (
            plain().ignore_index(Some(-1)),
            &parameters,
            input,
            above.view(),
            "target: expected a class in [0, 10) or ignore_index -1, got 10 at row 0",
        ),
        (
            plain().row_weight(weights[0]),
            &parameters,
            input,
            target,
            "row_weight: expected finite numbers ≥ 0, got -1 at row 1",
        ),
        (
            plain().row_weight(weights[1]),
            &parameters,
            input,
            target,
            "row_weight: expected finite numbers ≥ 0, got NaN at row 0",
        ),
    ];
    let device = Device::cpu();
    for (loss, parameters, input, target, expected) in cases {
        let mut output = Tensor::from_vec(vec![5f32; 2], &[2]).unwrap();
        let (mut value, mut grad_input) =
            (output.clone(), Tensor::from_vec(vec![5f32; 8], &[2, 4]).unwrap());
        let mut grads = self::parameters(&loss.shapes().unwrap());
        let before = (output.clone(), value.clone(), grad_input.clone(), grads.clone());
        let view = parameters.view();
        let out = LayerOut { output: output.view_mut(), loss: value.view_mut() };
        let gradients = LayerGradOut {
            input: Some(grad_input.view_mut()),
            parameters: Some(grads.view_mut()),
            accumulate: false,
        };
        let written = (out, gradients);
        let got =
            message(loss.forward_backward_into(&device, &view, (input, target), 1.0, written));
        assert!(got.contains(expected), "{got}\nexpected {expected}");
        assert!(before == (output, value, grad_input, grads), "{expected}: written");
    }
    for (k, expected) in
        [(0, "got 0"), (11, "k: expected a number in [1, 10] (the classes), got 11")]
    {
        let got = message(loss.top_k(&device, &parameters.view(), input, k));
        assert!(got.contains(expected), "{got}");
    }
    let mut wrong = Tensor::from_vec(vec![0f32; 18], &[2, 9]).unwrap();
    let got = message(loss.log_prob_into(&device, &parameters.view(), input, wrong.view_mut()));
    assert_eq!(got, "log_prob: expected shape [2, 10] (one a row and class), got [2, 9]");
}

/// Tensors of these shapes that hold something.
fn parameters(shapes: &AdaptiveParameters<Shape>) -> AdaptiveParameters<Tensor> {
    let full = |shape: &Shape| {
        let numbers = vec![5.0; shape.iter().product()];
        Ok::<_, warploss::Error>(floats(DType::F32, shape, &numbers))
    };
    shapes.try_map(|_, shape| full(shape)).unwrap()
}

/// A vector's elements are a row's: what lies between them is neither read nor written.
#[test]
fn vectors_with_gaps_are_refused() {
    let loss = AdaptiveLogSoftmax::new(4, 10, &[3]).head_bias(true);
    let parameters = loss.init(DType::F32, 0).unwrap();
    let (x, target) = ([0.5f32; 8], TensorRef::new(&[7i64], &[]).unwrap());
    let [tight, gaps] = [1, 2].map(|s| TensorRef::with_row_stride(&x, &[4], s).unwrap());
    let mut holey = parameters.view();
    holey.head_bias = Some(gaps);
    let refused = |argument: &str| {
        format!("{argument}: expected rows without padding, row stride 1, got row stride 2")
    };
    for (device, _) in everywhere(DType::F32) {
        let view = parameters.view();
        let forward = |p, x| message(loss.forward(&device, p, x, target));
        assert_eq!(forward(&view, gaps), refused("input"));
        assert_eq!(forward(&holey, tight), refused("parameters"));
        assert_eq!(message(loss.predict(&device, &view, gaps)), refused("input"));
        let mut memory = [7f32; 20];
        let out = TensorMut::with_row_stride(&mut memory, &[10], 2).unwrap();
        let result = loss.log_prob_into(&device, &view, tight, out);
        assert_eq!(message(result), refused("log_prob"));
        let mut output = [7f32; 2];
        let [output, mean] = output.each_mut().map(std::slice::from_mut);
        let out = LayerOut {
            output: TensorMut::new(output, &[]).unwrap(),
            loss: TensorMut::new(mean, &[]).unwrap(),
        };
        let grad = TensorMut::with_row_stride(&mut memory, &[4], 2).unwrap();
        let gradients = LayerGradOut { input: Some(grad), parameters: None, accumulate: false };
        let data = (tight, target);
        let result = loss.forward_backward_into(&device, &view, data, 1.0, (out, gradients));
        assert_eq!(message(result), refused("grad_input"));
        assert_eq!(memory, [7.0; 20]);
    }
}
