//! What the elementwise losses give where it is not obvious: kinks, numbers that are not finite,
//! zeros, empty tensors. The numbers stand here; no reference is asked.

use crate::cross_entropy::Upstream;
use crate::data::{Data, FLOATS, Rng};
use crate::elementwise::{
    ElementwiseCase, bce_with_logits, huber, kl_div, l1, losses, mse, smooth_l1,
};
use crate::harness::{Expected, bits, check, check_against, devices};
use warploss::check::elementwise::{ElementLoss, Weights};
use warploss::{DType, KlDiv, Reduction, TensorRef};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// Pairs x, y and what is expected of each: loss, gradient to x, gradient to y.
fn check_table(loss: ElementLoss, rows: &[(f64, f64, [f64; 3])]) {
    let column = |f: fn(&(f64, f64, [f64; 3])) -> f64| rows.iter().map(f).collect::<Vec<f64>>();
    let case = ElementwiseCase::pairs(loss, &column(|r| r.0), &column(|r| r.1));
    let expected = [
        Expected::term("loss", column(|r| r.2[0])),
        Expected::gradient("grad_input", column(|r| r.2[1])),
        Expected::gradient("grad_target", column(|r| r.2[2])),
    ];
    // Each row by itself and, as the reference has it, all together.
    check_against(&case, &expected);
    check(&case);
}

#[test]
fn differences_that_are_not_finite() {
    let rows = |far: f64| {
        [
            (INF, 0.0, [INF, far, -far]),
            (0.0, INF, [INF, -far, far]),
            (-INF, 1.0, [INF, -far, far]),
            (INF, -INF, [INF, far, -far]),
            (3e38, -3e38, [INF, far, -far]),
            (INF, INF, [NAN; 3]),
            (NAN, 0.0, [NAN; 3]),
            (0.0, NAN, [NAN; 3]),
        ]
    };
    check_table(mse(), &rows(INF));
    check_table(smooth_l1(0.5), &rows(1.0));
    check_table(huber(2.0), &rows(2.0));
    // sign(NaN) is 0.
    for loss in [l1(), smooth_l1(0.0)] {
        let rows = rows(1.0).map(|(x, y, [value, dx, dy])| match value.is_nan() {
            true => (x, y, [value, 0.0, 0.0]),
            false => (x, y, [value, dx, dy]),
        });
        check_table(loss, &rows);
    }
}

#[test]
fn kinks_and_edges() {
    check_table(l1(), &[(1.0, 1.0, [0.0; 3]), (-0.0, 0.0, [0.0; 3]), (2.0, 1.5, [0.5, 1.0, -1.0])]);
    check_table(
        smooth_l1(0.5),
        &[
            (0.5, 0.0, [0.25, 1.0, -1.0]),
            (0.0, 0.5, [0.25, -1.0, 1.0]),
            (0.25, 0.0, [0.0625, 0.5, -0.5]),
            (3.0, 0.0, [2.75, 1.0, -1.0]),
            (1.0, 1.0, [0.0; 3]),
        ],
    );
    check_table(
        huber(2.0),
        &[
            (2.0, 0.0, [2.0, 2.0, -2.0]),
            (0.0, 2.0, [2.0, -2.0, 2.0]),
            (1.0, 0.0, [0.5, 1.0, -1.0]),
            (5.0, 0.0, [8.0, 2.0, -2.0]),
        ],
    );
}

/// Bends at both ends of f32: 1/β would be infinite, or a subnormal number.
#[test]
fn extreme_bends() {
    let tiny = f64::from(f32::from_bits(3));
    check_table(
        smooth_l1(f32::from_bits(3)),
        &[(1.0, 0.0, [1.0, 1.0, -1.0]), (tiny, 0.0, [0.0, 1.0, -1.0])],
    );
    check_table(smooth_l1(2e38), &[(1e38, 0.0, [2.5e37, 0.5, -0.5])]);
    check_table(huber(3e38), &[(4.0, 1.0, [4.5, 3.0, -3.0])]);
}

#[test]
fn a_bend_at_0_is_l1_and_huber_is_delta_times_smooth_l1() {
    let device = &devices()[0].1;
    for seed in 0..20 {
        let l1 = ElementwiseCase::random(l1(), seed);
        let smooth = ElementwiseCase { loss: smooth_l1(0.0), ..l1.clone() };
        assert_eq!(bits(&l1, device), bits(&smooth, device));
    }
    let mut rng = Rng(4);
    let (x, y) = (rng.normals(200, 2.0), rng.normals(200, 2.0));
    for delta in [0.5f32, 2.0, 8.0] {
        let smooth = ElementwiseCase::pairs(smooth_l1(delta), &x, &y);
        let huber = ElementwiseCase::pairs(huber(delta), &x, &y);
        // δ is a power of two: exact.
        for ((what, a), (_, b)) in bits(&smooth, device).iter().zip(bits(&huber, device)) {
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (f64::from_bits(*a), f64::from_bits(b));
                assert_eq!(a * f64::from(delta), b, "{what}");
            }
        }
    }
}

