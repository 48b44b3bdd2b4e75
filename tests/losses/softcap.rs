//! A soft-cap by the card's own tanh: within what its documentation says of the exact one.

use crate::data::{Data, FLOATS, Rng};
use crate::harness::devices;
use warploss::{CrossEntropy, DType, Device, LogprobEntropy, Reduction};

const CAP: f32 = 30.0;
/// Of a capped logit; a log-sum-exp's own rounding besides.
const KEY: f64 = 1.0 / 2048.0 + 1e-6;

fn exact() -> CrossEntropy<'static> {
    CrossEntropy::default().softcap(Some(CAP)).reduction(Reduction::None)
}

/// Log-sum-exp of rows of a logit and a masked class: the capped logit.
fn capped(loss: &CrossEntropy<'_>, device: &Device, dtype: DType, target: i64) -> [Vec<f64>; 2] {
    let mut rng = Rng(9);
    let x: Vec<f64> = (0..500).map(|_| 60.0 * rng.normal()).collect();
    let pairs: Vec<f64> = x.iter().flat_map(|&x| [x, f64::NEG_INFINITY]).collect();
    let logits = Data::floats(dtype, &[x.len(), 2], &pairs);
    let target = Data::indices(DType::I64, &[x.len()], &vec![target; x.len()]);
    let out = loss.forward(device, logits.view(), target.view()).unwrap();
    let x = logits.values().into_iter().step_by(2).collect();
    [out.lse.view().to_f64().unwrap(), x]
}

#[test]
fn an_approximate_softcap_is_within_its_bound_and_on_a_gpu_alone() {
    for (name, device) in devices() {
        for dtype in FLOATS {
            // As any class of a row, and as its target.
            for target in [1, 0] {
                let [lse, x] = capped(&exact().softcap_approximate(true), device, dtype, target);
                let [finer, _] = capped(&exact(), device, dtype, target);
                let z = |x: f64| f64::from(CAP) * (x / f64::from(CAP)).tanh();
                let off = |lse: &[f64]| {
                    let each = lse.iter().zip(&x).map(|(lse, &x)| (lse - z(x)).abs() / z(x).abs());
                    each.fold(0.0, f64::max)
                };
                let what = format!("{name}, {dtype}, target {target}");
                assert!(off(&finer) < 1e-6, "{what}: {:e}", off(&finer));
                assert!(off(&lse) < KEY, "{what}: {:e}", off(&lse));
                assert_eq!(
                    off(&lse) > 1e-5,
                    name.starts_with("emulated"),
                    "{what}: {:e}",
                    off(&lse)
                );
            }
        }
    }
}

/// Gradients of rows, both ways, by `loss`.
fn gradients(loss: &CrossEntropy<'_>, device: &Device, logits: &Data, target: &Data) -> Vec<f64> {
    let view = target.view();
    let out = loss.forward(device, logits.view(), view).unwrap();
    let saved = loss.backward(device, logits.view(), view, out.lse.view(), 1.0).unwrap();
    let fused = loss.forward_backward(device, logits.tensor(), view, 1.0).unwrap();
    let [saved, fused] = [saved, fused.grad_logits].map(|t| t.view().to_f64().unwrap());
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 2f64.powi(-7) * a.abs() + 1e-6;
    assert!(saved.iter().zip(&fused).all(close), "one soft-cap in all calls");
    fused
}

#[test]
fn gradients_of_an_approximate_softcap_are_near_the_exact_ones() {
    let (rows, classes) = (6, 1000);
    let mut rng = Rng(10);
    // The last of them goes beyond the cap's straight part.
    for (scale, dtype) in FLOATS.into_iter().flat_map(|d| [(8.0, d), (40.0, d)]) {
        let mut x = rng.normals(rows * classes, scale);
        x[classes + 3] = f64::NEG_INFINITY;
        let logits = Data::floats(dtype, &[rows, classes], &x);
        let classes_of_rows: Vec<i64> = (0..rows).map(|r| 7 * r as i64).collect();
        let target = Data::indices(DType::I64, &[rows], &classes_of_rows);
        for (name, device) in devices() {
            let got = gradients(&exact().softcap_approximate(true), device, &logits, &target);
            let expected = gradients(&exact(), device, &logits, &target);
            // Probabilities are off by twice what a capped logit is, slopes by 2^-10 of 1.
            let near = |(g, e): (&f64, &f64)| (g - e).abs() <= 0.04 * e.abs() + 1.2e-3;
            assert!(got.iter().zip(&expected).all(near), "{name}, {dtype}, {scale}");
            assert_eq!(got[classes + 3], 0.0, "{name}: a masked class");
            assert_eq!(got != expected, name.starts_with("emulated"), "{name}, {dtype}, {scale}");
            let policy = LogprobEntropy::default().softcap(Some(CAP)).softcap_approximate(true);
            let tokens = policy.forward(device, logits.view(), target.view()).unwrap();
            let losses = exact().softcap_approximate(true);
            let losses = losses.forward(device, logits.view(), target.view()).unwrap().loss;
            let [logprob, loss] = [tokens.logprob, losses].map(|t| t.view().to_f64().unwrap());
            let same = |(p, l): (&f64, &f64)| (p + l).abs() <= 1e-5 * (1.0 + l.abs());
            assert!(logprob.iter().zip(&loss).all(same), "{name}: {logprob:?}, {loss:?}");
        }
    }
}
