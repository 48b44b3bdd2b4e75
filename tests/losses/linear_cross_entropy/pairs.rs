//! bf16 hidden states and weights give what the same numbers give in f32, whatever multiplies them: gradients but
//! for their rounding, infinite and undefined ones where they are.

use super::same_bits::{Batch, ROWS};
use super::{everything, floats, values};
use crate::harness::devices;
use warploss::{DType, LinearInput, Reduction, Tensor};

/// The same numbers in f32.
fn wide(tensor: &Tensor) -> Tensor {
    floats(DType::F32, &tensor.shape(), &values(tensor))
}

/// As a bf16 gradient is near: to its own rounding, and what f32 loses of the largest terms.
#[track_caller]
fn assert_near(what: &str, got: &Tensor, expected: &Tensor) {
    let (got, expected) = (values(got), values(expected));
    let largest = expected.iter().filter(|v| v.is_finite()).fold(0.0, |a: f64, v| a.max(v.abs()));
    for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
        let same = got == expected || (got.is_nan() && expected.is_nan());
        let near = (got - expected).abs() <= expected.abs() / 250.0 + 3e-5 * largest;
        assert!(same || near, "{what}, {i}: {got}, not {expected}");
    }
}

#[test]
fn bf16_is_multiplied_as_f32_is() {
    let classes = 1100;
    let features = super::same_bits::FEATURES;
    // A hidden number, or a weight, of this row or class.
    let places = [(None, None), (Some(17), None), (None, Some(1030)), (Some(298), Some(0))];
    for (hidden, weight) in places {
        for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let mut batch = Batch::new(DType::BF16, classes);
            let place = |tensor: &mut Tensor, row: Option<usize>| {
                let mut all = values(tensor);
                if let Some(row) = row {
                    all[row * features + 3] = number;
                }
                *tensor = floats(DType::BF16, &tensor.shape(), &all);
            };
            place(&mut batch.input, hidden);
            place(&mut batch.weight, weight);
            let [input, weight_of, bias] = [&batch.input, &batch.weight, &batch.bias].map(wide);
            let narrow = batch.all();
            let same = LinearInput {
                input: input.view(),
                linear_weight: weight_of.view(),
                linear_bias: Some(bias.view()),
                ..narrow
            };
            let loss = batch.loss(Reduction::Sum);
            for (name, device) in devices().iter().filter(|(name, _)| name.starts_with("cpu")) {
                let upstream = batch.upstream(ROWS);
                let got = everything(device, &loss, &narrow, upstream, (false, 3));
                let expected = everything(device, &loss, &same, upstream, (false, 3));
                for ((what, got), (_, expected)) in got.iter().zip(&expected) {
                    if !matches!(got.dtype(), DType::I64) {
                        let what = format!("{name}, {number} at {hidden:?} {weight:?}: {what}");
                        assert_near(&what, got, expected);
                    }
                }
            }
        }
    }
}
