//! Gradients against central differences: of the reference in f64, and of the engine with it.

use crate::cross_entropy::{CrossEntropyCase, Upstream, target_shape};
use crate::data::{Data, Logits, Rng};
use crate::elementwise::{self, ElementwiseCase};
use crate::harness::{Case, check};
use crate::js_div_logits::JsDivLogitsCase;
use crate::log_softmax::LogSoftmaxCase;
use crate::logprob_entropy::LogprobEntropyCase;
use crate::logsumexp::LogSumExpCase;
use crate::nll::NllCase;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use crate::tokens::TokensCase;
use warploss::check::elementwise::Weights;
use warploss::{DType, Reduction};

/// Step of the differences: errors of h² ≈ 1e-10 and of 1e-16/h meet about here.
const H: f64 = 1e-5;

pub(crate) fn check_slope(case: &dyn Case) {
    let expected = case.expected();
    for (name, x) in case.variables() {
        let gradient = expected.iter().find(|e| e.name == name).expect("a gradient");
        for i in 0..x.len() {
            let at = |h: f64| {
                let mut x = x.clone();
                x[i] += h;
                case.objective(name, &x)
            };
            let slope = (at(H) - at(-H)) / (2.0 * H);
            let error = (slope - gradient.values[i]).abs();
            let value = gradient.values[i];
            assert!(
                error < 1e-8 * (1.0 + slope.abs()),
                "{name}, element {i}: {value:e}, slope {slope:e}\n  of {}",
                case.describe()
            );
        }
    }
    check(case);
}

