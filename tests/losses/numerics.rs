//! What numbers do at their edges, each behaviour by name, in every form and on every device.

use crate::cross_entropy::{CrossEntropyCase, Upstream};
use crate::data::{Data, FLOATS, Logits, Rng};
use crate::harness::{Case, check, devices};
use warploss::{DType, Reduction};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// Agreement with the reference, and what is known of one result without it.
pub(crate) fn check_and(case: &dyn Case, name: &str, assert: impl Fn(&[f64])) {
    check(case);
    let mut seen = 0;
    for (_, device) in devices() {
        for (_, results) in case.forms(device) {
            for got in results.expect("a legal call") {
                if got.name == name {
                    assert(&got.values);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 0, "no form returns {name}");
}

fn check_loss(case: &CrossEntropyCase, assert: impl Fn(f64)) {
    check_and(case, "loss", |loss| loss.iter().for_each(|&loss| assert(loss)));
}

fn check_grad(case: &CrossEntropyCase, assert: impl Fn(&[f64])) {
    check_and(case, "grad_logits", assert);
}

fn weights(values: &[f64]) -> Option<Data> {
    Some(Data::floats(DType::F32, &[values.len()], values))
}

fn per_row(values: &[f64]) -> Upstream {
    Upstream::Tensor(Data::floats(DType::F32, &[values.len()], values))
}

#[test]
fn a_common_offset_of_1e4_changes_neither_loss_nor_gradient() {
    // Multiples of 1/64 stay exact at 1e4, so that the true answers are the same.
    let mut rng = Rng(1);
    let plain: Vec<f64> = (0..4 * 300).map(|_| (rng.normal() * 192.0).round() / 64.0).collect();
    let shifted: Vec<f64> = plain.iter().map(|x| x + 1e4).collect();
    let target = [0, 299, 17, 100];
    let near = CrossEntropyCase::new(&[4, 300], &plain, &target);
    let far = CrossEntropyCase::new(&[4, 300], &shifted, &target);
    let expected = near.expected();
    // The forms "allocating", "into" and "in place" go backward from an lse rounded near 1e4.
    for e in expected.iter().filter(|e| e.name != "lse") {
        check_and(&far, e.name, |got| {
            let worst = e.compare(DType::F32, got);
            assert!(worst.agrees(), "{}: {worst}", e.name);
        });
    }
}

#[test]
fn an_offset_beyond_f32_precision_leaves_equal_logits() {
    for classes in [2, 1000] {
        let case = CrossEntropyCase::new(&[1, classes], &vec![1e30; classes], &[1]);
        check_loss(&case, |loss| assert!((loss - (classes as f64).ln()).abs() < 2e-5));
    }
}

#[test]
fn a_scale_keeps_the_largest_logit_at_distance_zero() {
    // s·x does not fit an f32 exactly; what is cut off is as large as 1 from 1e8 on.
    for (low, high) in [(1e4 - 8.0, 1e4), (1e8 - 8.0, 1e8), (-1e30, 1e30), (1e30, 1e30)] {
        for scale in [0.6, 1.7, 0.1] {
            for target in [0, 1] {
                let case = CrossEntropyCase {
                    logit_scale: scale,
                    ..CrossEntropyCase::new(&[1, 2], &[low, high], &[target])
                };
                check_loss(&case, |loss| assert!(!loss.is_nan()));
            }
        }
    }
}

#[test]
fn confident_logits_keep_a_target_gradient_that_is_formed_before_rounding() {
    for dtype in FLOATS {
        let case = CrossEntropyCase::with_dtype(dtype, &[1, 2], &[7.0, 0.0], &[0]);
        check_grad(&case, |grad| assert!((grad[0] + 9.11e-4).abs() < 8e-6, "{}", grad[0]));
        // 1 − p is 1.9e-22 here, and f32 knows nothing between 1 − 6e-8 and 1.
        let case = CrossEntropyCase::with_dtype(dtype, &[1, 2], &[50.0, 0.0], &[0]);
        if dtype != DType::F16 {
            check_grad(&case, |grad| assert!((grad[0] / -1.928_75e-22 - 1.0).abs() < 0.01));
        }
    }
}

#[test]
fn minus_infinity_off_target_is_harmless_in_any_position() {
    let classes = 4200;
    let places: [&[usize]; 6] = [
        &[0],
        &[classes - 1],
        &[2047, 2048],
        &[1, 8, 15, 16, 31, 32, 100],
        // Whole leading blocks of any size up to 4096.
        &(0..4096).collect::<Vec<_>>(),
        &(2048..classes).collect::<Vec<_>>(),
    ];
    for dtype in FLOATS {
        for masked in places {
            let case = CrossEntropyCase::random(5, dtype, 2, classes, Logits::Normal);
            let mut logits = case.logits.values();
            let target = (0..classes).find(|c| !masked.contains(c)).expect("a class");
            for &class in masked {
                logits[class] = -INF;
            }
            let target = [target as i64, 0];
            let case = CrossEntropyCase::with_dtype(dtype, &[2, classes], &logits, &target);
            check_loss(&case, |loss| assert!(loss.is_finite()));
            check_grad(&case, |grad| {
                assert!(masked.iter().all(|&class| grad[class] == 0.0));
                assert!(grad.iter().all(|g| g.is_finite()));
            });
        }
    }
}

#[test]
fn minus_infinity_at_the_target_costs_infinitely_but_has_a_finite_gradient() {
    for dtype in FLOATS {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
            for target in [0, 1, 2] {
                let mut logits = [0.0, 1.0, 2.0];
                logits[target] = -INF;
                let case = CrossEntropyCase {
                    reduction,
                    ..CrossEntropyCase::with_dtype(dtype, &[1, 3], &logits, &[target as i64])
                };
                check_loss(&case, |loss| assert_eq!(loss, INF));
                check_grad(&case, |grad| assert_eq!(grad[target], -1.0));
            }
        }
    }
}

#[test]
fn smoothing_over_a_masked_class_is_infinite_unless_its_weight_is_zero() {
    let logits = [0.5, -INF, 1.0, 2.0];
    let smoothed = CrossEntropyCase {
        label_smoothing: 0.2,
        weight: weights(&[1.0, 0.5, 2.0, 1.0]),
        reduction: Reduction::Sum,
        ..CrossEntropyCase::new(&[1, 4], &logits, &[0])
    };
    check_loss(&smoothed, |loss| assert_eq!(loss, INF));
    check_grad(&smoothed, |grad| assert!((grad[1] + 0.2 / 4.0 * 0.5).abs() < 1e-7));
    let silenced = CrossEntropyCase { weight: weights(&[1.0, 0.0, 2.0, 1.0]), ..smoothed };
    check_loss(&silenced, |loss| assert!(loss.is_finite()));
}

#[test]
fn a_zero_coefficient_silences_an_infinite_target_term() {
    let base = CrossEntropyCase {
        reduction: Reduction::Sum,
        weight: weights(&[1.0, 0.0, 2.0]),
        ..CrossEntropyCase::new(&[1, 3], &[0.5, -INF, 1.0], &[1])
    };
    check_loss(&base, |loss| assert_eq!(loss, 0.0));
    // ε = 1 leaves nothing for the target; what is smeared over the others stays finite.
    let smeared = CrossEntropyCase { label_smoothing: 1.0, ..base };
    check_loss(&smeared, |loss| assert!(loss.is_finite() && loss > 0.0));
}

#[test]
fn smoothing_of_one_leaves_equal_logits_without_a_gradient() {
    for (classes, scale) in [(2, 0.6), (33, 1.0), (4097, 1.7)] {
        for dtype in FLOATS {
            let case = CrossEntropyCase {
                label_smoothing: 1.0,
                logit_scale: scale,
                ..CrossEntropyCase::with_dtype(dtype, &[1, classes], &vec![2.0; classes], &[1])
            };
            // The gradient is p − 1/V; each of the two is 1/V, and a saved lse is rounded twice.
            let limit = 3e-6 / classes as f64;
            for (_, device) in devices() {
                for (form, results) in case.forms(device) {
                    let results = results.expect("a legal call");
                    let grad = results.iter().find(|got| got.name == "grad_logits");
                    let grad = &grad.expect("a gradient").values;
                    assert!(grad.iter().all(|g| g.abs() < limit), "{form}, {classes} classes");
                }
            }
        }
    }
}

#[test]
fn a_broken_row_is_nan_as_a_whole_and_touches_no_other() {
    let classes = 37;
    for dtype in FLOATS {
        for (broken, at) in [(INF, 0), (INF, 36), (NAN, 0), (NAN, 20), (NAN, 36), (-INF, 99)] {
            let case = CrossEntropyCase::random(8, dtype, 3, classes, Logits::Normal);
            let mut logits = case.logits.values();
            match logits[classes..2 * classes].get_mut(at) {
                Some(x) => *x = broken,
                None => logits[classes..2 * classes].fill(broken),
            }
            let case = CrossEntropyCase {
                logits: Data::floats(dtype, &[3, classes], &logits),
                reduction: Reduction::None,
                ..case
            };
            check_and(&case, "loss", |loss| {
                assert!(loss[0].is_finite() && loss[1].is_nan() && loss[2].is_finite());
            });
            check_grad(&case, |grad| {
                for (i, g) in grad.iter().enumerate() {
                    assert_eq!(g.is_nan(), i / classes == 1, "element {i}");
                }
            });
        }
    }
}

#[test]
fn the_lse_of_a_row_says_what_broke_it() {
    let logits = [-INF, -INF, 0.0, INF, INF, NAN, 0.0, 0.0];
    let case = CrossEntropyCase::new(&[4, 2], &logits, &[0, 0, 0, -100]);
    check_and(&case, "lse", |lse| {
        assert_eq!((lse[0], lse[1], lse[3]), (-INF, INF, 0.0));
        assert!(lse[2].is_nan());
    });
}

#[test]
fn ignored_rows_give_exact_zeros_whatever_they_hold() {
    let classes = 19;
    for dtype in FLOATS {
        for garbage in [NAN, INF, -INF] {
            for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
                let mut logits = Rng(4).normals(4 * classes, 3.0);
                logits[classes..2 * classes].fill(garbage);
                logits[3 * classes..].fill(garbage);
                let case = CrossEntropyCase {
                    reduction,
                    label_smoothing: 0.1,
                    lse_square_scale: 1e-3,
                    upstream: match reduction {
                        Reduction::None => per_row(&[2.0, NAN, -0.5, INF]),
                        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                            Upstream::Number(0.25)
                        }
                    },
                    ..CrossEntropyCase::with_dtype(
                        dtype,
                        &[4, classes],
                        &logits,
                        &[3, -100, 0, -100],
                    )
                };
                check_loss(&case, |loss| assert!(loss.is_finite()));
                check_grad(&case, |grad| {
                    for (i, &g) in grad.iter().enumerate() {
                        let ignored = i / classes % 2 == 1;
                        assert!(if ignored { g == 0.0 } else { g.is_finite() }, "element {i}: {g}");
                    }
                });
            }
        }
    }
}

