//! What rounding leaves of the classifier's gradient: with it many calls that add come to one rounding of their sum.

use super::{floats, noise, values};
use crate::harness::{devices, least_of};
use warploss::{
    ClassSubset, CrossEntropy, DType, Device, LinearCrossEntropy, LinearGradOut, LinearInput,
    LinearOutputs, LinearPath, Reduction, Tensor,
};

const ROWS: usize = 21;
const FEATURES: usize = 40;
const CLASSES: usize = 70;
/// Calls that add, and batches that take turns.
const CALLS: usize = 256;
const BATCHES: usize = 3;
/// Numbers of less than such a part of the largest may be off by as much as those.
const FLOOR: f64 = 64.0;
/// Makes gradients numbers of which f16 has all digits.
const UPSTREAM: f32 = 40.0;

struct Batch {
    input: Tensor,
    target: Tensor,
}

fn batch(seed: u64, dtype: DType) -> Batch {
    let target = (0..ROWS).map(|row| match row % 8 {
        5 => -100,
        _ => ((row * 31 + seed as usize) % CLASSES) as i64,
    });
    Batch {
        input: floats(dtype, &[ROWS, FEATURES], &noise(seed, ROWS * FEATURES)),
        target: Tensor::from_vec(target.collect(), &[ROWS]).unwrap(),
    }
}

fn classifier(dtype: DType) -> Tensor {
    floats(dtype, &[CLASSES, FEATURES], &noise(77, CLASSES * FEATURES))
}

fn loss() -> LinearCrossEntropy<'static> {
    CrossEntropy::default().reduction(Reduction::Mean).label_smoothing(0.1).into()
}

/// The batch's gradient in f32, of the same numbers.
fn in_f32(device: &Device, batch: &Batch, weight: &Tensor) -> Vec<f64> {
    let wide = |of: &Tensor| floats(DType::F32, &of.shape(), &values(of));
    let (x, w) = (wide(&batch.input), wide(weight));
    let input = LinearInput::new(x.view(), w.view(), batch.target.view());
    values(&loss().forward_backward(device, &input, UPSTREAM).unwrap().linear_weight)
}