#[test]
fn weights() {
    let weighted = |loss, weights: &[f64]| {
        let shape = [weights.len()];
        let case = ElementwiseCase::new(loss, (&shape, &[3.0, -1.0]), (&shape, &[1.0, -1.5]));
        ElementwiseCase { weight: Some(Data::floats(DType::F32, &shape, weights)), ..case }
    };
    let nan = || {
        [
            Expected::term("loss", vec![NAN]),
            Expected::gradient("grad_input", vec![NAN; 2]),
            Expected::gradient("grad_target", vec![NAN; 2]),
        ]
    };
    // Without weight there is no mean; Huber's divides by the count.
    for loss in losses().into_iter().filter(|loss| loss.of().weights == Weights::Divide) {
        check_against(&weighted(loss, &[0.0, 0.0]), &nan());
        check_against(&weighted(loss, &[1.5, -1.5]), &nan());
    }
    let zero = || {
        [
            Expected::term("loss", vec![0.0]),
            Expected::gradient("grad_input", vec![0.0; 2]),
            Expected::gradient("grad_target", vec![0.0; 2]),
        ]
    };
    check_against(&weighted(huber(1.0), &[0.0, 0.0]), &zero());
    check_against(&weighted(bce_with_logits(), &[0.0, 0.0]), &zero());
    // Negative weights are computed with.
    check(&weighted(mse(), &[3.0, -1.0]));
    // A weight of 0 does not silence an infinite difference.
    let case = ElementwiseCase::pairs(mse(), &[INF, 1.0], &[0.0, 0.0]);
    let case =
        ElementwiseCase { weight: Some(Data::floats(DType::F32, &[2], &[0.0, 2.0])), ..case };
    check_against(
        &case,
        &[
            Expected::term("loss", vec![NAN, 2.0]),
            Expected::gradient("grad_input", vec![NAN, 4.0]),
            Expected::gradient("grad_target", vec![NAN, -4.0]),
        ],
    );
}

#[test]
fn divergence_of_probabilities() {
    let kl = kl_div(false);
    check_table(
        kl,
        &[
            (-1.0, 0.0, [0.0, 0.0, NAN]),
            (-INF, 0.0, [0.0, 0.0, NAN]),
            (-INF, 0.5, [INF, -0.5, INF]),
            (INF, 0.0, [NAN, 0.0, NAN]),
            (NAN, 0.0, [NAN, 0.0, NAN]),
            (NAN, 0.5, [NAN, -0.5, NAN]),
            (-1.0, NAN, [NAN; 3]),
            (-1.0, -0.5, [NAN, 0.5, NAN]),
            (0.0, 1.0, [0.0, -1.0, 1.0]),
        ],
    );
    // A probability below 0 has no logarithm, which nobody asked for where g = 0.
    let case = ElementwiseCase::pairs(kl, &[-1.0, -1.0], &[-0.5, 0.0]);
    let g = Data::floats(DType::F32, &[2], &[0.0, 0.0]);
    let case = ElementwiseCase { upstream: Upstream::Tensor(g), ..case };
    check_against(
        &case,
        &[
            Expected::term("loss", vec![NAN, 0.0]),
            Expected::gradient("grad_input", vec![0.0, 0.0]),
            Expected::gradient("grad_target", vec![0.0, NAN]),
        ],
    );
}

#[test]
fn divergence_of_logarithms() {
    check_table(
        kl_div(true),
        &[
            (-1.0, -INF, [0.0; 3]),
            (-INF, -INF, [0.0; 3]),
            (INF, -INF, [0.0; 3]),
            (NAN, -INF, [NAN, 0.0, NAN]),
            (-INF, 0.0, [INF, -1.0, INF]),
            (-1.0, 0.0, [1.0, -1.0, 2.0]),
            (-1.0, NAN, [NAN; 3]),
        ],
    );
    // e^y underflows, but x = −∞ is impossible all the same.
    check_table(kl_div(true), &[(-INF, -300.0, [INF, 0.0, INF])]);
}

#[test]
fn logits_that_are_not_finite() {
    check_table(
        bce_with_logits(),
        &[
            (INF, 1.0, [0.0, 0.0, -INF]),
            (-INF, 0.0, [0.0, 0.0, INF]),
            (INF, 0.0, [INF, 1.0, -INF]),
            (-INF, 1.0, [INF, -1.0, INF]),
            (NAN, 0.5, [NAN; 3]),
            (NAN, 1.0, [NAN; 3]),
            (1e4, 0.0, [1e4, 1.0, -1e4]),
            (-1e4, 0.0, [0.0, 0.0, 1e4]),
            (1e4, 1.0, [0.0, 0.0, -1e4]),
        ],
    );
    // Small losses keep their digits: ln(1 + e^−20), and the gradient to t is −x exactly.
    let tail = (-20f64).exp();
    check_table(bce_with_logits(), &[(20.0, 1.0, [tail.ln_1p(), -tail / (1.0 + tail), -20.0])]);
    let case = ElementwiseCase::pairs(bce_with_logits(), &[20.0, -30.0], &[1.0, 0.0]);
    let device = &devices()[0].1;
    let loss = f64::from_bits(bits(&case, device)[0].1[0]);
    assert!((loss / tail.ln_1p() - 1.0).abs() < 1e-6, "{loss:e}");
}