#[test]
fn with_all_rows_ignored_the_mean_is_nan_the_sum_zero_and_gradients_zero() {
    for (reduction, z) in [
        (Reduction::None, 0.0),
        (Reduction::Sum, 0.0),
        (Reduction::Mean, 0.0),
        (Reduction::Mean, 0.1),
    ] {
        let case = CrossEntropyCase {
            reduction,
            lse_square_scale: z,
            ..CrossEntropyCase::new(&[2, 3], &[NAN, 1.0, 2.0, 3.0, 4.0, INF], &[-100, -100])
        };
        check_loss(&case, |loss| match reduction {
            Reduction::Mean | Reduction::BatchMean => assert!(loss.is_nan()),
            Reduction::None | Reduction::Sum => assert_eq!(loss, 0.0),
        });
        check_grad(&case, |grad| assert!(grad.iter().all(|&g| g == 0.0)));
    }
}

#[test]
fn without_weight_the_mean_is_nan_and_so_are_kept_rows() {
    for zero in [[0.0, 0.0, 3.0], [1.0, -1.0, 3.0]] {
        let case = CrossEntropyCase {
            weight: weights(&zero),
            ..CrossEntropyCase::new(&[3, 3], &Rng(2).normals(9, 1.0), &[0, -100, 1])
        };
        check_loss(&case, |loss| assert!(loss.is_nan()));
        check_grad(&case, |grad| {
            assert!(grad[..3].iter().chain(&grad[6..]).all(|g| g.is_nan()));
            assert!(grad[3..6].iter().all(|&g| g == 0.0));
        });
        // Only the mean divides.
        check_loss(&CrossEntropyCase { reduction: Reduction::Sum, ..case }, |l| {
            assert!(l.is_finite())
        });
    }
}

