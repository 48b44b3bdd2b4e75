//! On an imitated card: the same answers as on the CPU, from rows that are grouped on the device.

use super::*;
use std::sync::Arc;
use warploss::emulator::Description;
use warploss::{ClassOrder, CrossEntropy, CrossEntropyOut, LayerGrad, Reduction};

pub(super) fn cards() -> [Device; 2] {
    [
        Device::emulated(Description::tiny(), Some(7)).unwrap(),
        Device::emulated(Description::h100(), None).unwrap(),
    ]
}

const FEATURES: usize = 12;
const CLASSES: usize = 700;

fn adaptive<'w>() -> AdaptiveLogSoftmax<'w> {
    AdaptiveLogSoftmax::new(FEATURES, CLASSES, &[9, 40, 300]).div_value(2.0).head_bias(true)
}

/// A batch on the host.
struct Setting {
    parameters: AdaptiveParameters<Tensor>,
    input: Tensor,
    target: Tensor,
    weight: Tensor,
}

impl Setting {
    fn new(dtype: DType, rows: usize, seed: u64) -> Setting {
        let mut parameters = adaptive().init(dtype, seed).unwrap();
        for tail in &mut parameters.tails {
            let shape = tail.weight.shape();
            tail.weight = floats(dtype, &shape, &noise(seed + 1, shape.iter().product()));
        }
        let input = floats(dtype, &[rows, FEATURES], &noise(seed + 2, rows * FEATURES));
        let spread = noise(seed + 3, rows);
        let target: Vec<i64> =
            spread.iter().map(|u| (CLASSES as f64).powf(u.abs()) as i64 - 1).collect();
        let weight: Vec<f64> = noise(seed + 4, rows).iter().map(|u| u.abs()).collect();
        let target = Tensor::from_vec(target, &[rows]).unwrap();
        Setting { parameters, input, target, weight: floats(DType::F32, &[rows], &weight) }
    }

    fn on(&self, device: &Device) -> Setting {
        let up = |tensor: &Tensor| device.upload(tensor.view());
        Setting {
            parameters: self.parameters.try_map(|_, p| up(p)).unwrap(),
            input: up(&self.input).unwrap(),
            target: up(&self.target).unwrap(),
            weight: up(&self.weight).unwrap(),
        }
    }

    fn run(
        &self,
        device: &Device,
        loss: &AdaptiveLogSoftmax<'_>,
    ) -> LayerGrad<AdaptiveParameters<Tensor>> {
        let (input, target) = (self.input.view(), self.target.view());
        loss.forward_backward(device, &self.parameters.view(), input, target, 0.7).unwrap()
    }
}

/// All results on the host, by name.
fn named(grad: &LayerGrad<AdaptiveParameters<Tensor>>) -> Vec<(String, Tensor)> {
    let host = |tensor: &Tensor| tensor.to_host().unwrap();
    let mut all = vec![
        ("output".to_owned(), host(&grad.output.output)),
        ("loss".to_owned(), host(&grad.output.loss)),
        ("input".to_owned(), host(&grad.input)),
    ];
    all.extend(grad.parameters.clone().into_named().iter().map(|(k, p)| (k.clone(), host(p))));
    all
}

fn assert_alike(
    what: &str,
    got: &LayerGrad<AdaptiveParameters<Tensor>>,
    expected: &LayerGrad<AdaptiveParameters<Tensor>>,
) {
    for ((key, got), (_, expected)) in named(got).iter().zip(&named(expected)) {
        let what = format!("{what}: {key}");
        match expected.dtype() {
            // Losses of 16-bit logits are f32, and as far off as those are.
            DType::F32 if got.shape().len() < 2 => assert_near(&what, got, &values(expected)),
            DType::F32 => assert_close(&what, got, &values(expected)),
            _ => assert_near(&what, got, &values(expected)),
        }
    }
}

