//! Beside a plain f64 computation: sizes that golden files do not reach.

use super::*;
use warploss::check::reference;

/// Few rows and many classes (tiles), many rows and few classes, wide and narrow, in every type.
#[test]
fn clusters_of_any_size_agree_with_f64() {
    // Rows, features, classes, cutoffs, div_value, bias.
    type Size<'a> = (usize, usize, usize, &'a [usize], f64, bool);
    let sizes: [Size<'_>; 5] = [
        (150, 12, 40_000, &[5, 600], 2.0, true),
        (6, 8, 1_000_003, &[3], 2.0, false),
        (600, 9, 9_000, &[300, 1_100], 3.0, true),
        (3, 300, 5_000, &[4_000], 1.0, true),
        (33, 5, 200_000, &[1, 2], 5.0, false),
    ];
    for (rows, features, classes, cutoffs, div_value, bias) in sizes {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let loss = AdaptiveLogSoftmax::new(features, classes, cutoffs)
                .div_value(div_value)
                .head_bias(bias)
                .reduction(warploss::Reduction::None);
            let mut parameters = loss.init(dtype, 3).unwrap();
            // Larger than PyTorch's, so that probabilities differ.
            for tail in &mut parameters.tails {
                let shape = tail.weight.shape();
                tail.weight = floats(dtype, &shape, &noise(5, shape.iter().product()));
            }
            let input = floats(dtype, &[rows, features], &noise(1, rows * features));
            let spread = noise(2, rows);
            let targets: Vec<usize> = (spread.iter())
                .map(|u| ((classes as f64).powf(u.abs()) as usize).min(classes) - 1)
                .collect();
            let upstream = noise(4, rows);
            let g: Vec<f32> = upstream.iter().map(|&g| g as f32).collect();
            let upstream: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
            let target: Vec<i64> = targets.iter().map(|&t| t as i64).collect();
            let wide = parameters.try_map::<_, ()>(|_, p| Ok(values(p))).unwrap();
            let data = (&values(&input)[..], &target[..]);
            let expected = reference::adaptive_log_softmax(&loss, &wide, data, &upstream);
            let expected_grads = expected.grads.into_named();
            let target = TensorRef::new(&target, &[rows]).unwrap();
            let g = TensorRef::new(&g, &[rows]).unwrap();
            let what = format!("{rows} × {features}, {classes} {cutoffs:?} {dtype}");
            let mut before = None;
            for device in devices() {
                let view = parameters.view();
                let out = loss.forward(&device, &view, input.view(), target).unwrap();
                assert_close(&format!("{what} output"), &out.output, &expected.output.values);
                let grad = loss.forward_backward(&device, &view, input.view(), target, g).unwrap();
                assert_close(
                    &format!("{what} output"),
                    &grad.output.output,
                    &expected.output.values,
                );
                assert_close(
                    &format!("{what} grad_input"),
                    &grad.input,
                    &expected.grad_input.values,
                );
                let named = grad.parameters.clone().into_named();
                for ((key, got), (expected_key, expected)) in named.iter().zip(&expected_grads) {
                    assert_eq!(key, expected_key);
                    assert_close(&format!("{what} grad_{key}"), got, &expected.values);
                }
                let bits = before.get_or_insert_with(|| grad.clone());
                assert!(*bits == grad, "{what}: threads change bits");
            }
        }
    }
}
