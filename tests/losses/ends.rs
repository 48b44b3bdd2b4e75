//! Options and weights at the ends of f32: the right value, or an error that names the option, and
//! the same on every device.

use crate::cross_entropy::{CrossEntropyCase, Upstream};
use crate::data::{Data, Logits, Rng};
use crate::elementwise::{ElementwiseCase, bce_with_logits, huber, kl_div, l1, mse, smooth_l1};
use crate::harness::{Case, Expected, Rule, check};
use crate::js_div_logits::JsDivLogitsCase;
use crate::logsumexp::LogSumExpCase;
use crate::nll::NllCase;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use warploss::{DType, Reduction};

const REDUCTIONS: [Reduction; 3] = [Reduction::None, Reduction::Sum, Reduction::Mean];

/// The least f32 above 0, and what of f32 leaves room for a sum of a few.
const LEAST: f64 = 1.401_298_464_324_817e-45;
const FACTORS: [f64; 5] = [LEAST * 64.0, 1e-42, 1e-30, 1e30, 2e37];

fn f32s(shape: &[usize], values: &[f64]) -> Data {
    Data::floats(DType::F32, shape, values)
}

/// A case whose reference is neither NaN nor so small that f32 has nothing of it.
fn check_numbers(case: &dyn Case) {
    let losses: Vec<Expected> =
        case.expected().into_iter().filter(|e| matches!(e.rule, Rule::Loss(_))).collect();
    assert!(losses.iter().all(|e| e.values.iter().all(|v| !v.is_nan())), "{}", case.describe());
    check(case);
}

/// Ratios of scale and cap from 1e-60 to 1e80, with logits that neither all lie on the line nor all
/// at the cap.
#[test]
fn a_scale_and_a_cap_whose_ratio_leaves_f32() {
    let pairs: [(f32, f32, f64); 14] = [
        (1e-20, 1e26, 1.0),
        (1e-20, 1e26, 1e20),
        (1e30, 1e-30, 1.0),
        (1e30, 1e-30, 1e-44),
        (1e-30, 1e30, 1e30),
        (1.0, 3e38, 1.0),
        (1e-3, 3e38, 1e38),
        (2e-1, 3e38, 1e38),
        (1e-38, 2.0, 1e38),
        (1e38, 2.0, 1e-38),
        (2e38, 0.5, 1e-39),
        (1.0, 1e-42, 1.0),
        (1e-42, 1e-42, 1.0),
        (1e20, 1e38, 1e17),
    ];
    for (i, (logit_scale, cap, size)) in pairs.into_iter().enumerate() {
        let mut logits = Rng(i as u64).normals(3 * 9, size);
        (logits[4], logits[13]) = (0.0, f64::NEG_INFINITY);
        let case = CrossEntropyCase {
            logit_scale,
            softcap: Some(cap),
            ..CrossEntropyCase::new(&[3, 9], &logits, &[2, 0, 8])
        };
        check_numbers(&case);
        check_numbers(&CrossEntropyCase { label_smoothing: 0.2, ..unmasked(case, 13) });
    }
}

/// The case with 0 in the place of one logit.
fn unmasked(case: CrossEntropyCase, at: usize) -> CrossEntropyCase {
    let mut logits = case.logits.values();
    logits[at] = 0.0;
    CrossEntropyCase { logits: f32s(case.logits.shape(), &logits), ..case }
}

#[test]
fn scales_at_the_ends_of_f32() {
    let scales: [(f32, f64); 8] = [
        (1e-42, 1.0),
        (1e-40, 1e38),
        (1e-38, 1e38),
        (1e-20, 1e20),
        (1e20, 1e-20),
        (1e38, 1e-38),
        (1e38, 1.0),
        (2e38, 1.0),
    ];
    for (i, (logit_scale, size)) in scales.into_iter().enumerate() {
        let logits = Rng(i as u64).normals(3 * 9, size);
        let case =
            CrossEntropyCase { logit_scale, ..CrossEntropyCase::new(&[3, 9], &logits, &[2, 0, 8]) };
        check_numbers(&case);
        check_numbers(&CrossEntropyCase { label_smoothing: 0.2, ..case });
    }
}

