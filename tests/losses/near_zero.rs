//! Divergences of a model that is nearly its teacher, and entropies of rows that are nearly certain:
//! what is small keeps its digits, in the losses and in their gradients.

use crate::cross_entropy::CrossEntropyCase;
use crate::data::{Data, Rng};
use crate::elementwise::{ElementwiseCase, js_div, kl_div};
use crate::harness::{Case, check, devices};
use crate::js_div_logits::JsDivLogitsCase;
use crate::logprob_entropy::LogprobEntropyCase;
use warploss::{DType, Reduction};

const BETAS: [f32; 7] = [0.0, 1e-6, 1e-3, 0.5, 0.75, 1.0 - 1e-3, 1.0];
const NOISE: [f64; 3] = [1e-3, 1e-4, 1e-5];

/// As f32 has it.
fn rounded(values: impl Iterator<Item = f64>) -> Vec<f64> {
    values.map(|v| f64::from(v as f32)).collect()
}

/// How a model's logits, and its options, are made of a teacher's logits and of noise.
struct Variation {
    name: &'static str,
    model: fn(f64, f64) -> f64,
    /// What all logits are moved by first.
    offset: f64,
    scales: [f32; 2],
}

const VARIATIONS: [Variation; 6] = [
    Variation { name: "plain", model: |y, e| y + e, offset: 0.0, scales: [1.0, 1.0] },
    Variation { name: "temperature", model: |y, e| y + e, offset: 0.0, scales: [0.7, 0.7] },
    Variation { name: "common offset", model: |y, e| y + e, offset: 300.0, scales: [1.0, 1.0] },
    Variation { name: "offset of one", model: |y, e| y + e + 64.0, offset: 0.0, scales: [1.0; 2] },
    Variation { name: "two scales", model: |y, e| 2.0 * y + e, offset: 0.0, scales: [0.5, 1.0] },
    Variation { name: "odd scales", model: |y, e| (y + e) / 3.0, offset: 5.0, scales: [2.1, 0.7] },
];

/// Within 2 % or 1e-9 of the loss, never below 0 by more than the terms' own rounding, and gradients
/// within 1e-4 of the largest.
fn check_near_teacher(case: &JsDivLogitsCase, what: &str) {
    let expected = case.expected();
    let loss = expected.iter().find(|e| e.name == "loss").expect("a loss").values[0];
    for (name, device) in devices() {
        for got in case.in_place(device, true).expect("a legal call") {
            let expected = expected.iter().find(|e| e.name == got.name).expect("a result");
            let at = format!("{what}: {} on {name}", got.name);
            let errors = got.values.iter().zip(&expected.values).map(|(g, e)| (g - e).abs());
            let worst = errors.fold(0.0, f64::max);
            if got.name == "loss" {
                let got = got.values[0];
                assert!(worst <= (0.02 * loss).max(1e-9), "{at}: {got:e} for {loss:e}");
                assert!(got >= -1e-10, "{at}: {got:e}");
            } else {
                let largest = expected.values.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
                assert!(largest > 0.0 && worst <= 1e-4 * largest, "{at}: {worst:e} of {largest:e}");
            }
        }
    }
}

