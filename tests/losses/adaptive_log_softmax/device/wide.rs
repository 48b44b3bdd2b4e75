//! Softmaxes of any width whose logits never reach memory, where few rows of them fit the workspace: the head, whose
//! rows are the input's own, and clusters, whose rows are f32.

use super::*;
use warploss::check::reference;

const ROWS: usize = 150;
const FEATURES: usize = 70;
/// Columns of the head and of two clusters: 519, 523 and 520.
const CUTOFFS: [usize; 2] = [517, 1040];
const CLASSES: usize = 1560;
/// Fewer rows of logits than a tile has, of each softmax, and a tile of rows with a slab of classes.
const SMALL: usize = 280_000;
const LARGE: usize = 256 << 20;

fn loss(widths: [usize; 2]) -> AdaptiveLogSoftmax<'static> {
    AdaptiveLogSoftmax::new(FEATURES, CLASSES, &CUTOFFS)
        .widths(Some(widths.to_vec()))
        .head_bias(true)
        .ignore_index(Some(-1))
}

/// A batch, numbers of its input and of its parameters of these sizes; some rows do not count.
fn setting(dtype: DType, widths: [usize; 2], sizes: [f64; 2]) -> Setting {
    let of = |seed: u64, shape: &[usize], size: f64| {
        let numbers = noise(seed, shape.iter().product());
        floats(dtype, shape, &numbers.iter().map(|u| u * size).collect::<Vec<_>>())
    };
    let shapes = loss(widths).shapes().unwrap();
    let parameters = shapes
        .try_map::<_, ()>(|key, shape| Ok(of(key.len() as u64 + 9, shape, sizes[1])))
        .unwrap();
    let mut targets: Vec<i64> =
        noise(2, ROWS).iter().map(|u| (u.abs() * CLASSES as f64) as i64).collect();
    targets.iter_mut().skip(2).step_by(7).for_each(|t| *t = -1);
    Setting {
        parameters,
        input: of(3, &[ROWS, FEATURES], sizes[0]),
        target: Tensor::from_vec(targets, &[ROWS]).unwrap(),
        weight: floats(DType::F32, &[1], &[1.0]),
    }
}

fn card(seed: u64) -> Device {
    Device::emulated(Description::a100(), Some(seed)).unwrap()
}

/// Whether a card has gone through logits in memory.
fn stored(card: &Device) -> bool {
    card.schedules().iter().any(|note| note.contains("CrossEntropy"))
}

fn expected(loss: &AdaptiveLogSoftmax<'_>, setting: &Setting) -> reference::AdaptiveReference {
    let wide = setting.parameters.try_map::<_, ()>(|_, p| Ok(values(p))).unwrap();
    let targets = setting.target.as_slice::<i64>().unwrap();
    reference::adaptive_log_softmax(loss, &wide, (&values(&setting.input), targets), &[0.7])
}

/// Both ways against f64; by tiles the same bits every time.
fn agrees(dtype: DType, widths: [usize; 2], sizes: [f64; 2]) {
    let (loss, setting) = (loss(widths), setting(dtype, widths, sizes));
    let expected = expected(&loss, &setting);
    let mut bits = None;
    for (workspace, seed) in [(LARGE, 1), (SMALL, 2), (SMALL, 3)] {
        let card = card(seed);
        let loss = loss.clone().workspace(workspace);
        let grad = setting.run(&card, &loss);
        let what = format!("{dtype} {widths:?} {workspace}");
        assert_eq!(stored(&card), workspace == LARGE, "{what}: {:?}", card.schedules());
        assert_near(&what, &grad.output.output, &expected.output.values);
        assert_near(&what, &grad.output.loss, &expected.loss.values);
        assert_near(&what, &grad.input, &expected.grad_input.values);
        let named = grad.parameters.clone().into_named();
        for ((key, got), (_, expected)) in named.iter().zip(expected.grads.clone().into_named()) {
            assert_near(&format!("{what} {key}"), got, &expected.values);
        }
        if workspace == SMALL {
            let (view, input) = (setting.parameters.view(), setting.input.view());
            let alone = loss.forward(&card, &view, input, setting.target.view()).unwrap();
            assert_eq!(alone, grad.output, "{what}");
            assert!(*bits.get_or_insert_with(|| named.clone()) == named, "{what}: bits");
        }
    }
}

#[test]
fn wide_softmaxes_agree_with_f64_with_logits_in_memory_and_without() {
    agrees(DType::F16, [67, 130], [1.0, 0.4]);
}

#[test]
fn peaked_logits_of_wide_softmaxes_agree_with_f64() {
    agrees(DType::BF16, [65, 72], [1.0, 1.5]);
}