#[test]
fn class_weights_with_a_factor_at_the_ends_of_f32() {
    let mut rng = Rng(3);
    let (rows, classes) = (4, 13);
    let logits = rng.normals(rows * classes, 2.0);
    let mut base: Vec<f64> = (0..classes).map(|_| 0.1 + rng.unit()).collect();
    (base[3], base[5]) = (0.0, -0.25);
    for factor in FACTORS {
        let weight: Vec<f64> = base.iter().map(|w| w * factor).collect();
        let weight = Some(f32s(&[classes], &weight));
        for (reduction, label_smoothing) in
            REDUCTIONS.iter().flat_map(|&r| [0.0, 0.1, 1.0].map(|e| (r, e)))
        {
            check_numbers(&CrossEntropyCase {
                weight: weight.clone(),
                reduction,
                label_smoothing,
                ..CrossEntropyCase::new(&[rows, classes], &logits, &[0, 12, 3, -100])
            });
        }
        for reduction in REDUCTIONS {
            check_numbers(&NllCase {
                weight: weight.clone(),
                reduction,
                ..NllCase::new(&[rows, classes], &logits, &[0, 12, 3, -100])
            });
            let soft = SoftCrossEntropyCase {
                weight: weight.clone(),
                reduction,
                ..SoftCrossEntropyCase::random(5, DType::F32, (3, classes), Logits::Normal)
            };
            check_numbers(&soft);
            check_numbers(&SoftCrossEntropyCase { label_smoothing: 0.1, ..soft });
        }
    }
}

/// The two ends at once: neither the product of two is a number, nor does the third make up for it.
#[test]
fn weights_and_upstream_gradients_at_opposite_ends() {
    let logits = Rng(4).normals(3 * 5, 2.0);
    for (weight, g, logit_scale) in
        [(1e-42, 1e38, 1.0), (1e38, 1e-42, 1.0), (1e-42, 1e15, 1e27), (1e38, 1e-20, 1e-18)]
    {
        let case = CrossEntropyCase {
            weight: Some(f32s(&[5], &[1.0, 0.5, 2.0, 0.75, 1.5].map(|w| w * weight))),
            upstream: Upstream::Number(g),
            reduction: Reduction::Sum,
            logit_scale,
            ..CrossEntropyCase::new(&[3, 5], &logits, &[2, 0, 4])
        };
        check(&case);
        check(&CrossEntropyCase { label_smoothing: 0.3, ..case });
    }
}

/// Rows' losses, and distances of classes that are smoothed over, whose sums are beyond f32.
#[test]
fn sums_over_rows_and_classes_that_leave_f32_on_the_way_to_a_mean() {
    let (rows, classes) = (9, 40);
    let mut rng = Rng(6);
    let logits: Vec<f64> = (0..rows * classes).map(|_| -3e38 * rng.unit()).collect();
    let target: Vec<i64> = (0..rows as i64).collect();
    for label_smoothing in [0.0, 0.1] {
        check_numbers(&CrossEntropyCase {
            label_smoothing,
            ..CrossEntropyCase::new(&[rows, classes], &logits, &target)
        });
    }
    check_numbers(&CrossEntropyCase {
        lse_square_scale: 3e37,
        ..CrossEntropyCase::new(&[rows, 2], &vec![1.0; rows * 2], &vec![0; rows])
    });
    check_numbers(&NllCase::new(&[rows, classes], &logits, &target));
}

/// Logits whose difference is beyond f32 though that of the scaled ones is not; and a scaled largest
/// one that is beyond f32, of which a z-loss makes something that is not.
#[test]
fn distances_and_normalisers_that_leave_f32_on_the_way() {
    let logits = [2.8e38, -6e37, -1.1e38, 1.0, -3e38, 2e38];
    check_numbers(&CrossEntropyCase {
        logit_scale: 0.5,
        ..CrossEntropyCase::new(&[2, 3], &logits, &[2, 0])
    });
    for upstream in [1e-30, -1.0] {
        let case = CrossEntropyCase {
            logit_scale: 2.0,
            lse_square_scale: 0.1,
            reduction: Reduction::Sum,
            upstream: Upstream::Number(upstream),
            ..CrossEntropyCase::new(&[2, 3], &logits.map(|x| x * 1e-18), &[2, 0])
        };
        check_numbers(&case);
        let logits = [3e38, 1.0, 0.0, 2e38, -1.0, 2.0];
        check(&CrossEntropyCase { logits: f32s(&[2, 3], &logits), ..case });
    }
}

/// A teacher that has several classes, which add up distances near the end of f32 before anything is
/// divided by their number.
#[test]
fn distances_under_a_teacher_that_leave_f32_on_the_way() {
    let logits = [-3e38, 0.5, -1e38, -2e38, -3e38];
    for label_smoothing in [0.0, 0.1] {
        check_numbers(&SoftCrossEntropyCase {
            teacher_scale: Some(1.5),
            label_smoothing,
            ..SoftCrossEntropyCase::new(DType::F32, &[1, 5], &logits, &[0.0; 5])
        });
    }
}

