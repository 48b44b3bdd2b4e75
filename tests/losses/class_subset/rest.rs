//! All classes beside a list as one.

use super::{CLASSES, Data, FEATURES, ROWS, ids, near};
use crate::adaptive_log_softmax::{floats, noise, values};
use crate::harness::devices;
use crate::linear_cross_entropy::{bits, everything};
use warploss::{
    ClassSubset, CrossEntropy, DType, LinearCrossEntropy, LinearInput, Reduction, Rest,
    SubsetCrossEntropy, SubsetInput, Tensor,
};

const K: usize = 5;

/// Lists of distinct classes, and what a teacher gives them: less than 1 together in most rows, more in one.
fn listed(dtype: DType) -> (Tensor, Tensor) {
    let list = (0..ROWS as i64).flat_map(|row| (0..K as i64).map(move |i| (row * 5 + i * 11) % 47));
    let share = |at: usize| if at / K == 3 { 0.3 } else { 0.15 };
    let q: Vec<f64> =
        noise(8, ROWS * K).iter().enumerate().map(|(at, v)| share(at) * (1.1 + v)).collect();
    (ids(list.collect(), &[ROWS, K]), floats(dtype, &[ROWS, K], &q))
}

/// By f64, row by row: loss, lse, and the gradient of logits and of probabilities.
fn row(z: &[f64], list: &[i64], q: &[f64]) -> (f64, f64, Vec<f64>, Vec<f64>) {
    let lse = |z: &mut dyn Iterator<Item = f64>| z.map(f64::exp).sum::<f64>().ln();
    let all = lse(&mut z.iter().copied());
    let is_listed = |class: usize| list.contains(&(class as i64));
    let rest = lse(&mut (0..z.len()).filter(|&c| !is_listed(c)).map(|c| z[c]));
    let left = (1.0 - q.iter().sum::<f64>()).max(0.0);
    let mass = q.iter().sum::<f64>() + left;
    let mut loss = left * (all - rest);
    let mut dz: Vec<f64> = z.iter().map(|z| mass * (z - all).exp()).collect();
    for (class, dz) in dz.iter_mut().enumerate().filter(|&(class, _)| !is_listed(class)) {
        *dz -= left * (z[class] - rest).exp();
    }
    let mut dq = Vec::new();
    for (&class, q) in list.iter().zip(q) {
        loss += q * (all - z[class as usize]);
        dz[class as usize] -= q;
        dq.push(all - z[class as usize] - if left > 0.0 { all - rest } else { 0.0 });
    }
    (loss, all, dz, dq)
}

