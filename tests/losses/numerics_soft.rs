//! Cross entropy against probabilities where numbers are at their ends.

use crate::data::{Data, FLOATS, Logits, Rng};
use crate::harness::check;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use warploss::{DType, Reduction};

#[test]
fn a_target_of_0_silences_minus_infinity_and_any_other_does_not() {
    let inf = f64::INFINITY;
    let logits = [0.5, -inf, 1.0, -inf, 0.5, 1.0, 0.1, 0.2, -inf];
    let target = [0.5, 0.0, 0.5, 0.2, 0.3, 0.5, 0.0, 0.0, 0.0];
    for dtype in FLOATS {
        let case = SoftCrossEntropyCase::new(dtype, &[3, 3], &logits, &target);
        let weight = Some(Data::floats(DType::F32, &[3], &[0.0, 1.0, 2.0]));
        check(&SoftCrossEntropyCase { reduction: Reduction::None, ..case.clone() });
        check(&SoftCrossEntropyCase { weight, reduction: Reduction::None, ..case });
    }
}

#[test]
fn rows_without_probabilities_are_nan_as_a_whole_and_touch_no_other() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let logits = [-inf, -inf, 1.0, 2.0, 0.0, inf, nan, 0.0];
    for teacher_scale in [None, Some(1.0)] {
        let case = SoftCrossEntropyCase::new(DType::F32, &[4, 2], &logits, &[0.0; 8]);
        check(&SoftCrossEntropyCase { teacher_scale, reduction: Reduction::None, ..case });
    }
    // A teacher's row.
    let teacher = [-inf, -inf, 1.0, 2.0, 0.0, inf, nan, 0.0];
    let case = SoftCrossEntropyCase::new(DType::F32, &[4, 2], &[0.5; 8], &teacher);
    check(&SoftCrossEntropyCase { teacher_scale: Some(0.5), reduction: Reduction::None, ..case });
}

/// p = 1 − 1e-9 against q = 1: the gradient's digits are in what the other classes have.
#[test]
fn confident_logits_keep_the_gradient_of_a_one_hot_target() {
    for classes in [2, 7, 3000, 9000] {
        let mut rng = Rng(classes as u64);
        let mut logits = rng.normals(2 * classes, 0.5);
        let mut target = vec![0.0; 2 * classes];
        let mut teacher = vec![-30.0; 2 * classes];
        for hot in [classes / 2, classes + 1] {
            (logits[hot], target[hot], teacher[hot]) = (30.0, 1.0, 20.0);
        }
        for dtype in FLOATS {
            let case = SoftCrossEntropyCase::new(dtype, &[2, classes], &logits, &target);
            let weights: Vec<f64> = (0..classes).map(|_| 0.5 + rng.unit()).collect();
            let weight = Some(Data::floats(DType::F32, &[classes], &weights));
            check(&case);
            check(&SoftCrossEntropyCase { softcap: Some(40.0), ..case.clone() });
            check(&SoftCrossEntropyCase { weight, ..case.clone() });
            check(&SoftCrossEntropyCase {
                target: Data::floats(dtype, &[2, classes], &teacher),
                teacher_scale: Some(1.0),
                ..case
            });
        }
    }
}

#[test]
fn a_batch_of_nothing_agrees() {
    for shape in [vec![0, 5], vec![3, 0], vec![0], vec![2, 3, 0]] {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
            let case = SoftCrossEntropyCase::new(DType::F32, &shape, &[], &[]);
            check(&SoftCrossEntropyCase { reduction, lse_square_scale: 0.1, ..case });
        }
    }
}

/// Rows that are shared among threads, and on cards of every schedule.
#[test]
fn long_rows_agree() {
    for (rows, classes, padding) in [(1, 50_257, 0), (2, 128_256, 3)] {
        for dtype in FLOATS {
            let case = SoftCrossEntropyCase::random(5, dtype, (rows, classes), Logits::Confident);
            let case = SoftCrossEntropyCase { logits: case.logits.clone().padded(padding), ..case };
            check(&case);
            check(&SoftCrossEntropyCase {
                teacher_scale: Some(0.01),
                label_smoothing: 0.1,
                ..case
            });
        }
    }
}