/// What an option leaves out is nothing, whatever multiplies it.
#[test]
fn an_infinite_upstream_gradient_is_infinite_where_the_gradient_is_not_0() {
    let logits = Rng(12).normals(2 * 5, 1.0);
    let case = CrossEntropyCase {
        upstream: Upstream::Number(f32::INFINITY),
        ..CrossEntropyCase::new(&[2, 5], &logits, &[3, 0])
    };
    let infinite = case.expected().into_iter().filter(|e| matches!(e.rule, Rule::Gradient));
    assert!(infinite.flat_map(|e| e.values).all(f64::is_infinite));
    check(&case);
}

/// Products of an upstream gradient near the end of f32 that come back into it.
#[test]
fn upstream_gradients_near_the_end_of_f32() {
    let mut input = Rng(13).normals(2 * 33, 20.0);
    (input[3], input[40]) = (500.0, 22_000.0);
    for g in [3.4e38, -2e38, 1e38] {
        check(&LogSumExpCase {
            input: f32s(&[2, 33], &input),
            grad_output: f32s(&[2], &[g, -g]),
            dims: vec![1],
            keepdim: false,
        });
    }
}

/// A class weight that is subnormal has few digits, and none of them are lost to products.
#[test]
fn subnormal_weights_of_probabilities() {
    let case = SoftCrossEntropyCase {
        weight: Some(f32s(&[2], &[5.065_646e-41, 0.0])),
        reduction: Reduction::Sum,
        ..SoftCrossEntropyCase::new(DType::F32, &[1, 2], &[-3e38, 0.0], &[0.5, 0.5])
    };
    check_numbers(&case);
}

/// Logits so far from 0 that they have no digits of 1, of rows with a class that has all of P.
#[test]
fn divergences_of_logits_far_from_0() {
    let rows: [[f64; 4]; 5] = [
        [-183.25, 1e20, 1e19, -1e20],
        [1e20, -27.0, 3.0, 1e19],
        [65504.0, -2.008e19, 1.0, -2.008e19],
        [1e20, 1e20, -1e20, -0.0],
        [1e20, -0.0, 1e20, 1e7],
    ];
    let x: Vec<f64> = rows.into_iter().flatten().collect();
    let y: Vec<f64> = rows.into_iter().rev().flatten().collect();
    for (beta, scales) in [(0.0, [1.0, 1.0]), (0.5, [1.0, 1.5]), (0.1, [0.7, 1.0]), (1.0, [1.0; 2])]
    {
        for shape in [[5, 4], [20, 1]] {
            check(&JsDivLogitsCase {
                beta,
                logit_scale: scales[0],
                teacher_scale: scales[1],
                ..JsDivLogitsCase::new(DType::F32, &shape, &x, &y)
            });
        }
    }
}

#[test]
fn elementwise_sums_that_leave_f32_on_the_way_to_a_mean() {
    let wide = |n: usize, size: f64| {
        let mut rng = Rng(n as u64);
        (0..n).map(|_| size * (0.9 + 0.1 * rng.unit())).collect::<Vec<f64>>()
    };
    // Fewer than a vector, a tile with its rest, several.
    for n in [3, 1030, 2500] {
        for (loss, size) in [
            (l1(), 3e38),
            (mse(), 1.7e19),
            (smooth_l1(2.0), 3e38),
            (smooth_l1(3e38), 3e38),
            (huber(3.0), 1e38),
            (bce_with_logits(), 3e38),
        ] {
            let (x, zeros) = (wide(n, size), vec![0.0; n]);
            check_numbers(&ElementwiseCase::new(loss, (&[n], &x), (&[n], &zeros)));
        }
        let (x, ones) = (wide(n, -3e38), vec![1.0; n]);
        let kl = kl_div(false);
        check_numbers(&ElementwiseCase::new(kl, (&[n], &x), (&[n], &ones)));
        let (x, zeros) = (wide(n, -3e38), vec![0.0; n]);
        let kl = kl_div(true);
        check_numbers(&ElementwiseCase::new(kl, (&[n], &x), (&[n], &zeros)));
    }
}

/// The mean divides by them: their common factor is nowhere.
#[test]
fn element_weights_with_a_factor_at_the_ends_of_f32() {
    let mut rng = Rng(8);
    let n = 1100;
    let (x, y) = (rng.normals(n, 2.0), rng.normals(n, 2.0));
    let base: Vec<f64> = (0..n).map(|_| 0.1 + rng.unit()).collect();
    for factor in [LEAST * 64.0, 1e-42, 1e-30, 1e30, 2e38] {
        let weight: Vec<f64> = base.iter().map(|w| w * factor).collect();
        for loss in [mse(), l1(), smooth_l1(0.7)] {
            check_numbers(&ElementwiseCase {
                weight: Some(f32s(&[n], &weight)),
                ..ElementwiseCase::new(loss, (&[n], &x), (&[n], &y))
            });
        }
    }
}
