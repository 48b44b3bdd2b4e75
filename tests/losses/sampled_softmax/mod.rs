//! Sampled softmax: against a plain f64 computation, the full softmax, and its own distribution.

#[cfg(feature = "emulator")]
mod device;

use warploss::check::reference::{SampledReference, sampled_softmax};
use warploss::{
    CrossEntropy, DType, Device, Float, GradOutput, LayerGrad, LayerGradOut, LayerOut,
    NegativeSampler, Reduction, SampledParameters, SampledSoftmax, Tensor, TensorMut, TensorRef,
    bf16, f16,
};

const FEATURES: usize = 20;
const CLASSES: usize = 130;

/// A small deterministic generator.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn floats(dtype: DType, shape: &[usize], mut seed: u64) -> Tensor {
    fn of<T: Float>(shape: &[usize], seed: &mut u64) -> Tensor {
        let number = |seed: &mut u64| T::from_f32(random(seed) as f32 / 2f32.powi(30) - 1.0);
        let data = (0..shape.iter().product()).map(|_| number(seed)).collect();
        Tensor::from_vec(data, shape).unwrap()
    }
    match dtype {
        DType::F16 => of::<f16>(shape, &mut seed),
        DType::BF16 => of::<bf16>(shape, &mut seed),
        _ => of::<f32>(shape, &mut seed),
    }
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.view().to_f64().unwrap()
}

/// The CPU, and imitated cards where they are built.
fn devices() -> Vec<Device> {
    #[cfg(feature = "emulator")]
    let cards = device::cards();
    #[cfg(not(feature = "emulator"))]
    let cards = [];
    [Device::cpu()].into_iter().chain(cards).collect()
}

/// Besides what the type is rounded by, an error may be so large beside the largest.
#[track_caller]
fn assert_within(what: &str, got: &Tensor, expected: &[f64], of_size: f64) {
    let values = wide(got);
    assert_eq!(values.len(), expected.len(), "{what}");
    let size = expected.iter().filter(|e| e.is_finite()).fold(0f64, |m, e| m.max(e.abs()));
    let rounding = match got.dtype() {
        DType::F16 => 6e-4,
        DType::BF16 => 5e-3,
        _ => 2e-6,
    };
    let smallest = if got.dtype() == DType::F16 { 2f64.powi(-25) } else { 0.0 };
    for (i, (value, e)) in values.iter().zip(expected).enumerate() {
        let close = (value - e).abs() <= rounding * e.abs() + of_size * size + smallest
            || value == e
            || value.is_nan() && e.is_nan();
        assert!(close, "{what}[{i}]: {value}, expected {e} (size {size})");
    }
}

fn samplers() -> Vec<(&'static str, NegativeSampler)> {
    let counts: Vec<u64> = (0..CLASSES as u64).map(|k| 1 + 5000 / (k + 1)).collect();
    vec![
        ("log-uniform", NegativeSampler::log_uniform(CLASSES, 30).unwrap()),
        ("repeating", NegativeSampler::log_uniform(CLASSES, 129).unwrap().unique(false)),
        ("unigram", NegativeSampler::unigram(&counts, 1.0, 40).unwrap()),
        ("flattened", NegativeSampler::unigram(&counts, 0.75, 20).unwrap().unique(false)),
        ("all", NegativeSampler::all(CLASSES).unwrap()),
    ]
}

/// A call with what it must give.
#[derive(Clone)]
struct Case {
    name: String,
    loss: SampledSoftmax,
    parameters: SampledParameters<Tensor>,
    input: Tensor,
    target: Tensor,
    upstream: Tensor,
    expected: SampledReference,
}

impl Case {
    fn new(case: u64, (name, sampler): (&str, NegativeSampler), dtype: DType, rows: usize) -> Case {
        let hits = case.is_multiple_of(2);
        let reduction = [Reduction::Mean, Reduction::Sum, Reduction::None][case as usize % 3];
        let ignored = (case % 4 == 1).then_some(-100);
        let loss = SampledSoftmax::new(FEATURES, sampler)
            .bias(case % 5 < 3)
            .seed(case)
            .step(9)
            .remove_accidental_hits(hits)
            .ignore_index(ignored)
            .reduction(reduction);
        let parameters = loss.init(dtype, case).unwrap();
        let input = floats(dtype, &[rows, FEATURES], case);
        let mut seed = case;
        // Frequent classes are drawn and targets at once.
        let mut target: Vec<i64> =
            (0..rows).map(|_| (random(&mut seed) % 12 * (random(&mut seed) % 11)) as i64).collect();
        if let Some(label) = ignored {
            target.iter_mut().step_by(3).for_each(|t| *t = label);
        }
        let results = if reduction == Reduction::None { rows } else { 1 };
        let upstream = floats(DType::F32, &[results], case + 1);
        let upstream = match reduction {
            Reduction::None => upstream,
            _ => Tensor::from_vec(upstream.as_slice::<f32>().unwrap().to_vec(), &[]).unwrap(),
        };
        let of_parameters = parameters.try_map::<_, ()>(|_, p| Ok(wide(p))).unwrap();
        let data = (&wide(&input)[..], &target[..]);
        let expected = sampled_softmax(&loss, &of_parameters, data, &wide(&upstream));
        let name = format!("case {case}, {name} {dtype} {rows}");
        let target = Tensor::from_vec(target, &[rows]).unwrap();
        Case { name, loss, parameters, input, target, upstream, expected }
    }