#[test]
fn a_card_agrees_with_the_cpu_in_chunks_of_any_size() {
    for (dtype, rows) in [(DType::F32, 1100), (DType::BF16, 130), (DType::F16, 3), (DType::F32, 0)]
    {
        let setting = Setting::new(dtype, rows, 3 + rows as u64);
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let loss = adaptive().row_weight(setting.weight.view()).reduction(reduction);
            let expected = setting.run(&Device::cpu(), &loss);
            for card in cards() {
                for workspace in [256 << 20, 40_000, 1] {
                    // One row a chunk takes its time.
                    if workspace == 1 && rows > 200 {
                        continue;
                    }
                    let got = setting.run(&card, &loss.clone().workspace(workspace));
                    assert_alike(&format!("{dtype} {rows} {workspace}"), &got, &expected);
                }
            }
        }
    }
}

#[test]
fn resident_tensors_stay_and_nobody_waits() {
    for card in cards() {
        let setting = Setting::new(DType::F32, 70, 5);
        let resident = setting.on(&card);
        let order: Vec<u32> = (0..CLASSES as u32).map(|i| (i * 3 + 5) % CLASSES as u32).collect();
        let order = Arc::new(ClassOrder::from_classes(order).unwrap());
        let ordered = || adaptive().class_order(Some(order.clone()));
        let loss = ordered().row_weight(resident.weight.view());
        let on_host = ordered().row_weight(setting.weight.view());
        let waits = card.driver_calls().unwrap().waits;
        let got = resident.run(&card, &loss);
        assert_eq!(card.driver_calls().unwrap().waits, waits, "a call waits");
        assert!(got.input.is_on_device() && got.parameters.tails[2].weight.is_on_device());
        let expected = setting.run(&Device::cpu(), &on_host);
        assert_alike("resident", &got, &expected);
        // The same bits as from the host, and from run to run.
        let from_host = setting.run(&card, &on_host);
        assert_eq!(named(&got), named(&from_host));
        assert_eq!(named(&got), named(&resident.run(&card, &loss)));
        card.check().unwrap();
    }
}

#[test]
fn a_captured_call_follows_its_inputs() {
    let [card, _] = cards();
    let first = Setting::new(DType::F32, 60, 21);
    let mut resident = first.on(&card);
    // Room for as many rows as can be in a cluster of this batch and of the next.
    let loss = adaptive().capacities(Some(vec![50, 50, 50])).ignore_index(Some(-7));
    let mut grads = resident.run(&card, &loss);
    let graph = {
        let view = resident.parameters.view();
        let data = (resident.input.view(), resident.target.view());
        let out =
            LayerOut { output: grads.output.output.view_mut(), loss: grads.output.loss.view_mut() };
        let gradients = LayerGradOut {
            input: Some(grads.input.view_mut()),
            parameters: Some(grads.parameters.view_mut()),
            accumulate: false,
        };
        let call = || loss.forward_backward_into(&card, &view, data, 0.7, (out, gradients));
        card.capture(call).unwrap()
    };
    // Another batch, in the same memory: other clusters have other numbers of rows.
    let target = Setting::new(DType::F32, 60, 77).target;
    let second = Setting { target, ..first };
    let expected = second.run(&Device::cpu(), &loss);
    write_targets(&card, &mut resident.target, &second.target);
    graph.replay().unwrap();
    card.check().unwrap();
    assert_alike("replayed", &grads, &expected);
}

/// Writes targets into memory on the card, which stays where it is: as what beats all others.
fn write_targets(card: &Device, to: &mut Tensor, targets: &Tensor) {
    let targets = targets.as_slice::<i64>().unwrap();
    let mut logits = vec![0f32; targets.len() * CLASSES];
    targets.iter().enumerate().for_each(|(r, &t)| logits[r * CLASSES + t as usize] = 9.0);
    let logits = TensorRef::new(&logits, &[targets.len(), CLASSES]).unwrap();
    let zeros = Tensor::from_vec(vec![0i64; targets.len()], &[targets.len()]).unwrap();
    let up = |tensor: TensorRef<'_>| card.upload(tensor).unwrap();
    let (logits, zeros) = (up(logits), up(zeros.view()));
    let mut loss = up(Tensor::from_vec(vec![0f32], &[]).unwrap().view());
    let out = CrossEntropyOut {
        loss: loss.view_mut(),
        lse: None,
        z_loss: None,
        argmax: Some(to.view_mut()),
        rank: None,
    };
    CrossEntropy::default().forward_into(card, logits.view(), zeros.view(), out).unwrap();
}