#[test]
fn negative_weights_are_computed_with() {
    let case = CrossEntropyCase {
        weight: weights(&[-1.0, 0.5, 2.0]),
        label_smoothing: 0.1,
        ..CrossEntropyCase::new(&[3, 3], &Rng(2).normals(9, 1.0), &[0, 1, 2])
    };
    check_loss(&case, |loss| assert!(loss.is_finite()));
}

#[test]
fn differences_that_overflow_have_probability_zero() {
    for (target, expected) in [(0, 0.0), (1, INF)] {
        let case = CrossEntropyCase::new(&[1, 2], &[3e38, -3e38], &[target]);
        check_loss(&case, |loss| assert_eq!(loss, expected));
        let at_target = if target == 0 { 0.0 } else { -1.0 };
        check_grad(&case, |grad| assert_eq!(grad[target as usize], at_target));
    }
}

#[test]
fn a_single_class_costs_nothing() {
    for dtype in FLOATS {
        for smoothing in [0.0, 0.1] {
            let case = CrossEntropyCase {
                label_smoothing: smoothing,
                ..CrossEntropyCase::with_dtype(dtype, &[3, 1], &[3.0, -1e4, 0.0], &[0, 0, 0])
            };
            check_loss(&case, |loss| assert_eq!(loss, 0.0));
            check_grad(&case, |grad| assert!(grad.iter().all(|&g| g == 0.0)));
        }
    }
}