    fn all() -> impl Iterator<Item = Case> {
        let samplers = samplers().into_iter();
        let with_types =
            samplers.flat_map(|s| [DType::F32, DType::F16, DType::BF16].map(|d| (s.clone(), d)));
        let with_rows = with_types.flat_map(|(s, d)| [0, 1, 77].map(|n| (s.clone(), d, n)));
        (1..).zip(with_rows).map(|(case, (sampler, d, n))| Case::new(case, sampler, d, n))
    }

    /// Everything that there is to know, compared.
    fn run(&self, device: &Device, of_size: f64) -> LayerGrad<SampledParameters<Tensor>> {
        let (view, x, target) = (self.parameters.view(), self.input.view(), self.target.view());
        let out = self.loss.forward(device, &view, x, target).unwrap();
        let up = GradOutput::from(self.upstream.view());
        let grad = self.loss.forward_backward(device, &view, x, target, up).unwrap();
        assert_eq!(out, grad.output);
        let expected = &self.expected;
        let mut results = vec![
            ("output", &out.output, &expected.output),
            ("loss", &out.loss, &expected.loss),
            ("input", &grad.input, &expected.grad_input),
            ("weight", &grad.parameters.weight, &expected.grads.weight),
        ];
        let of_bias = grad.parameters.bias.as_ref().zip(expected.grads.bias.as_ref());
        results.extend(of_bias.map(|(bias, expected)| ("bias", bias, expected)));
        for (part, got, expected) in results {
            assert_within(&format!("{}: {part}", self.name), got, &expected.values, of_size);
        }
        grad
    }
}

#[test]
fn losses_and_gradients_agree_with_f64() {
    for case in Case::all() {
        let [one, three] =
            [1, 3].map(|threads| case.run(&Device::cpu_with_threads(threads).unwrap(), 4e-6));
        // Without a row the loss may be NaN.
        if case.input.shape()[0] > 0 {
            assert_eq!(one, three, "threads change bits");
        }
    }
}

#[test]
fn all_classes_are_cross_entropy_of_the_products() {
    let loss = SampledSoftmax::new(FEATURES, NegativeSampler::all(CLASSES).unwrap()).bias(true);
    let parameters = loss.init(DType::F32, 3).unwrap();
    let input = floats(DType::F32, &[50, FEATURES], 8);
    let target: Vec<i64> = (0..50).map(|r| r * 37 % CLASSES as i64).collect();
    let target = TensorRef::new(&target, &[50]).unwrap();
    let (x, w) = (wide(&input), wide(&parameters.weight));
    let b = wide(parameters.bias.as_ref().unwrap());
    let logits = x.chunks(FEATURES).flat_map(|x| {
        w.chunks(FEATURES)
            .zip(&b)
            .map(move |(w, b)| (x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + b) as f32)
    });
    let logits: Vec<f32> = logits.collect();
    let logits = TensorRef::new(&logits, &[50, CLASSES]).unwrap();
    let device = Device::cpu();
    let expected = CrossEntropy::default().forward(&device, logits, target).unwrap();
    let got = loss.forward(&device, &parameters.view(), input.view(), target).unwrap();
    let (got, expected) = (got.loss.item().unwrap(), expected.loss.item().unwrap());
    assert!((got - expected).abs() < 1e-6, "{got}, expected {expected}");
}