/// Neither what ignored rows hold is read, nor a cluster that no row uses; nothing is its gradient.
#[test]
fn wide_softmaxes_read_neither_ignored_rows_nor_unused_clusters() {
    for (dtype, unused) in [(DType::F16, 0), (DType::BF16, 1)] {
        let (loss, mut clean) =
            (loss([67, 70]).workspace(SMALL), setting(dtype, [67, 70], [1.0, 0.4]));
        let range = loss.cluster(unused);
        let targets: Vec<i64> = (clean.target.as_slice::<i64>().unwrap().iter())
            .map(|&t| if t >= 0 && range.contains(&(t as usize)) { -1 } else { t })
            .collect();
        let mut poisoned = values(&clean.input);
        for (row, _) in targets.iter().enumerate().filter(|(_, t)| **t < 0) {
            let numbers = [f64::NAN, f64::INFINITY];
            poisoned[row * FEATURES..][..FEATURES].fill(numbers[row % 2]);
        }
        clean.target = Tensor::from_vec(targets, &[ROWS]).unwrap();
        let mut parameters = clean.parameters.clone();
        let tail = &mut parameters.tails[unused];
        for (tensor, number) in
            [(&mut tail.weight, f64::INFINITY), (&mut tail.projection, f64::NAN)]
        {
            let mut numbers = values(tensor);
            numbers.iter_mut().step_by(5).for_each(|v| *v = number);
            *tensor = floats(dtype, &tensor.shape(), &numbers);
        }
        let dirty = Setting {
            parameters,
            input: floats(dtype, &[ROWS, FEATURES], &poisoned),
            target: clean.target.clone(),
            weight: clean.weight.clone(),
        };
        let card = card(5);
        let [clean, dirty] = [&clean, &dirty].map(|setting| setting.run(&card, &loss));
        assert!(!stored(&card));
        assert!(named(&clean) == named(&dirty), "{dtype}");
        let tail = &dirty.parameters.tails[unused];
        for grad in [&tail.weight, &tail.projection] {
            assert!(values(grad).iter().all(|&g| g == 0.0), "{dtype}");
        }
    }
}

/// Hidden rows and logits beyond what their type can hold, and below it; an infinite weight makes a class impossible,
/// or a row undefined, as everywhere.
#[test]
fn wide_softmaxes_take_numbers_of_any_size() {
    for dtype in [DType::F16, DType::BF16] {
        for sizes in [[30_000.0, 1.0], [2e-5, 1e-3]] {
            let (loss, setting) = (loss([67, 130]), setting(dtype, [67, 130], sizes));
            let expected = expected(&loss, &setting);
            let (view, input) = (setting.parameters.view(), setting.input.view());
            let card = card(7);
            let loss = loss.workspace(SMALL);
            let got = loss.forward(&card, &view, input, setting.target.view()).unwrap();
            assert!(!stored(&card));
            assert_near(&format!("{dtype} {sizes:?}"), &got.output, &expected.output.values);
        }
        for number in [f64::INFINITY, f64::NEG_INFINITY] {
            let mut setting = setting(dtype, [67, 130], [1.0, 0.4]);
            let tail = &mut setting.parameters.tails[0];
            let mut numbers = values(&tail.weight);
            numbers[3] = number;
            tail.weight = floats(dtype, &tail.weight.shape(), &numbers);
            let of = |device: &Device| {
                let (view, input) = (setting.parameters.view(), setting.input.view());
                let loss = loss([67, 130]).workspace(SMALL);
                loss.forward(device, &view, input, setting.target.view()).unwrap().output
            };
            let card = card(8);
            assert_near(&format!("{dtype} {number}"), &of(&card), &values(&of(&Device::cpu())));
            assert!(!stored(&card));
        }
    }
}

/// Gradients are added to what is there, and those that nobody wants are not made.
#[test]
fn gradients_of_wide_softmaxes_are_added_to_what_is_there() {
    for dtype in [DType::F16, DType::BF16] {
        let (loss, setting) =
            (loss([67, 70]).workspace(SMALL), setting(dtype, [67, 70], [1.0, 0.4]));
        let (card, fresh) = (card(9), expected(&loss, &setting));
        let before = loss.init(dtype, 55).unwrap();
        let mut grads = before.clone();
        let mut output = Tensor::from_vec(vec![0f32; ROWS], &[ROWS]).unwrap();
        let mut mean = Tensor::from_vec(vec![0f32], &[]).unwrap();
        let out = LayerOut { output: output.view_mut(), loss: mean.view_mut() };
        let parameters = Some(grads.view_mut());
        let gradients = LayerGradOut { input: None, parameters, accumulate: true };
        let data = (setting.input.view(), setting.target.view());
        let view = setting.parameters.view();
        loss.forward_backward_into(&card, &view, data, 0.7, (out, gradients)).unwrap();
        assert!(!stored(&card));
        assert_near("output", &output, &fresh.output.values);
        let fresh = fresh.grads.into_named().into_iter();
        let before = before.into_named().into_iter();
        for ((key, got), ((_, before), (_, fresh))) in
            grads.into_named().iter().zip(before.zip(fresh))
        {
            let sums = values(&before).into_iter().zip(fresh.values).map(|(a, b)| a + b);
            assert_near(key, got, &sums.collect::<Vec<_>>());
        }
    }
}
