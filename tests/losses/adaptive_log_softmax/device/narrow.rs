//! Clusters whose logits never reach memory.

use super::*;

/// Clusters of few features have no logits in memory: several blocks of rows, splits of the classes, and
/// widths around a fragment's 16, against f64.
#[test]
fn narrow_clusters_agree_with_f64() {
    use warploss::check::reference;
    // Rows, widths, classes and cutoffs.
    let sizes: [(usize, [usize; 2], usize, [usize; 2]); 4] = [
        (300, [16, 17], 3000, [10, 140]),
        (130, [64, 1], 1300, [100, 101]),
        (5, [33, 65], 5000, [3, 4000]),
        (1, [15, 32], 66, [1, 2]),
    ];
    for (case, (rows, widths, classes, cutoffs)) in sizes.into_iter().enumerate() {
        for dtype in [DType::F16, DType::BF16] {
            let loss = AdaptiveLogSoftmax::new(70, classes, &cutoffs)
                .widths(Some(widths.to_vec()))
                .ignore_index(Some(-1));
            let shapes = loss.shapes().unwrap();
            let parameters = shapes
                .try_map::<_, ()>(|key, shape| {
                    let numbers = noise(key.len() as u64 + 9, shape.iter().product());
                    Ok(floats(dtype, shape, &numbers.iter().map(|u| u * 0.4).collect::<Vec<_>>()))
                })
                .unwrap();
            let input = floats(dtype, &[rows, 70], &noise(case as u64, rows * 70));
            let mut targets: Vec<i64> =
                noise(2, rows).iter().map(|u| (u.abs() * classes as f64) as i64).collect();
            targets.iter_mut().skip(2).step_by(7).for_each(|t| *t = -1);
            let wide = parameters.try_map::<_, ()>(|_, p| Ok(values(p))).unwrap();
            let data = (&values(&input)[..], &targets[..]);
            let expected = reference::adaptive_log_softmax(&loss, &wide, data, &[0.7]);
            let target = Tensor::from_vec(targets.clone(), &[rows]).unwrap();
            let setting =
                Setting { parameters, input, target, weight: floats(DType::F32, &[1], &[1.0]) };
            let mut bits = None;
            for (card, workspace) in cards().iter().zip([40_000, 256 << 20]) {
                let grad = setting.run(card, &loss.clone().workspace(workspace));
                let what = format!("{rows} {widths:?} {dtype}");
                assert_near(&what, &grad.output.output, &expected.output.values);
                assert_near(&what, &grad.input, &expected.grad_input.values);
                let named = grad.parameters.clone().into_named();
                for ((key, got), (_, expected)) in
                    named.iter().zip(expected.grads.clone().into_named())
                {
                    let what = format!("{what} {key}");
                    match 4 * expected.values.len() > workspace {
                        true => assert_summed(&what, got, &expected.values, rows.div_ceil(142)),
                        false => assert_near(&what, got, &expected.values),
                    }
                }
                let again = setting.run(card, &loss.clone().workspace(256 << 20));
                assert!(*bits.get_or_insert_with(|| again.clone()) == again, "{what}: bits");
            }
        }
    }
}

/// A confident cluster: the target's gradient is made of what misses, not of 1 − p.
#[test]
fn narrow_clusters_keep_the_digits_of_small_gradients() {
    let loss = AdaptiveLogSoftmax::new(1, 4, &[1]).widths(Some(vec![1]));
    let one = |shape: &[usize], numbers: &[f64]| floats(DType::BF16, shape, numbers);
    let tail =
        AdaptiveTail { projection: one(&[1, 1], &[1.0]), weight: one(&[3, 1], &[18.0, 0.0, 0.0]) };
    let parameters = AdaptiveParameters {
        head_weight: one(&[2, 1], &[0.0, 0.0]),
        head_bias: None,
        tails: vec![tail],
    };
    let setting = Setting {
        parameters,
        input: one(&[1, 1], &[1.0]),
        target: Tensor::from_vec(vec![1i64], &[1]).unwrap(),
        weight: floats(DType::F32, &[1], &[1.0]),
    };
    let miss = 2.0 * (-18f64).exp() / (1.0 + 2.0 * (-18f64).exp());
    for card in cards() {
        let grad = setting.run(&card, &loss);
        let got = values(&grad.parameters.tails[0].weight);
        let expected = [-0.7 * miss, 0.35 * miss, 0.35 * miss];
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= 0.01 * expected.abs(), "{got}, not {expected}");
        }
        let output = values(&grad.output.output)[0];
        assert!((output - 0.5f64.ln() + miss.ln_1p()).abs() < 1e-6, "{output}");
    }
}

/// Lanes that read or write shared memory at once have a bank each, in all that a call of narrow clusters launches.
#[test]
fn narrow_clusters_lose_no_turn_at_a_bank() {
    for (dtype, widths) in [(DType::F16, [16, 64]), (DType::BF16, [16, 64]), (DType::BF16, [7, 33])]
    {
        let loss =
            AdaptiveLogSoftmax::new(FEATURES, CLASSES, &[9, 300]).widths(Some(widths.into()));
        let shapes = loss.shapes().unwrap();
        let of = |shape: &[usize]| floats(dtype, shape, &noise(5, shape.iter().product()));
        let parameters = shapes.try_map::<_, ()>(|_, shape| Ok(of(shape))).unwrap();
        let setting = Setting { parameters, ..Setting::new(dtype, 150, 3) };
        let description = Description { bank_conflicts: true, ..Description::h100() };
        let card = Device::emulated(description, None).unwrap();
        setting.run(&card, &loss);
        card.synchronize().unwrap();
        assert_eq!(card.driver_calls().unwrap().bank_conflicts, 0, "{dtype} {widths:?}");
    }
}