#[test]
fn negatives_come_as_often_as_is_expected() {
    const STEPS: u64 = 4000;
    for (name, sampler) in samplers() {
        let loss = SampledSoftmax::new(FEATURES, sampler.clone()).seed(5);
        let (mut drawn, mut expected) = (vec![0f64; CLASSES], vec![0f64; CLASSES]);
        for step in 0..STEPS {
            let of_step = loss.clone().step(step);
            let negatives = of_step.negatives().unwrap();
            assert_eq!(negatives.len(), sampler.samples());
            negatives.iter().for_each(|&class| drawn[class] += 1.0);
            if step % 40 == 0 {
                for (class, sum) in expected.iter_mut().enumerate() {
                    *sum += 40.0 * of_step.expected_count(class).unwrap();
                }
            }
        }
        let total: f64 = (0..CLASSES).map(|class| sampler.probability(class)).sum();
        assert!((total - 1.0).abs() < 1e-12, "{name}: probabilities sum to {total}");
        for class in 0..CLASSES {
            let (got, expected) = (drawn[class], expected[class]);
            // Five standard deviations, and that the number of draws is itself random.
            let tolerance = 5.0 * expected.sqrt() + 0.02 * expected;
            assert!((got - expected).abs() <= tolerance, "{name} {class}: {got}, {expected}");
        }
        let repeats =
            |n: &[usize]| n.iter().collect::<std::collections::HashSet<_>>().len() < n.len();
        let any = (0..50).any(|step| repeats(&loss.clone().step(step).negatives().unwrap()));
        assert_eq!(any, name == "repeating" || name == "flattened", "{name}: repetitions");
    }
    // The probabilities, by their formulas.
    let log_uniform = NegativeSampler::log_uniform(9, 3).unwrap();
    assert!((log_uniform.probability(0) - 2f64.ln() / 10f64.ln()).abs() < 1e-15);
    assert!((log_uniform.probability(8) - (10f64 / 9.0).ln() / 10f64.ln()).abs() < 1e-15);
    let squares = NegativeSampler::unigram(&[1, 0, 3], 2.0, 1).unwrap();
    for (class, expected) in [0.1, 0.0, 0.9, 0.0].into_iter().enumerate() {
        assert!((squares.probability(class) - expected).abs() < 1e-15, "{class}");
    }
}

#[test]
fn classes_that_never_occur_are_not_drawn_and_no_target() {
    let counts: Vec<u64> = (0..CLASSES as u64).map(|k| if k % 3 == 0 { 0 } else { k }).collect();
    let sampler = NegativeSampler::unigram(&counts, 1.0, 60).unwrap();
    let loss = SampledSoftmax::new(FEATURES, sampler);
    for step in 0..500 {
        let negatives = loss.clone().step(step).negatives().unwrap();
        assert!(negatives.iter().all(|class| class % 3 != 0), "{negatives:?}");
    }
    let parameters = loss.init(DType::F32, 1).unwrap();
    let input = floats(DType::F32, &[2, FEATURES], 1);
    let target = TensorRef::new(&[4i64, 6], &[2]).unwrap();
    for device in devices() {
        let result = loss.forward(&device, &parameters.view(), input.view(), target);
        assert_eq!(
            result.unwrap_err().to_string(),
            "target: expected a class that the sampler can draw, got 6, of count 0, at row 1"
        );
    }
}

#[test]
fn gradients_are_added_where_classes_took_part_and_nowhere_else() {
    devices().iter().for_each(gradients_are_added);
}

fn gradients_are_added(device: &Device) {
    let sampler = NegativeSampler::log_uniform(CLASSES, 10).unwrap();
    let loss = SampledSoftmax::new(FEATURES, sampler).bias(true).step(3);
    let parameters = loss.init(DType::BF16, 2).unwrap();
    let input = floats(DType::BF16, &[4, FEATURES], 4);
    let targets = [100i64, 7, 100, 64];
    let target = TensorRef::new(&targets, &[4]).unwrap();
    let view = parameters.view();
    let apart = loss.forward_backward(device, &view, input.view(), target, 1.0).unwrap();
    let before = loss.init(DType::BF16, 77).unwrap();
    let mut grads = before.clone();
    let mut output = Tensor::from_vec(vec![0f32; 4], &[4]).unwrap();
    let mut mean = Tensor::from_vec(vec![0f32], &[]).unwrap();
    let out = LayerOut { output: output.view_mut(), loss: mean.view_mut() };
    let gradients =
        LayerGradOut { input: None, parameters: Some(grads.view_mut()), accumulate: true };
    let data = (input.view(), target);
    loss.forward_backward_into(device, &view, data, 1.0, (out, gradients)).unwrap();
    let negatives = loss.negatives().unwrap();
    let part = |class: usize| negatives.contains(&class) || targets.contains(&(class as i64));
    let [apart_w, before_w, after_w] =
        [&apart.parameters.weight, &before.weight, &grads.weight].map(wide);
    let [apart_b, before_b, after_b] =
        [&apart.parameters, &before, &grads].map(|p| wide(p.bias.as_ref().unwrap()));
    for class in 0..CLASSES {
        let of = |all: &[f64]| all[class * FEATURES..][..FEATURES].to_vec();
        if !part(class) {
            assert!(of(&apart_w).iter().all(|&g| g == 0.0) && apart_b[class] == 0.0);
            assert_eq!((of(&after_w), after_b[class]), (of(&before_w), before_b[class]));
            continue;
        }
        assert!(of(&apart_w).iter().any(|&g| g != 0.0), "{class}");
        for ((after, before), apart) in of(&after_w).iter().zip(of(&before_w)).zip(of(&apart_w)) {
            assert!(
                (after - before - apart).abs() <= 0.01 * (before.abs() + apart.abs()),
                "{class}"
            );
        }
        let sum = before_b[class] + apart_b[class];
        assert!((after_b[class] - sum).abs() <= 0.01 * (sum.abs() + 0.1), "{class}");
    }
}

