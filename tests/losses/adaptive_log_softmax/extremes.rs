//! Numbers at the ends of what they can be: logits far from 0, infinite and undefined weights; the same on
//! every device.

use super::*;
use warploss::Reduction;

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// One feature, two frequent classes and three of a cluster, all with the same logit.
fn equals(dtype: DType) -> (AdaptiveLogSoftmax<'static>, AdaptiveParameters<Tensor>) {
    let loss = AdaptiveLogSoftmax::new(1, 5, &[2]).widths(Some(vec![1]));
    let ones = |n: usize| floats(dtype, &[n, 1], &vec![1.0; n]);
    let tail = AdaptiveTail { projection: ones(1), weight: ones(3) };
    (loss, AdaptiveParameters { head_weight: ones(3), head_bias: None, tails: vec![tail] })
}

/// A common offset costs no digits, however large: the log of a sum is not added to it.
#[test]
fn probabilities_add_up_to_1_at_any_offset() {
    let third = -(3f64.ln());
    let expected = [third, third, 2.0 * third, 2.0 * third, 2.0 * third];
    for (dtype, offset) in [0.0, 1e4, -6e4, 1e8, 1e17, -1e17, 1e30, 3e38]
        .into_iter()
        .flat_map(|offset| TYPES.map(|dtype| (dtype, offset)))
        .filter(|&(dtype, offset): &(DType, f64)| dtype != DType::F16 || offset.abs() < 65504.0)
    {
        let (loss, parameters) = equals(dtype);
        let view = parameters.view();
        let input = floats(dtype, &[2, 1], &[offset, 1.0]);
        let targets: [i64; 2] = [1, 4];
        let target = TensorRef::new(&targets, &[2]).unwrap();
        for (device, _) in everywhere(dtype) {
            let near = |what: &str, got: &Tensor, expected: &[f64]| {
                for (got, expected) in values(got).iter().zip(expected) {
                    let what = format!("{what} at {offset} in {dtype}: {got}, not {expected}");
                    assert!((got - expected).abs() <= 1e-6, "{what}");
                }
            };
            let log_prob = loss.log_prob(&device, &view, input.view()).unwrap();
            near("log_prob", &log_prob, &[expected, expected].concat());
            let (classes, best) = loss.top_k(&device, &view, input.view(), 5).unwrap();
            near("top_k", &best, &[expected, expected].concat());
            assert_eq!(classes.as_slice::<i64>().unwrap()[..5], [0, 1, 2, 3, 4]);
            let out = loss.forward_backward(&device, &view, input.view(), target, 1.0).unwrap();
            near("output", &out.output.output, &[third, 2.0 * third]);
        }
    }
}

/// A width of each kind: a cluster whose logits are made where they are needed, and one that has them in
/// memory.
const WIDTHS: [usize; 2] = [5, 70];
const FEATURES: usize = 70;

fn layer(dtype: DType, width: usize) -> (AdaptiveLogSoftmax<'static>, AdaptiveParameters<Tensor>) {
    let loss = AdaptiveLogSoftmax::new(FEATURES, 30, &[6, 14])
        .widths(Some(vec![width; 2]))
        .ignore_index(Some(-1));
    let parameters = (loss.shapes().unwrap())
        .try_map::<_, ()>(|key, shape| {
            let numbers = noise(key.len() as u64, shape.iter().product());
            Ok(floats(dtype, shape, &numbers))
        })
        .unwrap();
    (loss, parameters)
}

/// The parameters with one number of a cluster replaced, of its projection or its weights.
fn with(
    parameters: &AdaptiveParameters<Tensor>,
    (cluster, projection): (usize, bool),
    number: f64,
) -> AdaptiveParameters<Tensor> {
    let mut changed = parameters.clone();
    let tail = &mut changed.tails[cluster];
    let tensor = if projection { &mut tail.projection } else { &mut tail.weight };
    let mut numbers = values(tensor);
    numbers[3] = number;
    *tensor = floats(tensor.dtype(), &tensor.shape(), &numbers);
    changed
}

