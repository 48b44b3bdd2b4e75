//! On an imitated card: the same answers as on the CPU, from rows that are grouped on the device.

mod bias;
mod distributions;
mod narrow;
mod wide;

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
                    let what = format!("{dtype} {rows} {workspace}");
                    if workspace > 1 || dtype == DType::F32 {
                        assert_alike(&what, &got, &expected);
                        continue;
                    }
                    assert_near(&what, &got.output.output, &values(&expected.output.output));
                    assert_near(&what, &got.input, &values(&expected.input));
                    let expected = expected.parameters.clone().into_named();
                    for ((key, got), (_, expected)) in
                        got.parameters.into_named().iter().zip(expected)
                    {
                        assert_summed(&format!("{what} {key}"), got, &values(&expected), rows);
                    }
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
    let out =
        CrossEntropyOut { argmax: Some(to.view_mut()), ..CrossEntropyOut::loss(loss.view_mut()) };
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
