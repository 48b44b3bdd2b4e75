//! What must hold whatever the numbers are.

use super::*;
use std::sync::Arc;
use warploss::{ClassOrder, Reduction};

const FEATURES: usize = 6;
const CLASSES: usize = 50;
const CUTOFFS: [usize; 2] = [7, 21];

fn adaptive<'w>() -> AdaptiveLogSoftmax<'w> {
    AdaptiveLogSoftmax::new(FEATURES, CLASSES, &CUTOFFS).div_value(2.0)
}

fn setting(rows: usize, seed: u64) -> (AdaptiveParameters<Tensor>, Tensor) {
    let parameters = adaptive().init(DType::F32, seed).unwrap();
    let input = floats(DType::F32, &[rows, FEATURES], &noise(seed, rows * FEATURES));
    (parameters, input)
}

#[test]
fn probabilities_sum_to_1_and_contain_the_output() {
    let (parameters, input) = setting(9, 11);
    let (view, device) = (parameters.view(), Device::cpu());
    let log_prob = adaptive().log_prob(&device, &view, input.view()).unwrap();
    let target: Vec<i64> = (0..9).map(|r| (r * 13) % CLASSES as i64).collect();
    let target_view = TensorRef::new(&target, &[9]).unwrap();
    let out = adaptive().forward(&device, &view, input.view(), target_view).unwrap();
    for (row, logp) in values(&log_prob).chunks_exact(CLASSES).enumerate() {
        let sum: f64 = logp.iter().map(|p| p.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "row {row}: {sum}");
        let own = values(&out.output)[row];
        assert!((logp[target[row] as usize] - own).abs() < 1e-6, "row {row}");
    }
}

#[test]
fn the_k_best_are_those_of_the_whole_distribution() {
    for (seed, rows, k) in [(1, 1, 1), (2, 70, 3), (3, 5, CLASSES), (4, 130, 12)] {
        let (mut parameters, input) = setting(rows, seed);
        // Some classes that tie, and a cluster that is likelier than the shortlist.
        let mut head = values(&parameters.head_weight);
        let shared = head[..FEATURES].to_vec();
        head[FEATURES..2 * FEATURES].copy_from_slice(&shared);
        head[8 * FEATURES..].iter_mut().for_each(|w| *w *= 8.0);
        parameters.head_weight = floats(DType::F32, &[9, FEATURES], &head);
        let (view, device) = (parameters.view(), Device::cpu_with_threads(2).unwrap());
        let log_prob = adaptive().log_prob(&device, &view, input.view()).unwrap();
        let (classes, best) = adaptive().top_k(&device, &view, input.view(), k).unwrap();
        assert_eq!(*classes.shape(), [rows, k]);
        let (classes, best) = (classes.as_slice::<i64>().unwrap(), values(&best));
        for (row, logp) in values(&log_prob).chunks_exact(CLASSES).enumerate() {
            let mut sorted: Vec<usize> = (0..CLASSES).collect();
            sorted.sort_by(|&a, &b| logp[b].total_cmp(&logp[a]));
            for n in 0..k {
                let (class, value) = (classes[row * k + n] as usize, best[row * k + n]);
                // Whole tiles and parts of them may round a logit differently.
                assert!((value - logp[class]).abs() < 2e-6, "row {row}, {n}");
                assert!((value - logp[sorted[n]]).abs() < 2e-6, "row {row}, {n}");
            }
            let mut seen = classes[row * k..][..k].to_vec();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), k, "row {row}: a class twice");
        }
    }
}