#[test]
fn a_weight_of_0_silences_an_infinite_softplus() {
    let (x, y) = ([-INF, INF, NAN], [1.0, 0.0, 1.0]);
    let zero = Some(Data::floats(DType::F32, &[], &[0.0]));
    let case = ElementwiseCase::pairs(bce_with_logits(), &x, &y);
    for case in [
        ElementwiseCase { weight: zero.clone(), ..case.clone() },
        ElementwiseCase { third: zero, ..case },
    ] {
        check(&case);
    }
}

#[test]
fn nothing_has_a_sum_of_0_and_no_mean() {
    for loss in losses() {
        for (reduction, expected) in
            [(Reduction::None, vec![]), (Reduction::Sum, vec![0.0]), (Reduction::Mean, vec![NAN])]
        {
            for shape in [[0, 3], [3, 0]] {
                let case = ElementwiseCase::new(loss, (&shape, &[]), (&shape, &[]));
                check_against(
                    &ElementwiseCase { reduction, ..case },
                    &[
                        Expected::term("loss", expected.clone()),
                        Expected::gradient("grad_input", vec![]),
                        Expected::gradient("grad_target", vec![]),
                    ],
                );
            }
        }
    }
    for (shape, expected) in [([3, 0], 0.0), ([0, 3], NAN)] {
        let kl = kl_div(false);
        let case = ElementwiseCase::new(kl, (&shape, &[]), (&shape, &[]));
        check_against(
            &ElementwiseCase { reduction: Reduction::BatchMean, ..case },
            &[
                Expected::term("loss", vec![expected]),
                Expected::gradient("grad_input", vec![]),
                Expected::gradient("grad_target", vec![]),
            ],
        );
    }
    // What serves no element has a gradient of 0.
    let case = ElementwiseCase::new(mse(), (&[0, 3], &[]), (&[3], &[1.0, 2.0, NAN]));
    check_against(
        &case,
        &[
            Expected::term("loss", vec![NAN]),
            Expected::gradient("grad_input", vec![]),
            Expected::gradient("grad_target", vec![0.0; 3]),
        ],
    );
}

/// Every remainder of vectors and packs, and both sides of a tile's edge.
#[test]
fn every_small_length_and_tile_edge_agrees() {
    for n in (1..=70).chain([255, 256, 257, 1023, 1024, 1025, 2047, 2049]) {
        for dtype in FLOATS {
            let loss = losses()[n % losses().len()];
            let plain = ElementwiseCase::plain(loss, &[2, n], &[2, n]);
            let again = |data: &Data, padding| {
                Data::floats(dtype, data.shape(), &data.values()).padded(padding)
            };
            check(&ElementwiseCase {
                input: again(&plain.input, n % 3),
                target: again(&plain.target, n % 2),
                ..plain
            });
        }
    }
}

/// A mean of many, each different, so that a lost or doubled element shows; a sum back of many.
#[test]
fn long_tensors_lose_no_element() {
    for (x, y) in [(&[300_001][..], &[300_001][..]), (&[150_000], &[]), (&[3, 50_000], &[3, 1])] {
        for loss in [mse(), kl_div(false)] {
            let case = ElementwiseCase::plain(loss, x, y);
            check(&ElementwiseCase { reduction: Reduction::Sum, ..case });
        }
    }
}

#[test]
fn divergence_is_cross_entropy_less_entropy() {
    let device = &devices()[0].1;
    let mut rng = Rng(8);
    for n in [2usize, 5, 300] {
        let mut distribution = || {
            let values: Vec<f64> = (0..n).map(|_| rng.unit() + 1e-3).collect();
            let sum: f64 = values.iter().sum();
            values.iter().map(|v| (v / sum) as f32).collect::<Vec<f32>>()
        };
        let (p, q) = (distribution(), distribution());
        let (mut kl, mut cross, mut entropy) = (0.0, 0.0, 0.0);
        for (&p, &q) in p.iter().zip(&q) {
            let (p, q) = (f64::from(p), f64::from(q));
            kl += p * (p / q).ln();
            cross -= p * q.ln();
            entropy -= p * p.ln();
        }
        assert!((cross - entropy - kl).abs() < 1e-9);
        let x: Vec<f32> = q.iter().map(|q| q.ln()).collect();
        let shape = [1, n];
        let (x, p) = (TensorRef::new(&x, &shape).unwrap(), TensorRef::new(&p, &shape).unwrap());
        let loss = KlDiv::default().reduction(Reduction::BatchMean);
        let got = f64::from(loss.forward(device, x, p).unwrap().item().unwrap());
        assert!((got - kl).abs() < 2e-6 * (1.0 + cross), "{got} {kl}");
    }
}