#[test]
fn cross_entropy_has_the_slope_of_its_loss_under_every_option() {
    let classes = 9;
    let mut seed = 0;
    for shape in [vec![classes], vec![4, classes], vec![2, classes, 3]] {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
            for (smoothing, z_loss) in [(0.0, 0.0), (0.1, 0.0), (1.0, 0.1), (0.0, 0.1)] {
                for (scale, softcap) in [(1.0, None), (0.6, None), (1.7, Some(4.0))] {
                    for weighted in [false, true] {
                        seed += 1;
                        let mut rng = Rng(seed);
                        let rows: usize = shape.iter().product::<usize>() / classes;
                        let logits = Logits::Normal.values(&mut rng, rows, classes);
                        let target: Vec<i64> = (0..rows)
                            .map(|row| if row == 1 { -100 } else { rng.below(classes) as i64 })
                            .collect();
                        let weights: Vec<f64> = (0..classes).map(|_| 0.1 + rng.unit()).collect();
                        let case = CrossEntropyCase::new(&shape, &logits, &target);
                        let g =
                            Data::floats(DType::F32, case.target.shape(), &rng.normals(rows, 1.0));
                        check_slope(&CrossEntropyCase {
                            weight: weighted
                                .then(|| Data::floats(DType::F32, &[classes], &weights)),
                            upstream: match reduction {
                                Reduction::None => Upstream::Tensor(g),
                                Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                                    Upstream::Number(-1.75)
                                }
                            },
                            reduction,
                            label_smoothing: smoothing,
                            lse_square_scale: z_loss,
                            logit_scale: scale,
                            softcap,
                            ..case
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn soft_cross_entropy_has_the_slope_of_its_loss_under_every_option() {
    let mut seed = 100;
    for shape in [vec![7], vec![3, 7], vec![2, 7, 2]] {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
            for (label_smoothing, lse_square_scale) in [(0.0, 0.0), (0.1, 0.1), (1.0, 0.0)] {
                for (logit_scale, softcap) in [(1.0, None), (0.6, None), (1.7, Some(4.0))] {
                    for teacher_scale in [None, Some(0.7)] {
                        seed += 1;
                        let mut rng = Rng(seed);
                        let n = shape.iter().product();
                        let (x, y) = (rng.normals(n, 2.0), rng.normals(n, 1.0));
                        let case = SoftCrossEntropyCase::new(DType::F32, &shape, &x, &y);
                        let weights: Vec<f64> = (0..7).map(|_| 0.1 + rng.unit()).collect();
                        let rows = target_shape(&shape);
                        let g = rng.normals(rows.iter().product(), 1.0);
                        check_slope(&SoftCrossEntropyCase {
                            weight: (seed % 2 == 0)
                                .then(|| Data::floats(DType::F32, &[7], &weights)),
                            upstream: match reduction {
                                Reduction::None => {
                                    Upstream::Tensor(Data::floats(DType::F32, &rows, &g))
                                }
                                _ => Upstream::Number(-1.75),
                            },
                            reduction,
                            label_smoothing,
                            lse_square_scale,
                            logit_scale,
                            softcap,
                            teacher_scale,
                            ..case
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn js_div_logits_has_the_slope_of_its_loss() {
    for seed in 0..60 {
        let case = JsDivLogitsCase::random(seed);
        let long = case.logits.values().len() > 200;
        // Central differences of what is infinite, or NaN, say nothing.
        let finite = |data: &Data| data.values().iter().all(|x| x.is_finite());
        let loss = case.expected()[0].values.iter().all(|x| x.is_finite());
        if !long && loss && finite(&case.logits) && finite(&case.target) {
            check_slope(&case);
        }
    }
}

#[test]
fn nll_has_the_slope_of_its_loss() {
    for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
        let mut rng = Rng(5);
        let case = NllCase::new(&[2, 4, 3], &rng.normals(24, 2.0), &[0, -100, 3, 1, 1, 2]);
        let weights: Vec<f64> = (0..4).map(|_| 0.1 + rng.unit()).collect();
        check_slope(&NllCase {
            weight: Some(Data::floats(DType::F32, &[4], &weights)),
            upstream: Upstream::Number(-1.75),
            reduction,
            ..case
        });
    }
}

#[test]
fn log_softmax_and_logsumexp_have_the_slope_of_their_results() {
    let shape = [3, 4, 5];
    let mut rng = Rng(11);
    let input = Data::floats(DType::F32, &shape, &rng.normals(60, 2.0));
    for dim in [0, 1, 2, -1] {
        check_slope(&LogSoftmaxCase {
            input: input.clone(),
            grad_output: Data::floats(DType::F32, &shape, &rng.normals(60, 1.0)),
            dim,
        });
    }
    let reduced: [(&[isize], &[usize]); 4] =
        [(&[1], &[3, 5]), (&[0, 2], &[4]), (&[-1], &[3, 4]), (&[2, 0, 1], &[])];
    for (dims, left) in reduced {
        check_slope(&LogSumExpCase {
            input: input.clone(),
            grad_output: Data::floats(DType::F32, left, &rng.normals(left.iter().product(), 1.0)),
            dims: dims.to_vec(),
            keepdim: false,
        });
    }
}

#[test]
fn logprob_entropy_has_the_slope_of_both_results_under_every_option() {
    let classes = 9;
    let mut seed = 0;
    for shape in [vec![classes], vec![4, classes], vec![2, classes, 3]] {
        for (scale, softcap) in [(1.0, None), (0.6, None), (1.7, Some(4.0))] {
            for grads in [[1.0, 0.0], [0.0, 1.0], [-1.75, 0.3]] {
                seed += 1;
                let mut rng = Rng(seed);
                let rows: usize = shape.iter().product::<usize>() / classes;
                let logits = Logits::Normal.values(&mut rng, rows, classes);
                let target: Vec<i64> = (0..rows)
                    .map(|row| if row == 1 { -100 } else { rng.below(classes) as i64 })
                    .collect();
                let case = CrossEntropyCase {
                    logit_scale: scale,
                    softcap,
                    ..CrossEntropyCase::new(&shape, &logits, &target)
                };
                let smoothed = CrossEntropyCase { label_smoothing: 0.2, ..case.clone() };
                check_slope(&TokensCase::of(smoothed, 2, seed));
                let case = LogprobEntropyCase::of(case, grads);
                check_slope(&case.clone().with_upstream_per_row(seed));
                check_slope(&case);
            }
        }
    }
}

/// Away from kinks: no difference is within a step of 0, β or δ.
#[test]
fn elementwise_losses_have_the_slope_of_their_results() {
    let pairs: [(&[usize], &[usize]); 4] =
        [(&[3, 4], &[3, 4]), (&[3, 4], &[4]), (&[3, 4], &[3, 1]), (&[1, 4], &[3, 1])];
    for loss in elementwise::losses() {
        for (x, y) in pairs {
            for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
                if !loss.of().broadcasts && x != y {
                    continue;
                }
                let case = ElementwiseCase {
                    upstream: Upstream::Number(-1.75),
                    reduction,
                    ..ElementwiseCase::plain(loss, x, y)
                };
                check_slope(&case);
                if x != y || loss.of().weights == Weights::None {
                    continue;
                }
                let mut rng = Rng(3);
                let mut weights = || {
                    let values: Vec<f64> = (0..12).map(|_| 0.1 + rng.unit()).collect();
                    Some(Data::floats(DType::F32, x, &values))
                };
                check_slope(&ElementwiseCase {
                    weight: weights(),
                    third: if loss.of().third.is_some() { weights() } else { None },
                    ..case
                });
            }
        }
    }
}