#[test]
fn of_equals_the_lowest_class_is_predicted() {
    let loss = AdaptiveLogSoftmax::new(1, 4, &[3]).div_value(2.0);
    // Width 0: the last class has the cluster's whole probability.
    let head = floats(DType::F32, &[4, 1], &[1.0, 3.0, 3.0, 3.0]);
    let tail = AdaptiveTail {
        projection: floats(DType::F32, &[0, 1], &[]),
        weight: floats(DType::F32, &[1, 0], &[]),
    };
    let parameters = AdaptiveParameters { head_weight: head, head_bias: None, tails: vec![tail] };
    let input = floats(DType::F32, &[1], &[2.0]);
    let device = Device::cpu();
    let best = loss.predict(&device, &parameters.view(), input.view()).unwrap();
    assert_eq!(best.as_slice::<i64>(), Some(&[1][..]));
    let (classes, _) = loss.top_k(&device, &parameters.view(), input.view(), 4).unwrap();
    assert_eq!(classes.as_slice::<i64>(), Some(&[1, 2, 3, 0][..]));
}

#[test]
fn an_order_renames_classes_and_nothing_else() {
    let (parameters, input) = setting(20, 21);
    let counts: Vec<u64> = noise(5, CLASSES).iter().map(|u| (u.abs() * 30.0) as u64).collect();
    let order = Arc::new(ClassOrder::from_counts(&counts).unwrap());
    let renamed = adaptive().class_order(Some(order.clone()));
    let places: Vec<i64> = (0..20).map(|r| (r * 7) % CLASSES as i64).collect();
    let classes: Vec<i64> =
        places.iter().map(|&p| order.class(p as usize).unwrap() as i64).collect();
    let (view, device) = (parameters.view(), Device::cpu());
    let [places, classes] = [&places, &classes].map(|t| TensorRef::new(t, &[20]).unwrap());
    let plain = adaptive().forward_backward(&device, &view, input.view(), places, 1.0).unwrap();
    let other = renamed.forward_backward(&device, &view, input.view(), classes, 1.0).unwrap();
    assert_eq!(plain, other);
    let of_place = adaptive().log_prob(&device, &view, input.view()).unwrap();
    let of_class = renamed.log_prob(&device, &view, input.view()).unwrap();
    let [of_place, of_class] = [values(&of_place), values(&of_class)];
    for (at, value) in of_class.iter().enumerate() {
        let place = order.place(at % CLASSES).unwrap();
        assert_eq!(*value, of_place[at / CLASSES * CLASSES + place]);
    }
    let best = adaptive().predict(&device, &view, input.view()).unwrap();
    let named = renamed.predict(&device, &view, input.view()).unwrap();
    let best = best.as_slice::<i64>().unwrap().iter().map(|&p| order.class(p as usize).unwrap());
    assert!(best.eq(named.as_slice::<i64>().unwrap().iter().map(|&c| c as usize)));
}

#[test]
fn ignored_rows_are_not_read_and_have_no_gradient() {
    let (parameters, input) = setting(8, 31);
    let loss = adaptive().ignore_index(Some(-1)).reduction(Reduction::None);
    let mut poisoned = values(&input);
    let mut target: Vec<i64> = (0..8).map(|r| r * 6).collect();
    for row in [0, 3, 7] {
        poisoned[row * FEATURES..][..FEATURES].fill(f64::NAN);
        target[row] = -1;
    }
    let poisoned = floats(DType::F32, &[8, FEATURES], &poisoned);
    let target = TensorRef::new(&target, &[8]).unwrap();
    let (view, device) = (parameters.view(), Device::cpu());
    let [clean, dirty] = [&input, &poisoned]
        .map(|x| loss.forward_backward(&device, &view, x.view(), target, 1.0).unwrap());
    assert_eq!(clean, dirty);
    let grad = values(&dirty.input);
    assert!(
        [0, 3, 7].iter().all(|row| grad[row * FEATURES..][..FEATURES].iter().all(|&g| g == 0.0))
    );
    assert!(values(&dirty.output.loss).iter().all(|loss| loss.is_finite()));
    // All ignored: the mean is NaN, gradients are zeros.
    let target = TensorRef::new(&[-1i64; 8], &[8]).unwrap();
    let loss = adaptive().ignore_index(Some(-1));
    let none = loss.forward_backward(&device, &view, poisoned.view(), target, 1.0).unwrap();
    assert!(none.output.loss.item().unwrap().is_nan());
    let mut grads = none.parameters.into_named();
    grads.push(("input".into(), none.input));
    assert!(grads.iter().all(|(_, grad)| values(grad).iter().all(|&g| g == 0.0)));
}

