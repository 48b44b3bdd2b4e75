//! On an imitated card: the same negatives as on the CPU, and their gradients added up on the device.

mod bias;
mod wide;

use super::*;
use warploss::emulator::Description;

pub(super) fn cards() -> [Device; 2] {
    [
        Device::emulated(Description::tiny(), Some(7)).unwrap(),
        Device::emulated(Description::h100(), None).unwrap(),
    ]
}

#[test]
fn a_card_agrees_with_f64() {
    for case in Case::all() {
        // What is f32 on its way goes through products in parts of 16 bits together.
        let of_size = if case.input.dtype() == DType::F32 { 4e-6 } else { 2e-5 };
        let [tiny, large] = cards().map(|card| case.run(&card, of_size));
        assert_eq!(
            tiny.parameters, large.parameters,
            "{}: the order of threads changes bits",
            case.name
        );
        // A few rows at once, and each by itself. Where all classes' sums of gradients do not fit the
        // workspace, 16-bit ones are rounded after each.
        let of_size = match case.input.dtype() {
            DType::F16 if case.name.contains(", all ") => 2e-3,
            DType::BF16 if case.name.contains(", all ") => 1.5e-2,
            _ => of_size,
        };
        for workspace in [5000, 1] {
            let loss = case.loss.clone().workspace(workspace);
            Case { loss, ..case.clone() }.run(&cards()[0], of_size);
        }
    }
}

#[test]
fn resident_tensors_stay_and_nobody_waits() {
    let counts: Vec<u64> = (0..CLASSES as u64).map(|k| 1 + 5000 / (k + 1)).collect();
    let sampler = NegativeSampler::unigram(&counts, 0.75, 25).unwrap();
    for (case, name) in [(3, "mean"), (4, "sum"), (5, "none")] {
        let case = Case::new(case, (name, sampler.clone()), DType::F32, 50);
        for card in cards() {
            let up = |tensor: &Tensor| card.upload(tensor.view()).unwrap();
            let (x, target, upstream) = (up(&case.input), up(&case.target), up(&case.upstream));
            let parameters = case.parameters.try_map::<_, ()>(|_, p| Ok(up(p))).unwrap();
            // The distribution goes to the card once.
            case.run(&card, 4e-6);
            let waits = card.driver_calls().unwrap().waits;
            let up = GradOutput::from(upstream.view());
            let view = parameters.view();
            let got =
                case.loss.forward_backward(&card, &view, x.view(), target.view(), up).unwrap();
            assert_eq!(card.driver_calls().unwrap().waits, waits, "a call waits");
            assert!(got.input.is_on_device() && got.parameters.weight.is_on_device());
            card.check().unwrap();
            let from_host = case.run(&card, 4e-6);
            assert_eq!(got.input.to_host().unwrap(), from_host.input);
            assert_eq!(got.parameters.weight.to_host().unwrap(), from_host.parameters.weight);
            assert_eq!(got.output.loss.to_host().unwrap(), from_host.output.loss);
        }
    }
}

#[test]
fn rows_that_do_not_count_are_not_read() {
    let sampler = NegativeSampler::log_uniform(CLASSES, 30).unwrap();
    for case in [9, 21] {
        let clean = Case::new(case, ("log-uniform", sampler.clone()), DType::F32, 40);
        let mut poisoned = wide(&clean.input);
        for row in (0..40).step_by(3) {
            poisoned[row * FEATURES..][..FEATURES].fill(f64::NAN);
        }
        let poisoned: Vec<f32> = poisoned.into_iter().map(|x| x as f32).collect();
        let input = Tensor::from_vec(poisoned, &[40, FEATURES]).unwrap();
        let dirty = Case { input, ..Case::new(case, ("", sampler.clone()), DType::F32, 40) };
        for device in devices() {
            let [clean, dirty] = [&clean, &dirty].map(|case| case.run(&device, 4e-6));
            assert_eq!(clean, dirty);
        }
    }
}

/// Negatives are drawn on the host for each call, which a graph cannot hold: it says so.
#[test]
fn sampled_calls_are_not_captured_and_calls_of_all_classes_are() {
    let samplers = [
        (NegativeSampler::log_uniform(CLASSES, 30).unwrap(), false),
        (NegativeSampler::all(CLASSES).unwrap(), true),
    ];
    for (sampler, can) in samplers {
        let case = Case::new(3, ("", sampler), DType::F32, 20);
        let [card, _] = cards();
        let up = |tensor: &Tensor| card.upload(tensor.view()).unwrap();
        let (x, target) = (up(&case.input), up(&case.target));
        let parameters = case.parameters.try_map::<_, ()>(|_, p| Ok(up(p))).unwrap();
        let (mut output, mut loss) =
            (up(&floats(DType::F32, &[20], 1)), up(&Tensor::from_vec(vec![0f32], &[]).unwrap()));
        let mut call = || {
            let out = LayerOut { output: output.view_mut(), loss: loss.view_mut() };
            let data = (x.view(), target.view());
            let sampled = case.loss.clone().reduction(Reduction::Sum);
            sampled.forward_into(&card, &parameters.view(), data, out)
        };
        call().unwrap();
        match card.capture(call) {
            Ok(graph) if can => graph.replay().unwrap(),
            Err(error) if !can => {
                let error = error.to_string();
                assert!(error.contains("while the stream is captured into a graph"), "{error}");
            }
            other => panic!("{can}: {other:?}"),
        }
    }
}

/// Where few rows of logits fit, a forward pass over all classes makes them tile by tile and has none in memory; of
/// f32 it goes on with those that fit.
#[test]
fn results_alone_go_without_logits_where_few_rows_of_them_fit() {
    let (rows, sampler) = (300, NegativeSampler::all(CLASSES).unwrap());
    for (number, dtype, wide) in
        [(16, DType::F16, true), (17, DType::BF16, true), (18, DType::F32, false)]
    {
        let case = Case::new(number, ("all", sampler.clone()), dtype, rows);
        // All rows at once, or a few: of 20 features or of 130 logits each.
        let [large, small] = [1 << 20, 24_000].map(|workspace| {
            let card = Device::emulated(Description::a100(), Some(3)).unwrap();
            let loss = case.loss.clone().workspace(workspace);
            let view = case.parameters.view();
            let of = |n: usize| {
                let shape = [n, FEATURES];
                let x = match dtype {
                    DType::F16 => Tensor::from_vec(
                        case.input.as_slice::<f16>().unwrap()[..n * FEATURES].to_vec(),
                        &shape,
                    ),
                    DType::BF16 => Tensor::from_vec(
                        case.input.as_slice::<bf16>().unwrap()[..n * FEATURES].to_vec(),
                        &shape,
                    ),
                    _ => Tensor::from_vec(
                        case.input.as_slice::<f32>().unwrap()[..n * FEATURES].to_vec(),
                        &shape,
                    ),
                };
                let target = case.target.as_slice::<i64>().unwrap()[..n].to_vec();
                let target = Tensor::from_vec(target, &[n]).unwrap();
                let output = loss.forward(&card, &view, x.unwrap().view(), target.view());
                output.unwrap().output
            };
            let (all, first) = (of(rows), of(290));
            // What a row gives is its own.
            assert_eq!(all.as_slice::<f32>().unwrap()[..290], *first.as_slice::<f32>().unwrap());
            assert_within(&case.name, &all, &case.expected.output.values, 2e-5);
            card.schedules().iter().any(|note| note.contains("CrossEntropy"))
        });
        assert!(large && small != wide, "{}: {large}, {small}", case.name);
    }
}
