//! Sums of many terms at every instruction set: the fewer lanes a vector has, the more terms meet in one of
//! them, and of equal terms every addition may round to the same side.

use crate::cross_entropy::CrossEntropyCase;
use crate::data::{Data, Logits, Rng};
use crate::elementwise::{self, ElementwiseCase};
use crate::harness::{self, Case};
use crate::js_div_logits::JsDivLogitsCase;
use crate::log_softmax::LogSoftmaxCase;
use crate::logprob_entropy::LogprobEntropyCase;
use crate::logsumexp::LogSumExpCase;
use crate::multi_margin::MarginCase;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use warploss::{DType, Device, Reduction, information};

/// The longest row of a tile, and blocks of a longer one: nearly one, one, and a little more.
const LENGTHS: [usize; 4] = [256, 2047, 2048, 2100];

/// Every instruction set that this machine has, with its name.
pub(crate) fn levels() -> Vec<(String, Device)> {
    let named = |cpu: Device| (format!("cpu, {}", cpu.cpu_info().simd), cpu);
    Device::cpu_levels().into_iter().map(named).collect()
}

fn check_all(cases: &[Box<dyn Case>]) {
    for case in cases {
        let expected = case.expected();
        for (name, device) in &levels() {
            harness::check_on(name, device, &**case, &expected);
        }
    }
}

/// Two rows each of a model's logits and of a teacher's, of three different numbers, far enough from one
/// another that gradients are no differences of near numbers.
fn rows(turn: u64, len: usize) -> [Vec<f64>; 2] {
    let mut rng = Rng(turn * 7919 + len as u64);
    // Not of few digits, which additions would keep.
    let step = 0.5 + rng.unit();
    [step, -2.0 * step]
        .map(|step| Logits::Ties.values(&mut rng, 2, len).into_iter().map(|v| step * v).collect())
}

#[test]
fn softmax_losses_of_equal_terms_agree_at_every_number_of_lanes() {
    for len in LENGTHS {
        for turn in 0..12 {
            let [x, y] = rows(turn, len);
            let shape = [2, len];
            let target = [0, len as i64 / 2];
            let hard = CrossEntropyCase::new(&shape, &x, &target);
            let softness = [1.0, 0.5, 1.7][turn as usize % 3];
            let weights: Vec<f64> = (0..len).map(|i| [0.3, 0.7, 1.1][i % 3]).collect();
            let weights = Data::floats(DType::F32, &[len], &weights);
            let taught = SoftCrossEntropyCase::new(DType::F32, &shape, &x, &y);
            let taught = SoftCrossEntropyCase {
                teacher_scale: Some(softness),
                reduction: Reduction::None,
                ..taught
            };
            let even = vec![1.0 / len as f64; 2 * len];
            let soft = SoftCrossEntropyCase::new(DType::F32, &shape, &x, &even);
            let margin = MarginCase::new(&shape, &x, &target);
            let input = Data::floats(DType::F32, &shape, &x);
            let grad: Vec<f64> = (0..2 * len).map(|i| [0.1, 0.3][i % 2]).collect();
            let grad = Data::floats(DType::F32, &shape, &grad);
            check_all(&[
                Box::new(hard.clone()),
                Box::new(CrossEntropyCase { label_smoothing: 0.5, ..hard.clone() }),
                Box::new(CrossEntropyCase {
                    label_smoothing: 1.0,
                    weight: Some(weights.clone()),
                    ..hard.clone()
                }),
                Box::new(SoftCrossEntropyCase { weight: Some(weights.clone()), ..taught.clone() }),
                Box::new(SoftCrossEntropyCase { label_smoothing: 0.3, ..taught.clone() }),
                Box::new(taught),
                Box::new(SoftCrossEntropyCase { weight: Some(weights), ..soft.clone() }),
                Box::new(soft),
                Box::new(LogprobEntropyCase::of(hard, [-1.75, 0.5])),
                Box::new(JsDivLogitsCase::new(DType::F32, &shape, &x, &y)),
                Box::new(margin),
                Box::new(LogSoftmaxCase { input: input.clone(), grad_output: grad, dim: 1 }),
                Box::new(LogSumExpCase {
                    input,
                    grad_output: Data::floats(DType::F32, &[2], &[1.0, -0.5]),
                    dims: vec![1],
                    keepdim: false,
                }),
            ]);
        }
    }
}

#[test]
fn elementwise_sums_of_equal_terms_agree_at_every_number_of_lanes() {
    for turn in 0..40 {
        let mut rng = Rng(turn);
        let len = [1000, 1024][turn as usize % 2];
        let (x, y) = (vec![rng.normal(); len], vec![rng.normal(); len]);
        for loss in [elementwise::mse(), elementwise::l1(), elementwise::bce_with_logits()] {
            let case = ElementwiseCase::new(loss, (&[len], &x), (&[len], &y));
            check_all(&[Box::new(ElementwiseCase { reduction: Reduction::Sum, ..case })]);
        }
    }
}

#[test]
fn information_of_equal_terms_agrees_at_every_number_of_lanes() {
    for len in LENGTHS {
        let p = Data::floats(DType::F32, &[1, len], &vec![1.0 / len as f64; len]);
        let expected: f64 = p.values().iter().map(|p| -p * p.ln()).sum();
        for (name, device) in levels() {
            let got = information::entropy(&device, p.view()).unwrap();
            let got = got.view().to_f64().unwrap()[0];
            let close = (got - expected).abs() <= 2e-6 * (1.0 + expected);
            assert!(close, "{name}: {len} elements: {got}, expected {expected}");
        }
    }
}