#[test]
fn empty_batches_have_a_nan_mean_a_zero_sum_and_no_losses() {
    for shape in [vec![0, 5], vec![3, 5, 0], vec![0, 5, 2]] {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
            let case = CrossEntropyCase { reduction, ..CrossEntropyCase::new(&shape, &[], &[]) };
            check_and(&case, "loss", |loss| match reduction {
                Reduction::None => assert!(loss.is_empty()),
                Reduction::Sum => assert_eq!(loss, [0.0]),
                Reduction::Mean | Reduction::BatchMean => assert!(loss[0].is_nan()),
            });
        }
    }
}

#[test]
fn no_classes_are_legal_as_long_as_every_row_is_ignored() {
    let case = CrossEntropyCase {
        label_smoothing: 0.1,
        ..CrossEntropyCase::new(&[2, 0], &[], &[-100, -100])
    };
    check_loss(&case, |loss| assert!(loss.is_nan()));
}

#[test]
fn any_integer_can_mark_ignored_rows() {
    for label in [i64::MIN, -1, 0, 1, 255, i64::MAX] {
        let case = CrossEntropyCase {
            ignore_index: label,
            ..CrossEntropyCase::new(&[3, 3], &Rng(6).normals(9, 1.0), &[2, label, 2])
        };
        check_grad(&case, |grad| assert!(grad[3..6].iter().all(|&g| g == 0.0)));
    }
}

#[test]
fn each_row_gets_its_own_upstream_gradient() {
    let logits = Rng(9).normals(3 * 11, 2.0);
    let case = CrossEntropyCase {
        reduction: Reduction::None,
        upstream: per_row(&[1.0, 0.0, -3.0]),
        ..CrossEntropyCase::new(&[3, 11], &logits, &[1, 2, 3])
    };
    check_grad(&case, |grad| {
        assert!(grad[1] < 0.0 && grad[2 * 11 + 3] > 0.0);
        assert!(grad[11..22].iter().all(|&g| g == 0.0));
    });
}

#[test]
fn a_masked_class_stays_masked_under_a_soft_cap() {
    for dtype in FLOATS {
        let case = CrossEntropyCase {
            softcap: Some(5.0),
            logit_scale: 2.0,
            ..CrossEntropyCase::with_dtype(dtype, &[1, 3], &[1.0, -INF, 100.0], &[0])
        };
        check_loss(&case, |loss| assert!(loss.is_finite()));
        check_grad(&case, |grad| assert_eq!(grad[1], 0.0));
    }
}

#[test]
fn the_z_loss_ignores_weights_and_smoothing() {
    let logits = Rng(12).normals(4 * 7, 2.0);
    let plain = CrossEntropyCase {
        lse_square_scale: 0.5,
        ..CrossEntropyCase::new(&[4, 7], &logits, &[0, 3, -100, 6])
    };
    let z_loss = plain.expected().into_iter().find(|e| e.name == "z_loss").expect("a z-loss");
    let other = CrossEntropyCase {
        weight: weights(&[0.5, 1.0, 2.0, 3.0, 0.1, 0.2, 0.3]),
        label_smoothing: 0.3,
        ..plain
    };
    check_and(&other, "z_loss", |got| {
        assert!(got[0] > 0.1);
        assert!(z_loss.compare(DType::F32, got).agrees());
    });
}

#[test]
fn a_sum_beyond_the_logits_dtype_does_not_overflow() {
    let rows = 40;
    let logits: Vec<f64> = (0..rows).flat_map(|_| [6e4, 0.0]).collect();
    let case = CrossEntropyCase {
        reduction: Reduction::Sum,
        ..CrossEntropyCase::with_dtype(DType::F16, &[rows, 2], &logits, &vec![1; rows])
    };
    check_loss(&case, |loss| assert!((loss / 2.4e6 - 1.0).abs() < 1e-3, "{loss}"));
}