#[test]
fn the_rest_is_one_class_more_of_hidden_states() {
    let options = CrossEntropy::default().reduction(Reduction::Sum).logit_scale(0.5);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let (data, (ids, target)) = (Data::new(dtype), listed(dtype));
        let (x, w, b) = (values(&data.x), values(&data.w), values(&data.b));
        let (list, q) = (values(&ids), values(&target));
        let list: Vec<i64> = list.into_iter().map(|id| id as i64).collect();
        let (tau, u) = (values(&data.temperature), values(&data.row_weight));
        let (mut loss, mut lses) = (0.0, Vec::new());
        let mut dx = vec![0.0; ROWS * FEATURES];
        let mut dw = vec![0.0; CLASSES * FEATURES];
        let (mut db, mut dq) = (vec![0.0; CLASSES], Vec::new());
        for n in 0..ROWS {
            let x = &x[n * FEATURES..][..FEATURES];
            let dot = |c: usize| -> f64 { (0..FEATURES).map(|d| x[d] * w[c * FEATURES + d]).sum() };
            let z: Vec<f64> = (0..CLASSES).map(|c| 0.5 * (dot(c) + b[c]) / tau[n]).collect();
            let (own, lse, dz, of_q) = row(&z, &list[n * K..][..K], &q[n * K..][..K]);
            loss += u[n] * own;
            lses.push(lse);
            dq.extend(of_q.iter().map(|g| 0.7 * u[n] * g));
            for c in 0..CLASSES {
                let g = 0.7 * u[n] * 0.5 * dz[c] / tau[n];
                db[c] += g;
                for d in 0..FEATURES {
                    dx[n * FEATURES + d] += g * w[c * FEATURES + d];
                    dw[c * FEATURES + d] += g * x[d];
                }
            }
        }
        let expected = [
            ("loss", floats(DType::F32, &[], &[loss])),
            ("lse", floats(DType::F32, &[ROWS], &lses)),
            ("grad_input", floats(dtype, &[ROWS, FEATURES], &dx)),
            ("grad_linear_weight", floats(dtype, &[CLASSES, FEATURES], &dw)),
            ("grad_linear_bias", floats(dtype, &[CLASSES], &db)),
            ("grad_target", floats(dtype, &[ROWS, K], &dq)),
        ];
        for (name, device) in devices() {
            let mut first: Option<Vec<_>> = None;
            // The second and third budget have fewer rows at once.
            for budget in [512 << 20, 90_000, 60_000] {
                let subset = ClassSubset::per_row(ids.view(), None).rest(Rest::Bucket);
                let input = LinearInput { target: target.view(), ..data.input() }.subset(subset);
                let call = LinearCrossEntropy::from(options.clone());
                let least = call.clone().max_workspace_bytes(0).plan(device, &input, true);
                let least = least.expect_err("no budget").to_string();
                let least: usize =
                    least.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
                let call = call.max_workspace_bytes(budget.max(least));
                let got = everything(device, &call, &input, 0.7.into(), (false, 1));
                for (what, expected) in &expected {
                    let got = &got.iter().find(|(own, _)| own == what).unwrap().1;
                    near(&format!("{name}, {dtype}: {what}"), got, expected);
                }
                // A row's results are its own whatever the chunk.
                let own = |all: &[(&'static str, Tensor)]| -> Vec<_> {
                    let rows = all.iter().filter(|(what, _)| ["lse", "grad_input"].contains(what));
                    rows.map(|(_, t)| bits(t)).collect()
                };
                match &first {
                    None => first = Some(own(&got)),
                    Some(first) => assert!(*first == own(&got), "{name}, {dtype}, {budget}"),
                }
            }
        }
    }
}