#[test]
fn gradients_are_added_to_what_is_there() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let setting = Setting::new(dtype, 90, 8);
        let loss = adaptive();
        let fresh = setting.run(&Device::cpu(), &loss);
        let before = loss.init(dtype, 55).unwrap();
        for card in cards() {
            for workspace in [256 << 20, 30_000] {
                let loss = loss.clone().workspace(workspace);
                let mut grads = before.clone();
                let mut output = Tensor::from_vec(vec![0f32; 90], &[90]).unwrap();
                let mut mean = Tensor::from_vec(vec![0f32], &[]).unwrap();
                let out = LayerOut { output: output.view_mut(), loss: mean.view_mut() };
                let gradients = LayerGradOut {
                    input: None,
                    parameters: Some(grads.view_mut()),
                    accumulate: true,
                };
                let data = (setting.input.view(), setting.target.view());
                let view = setting.parameters.view();
                loss.forward_backward_into(&card, &view, data, 0.7, (out, gradients)).unwrap();
                let parts = before.clone().into_named().into_iter();
                for ((key, got), ((_, before), (_, fresh))) in (grads.into_named().iter())
                    .zip(parts.zip(fresh.parameters.clone().into_named()))
                {
                    let sum: Vec<f64> =
                        values(&before).iter().zip(values(&fresh)).map(|(a, b)| a + b).collect();
                    match dtype {
                        DType::F32 => assert_close(key, got, &sum),
                        _ => assert_near(key, got, &sum),
                    }
                }
            }
        }
    }
}

#[test]
fn rows_that_do_not_count_are_not_read() {
    for card in cards() {
        let setting = Setting::new(DType::F32, 20, 4);
        let mut poisoned = values(&setting.input);
        let mut target = setting.target.as_slice::<i64>().unwrap().to_vec();
        for row in [0, 7, 19] {
            poisoned[row * FEATURES..][..FEATURES].fill(f64::NAN);
            target[row] = -1;
        }
        let loss = adaptive().ignore_index(Some(-1)).reduction(Reduction::None);
        let target = Tensor::from_vec(target, &[20]).unwrap();
        let clean = Setting { target: target.clone(), ..setting };
        let input = floats(DType::F32, &[20, FEATURES], &poisoned);
        let (parameters, weight) = (clean.parameters.clone(), clean.weight.clone());
        let dirty = Setting { parameters, input, target, weight };
        let [clean, dirty] = [&clean, &dirty].map(|setting| setting.run(&card, &loss));
        assert_eq!(named(&clean), named(&dirty));
        let grad = values(&dirty.input);
        let zero = |row: &usize| grad[row * FEATURES..][..FEATURES].iter().all(|&g| g == 0.0);
        assert!([0, 7, 19].iter().all(zero));
    }
}