#[test]
fn gradients_add_up_where_asked_and_padding_is_left_alone() {
    for dtype in [DType::F32, DType::BF16] {
        let loss = adaptive();
        let parameters = loss.init(dtype, 41).unwrap();
        let input = floats(dtype, &[5, FEATURES], &noise(41, 5 * FEATURES));
        // The last cluster has no row: what is there stays, to the bit.
        let target = TensorRef::new(&[0i64, 3, 8, 20, 6], &[5]).unwrap();
        let (view, device) = (parameters.view(), Device::cpu());
        let fresh = loss.forward_backward(&device, &view, input.view(), target, 1.0).unwrap();
        let mut grads = loss.init(dtype, 42).unwrap();
        let before = grads.clone();
        let mut padded = floats(dtype, &[5, FEATURES + 2], &[7.5; 5 * (FEATURES + 2)]);
        let mut output = Tensor::from_vec(vec![0f32; 5], &[5]).unwrap();
        let mut value = Tensor::from_vec(vec![0f32], &[]).unwrap();
        let out = LayerOut { output: output.view_mut(), loss: value.view_mut() };
        let gradients = LayerGradOut {
            input: Some(padded.view_as_mut(&[5, FEATURES], FEATURES + 2).unwrap()),
            parameters: Some(grads.view_mut()),
            accumulate: true,
        };
        let data = (input.view(), target);
        loss.forward_backward_into(&device, &view, data, 1.0, (out, gradients)).unwrap();
        for (row, (padded, fresh)) in values(&padded)
            .chunks(FEATURES + 2)
            .zip(values(&fresh.input).chunks(FEATURES))
            .enumerate()
        {
            assert_eq!((&padded[..FEATURES], &padded[FEATURES..]), (fresh, &[7.5; 2][..]), "{row}");
        }
        let [before, fresh] = [before, fresh.parameters].map(AdaptiveParameters::into_named);
        for (((key, sum), (_, a)), (_, b)) in grads.into_named().iter().zip(&before).zip(&fresh) {
            for (got, (a, b)) in values(sum).iter().zip(values(a).iter().zip(values(b))) {
                // The fresh gradient was rounded by itself.
                let expected = a + b;
                let off = tolerance(dtype, expected, 1.0) + tolerance(dtype, b, 1.0);
                let close = (got - expected).abs() <= off;
                assert!(close, "{dtype} {key}: {got} {expected}");
            }
            if key.starts_with("tail.1") {
                assert_eq!(sum, a, "{key}");
            }
        }
    }
}

#[test]
fn samples_come_as_often_as_their_probabilities_say() {
    const ROWS: usize = 20_000;
    let (parameters, input) = setting(1, 51);
    let row = values(&input);
    let rows: Vec<f64> = std::iter::repeat_n(row, ROWS).flatten().collect();
    let rows = floats(DType::F32, &[ROWS, FEATURES], &rows);
    let (view, device) = (parameters.view(), Device::cpu());
    let log_prob = values(&adaptive().log_prob(&device, &view, input.view()).unwrap());
    let drawn = adaptive().sample(&device, &view, rows.view(), 5).unwrap();
    let mut seen = [0f64; CLASSES];
    drawn.as_slice::<i64>().unwrap().iter().for_each(|&class| seen[class as usize] += 1.0);
    let chi_square: f64 = (seen.iter().zip(&log_prob))
        .map(|(seen, logp)| {
            let expected = logp.exp() * ROWS as f64;
            (seen - expected).powi(2) / expected
        })
        .sum();
    // 49 degrees of freedom: beyond 95 once in ten thousand.
    assert!(chi_square < 95.0, "{chi_square}");
    let again = adaptive().sample(&devices()[1], &view, rows.view(), 5).unwrap();
    assert_eq!(drawn, again);
    assert_ne!(drawn, adaptive().sample(&device, &view, rows.view(), 6).unwrap());
}

