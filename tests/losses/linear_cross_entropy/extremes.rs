//! Rows that do not count, batches without rows, large offsets, and what is added to what is there.

use super::{everything, floats, noise, values};
use crate::harness::devices;
use warploss::{
    CrossEntropy, CrossEntropyUpstream, DType, LinearCrossEntropy, LinearGradOut, LinearInput,
    Reduction, Tensor,
};

const SHAPE: [usize; 3] = [6, 5, 9];

fn tensors(dtype: DType) -> [Tensor; 3] {
    let [rows, features, classes] = SHAPE;
    [
        floats(dtype, &[rows, features], &noise(1, rows * features)),
        floats(dtype, &[classes, features], &noise(2, classes * features)),
        floats(dtype, &[classes], &noise(3, classes)),
    ]
}

#[test]
fn ignored_rows_are_not_read_and_have_no_gradient() {
    let [rows, features, _] = SHAPE;
    let target = Tensor::from_vec(vec![0i64, -100, 3, -100, 8, 1], &[rows]).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let [x, w, b] = tensors(dtype);
        let mut broken = values(&x);
        for row in [1, 3] {
            broken[row * features..][..features].fill(if row == 1 {
                f64::NAN
            } else {
                f64::INFINITY
            });
        }
        let broken = floats(dtype, &[rows, features], &broken);
        // Nor are their temperatures and weights.
        let temperature = [1.0, f64::NAN, 2.0, 0.0, 0.5, 1.0];
        let temperature = floats(DType::F32, &[rows], &temperature);
        let row_weight = floats(DType::F32, &[rows], &[1.0, -1.0, 2.0, f64::NAN, 0.0, 1.0]);
        let right = [1.0, 1.0, 2.0, 1.0, 0.5, 1.0];
        let (right, of_weight) = (
            floats(DType::F32, &[rows], &right),
            floats(DType::F32, &[rows], &[1.0, 1.0, 2.0, 1.0, 0.0, 1.0]),
        );
        let loss = LinearCrossEntropy::default();
        let upstream = CrossEntropyUpstream { grad_logprob: 0.5.into(), ..2.0.into() };
        for (name, device) in devices() {
            let of = |x: &Tensor, temperature: &Tensor, weight: &Tensor| {
                let input = LinearInput::new(x.view(), w.view(), target.view())
                    .linear_bias(b.view())
                    .temperature(temperature.view())
                    .row_weight(weight.view());
                everything(device, &loss, &input, upstream, (false, 2))
            };
            let (got, sound) = (of(&broken, &temperature, &row_weight), of(&x, &right, &of_weight));
            for ((what, got), (_, sound)) in got.iter().zip(&sound) {
                assert_eq!(values(got), values(sound), "{name}, {dtype}: {what}");
            }
            let of = |what: &str| values(&got.iter().find(|(own, _)| *own == what).unwrap().1);
            assert!(of("grad_input")[features..2 * features].iter().all(|&g| g == 0.0), "{name}");
            assert_eq!((of("lse")[1], of("rank")[1], of("logprob")[3]), (0.0, -1.0, 0.0), "{name}");
        }
    }
}

#[test]
fn without_rows_that_count_the_mean_is_nan_and_gradients_are_zero() {
    for rows in [0, 3] {
        let [_, features, classes] = SHAPE;
        let x = floats(DType::F32, &[rows, features], &vec![f64::NAN; rows * features]);
        let [_, w, b] = tensors(DType::F32);
        let target = Tensor::from_vec(vec![-100i64; rows], &[rows]).unwrap();
        let input = LinearInput::new(x.view(), w.view(), target.view()).linear_bias(b.view());
        for (name, device) in devices() {
            for reduction in [Reduction::Mean, Reduction::Sum] {
                let loss = CrossEntropy::default().reduction(reduction);
                let out =
                    LinearCrossEntropy::from(loss).forward_backward(device, &input, 1.0).unwrap();
                let loss = out.output.loss.item().unwrap();
                let right = if reduction == Reduction::Mean { loss.is_nan() } else { loss == 0.0 };
                assert!(right, "{name}, {rows} rows: {loss}");
                let zeros = |tensor: &Tensor, n| assert_eq!(values(tensor), vec![0.0; n], "{name}");
                zeros(&out.input, rows * features);
                zeros(&out.linear_weight, classes * features);
                zeros(&out.linear_bias.unwrap(), classes);
            }
        }
    }
}

#[test]
fn a_common_offset_takes_no_digits() {
    // Logits of 2^24 and 2^24 but for whole numbers: ln 2 and its like stay.
    let x = floats(DType::F32, &[2, 2], &[4096.0, 1.0, 4096.0, 0.0]);
    let w = floats(DType::F32, &[2, 2], &[4096.0, 0.0, 4096.0, 2.0]);
    let target = Tensor::from_vec(vec![0i64, 0], &[2]).unwrap();
    let loss = CrossEntropy::default().reduction(Reduction::None);
    for (name, device) in devices() {
        let input = LinearInput::new(x.view(), w.view(), target.view());
        let out = LinearCrossEntropy::from(loss.clone()).forward(device, &input).unwrap();
        let expected = [(1.0 + 2f64.exp()).ln(), 2f64.ln()];
        for (got, expected) in values(&out.loss).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{name}: {got}, not {expected}");
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let [rows, ..] = SHAPE;
    let target = Tensor::from_vec(vec![0i64, 2, 3, -100, 8, 1], &[rows]).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let [x, w, b] = tensors(dtype);
        let input = LinearInput::new(x.view(), w.view(), target.view()).linear_bias(b.view());
        let loss = LinearCrossEntropy::default();
        for (name, device) in devices() {
            let fresh = loss.forward_backward(device, &input, 1.0).unwrap();
            let fresh = [fresh.input, fresh.linear_weight, fresh.linear_bias.unwrap()];
            for (accumulate, accumulate_input) in [(true, true), (true, false), (false, true)] {
                let before = [&x, &w, &b];
                let mut grads = before.map(Tensor::clone);
                let [dx, dw, db] = grads.each_mut().map(Tensor::view_mut);
                let gradients = LinearGradOut {
                    input: Some(dx),
                    linear_weight: Some(dw),
                    linear_bias: Some(db),
                    accumulate,
                    accumulate_input,
                    ..LinearGradOut::default()
                };
                loss.backward_into(device, &input, 1.0, gradients).unwrap();
                let added = [accumulate_input, accumulate, accumulate];
                for (((got, before), fresh), added) in
                    grads.iter().zip(before).zip(&fresh).zip(added)
                {
                    let before = values(before).into_iter().map(|v| if added { v } else { 0.0 });
                    for ((got, before), fresh) in values(got).iter().zip(before).zip(values(fresh))
                    {
                        let steps = if dtype == DType::F32 { 1e-6 } else { 1e-2 };
                        let near =
                            (got - before - fresh).abs() <= steps * (before.abs() + fresh.abs());
                        assert!(near, "{name}, {dtype}: {got}, not {before} + {fresh}");
                    }
                }
            }
        }
    }
}
