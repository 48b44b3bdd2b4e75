//! What is asked of logits that nobody sees is what cross entropy says of them where they are exact.

use super::{bits, everything, floats, noise, values};
use crate::harness::devices;
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, DType, LinearCrossEntropy, LinearInput,
    Reduction, Tensor, TopKOut,
};

#[test]
fn every_result_is_that_of_the_logits() {
    let (rows, features, classes, k) = (37, 6, 210, 100);
    // Whole numbers: no product is rounded, and many logits are equal.
    let whole =
        |seed, n| -> Vec<f64> { noise(seed, n).iter().map(|v| (3.0 * v).round()).collect() };
    let (x, w, b) = (whole(1, rows * features), whole(2, classes * features), whole(3, classes));
    let target: Vec<i64> =
        (0..rows).map(|row| if row == 5 { -100 } else { (row * 31 % classes) as i64 }).collect();
    let logits: Vec<f64> = (0..rows * classes)
        .map(|at| {
            let (row, class) = (at / classes, at % classes);
            let term = |i: usize| x[row * features + i] * w[class * features + i];
            (0..features).map(term).sum::<f64>() + b[class]
        })
        .collect();
    let target = Tensor::from_vec(target, &[rows]).unwrap();
    let upstream = CrossEntropyUpstream {
        grad_logprob: 0.3.into(),
        grad_entropy: (-0.2).into(),
        ..1.5.into()
    };
    for reduction in [Reduction::None, Reduction::Mean] {
        let loss = CrossEntropy::default()
            .reduction(reduction)
            .label_smoothing(0.1)
            .logit_scale(0.25)
            .softcap(Some(2.0))
            .lse_square_scale(0.01);
        let none = reduction == Reduction::None;
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let [x, w, b] =
                [(&x, &[rows, features][..]), (&w, &[classes, features]), (&b, &[classes])]
                    .map(|(values, shape)| floats(dtype, shape, values));
            let input = LinearInput::new(x.view(), w.view(), target.view()).linear_bias(b.view());
            for (name, device) in devices() {
                let linear = LinearCrossEntropy::from(loss.clone());
                let got = everything(device, &linear, &input, upstream, (none, k));
                let of = |name: &str| &got.iter().find(|(own, _)| *own == name).unwrap().1;
                let mut expected: Vec<(&str, Tensor)> =
                    got.iter().take(9).map(|(name, tensor)| (*name, tensor.clone())).collect();
                let mut z = floats(DType::F32, &[rows, classes], &logits);
                {
                    let mut views = expected.iter_mut().map(|(_, tensor)| tensor.view_mut());
                    let mut next = || views.next().unwrap();
                    let mut out = CrossEntropyOut::loss(next());
                    out.z_loss = Some(next());
                    out.lse = Some(next());
                    out.logprob = Some(next());
                    out.entropy = Some(next());
                    out.argmax = Some(next());
                    out.rank = Some(next());
                    out.top_k = Some(TopKOut { classes: next(), logprob: next() });
                    let view = z.view_mut();
                    loss.forward_backward_in_place(device, view, target.view(), upstream, out)
                        .unwrap();
                }
                for (what, expected) in &expected {
                    let rounded = matches!(*what, "loss" | "z_loss") && !none;
                    match rounded {
                        // Added up in another order.
                        true => {
                            let [a, b] = [of(what), expected].map(|t| t.item().unwrap());
                            assert!((a - b).abs() <= 1e-6 * b.abs(), "{name}: {what} {a}, {b}");
                        }
                        false => same(name, &format!("{dtype}: {what}"), of(what), expected),
                    }
                }
            }
        }
    }
}

/// The CPU's bits; a card may go through rows that lie otherwise by another schedule, and be a step off.
#[track_caller]
fn same(device: &str, what: &str, got: &Tensor, expected: &Tensor) {
    if device.starts_with("cpu") || got.dtype() == DType::I64 {
        return assert_eq!(bits(got), bits(expected), "{device}, {what}");
    }
    for (got, expected) in values(got).iter().zip(values(expected)) {
        let near = (got - expected).abs() <= 2.5e-7 * expected.abs().max(1.0);
        assert!(near, "{device}, {what}: {got}, not {expected}");
    }
}