#[test]
fn new_parameters_follow_pytorchs_rule() {
    let loss = AdaptiveLogSoftmax::new(64, 1000, &[100]).head_bias(true);
    let parameters = loss.init(DType::F32, 1).unwrap();
    assert_eq!(parameters, loss.init(DType::F32, 1).unwrap());
    assert_ne!(parameters, loss.init(DType::F32, 2).unwrap());
    let bounds = [64.0, 64.0, 64.0, 16.0].map(|fan_in: f64| 1.0 / fan_in.sqrt());
    for ((key, tensor), bound) in parameters.into_named().iter().zip(bounds) {
        let values = values(tensor);
        let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(largest <= bound && largest > 0.95 * bound, "{key}: {largest}");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 5.0 * bound / (3.0 * values.len() as f64).sqrt(), "{key}: {mean}");
    }
}

/// A row beside +∞ or NaN has no distribution: all of it is NaN, on every device, as it is for a log-softmax.
#[test]
fn what_is_no_number_takes_its_row_along_and_comes_first() {
    let (mut parameters, input) = setting(6, 12);
    let features = input.shape()[1];
    let mut numbers = values(&input);
    for (row, bad) in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().enumerate() {
        numbers[row * features + 2] = bad;
    }
    let input = floats(DType::F32, &[6, features], &numbers);
    let shape = parameters.tails[1].weight.shape();
    let mut weight = values(&parameters.tails[1].weight);
    (weight[7], weight[8]) = (f64::NAN, f64::INFINITY);
    parameters.tails[1].weight = floats(DType::F32, &shape, &weight);
    let (loss, view) = (adaptive().reduction(Reduction::None), parameters.view());
    let class = loss.cluster(1).end as i64 - 1;
    let targets = [0, 1, class, 2, class, CUTOFFS[0] as i64];
    let target = TensorRef::new(&targets, &[6]).unwrap();
    for (device, _) in everywhere(DType::F32) {
        let all = values(&loss.log_prob(&device, &view, input.view()).unwrap());
        let row = |row: usize| &all[row * loss.classes()..][..loss.classes()];
        assert!((0..3).all(|at| row(at).iter().all(|v| v.is_nan())));
        for at in 3..6 {
            for (class, value) in row(at).iter().enumerate() {
                assert_eq!(value.is_nan(), loss.cluster(1).contains(&class), "{at} {class}");
            }
        }
        let none = GradOutput::from(1.0);
        let grad = loss.forward_backward(&device, &view, input.view(), target, none);
        let grad = grad.unwrap();
        let nan = |t: &Tensor| values(t).iter().map(|v| v.is_nan()).collect::<Vec<_>>();
        assert_eq!(nan(&grad.output.output), [true, true, true, false, true, false]);
        let of_rows: Vec<bool> = values(&grad.input)
            .chunks(features)
            .map(|row| row.iter().all(|v| v.is_nan()))
            .collect();
        assert_eq!(of_rows, [true, true, true, false, true, false]);
        for k in [1, 12, CLASSES] {
            let cpu = Device::cpu();
            let (expected, _) = loss.top_k(&cpu, &view, input.view(), k).unwrap();
            let (classes, top) = loss.top_k(&device, &view, input.view(), k).unwrap();
            assert_eq!(classes, expected, "{k}");
            let first: Vec<i64> = (0..k as i64).collect();
            assert_eq!(classes.as_slice::<i64>().unwrap()[..k], first);
            assert!(values(&top)[..3 * k].iter().all(|v| v.is_nan()));
            // A cluster that the head decides against is not looked at; with all classes it is.
            if k == CLASSES {
                let first = classes.as_slice::<i64>().unwrap()[3 * k];
                assert_eq!(first as usize, loss.cluster(1).start, "NaN beats all");
            }
        }
    }
}
