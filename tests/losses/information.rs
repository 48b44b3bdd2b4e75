//! Entropy, cross entropy and KL of probabilities, against plain sums and against one another.

use crate::data::{Data, FLOATS, Rng};
use crate::harness::devices;
use proptest::prelude::*;
use warploss::{DType, Device, Result, Tensor, TensorRef, information};

type Function = fn(&Device, TensorRef<'_>, TensorRef<'_>) -> Result<Tensor>;

type Term = fn(f64, f64) -> f64;

/// Name, function, and the term that it sums.
const FUNCTIONS: [(&str, Function, Term); 3] = [
    ("entropy", |device, p, _| information::entropy(device, p), |p, _| -p * p.ln()),
    ("cross entropy", information::cross_entropy, |p, q| -p * q.ln()),
    ("KL", information::kl_divergence, |p, q| p * (p.ln() - q.ln())),
];

/// Probabilities that sum to 1 in each row of `classes`, some of them 0.
fn distributions(rng: &mut Rng, rows: usize, classes: usize, zeros: bool) -> Vec<f64> {
    (0..rows)
        .flat_map(|_| {
            let raw: Vec<f64> = (0..classes)
                .map(|_| if zeros && rng.below(4) == 0 { 0.0 } else { (2.0 * rng.normal()).exp() })
                .collect();
            let total: f64 = raw.iter().sum::<f64>().max(1e-30);
            raw.into_iter().map(move |p| p / total)
        })
        .collect()
}

/// Each row's value, and Σ|terms|, from what the tensors hold.
fn expected(term: Term, p: &[f64], q: &[f64], classes: usize) -> Vec<[f64; 2]> {
    (p.chunks(classes).zip(q.chunks(classes)))
        .map(|(p, q)| {
            let terms = p.iter().zip(q).map(|(&p, &q)| if p == 0.0 { 0.0 } else { term(p, q) });
            terms.fold([0.0; 2], |[sum, size], term| [sum + term, size + term.abs()])
        })
        .collect()
}

#[test]
fn information_agrees_with_plain_sums() {
    for (seed, (rows, classes)) in
        (0..).zip([(1, 1), (3, 7), (2, 257), (5, 2050), (1, 70_000), (0, 4), (40, 33)])
    {
        for dtype in FLOATS {
            let mut rng = Rng(seed);
            let p = distributions(&mut rng, rows, classes, true);
            let q = distributions(&mut rng, rows, classes, false);
            let [p, q] = [(&p, 3), (&q, 1)]
                .map(|(x, padding)| Data::floats(dtype, &[rows, classes], x).padded(padding));
            for (name, device) in devices() {
                for (function, call, term) in FUNCTIONS {
                    let got = call(device, p.view(), q.view()).unwrap();
                    assert_eq!(*got.shape(), [rows]);
                    let got = got.view().to_f64().unwrap();
                    let expected = expected(term, &p.values(), &q.values(), classes);
                    for (got, [value, size]) in got.into_iter().zip(expected) {
                        let close = got == value || (got - value).abs() <= 2e-6 * (1.0 + size);
                        assert!(
                            close,
                            "{name} {function} {dtype} {rows} × {classes}: {got} {value}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn classes_may_be_the_middle_dimension() {
    let mut rng = Rng(9);
    let rows = distributions(&mut rng, 6, 5, true);
    // [2, 5, 3] of the six rows.
    let at = |i: usize| rows[(i / 15 * 3 + i % 3) * 5 + i / 3 % 5];
    let p: Vec<f64> = (0..30).map(at).collect();
    let (middle, last) =
        (Data::floats(DType::F32, &[2, 5, 3], &p), Data::floats(DType::F32, &[6, 5], &rows));
    for (name, device) in devices() {
        let [a, b] = [&middle, &last].map(|p| information::entropy(device, p.view()).unwrap());
        assert_eq!(*a.shape(), [2, 3]);
        assert_eq!(a.view().to_f64().unwrap(), b.view().to_f64().unwrap(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// H(p, q) = H(p) + KL(p‖q), and KL is never negative.
    #[test]
    fn cross_entropy_is_entropy_and_divergence(
        seed in any::<u64>(), rows in 1usize..6, classes in 1usize..400,
    ) {
        let mut rng = Rng(seed);
        let p = distributions(&mut rng, rows, classes, true);
        let q = distributions(&mut rng, rows, classes, seed % 3 == 0);
        let [p, q] = [&p, &q].map(|x| Data::floats(DType::F32, &[rows, classes], x));
        for (name, device) in devices() {
            let values: Vec<Vec<f64>> = (FUNCTIONS.iter())
                .map(|(_, call, _)| {
                    call(device, p.view(), q.view()).unwrap().view().to_f64().unwrap()
                })
                .collect();
            for ((h, cross), kl) in values[0].iter().zip(&values[1]).zip(&values[2]) {
                let same = cross == &(h + kl) || (cross - (h + kl)).abs() <= 1e-5 * (1.0 + cross);
                prop_assert!(same, "{name}: {cross} = {h} + {kl}");
                prop_assert!(*kl >= -1e-6, "{name}: {kl}");
            }
        }
    }
}

#[test]
fn zeros_infinities_and_what_is_no_probability() {
    let inf = f64::INFINITY;
    let p = Data::floats(DType::F32, &[4, 2], &[1.0, 0.0, 0.0, 0.0, -0.5, 0.5, f64::NAN, 0.5]);
    let q = Data::floats(DType::F32, &[4, 2], &[0.0, 1.0, 0.5, f64::NAN, 0.5, 0.5, 0.5, 0.5]);
    for (name, device) in devices() {
        let of =
            |call: Function| call(device, p.view(), q.view()).unwrap().view().to_f64().unwrap();
        let [h, cross, kl] = FUNCTIONS.map(|(_, call, _)| of(call));
        assert_eq!((h[0], h[1]), (0.0, 0.0), "{name}");
        assert_eq!((cross[0], cross[1]), (inf, 0.0), "{name}");
        assert_eq!((kl[0], kl[1]), (inf, 0.0), "{name}");
        assert!(h[2].is_nan() && kl[2].is_nan(), "{name}");
        assert!([&h, &cross, &kl].iter().all(|v| v[3].is_nan()), "{name}");
        let other = Data::floats(DType::F32, &[2, 4], &[0.5; 8]);
        let error = information::kl_divergence(device, p.view(), other.view()).unwrap_err();
        assert_eq!(error.to_string(), "q: expected shape [4, 2] (that of p), got [2, 4]");
        let half = Data::floats(DType::F16, &[4, 2], &[0.5; 8]);
        let error = information::cross_entropy(device, p.view(), half.view()).unwrap_err();
        assert_eq!(error.to_string(), "q: expected dtype f32 (that of p), got f16");
    }
}