/// A common offset of 2^24, a soft-cap, classes that are masked.
#[test]
fn the_rest_of_given_logits_keeps_its_digits() {
    let classes = 300;
    let z: Vec<f64> = noise(3, 2 * classes).iter().map(|v| (8.0 * v).round()).collect();
    let list: Vec<i64> = vec![7, 299, 0, -1, 100, 101, 3, 50];
    let masked = |at: usize, z: f64| match list.contains(&((at % classes) as i64))
        || !at.is_multiple_of(3)
    {
        true => z,
        false => f64::NEG_INFINITY,
    };
    let masked: Vec<f64> = z.iter().enumerate().map(|(at, &z)| masked(at, z)).collect();
    let offset: Vec<f64> = z.iter().map(|z| z * 2.0 + 16_777_216.0).collect();
    let q = [0.1, 0.2, 0.05, 9.0, 0.3, 0.0, 0.1, 0.15];
    let ids = ids(list.clone(), &[2, 4]);
    let target = floats(DType::F32, &[2, 4], &q);
    let kept = |n: usize| -> (Vec<i64>, Vec<f64>) {
        let places = (4 * n..4 * n + 4).filter(|&at| list[at] >= 0);
        places.map(|at| (list[at], f64::from(q[at] as f32))).unzip()
    };
    for (x, cap) in
        [(&z, None), (&offset, None), (&z, Some(5.0)), (&masked, None), (&masked, Some(5.0))]
    {
        let shifted = x == &offset;
        let logits = floats(DType::F32, &[2, classes], x);
        let loss = CrossEntropy::default().reduction(Reduction::None).softcap(cap);
        let loss = SubsetCrossEntropy::from(loss);
        for (name, device) in devices() {
            let subset = ClassSubset::per_row(ids.view(), None).rest(Rest::Bucket);
            let input = SubsetInput::new(logits.view(), target.view(), subset);
            let got = loss.forward_backward(device, &input, 1.0).unwrap();
            for n in 0..2 {
                let x = &x[n * classes..][..classes];
                let base = if shifted { 16_777_216.0 } else { 0.0 };
                let cap = cap.map(f64::from);
                let one = |x: f64| match cap {
                    Some(cap) if x > f64::NEG_INFINITY => cap * (x / cap).tanh(),
                    _ => x - base,
                };
                let z: Vec<f64> = x.iter().map(|&x| one(x)).collect();
                let (ids, q) = kept(n);
                let (own, lse, mut dz, _) = row(&z, &ids, &q);
                if let Some(cap) = cap {
                    let slope = |x: f64| 1.0 - (x / cap).tanh().powi(2); // what is masked has a gradient of 0
                    dz.iter_mut().zip(x).for_each(|(g, &x)| *g *= slope(x));
                }
                let what = format!("{name}, shifted {shifted}, cap {cap:?}, row {n}");
                let far = (values(&got.output.loss)[n] - own).abs();
                assert!(far <= 3e-6 * (1.0 + own), "{what}: loss off by {far}");
                let far = (values(&got.output.lse)[n] - (lse + base)).abs();
                assert!(far <= 1e-6 * (lse.abs() + base), "{what}: lse off by {far}");
                for (c, (got, dz)) in
                    values(&got.logits)[n * classes..][..classes].iter().zip(dz).enumerate()
                {
                    let far = 2e-6 * (dz.abs() + 0.1);
                    assert!((got - dz).abs() <= far, "{what}, class {c}: {got}, not {dz}");
                }
            }
        }
    }
}

#[test]
fn a_row_that_lists_every_class_has_no_rest() {
    let logits = floats(DType::F32, &[1, 3], &[1.0, 0.5, -1.0]);
    let ids = ids(vec![2, 0, 1], &[1, 3]);
    // Less than 1 together: nothing is there to have what is left.
    let target = floats(DType::F32, &[1, 3], &[0.25, 0.25, 0.25]);
    let loss = SubsetCrossEntropy::from(CrossEntropy::default());
    for (name, device) in devices() {
        let subset = |rest| ClassSubset::per_row(ids.view(), None).rest(rest);
        let [bucket, excluded] = [Rest::Bucket, Rest::Excluded].map(|rest| {
            let input = SubsetInput::new(logits.view(), target.view(), subset(rest));
            let out = loss.forward_backward(device, &input, 1.0).unwrap();
            [values(&out.output.loss), values(&out.logits)].concat()
        });
        for (bucket, excluded) in bucket.iter().zip(&excluded) {
            assert!((bucket - excluded).abs() < 1e-6, "{name}: {bucket}, not {excluded}");
        }
    }
}

#[test]
fn a_rest_is_refused_where_it_means_nothing() {
    let (data, (ids, target)) = (Data::new(DType::F32), listed(DType::F32));
    let subset = ClassSubset::per_row(ids.view(), None).rest(Rest::Bucket);
    let squared = CrossEntropy::default().lse_square_scale(0.1);
    let soft = LinearInput { target: target.view(), ..data.input() };
    for (name, device) in devices() {
        for (options, input, said) in [
            (CrossEntropy::default(), data.input(), "rest: expected excluded"),
            (squared.clone(), soft, "lse_square_scale: expected 0"),
        ] {
            let call = LinearCrossEntropy::from(options);
            let error = call.forward(device, &input.subset(subset)).expect_err("refused");
            assert!(error.to_string().starts_with(said), "{name}: {error}");
        }
    }
}