#[test]
fn errors_come_where_results_are_read() {
    let [card, _] = cards();
    let setting = Setting::new(DType::F32, 30, 6);
    let with = |at: usize, class: i64| {
        let mut target = setting.target.as_slice::<i64>().unwrap().to_vec();
        target[at] = class;
        Tensor::from_vec(target, &[30]).unwrap()
    };
    let rows = |cluster: usize| {
        let classes = adaptive().cluster(cluster);
        let target = setting.target.as_slice::<i64>().unwrap();
        target.iter().filter(|&&t| classes.contains(&(t as usize))).count()
    };
    let negative = Tensor::from_vec([&[1f32; 29][..], &[-0.5]].concat(), &[30]).unwrap();
    assert!(rows(1) > 2);
    let few = vec![30, 2, 30];
    let full = format!("capacities: expected at most 2 rows of cluster 1, got {} rows", rows(1));
    // The loss, the targets, what is said, and whether all can lie on the card.
    let cases: [(AdaptiveLogSoftmax<'_>, Tensor, &str, bool); 5] = [
        (adaptive(), with(3, 700), "target: expected a class in [0, 700), got 700 at row 3", true),
        (
            adaptive(),
            with(0, -100),
            "target: expected a class in [0, 700), got -100 at row 0",
            true,
        ),
        (
            adaptive().ignore_index(Some(5)),
            with(29, 9999),
            "target: expected a class in [0, 700) or ignore_index 5, got 9999 at row 29",
            true,
        ),
        (
            adaptive().row_weight(negative.view()),
            with(0, 0),
            "row_weight: expected finite numbers ≥ 0, got -0.5 at row 29",
            false,
        ),
        (adaptive().capacities(Some(few)), with(0, 0), &full, true),
    ];
    for (loss, target, expected, resident) in cases {
        let view = setting.parameters.view();
        let result = loss.forward_backward(&card, &view, setting.input.view(), target.view(), 1.0);
        assert_eq!(result.unwrap_err().to_string(), expected);
        // Where results stay on the card, by `check`, and then all is as before.
        if resident {
            let target = card.upload(target.view()).unwrap();
            let resident = Setting { target, ..setting.on(&card) };
            let _ = resident.run(&card, &loss);
            assert_eq!(card.check().unwrap_err().to_string(), expected);
            card.check().unwrap();
        }
    }
    let wrong = adaptive().capacities(Some(vec![1])).init(DType::F32, 0).unwrap_err().to_string();
    assert_eq!(wrong, "capacities: expected one for each of 3 clusters (cutoffs), got 1");
}

#[test]
fn distributions_agree_with_the_cpu_in_chunks_of_any_size() {
    let order: Vec<u32> = (0..CLASSES as u32).map(|i| (i * 3 + 5) % CLASSES as u32).collect();
    let order = Arc::new(ClassOrder::from_classes(order).unwrap());
    for (rows, order) in [(50, None), (23, Some(order.clone())), (1, Some(order)), (0, None)] {
        let setting = Setting::new(DType::F32, rows, 14);
        let loss = adaptive().class_order(order);
        let (view, input, cpu) = (setting.parameters.view(), setting.input.view(), Device::cpu());
        let expected = loss.log_prob(&cpu, &view, input).unwrap();
        let [card, other] = cards();
        for (card, workspace) in
            [(&card, 256 << 20), (&card, 9000), (&other, 256 << 20), (&other, 1)]
        {
            let loss = loss.clone().workspace(workspace);
            let log_prob = loss.log_prob(card, &view, input).unwrap();
            assert_close("log_prob", &log_prob, &values(&expected));
            let best = loss.predict(card, &view, input).unwrap();
            assert_eq!(best, loss.predict(&cpu, &view, input).unwrap());
            let (classes, top) = loss.top_k(card, &view, input, 5).unwrap();
            let (_, on_cpu) = loss.top_k(&cpu, &view, input, 5).unwrap();
            assert_close("top", &top, &values(&on_cpu));
            let (classes, all) = (classes.as_slice::<i64>().unwrap(), values(&log_prob));
            for (at, (&class, value)) in classes.iter().zip(values(&top)).enumerate() {
                let of_class = all[at / 5 * CLASSES + class as usize];
                assert!((of_class - value).abs() <= 1e-5, "{at}: {value}, not {of_class}");
            }
            // The same numbers decide: only what lies at a rounded border may differ.
            let [drawn, on_cpu] =
                [card, &cpu].map(|device| loss.sample(device, &view, input, 5).unwrap());
            let pairs =
                drawn.as_slice::<i64>().unwrap().iter().zip(on_cpu.as_slice::<i64>().unwrap());
            let differ = pairs.filter(|(a, b)| a != b).count();
            assert!(differ <= rows / 20, "{differ} of {rows} draws differ");
        }
    }
}

#[test]
fn draws_come_as_often_as_their_probabilities_say() {
    const ROWS: usize = 4000;
    let [card, _] = cards();
    let one = Setting::new(DType::F32, 1, 33);
    let row = values(&one.input);
    let rows: Vec<f64> = std::iter::repeat_n(row, ROWS).flatten().collect();
    let input = floats(DType::F32, &[ROWS, FEATURES], &rows);
    let view = one.parameters.view();
    let log_prob = values(&adaptive().log_prob(&Device::cpu(), &view, one.input.view()).unwrap());
    let drawn = adaptive().sample(&card, &view, input.view(), 3).unwrap();
    let mut counts = vec![0f64; CLASSES];
    drawn.as_slice::<i64>().unwrap().iter().for_each(|&class| counts[class as usize] += 1.0);
    for (class, (count, logp)) in counts.iter().zip(log_prob).enumerate() {
        let expected = ROWS as f64 * logp.exp();
        let off = 5.0 * expected.max(1.0).sqrt();
        assert!((count - expected).abs() <= off, "class {class}: {count}, expected {expected}");
    }
}

/// Parameters whose head has so large a bias at its first class, or at its last cluster's column.
fn biased(seed: u64, of_cluster: bool) -> Setting {
    let mut setting = Setting::new(DType::F32, 40, seed);
    let bias = setting.parameters.head_bias.as_mut().unwrap();
    let mut numbers = values(bias);
    let column = if of_cluster { numbers.len() - 1 } else { 0 };
    numbers[column] = 60.0;
    *bias = floats(DType::F32, &bias.shape(), &numbers);
    setting
}

#[test]
fn rows_that_the_head_decides_go_through_no_cluster() {
    for card in cards() {
        let [decided, undecided] = [false, true].map(|of_cluster| biased(3, of_cluster));
        let launches = |setting: &Setting| {
            let before = card.driver_calls().unwrap().launches;
            let (view, x) = (setting.parameters.view(), setting.input.view());
            let best = adaptive().predict(&card, &view, x).unwrap();
            assert_eq!(best, adaptive().predict(&Device::cpu(), &view, x).unwrap());
            let drawn = adaptive().sample(&card, &view, x, 5).unwrap();
            assert_eq!(drawn, adaptive().sample(&Device::cpu(), &view, x, 5).unwrap());
            (card.driver_calls().unwrap().launches - before, best, drawn)
        };
        let (few, best, drawn) = launches(&decided);
        assert!(best.as_slice::<i64>().unwrap().iter().all(|&class| class == 0));
        assert_eq!(best, drawn);
        let (many, best, _) = launches(&undecided);
        assert!(best.as_slice::<i64>().unwrap().iter().all(|&class| class >= 300));
        assert!(few < many, "{few} launches, {many}");
        // Nobody reads what is not needed.
        let mut poisoned = biased(3, false);
        for tail in &mut poisoned.parameters.tails {
            let shape = tail.weight.shape();
            tail.weight = floats(DType::F32, &shape, &vec![f64::NAN; shape.iter().product()]);
        }
        assert_eq!(launches(&poisoned).0, few);
    }
}

#[test]
fn picks_that_are_captured_follow_their_inputs() {
    let [card, _] = cards();
    let setting = Setting::new(DType::F32, 60, 21).on(&card);
    let view = setting.parameters.view();
    let pick = || {
        let (classes, _) = adaptive().top_k(&card, &view, setting.input.view(), 4)?;
        Ok([classes, adaptive().sample(&card, &view, setting.input.view(), 3)?])
    };
    let expected = pick().unwrap().map(|on_card| on_card.to_host().unwrap());
    let mut picked = None;
    let graph = card.capture(|| pick().map(|all| picked = Some(all))).unwrap();
    graph.replay().unwrap();
    for (got, expected) in picked.unwrap().iter().zip(&expected) {
        assert_eq!(got.to_host().unwrap(), *expected);
    }
}

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
                    assert_near(&format!("{what} {key}"), got, &expected.values);
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