#[test]
fn what_lies_behind_a_result_is_not_written() {
    let loss = SampledSoftmax::new(4, NegativeSampler::all(10).unwrap());
    let parameters = loss.init(DType::F32, 0).unwrap();
    let input = floats(DType::F32, &[3, 4], 1);
    let target = TensorRef::new(&[1i64, 7, -1], &[3]).unwrap();
    for device in devices() {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
            let loss = loss.clone().ignore_index(Some(-1)).reduction(reduction);
            let (mut output, mut of_rows) = ([77f32; 5], [77f32; 5]);
            let (shape, rows): (&[usize], usize) = match reduction {
                Reduction::None => (&[3], 3),
                _ => (&[], 1),
            };
            let out = LayerOut {
                output: TensorMut::new(&mut output, &[3]).unwrap(),
                loss: TensorMut::new(&mut of_rows, shape).unwrap(),
            };
            let data = (input.view(), target);
            loss.forward_into(&device, &parameters.view(), data, out).unwrap();
            let behind = output[3..].iter().chain(&of_rows[rows..]);
            assert!(behind.copied().all(|x| x == 77.0), "{output:?} {of_rows:?}");
            assert!(output[..2].iter().all(|x| *x < 0.0) && output[2] == 0.0, "{output:?}");
        }
    }
}

fn message<T: std::fmt::Debug>(result: warploss::Result<T>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn what_is_bad_is_named() {
    let log_uniform = |classes, samples| message(NegativeSampler::log_uniform(classes, samples));
    assert_eq!(log_uniform(0, 1), "classes: expected 1 to 2^32 − 1, got 0");
    assert_eq!(log_uniform(9, 0), "samples: expected 1 to 9 (classes that can be drawn), got 0");
    assert_eq!(log_uniform(9, 10), "samples: expected 1 to 9 (classes that can be drawn), got 10");
    let unigram = |counts: &[u64], alpha, n| message(NegativeSampler::unigram(counts, alpha, n));
    assert_eq!(unigram(&[1], f64::NAN, 1), "alpha: expected a finite number ≥ 0, got NaN");
    assert_eq!(unigram(&[0, 0], 1.0, 1), "counts: expected one above 0, got all 0");
    assert_eq!(unigram(&[], 1.0, 1), "counts: expected one above 0, got none");
    assert!(unigram(&[3, 0, 1], 1.0, 3).ends_with("1 to 2 (classes that can be drawn), got 3"));
    // A class of one in 10^12 is not waited for.
    let rare = NegativeSampler::unigram(&[1_000_000_000_000, 1], 1.0, 2).unwrap();
    let draws = message(SampledSoftmax::new(4, rare).negatives());
    assert!(draws.starts_with("samples: expected as many distinct classes as"), "{draws}");

    let sampler = NegativeSampler::log_uniform(10, 3).unwrap();
    for device in devices() {
        bad_calls(&device, sampler.clone());
    }
}

fn bad_calls(device: &Device, sampler: NegativeSampler) {
    let loss = SampledSoftmax::new(4, sampler.clone());
    let parameters = loss.init(DType::F32, 0).unwrap();
    let input = floats(DType::F32, &[2, 4], 1);
    let call = |loss: &SampledSoftmax, target: &[i64]| {
        let target = TensorRef::new(target, &[target.len()]).unwrap();
        message(loss.forward(device, &parameters.view(), input.view(), target))
    };
    assert_eq!(call(&loss, &[0, 10]), "target: expected a class in [0, 10), got 10 at row 1");
    assert_eq!(call(&loss, &[-1, 0]), "target: expected a class in [0, 10), got -1 at row 0");
    assert!(call(&loss, &[0]).starts_with("target: expected shape [2]"));
    assert_eq!(
        call(&loss.clone().bias(true), &[0, 1]),
        "parameters: expected bias (bias), got no bias"
    );
    assert_eq!(
        call(&SampledSoftmax::new(5, sampler), &[0, 1]),
        "input: expected shape […, 5] (in_features), got [2, 4]"
    );
    let one = TensorRef::new(&[3i64], &[]).unwrap();
    let gaps = TensorRef::with_row_stride(&[0.5f32; 8], &[4], 2).unwrap();
    assert_eq!(
        message(loss.forward(device, &parameters.view(), gaps, one)),
        "input: expected rows without padding, row stride 1, got row stride 2"
    );
    assert!(call(&loss.reduction(Reduction::BatchMean), &[0, 1]).starts_with("reduction: "));
}