/// Lanes that made another last bit of a row's normaliser than their neighbours gave classes of the
/// same logits gradients that differed by 1e-4 of the largest.
#[test]
fn classes_of_the_same_logits_have_the_same_gradient() {
    let (rows, classes) = (8, 257);
    let mut rng = Rng(103_824);
    let x = vec![1e4; rows * classes];
    let y = rounded((0..rows * classes).map(|_| 1e4 + 1e-3 * rng.normal()));
    for beta in [0.0, 0.5, 0.9] {
        let case =
            JsDivLogitsCase { beta, ..JsDivLogitsCase::new(DType::F32, &[rows, classes], &x, &y) };
        for (name, device) in devices() {
            for got in case.in_place(device, true).expect("a legal call") {
                if got.name == "loss" {
                    continue;
                }
                for (row, values) in got.values.chunks(classes).enumerate() {
                    let target = &y[row * classes..][..classes];
                    let of = |y: f64| target.iter().zip(values).filter(move |(t, _)| **t == y);
                    for (&y, first) in target.iter().zip(values) {
                        let other = of(y).find(|(_, g)| *g != first);
                        assert_eq!(other, None, "{} on {name}, row {row}: {first:e}", got.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_model_near_its_teacher_keeps_the_digits_of_loss_and_gradients() {
    let classes = 5000;
    for (i, variation) in VARIATIONS.iter().enumerate() {
        let Variation { name, model, offset, scales } = *variation;
        for (j, &noise) in NOISE.iter().enumerate() {
            let mut rng = Rng(7 + (3 * i + j) as u64);
            let y = rounded((0..classes).map(|_| offset + 2.0 * rng.normal()));
            let x = rounded(y.iter().map(|&y| model(y, noise * rng.normal())));
            // All of them once, then every other one.
            let (from, step) = if i == 0 { (0, 1) } else { ((i + j) % 2, 2) };
            for &beta in BETAS[from..].iter().step_by(step) {
                let case = JsDivLogitsCase {
                    beta,
                    logit_scale: scales[0],
                    teacher_scale: scales[1],
                    ..JsDivLogitsCase::new(DType::F32, &[1, classes], &x, &y)
                };
                check_near_teacher(&case, &format!("{name}, {noise:e}, beta {beta}"));
            }
        }
    }
}

/// Its slopes have no digits to lose, but a side each, which nobody can tell of a class that is on neither.
#[test]
fn a_total_variation_near_0_keeps_its_digits() {
    let classes = 5000;
    for variation in VARIATIONS {
        let Variation { name, model, offset, scales } = variation;
        for noise in NOISE {
            let mut rng = Rng(13);
            let y = rounded((0..classes).map(|_| offset + 2.0 * rng.normal()));
            let x = rounded(y.iter().map(|&y| model(y, noise * rng.normal())));
            let case = JsDivLogitsCase {
                beta: 2.0,
                logit_scale: scales[0],
                teacher_scale: scales[1],
                ..JsDivLogitsCase::new(DType::F32, &[1, classes], &x, &y)
            };
            let expected = case.expected()[0].values[0];
            assert!(expected > 0.1 * noise, "{expected}");
            for (device, on) in devices() {
                let got = case.in_place(on, false).expect("a legal call")[0].values[0];
                let error = (got - expected).abs();
                assert!(
                    error <= 0.02 * expected,
                    "{name}, {noise:e} on {device}: {got:e}, {expected:e}"
                );
            }
        }
    }
}

/// Rows with a class that has nearly all, and with masked classes in both.
#[test]
fn a_certain_or_masked_model_near_its_teacher_keeps_digits() {
    let classes = 1500;
    for (peak, masked) in [(12.0, 1000), (0.0, 3), (25.0, 50)] {
        for beta in BETAS {
            let mut rng = Rng(3);
            let y = (0..classes).map(|i| match i {
                17 => peak,
                _ if rng.below(masked) == 0 => f64::NEG_INFINITY,
                _ => rng.normal(),
            });
            let y = rounded(y);
            let x = rounded(y.iter().map(|y| y + 1e-4 * rng.normal()));
            let case =
                JsDivLogitsCase { beta, ..JsDivLogitsCase::new(DType::F32, &[1, classes], &x, &y) };
            check_near_teacher(&case, &format!("peak {peak}, beta {beta}"));
        }
    }
}

/// A beta next to 0 or 1 keeps digits where model and teacher are far from each other, too.
#[test]
fn a_beta_next_to_an_end_keeps_the_digits_of_its_gradients() {
    for beta in [1e-6, 1e-3, 0.04, 1.0 - 1e-3, 1.0 - 1e-6] {
        let mut rng = Rng(11);
        let classes = 700;
        let x = rounded((0..classes).map(|_| 3.0 * rng.normal()));
        let y = rounded((0..classes).map(|_| 3.0 * rng.normal()));
        let case =
            JsDivLogitsCase { beta, ..JsDivLogitsCase::new(DType::F32, &[1, classes], &x, &y) };
        check_near_teacher(&case, &format!("beta {beta}"));
    }
}

/// Equal rows diverge by nothing, at the ends and in total variation as well, and no row by less.
#[test]
fn no_divergence_is_negative() {
    let classes = 2100;
    let mut rng = Rng(5);
    let y = rounded((0..classes).map(|_| 3.0 * rng.normal()));
    for noise in [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-2, 1.0] {
        let x = rounded(y.iter().map(|y| y + noise * rng.normal()));
        for beta in [0.0, 1.0, 2.0] {
            for (name, device) in devices() {
                let case = JsDivLogitsCase {
                    beta,
                    ..JsDivLogitsCase::new(DType::F32, &[1, classes], &x, &y)
                };
                let loss = case.in_place(device, false).expect("a legal call")[0].values[0];
                assert!(loss >= 0.0, "{name}, beta {beta}, noise {noise}: {loss:e}");
                assert!(noise > 0.0 || loss == 0.0, "{name}, beta {beta}: {loss:e}");
            }
        }
    }
}

/// The same from log-probabilities, as far as they hold it: sums lose nothing that elements have.
#[test]
fn sums_of_log_probabilities_near_each_other_keep_their_digits() {
    let classes = 5000;
    let mut rng = Rng(9);
    let logits: Vec<f64> = (0..classes).map(|_| 2.0 * rng.normal()).collect();
    let normal = |z: &[f64]| {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        rounded(z.iter().map(|z| z - total.ln()))
    };
    let losses =
        [0.0, 1e-6, 1e-3, 0.5, 1.0 - 1e-3, 1.0].map(js_div).into_iter().chain([kl_div(true)]);
    for loss in losses {
        for noise in NOISE {
            let near: Vec<f64> = logits.iter().map(|z| z + noise * rng.normal()).collect();
            let case = ElementwiseCase {
                reduction: Reduction::Sum,
                ..ElementwiseCase::new(
                    loss,
                    (&[classes], &normal(&near)),
                    (&[classes], &normal(&logits)),
                )
            };
            let expected = case.expected();
            for (name, device) in devices() {
                for (form, got) in case.forms(device) {
                    for got in got.expect("a legal call") {
                        let e = expected.iter().find(|e| e.name == got.name).expect("a result");
                        let largest = e.values.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
                        let errors = got.values.iter().zip(&e.values).map(|(g, e)| (g - e).abs());
                        let worst = errors.fold(0.0, f64::max);
                        let bound = match got.name {
                            "loss" => (0.02 * largest).max(2e-9),
                            _ => 1e-4 * largest,
                        };
                        let at = format!("{loss:?} {noise:e}, {form} on {name}: {}", got.name);
                        assert!(worst <= bound, "{at}: {worst:e} of {largest:e}");
                    }
                }
            }
        }
    }
}

/// Largest error relative to the value, for values that are no less than `floor` of the largest.
fn relative(got: &[f64], expected: &[f64], floor: f64) -> f64 {
    let largest = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    let errors = got.iter().zip(expected);
    errors.map(|(g, e)| (g - e).abs() / e.abs().max(floor * largest)).fold(0.0, f64::max)
}

/// Entropy and its gradient down to a gap of 60, wherever the likely class and the target stand.
#[test]
fn a_nearly_certain_row_keeps_the_digits_of_entropy_and_gradient() {
    let mut rng = Rng(21);
    for classes in [2, 37, 2500] {
        for (gap, scale, cap) in [
            (5.0, 1.0, None),
            (10.0, 1.0, None),
            (20.0, 0.5, None),
            (40.0, 1.0, None),
            (60.0, 1.0, None),
            (120.0, 0.5, None),
            (12.0, 1.0, Some(30.0)),
        ] {
            for kind in 0..3 {
                let likely = rng.below(classes);
                let target = match kind {
                    0 => likely,
                    1 => (likely + 1) % classes,
                    _ => rng.below(classes),
                };
                let logits = (0..classes).map(|i| match i == likely {
                    true => gap,
                    false => -3.0 * rng.unit() / f64::from(scale),
                });
                let logits = rounded(logits);
                let case = CrossEntropyCase {
                    logit_scale: scale,
                    softcap: cap,
                    ..CrossEntropyCase::new(&[1, classes], &logits, &[target as i64])
                };
                let case = LogprobEntropyCase::of(case, [0.0, 1.0]);
                let expected = case.expected();
                for (name, device) in devices() {
                    for (form, got) in case.forms(device) {
                        for got in got.expect("a legal call") {
                            if !matches!(got.name, "entropy" | "grad_logits") {
                                continue;
                            }
                            let e = expected.iter().find(|e| e.name == got.name).expect("a result");
                            // A gradient crosses 0 between the likely class and the others.
                            let floor = if got.name == "entropy" { 1.0 } else { 1e-2 };
                            let worst = relative(&got.values, &e.values, floor);
                            let at = format!("gap {gap}, {classes} classes, kind {kind}, {scale}");
                            let at = format!("{at}, {cap:?}, {form} on {name}: {}", got.name);
                            assert!(worst <= 1e-4, "{at}: {worst:e}");
                        }
                    }
                }
            }
        }
    }
}

/// What e^y makes of a y that leaves f32, and of one that nearly does.
#[test]
fn log_targets_beyond_the_range_of_exp_are_infinite_and_no_nan() {
    let inf = f64::INFINITY;
    let far = [88.8, 89.0, 127.0, 177.0, 1000.0, 3e38];
    let reversed = js_div(1.0);
    for loss in [kl_div(true), js_div(0.0), reversed] {
        let names = if loss == reversed {
            ["grad_target", "grad_input"]
        } else {
            ["grad_input", "grad_target"]
        };
        let run = |x: &[f64], y: &[f64], expected: &dyn Fn(usize) -> [f64; 3]| {
            let (x, y) = if loss == reversed { (y, x) } else { (x, y) };
            let case = ElementwiseCase {
                reduction: Reduction::None,
                ..ElementwiseCase::pairs(loss, x, y)
            };
            for (name, device) in devices() {
                for (form, got) in case.forms(device) {
                    for got in got.expect("a legal call") {
                        let k = ["loss", names[0], names[1]].iter().position(|n| *n == got.name);
                        for (i, &value) in got.values.iter().enumerate() {
                            let expected = expected(i)[k.expect("a result")];
                            let at = format!("{loss:?} of {}, {}, {form} on {name}", x[i], y[i]);
                            let close = (value - expected).abs() <= 1e-5 * expected.abs();
                            assert!(value == expected || close, "{at}: {} {value}", got.name);
                        }
                    }
                }
            }
        };
        let same = |x: f64| vec![x; far.len()];
        run(&same(-1.5), &far, &|_| [inf, -inf, inf]);
        // The distance is 0, and so is its product; or it is −1, which takes the gradient away.
        run(&far, &far, &|_| [0.0, -inf, inf]);
        let above: Vec<f64> = far[..5].iter().map(|y| f64::from(*y as f32)).collect();
        let beyond: Vec<f64> = above.iter().map(|y| y + 64.0).collect();
        run(&beyond, &above, &|_| [-inf, -inf, -inf]);
        // The last that are finite.
        let edge = rounded([88.0, 88.4, 88.7].into_iter());
        run(&edge, &edge, &|i| [0.0, -edge[i].exp(), edge[i].exp()]);
    }
    // A NaN is NaN in both gradients, whatever the other probability is.
    let nan = js_div(0.25);
    for (x, y) in [(-300.0, f64::NAN), (f64::NAN, -300.0), (-1.0, f64::NAN)] {
        check(&ElementwiseCase::pairs(nan, &[x, -87.5], &[y, -87.5]));
    }
    let case = ElementwiseCase::pairs(js_div(0.5), &[88.7, 95.0], &[88.6, -1.0]);
    check(&case);
}

/// The loss of an element of 16 bits is an f32 and has its digits, from where the series of e^t and of
/// ln(1 + f) hold to far beyond.
#[test]
fn divergences_of_16_bits_element_by_element() {
    let mut rng = Rng(15);
    for dtype in [DType::F16, DType::BF16] {
        for spread in [0.02, 0.1, 0.3, 1.0, 3.0] {
            let y: Vec<f64> = (0..700).map(|_| -8.0 * rng.unit()).collect();
            let x: Vec<f64> = y.iter().map(|y| y + spread * rng.normal()).collect();
            for beta in [0.1, 0.5, 0.9] {
                let loss = js_div(beta);
                check(&ElementwiseCase {
                    reduction: Reduction::None,
                    input: Data::floats(dtype, &[700], &x),
                    target: Data::floats(dtype, &[700], &y),
                    ..ElementwiseCase::new(loss, (&[700], &x), (&[700], &y))
                });
            }
        }
    }
}
