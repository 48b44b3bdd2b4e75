//! What products lack of logits is added where those are read.

use super::*;
use crate::schedules::{OF_F32, Route};

/// A call over all classes, or so many of them.
fn loss(classes: usize, samples: Option<usize>, bias: bool) -> SampledSoftmax {
    let sampler = match samples {
        Some(samples) => NegativeSampler::log_uniform(classes, samples),
        None => NegativeSampler::all(classes),
    };
    SampledSoftmax::new(FEATURES, sampler.unwrap()).bias(bias).reduction(Reduction::Sum)
}

fn parameters(loss: &SampledSoftmax, dtype: DType) -> SampledParameters<Tensor> {
    let mut parameters = loss.init(dtype, 5).unwrap();
    if let Some(bias) = &mut parameters.bias {
        *bias = floats(dtype, &bias.shape(), 6);
    }
    parameters
}

/// Rows, and targets all over the classes.
fn data(dtype: DType, rows: usize, classes: usize) -> (Tensor, Tensor) {
    let target: Vec<i64> = (0..rows).map(|row| ((row * 7919 + 5) % classes) as i64).collect();
    (floats(dtype, &[rows, FEATURES], 7), Tensor::from_vec(target, &[rows]).unwrap())
}

/// Bytes of logits that kernels read and write in a call.
fn traffic(loss: &SampledSoftmax, (rows, classes): (usize, usize), back: bool) -> (u64, u64) {
    let columns = loss.negatives().map_or(classes, |negatives| negatives.len() + 1);
    let counted = (4 * rows * columns) as u64;
    let card = Device::emulated(Description { counted, ..Description::h100() }, None).unwrap();
    let (parameters, (x, target)) = (parameters(loss, DType::F32), data(DType::F32, rows, classes));
    let (view, x, target) = (parameters.view(), x.view(), target.view());
    match back {
        true => drop(loss.forward_backward(&card, &view, x, target, 0.7).unwrap()),
        false => drop(loss.forward(&card, &view, x, target).unwrap()),
    }
    card.traffic().unwrap()
}

/// Nobody goes over the logits for it, and of their gradient its own is a sum.
#[test]
fn a_bias_costs_no_pass_over_logits() {
    let shape = (100, 3001);
    let calls = |back| [false, true].map(|bias| traffic(&loss(3001, None, bias), shape, back));
    let [without, with] = calls(false);
    assert_eq!(with, without);
    // Each once, and the target's by every thread.
    let once = |read: u64, n: u64| assert!((4 * n..4 * n * 11 / 10).contains(&read), "{read}");
    once(without.0, 100 * 3001);
    assert_eq!(without.1, 0);
    let [without, with] = calls(true);
    assert_eq!((with.0 - without.0, with.1), (100 * 3001 * 4, without.1));
    // What is expected of negatives neither: of a row its own logit is written, and those that are it.
    let (read, written) = traffic(&loss(20_000, Some(3000), true), (200, 20_000), false);
    once(read, 200 * 3001);
    assert!((4 * 200..=8 * 200).contains(&written), "{written}");
}

#[test]
fn every_schedule_adds_the_bias() {
    for route in OF_F32 {
        let Route { schedule, rows, classes, .. } = route;
        for dtype in [DType::F32, DType::BF16] {
            let loss = loss(classes, None, true);
            let (parameters, (x, target)) = (parameters(&loss, dtype), data(dtype, rows, classes));
            let call = |device: &Device| {
                let (view, x, target) = (parameters.view(), x.view(), target.view());
                let output = loss.forward(device, &view, x, target).unwrap().output;
                (output, loss.forward_backward(device, &view, x, target, 0.7).unwrap())
            };
            let card = route.device();
            let [(alone, got), (_, expected)] = [&card, &Device::cpu()].map(call);
            let what = format!("{schedule}, {dtype}");
            // Of what is rounded to 16 bits two may be neighbours.
            let mut results = vec![(&alone, &expected.output.output)];
            if dtype == DType::F32 {
                results.extend([
                    (&got.output.output, &expected.output.output),
                    (&got.input, &expected.input),
                    (&got.parameters.weight, &expected.parameters.weight),
                ]);
                results.extend(got.parameters.bias.as_ref().zip(expected.parameters.bias.as_ref()));
            }
            for (got, expected) in results {
                assert_within(&what, got, &wide(expected), 2e-5);
            }
            let notes = card.schedules();
            let reached = |n: &String| n.contains("Biased") && n.contains(schedule);
            assert!(notes.iter().any(reached), "{what}: {notes:?}");
        }
    }
}