/// What many calls that add come to, and what rounding has left at last, if that is kept.
fn added(
    (device, loss): (&Device, &LinearCrossEntropy<'_>),
    (batches, weight): (&[Batch], &Tensor),
    keeping: bool,
) -> [Vec<f64>; 2] {
    let like = || floats(weight.dtype(), &weight.shape(), &[f64::NAN; CLASSES * FEATURES]);
    let (mut sum, mut rest) = (like(), like());
    for call in 0..CALLS {
        let batch = &batches[call % BATCHES];
        let input = LinearInput::new(batch.input.view(), weight.view(), batch.target.view());
        let gradients = LinearGradOut {
            linear_weight: Some(sum.view_mut()),
            linear_weight_rest: keeping.then(|| rest.view_mut()),
            accumulate: call > 0,
            ..LinearGradOut::default()
        };
        loss.backward_into(device, &input, UPSTREAM, gradients).unwrap();
    }
    [values(&sum), values(&rest)]
}

#[test]
fn many_calls_that_add_come_to_one_rounding_of_their_sum() {
    for (dtype, unit) in [(DType::BF16, 2f64.powi(-8)), (DType::F16, 2f64.powi(-11))] {
        let batches: Vec<Batch> = (0..BATCHES as u64).map(|seed| batch(seed, dtype)).collect();
        let weight = classifier(dtype);
        for (name, device) in devices() {
            let mut exact = vec![0.0; CLASSES * FEATURES];
            for (at, batch) in batches.iter().enumerate() {
                let times = (CALLS + BATCHES - 1 - at) / BATCHES;
                for (sum, g) in exact.iter_mut().zip(in_f32(device, batch, &weight)) {
                    *sum += g * times as f64;
                }
            }
            let largest = exact.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let worst = |got: &mut dyn Iterator<Item = f64>| {
                got.zip(&exact).fold(0.0, |m: f64, (got, v)| {
                    assert!(got.is_finite(), "{name}, {dtype}: {got}");
                    m.max((got - v).abs() / (v.abs() + largest / FLOOR))
                })
            };
            // Of chunks, and of all rows at once; on emulated cards one type has one, and the other the other.
            for rows in [None, Some(40 << 10)] {
                if !name.starts_with("cpu") && rows.is_some() != (dtype == DType::BF16) {
                    continue;
                }
                let loss = loss().path(LinearPath::Chunked);
                let loss = rows.map_or(loss.clone(), |bytes| least(device, &loss, bytes));
                let of = (&batches[..], &weight);
                let [sum, rest] = added((device, &loss), of, true);
                let [plain, _] = added((device, &loss), of, false);
                let both = sum.iter().zip(&rest).map(|(sum, rest)| sum + rest);
                let [of_sum, of_both, of_plain] = [
                    worst(&mut sum.iter().copied()),
                    worst(&mut { both }),
                    worst(&mut plain.into_iter()),
                ];
                let what = format!("{name}, {dtype}: {of_sum:e}, {of_both:e}, {of_plain:e}");
                // A rest is at most `unit` of its sum and is rounded to `unit` of itself; sums rise from 0, so that
                // all calls' roundings of it together are `CALLS` / 2 of the square, at the very worst.
                let of_rests = CALLS as f64 / 2.0 * unit * unit;
                // And what products by two bf16 parts leave out of the largest terms, whatever is kept of their sum.
                let others = of_rests + FLOOR / f64::from(1 << 17);
                assert!(of_both <= others, "{what}");
                assert!(of_sum <= unit + others, "{what}");
                assert!(of_plain > 8.0 * unit, "{what}");
            }
        }
    }
}

/// The loss with the least budget that does, if that is so many bytes at most.
fn least<'w>(
    device: &Device,
    loss: &LinearCrossEntropy<'w>,
    most: usize,
) -> LinearCrossEntropy<'w> {
    let (batch, weight) = (batch(0, DType::BF16), classifier(DType::BF16));
    let input = LinearInput::new(batch.input.view(), weight.view(), batch.target.view());
    let outputs = LinearOutputs { linear_weight_rest: true, ..true.into() };
    let error = loss.clone().max_workspace_bytes(1).plan(device, &input, outputs).unwrap_err();
    loss.clone().max_workspace_bytes(least_of(&error).max(most))
}

#[test]
fn a_rest_that_there_cannot_be_is_refused() {
    for (name, device) in devices() {
        let refused = |dtype: DType, path, whole: bool, listed: bool, expected: &str| {
            let (batch, weight) = (batch(0, dtype), classifier(dtype));
            let (mut sum, mut rest) = (classifier(dtype), classifier(dtype));
            let ids = Tensor::from_vec((0..CLASSES as i64).collect(), &[CLASSES]).unwrap();
            let input = LinearInput::new(batch.input.view(), weight.view(), batch.target.view());
            let input = match listed {
                true => input.subset(ClassSubset::shared(ids.view())),
                false => input,
            };
            let gradients = LinearGradOut {
                linear_weight: whole.then(|| sum.view_mut()),
                linear_weight_rest: Some(rest.view_mut()),
                ..LinearGradOut::default()
            };
            let loss = LinearCrossEntropy::default().path(path);
            let error = loss.backward_into(device, &input, 1.0, gradients).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert_eq!(values(&rest), values(&weight), "{name}: {error}");
        };
        refused(DType::F32, LinearPath::Auto, true, false, "nothing of an f32");
        refused(DType::BF16, LinearPath::Auto, false, false, "there is no grad_linear_weight");
        if !name.starts_with("cpu") {
            refused(DType::BF16, LinearPath::Tiled, true, false, "grad_linear_weight_rest");
            refused(DType::BF16, LinearPath::Auto, true, true, "lists of classes on CUDA");
        }
    }
}