#[test]
fn a_cluster_that_no_row_uses_is_not_read() {
    let infinities = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    for (case, (dtype, width)) in
        TYPES.into_iter().flat_map(|dtype| WIDTHS.map(|width| (dtype, width))).enumerate()
    {
        let (loss, clean) = layer(dtype, width);
        for (shape, targets) in [
            (&[4, FEATURES][..], &[0i64, 20, -1, 7][..]),
            (&[4, FEATURES], &[0, 20, -1, 29]),
            (&[FEATURES], &[3]),
            (&[0, FEATURES], &[]),
        ] {
            let input = floats(dtype, shape, &noise(1, shape.iter().product()));
            let target = TensorRef::new(targets, &[targets.len()]).unwrap();
            let used = |i: usize| {
                targets.iter().any(|&t| t >= 0 && loss.cluster(i).contains(&(t as usize)))
            };
            let unused = (0..2).filter(|&i| !used(i));
            for (cluster, projection) in unused.flat_map(|i| [(i, false), (i, true)]) {
                let number = infinities[(case + cluster + usize::from(projection)) % 3];
                let dirty = with(&clean, (cluster, projection), number);
                for (device, _) in everywhere(dtype) {
                    for workspace in [256 << 20, 3000] {
                        let loss = loss.clone().workspace(workspace);
                        let run = |parameters: &AdaptiveParameters<Tensor>| {
                            let view = parameters.view();
                            let out = loss.forward(&device, &view, input.view(), target).unwrap();
                            let grad = loss
                                .forward_backward(&device, &view, input.view(), target, 1.0)
                                .unwrap();
                            (out, grad)
                        };
                        let [expected, got] = [run(&clean), run(&dirty)];
                        let what =
                            format!("{dtype} {width} {shape:?} {cluster} {projection} {number}");
                        assert_eq!(bits(&expected.0.output), bits(&got.0.output), "{what}");
                        assert_eq!(bits(&expected.1.input), bits(&got.1.input), "{what}");
                        let named = expected.1.parameters.into_named().into_iter();
                        for ((key, expected), (_, got)) in named.zip(got.1.parameters.into_named())
                        {
                            assert_eq!(bits(&expected), bits(&got), "{what}: {key}");
                            let of_cluster = key.starts_with(&format!("tail.{cluster}."));
                            assert!(
                                !of_cluster || values(&got).iter().all(|&g| g == 0.0),
                                "{what}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Gradients through an infinite weight are no numbers, of whatever kind.
fn assert_alike(what: &str, got: &Tensor, expected: &Tensor) {
    let undefined = |v: f64| if v.is_finite() { v } else { f64::NAN };
    let of = |tensor: &Tensor| values(tensor).into_iter().map(undefined).collect::<Vec<_>>();
    assert_near(what, &floats(got.dtype(), &got.shape(), &of(got)), &of(expected));
}

fn bits(tensor: &Tensor) -> Vec<u64> {
    values(tensor).iter().map(|v| (v + 0.0).to_bits()).collect()
}

/// All clusters are read for all log-probabilities; a class whose weight is infinite is the same on every
/// device: impossible, or all of its cluster undefined.
#[test]
fn infinite_weights_are_alike_on_every_device() {
    for (dtype, width) in TYPES.into_iter().flat_map(|dtype| WIDTHS.map(|width| (dtype, width))) {
        let (loss, clean) = layer(dtype, width);
        let input = floats(dtype, &[5, FEATURES], &noise(4, 5 * FEATURES));
        let targets: [i64; 5] = [0, 6, 8, 20, 9];
        let target = TensorRef::new(&targets, &[5]).unwrap();
        for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            for projection in [false, true] {
                let parameters = with(&clean, (0, projection), number);
                let view = parameters.view();
                let cpu = Device::cpu();
                let log_prob = loss.log_prob(&cpu, &view, input.view()).unwrap();
                let out = loss.forward(&cpu, &view, input.view(), target).unwrap();
                let both = loss.forward_backward(&cpu, &view, input.view(), target, 1.0).unwrap();
                let best = loss.top_k(&cpu, &view, input.view(), 3).unwrap().0;
                let drawn = loss.sample(&cpu, &view, input.view(), 11).unwrap();
                for (device, _) in everywhere(dtype) {
                    let what = format!("{dtype} {width} {number} {projection}");
                    let got = loss.log_prob(&device, &view, input.view()).unwrap();
                    assert_near(&format!("{what} log_prob"), &got, &values(&log_prob));
                    let got = loss.forward(&device, &view, input.view(), target).unwrap();
                    assert_near(&format!("{what} output"), &got.output, &values(&out.output));
                    let got = loss.top_k(&device, &view, input.view(), 3).unwrap().0;
                    assert_eq!(got, best, "{what}");
                    assert_eq!(
                        loss.sample(&device, &view, input.view(), 11).unwrap(),
                        drawn,
                        "{what}"
                    );
                    let got =
                        loss.forward_backward(&device, &view, input.view(), target, 1.0).unwrap();
                    assert_alike(&format!("{what} input"), &got.input, &both.input);
                    let named = got.parameters.into_named().into_iter();
                    for ((key, got), (_, expected)) in
                        named.zip(both.parameters.clone().into_named())
                    {
                        assert_alike(&format!("{what} {key}"), &got, &expected);
                    }
                }
            }
        }
    }
}

/// Clusters are looked at in their order, each only where its column of the head can still beat the worst
/// of what was picked.
#[test]
fn a_cluster_that_an_earlier_one_rules_out_is_not_looked_at() {
    for dtype in TYPES {
        let (loss, mut parameters) = layer(dtype, 5);
        // The head's columns of the clusters, behind 6 classes: the first is by far the likeliest.
        let mut head = values(&parameters.head_weight);
        for (row, weight) in [(6, 1.0), (7, 0.1)] {
            head[row * FEATURES..][..FEATURES].fill(weight);
        }
        (0..6 * FEATURES).for_each(|i| head[i] = 0.0);
        parameters.head_weight = floats(dtype, &[8, FEATURES], &head);
        let parameters = with(&parameters, (1, false), f64::NAN);
        let input = floats(dtype, &[2, FEATURES], &[0.25; 2 * FEATURES]);
        let on_cpu = loss.predict(&Device::cpu(), &parameters.view(), input.view()).unwrap();
        assert!(on_cpu.as_slice::<i64>().unwrap().iter().all(|&class| (6..14).contains(&class)));
        for (device, _) in everywhere(dtype) {
            let got = loss.predict(&device, &parameters.view(), input.view()).unwrap();
            assert_eq!(got, on_cpu, "{dtype}");
        }
    }
}

/// Hidden states and logits beyond what their type can hold, and gradients below it.
#[test]
fn products_may_exceed_their_type() {
    for (dtype, width) in TYPES.into_iter().flat_map(|dtype| WIDTHS.map(|width| (dtype, width))) {
        let (loss, parameters) = layer(dtype, width);
        let loss = loss.reduction(Reduction::Sum);
        let large: Vec<f64> = noise(4, 4 * FEATURES).iter().map(|x| x * 30_000.0).collect();
        let input = floats(dtype, &[4, FEATURES], &large);
        let targets: [i64; 4] = [0, 6, 8, 20];
        let target = TensorRef::new(&targets, &[4]).unwrap();
        let wide = parameters.try_map::<_, ()>(|_, p| Ok(values(p))).unwrap();
        let reference = warploss::check::reference::adaptive_log_softmax(
            &loss,
            &wide,
            (&values(&input), &targets),
            &[1e-9],
        );
        assert!(reference.loss.values[0] > 65504.0);
        for (device, _) in everywhere(dtype) {
            let view = parameters.view();
            let grad = loss.forward_backward(&device, &view, input.view(), target, 1e-9).unwrap();
            assert_near("loss", &grad.output.loss, &reference.loss.values);
            let log_prob = loss.log_prob(&device, &view, input.view()).unwrap();
            assert_near("log_prob", &log_prob, &reference.log_prob.values);
            assert_near("input", &grad.input, &reference.grad_input.values);
            let named = grad.parameters.into_named().into_iter();
            for ((key, got), (_, expected)) in named.zip(reference.grads.clone().into_named()) {
                // Beside logits of 10^6 and more an exponential is all or nothing, but for ties.
                assert_near(&format!("{dtype} {width} {key}"), &got, &expected.values);
            }
        }
    }
}
