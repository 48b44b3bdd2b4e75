//! Chunks, threads and the other rows of a batch change no bit.

use super::{bits, everything, floats, noise};
use crate::harness::{devices, least_of};
use warploss::{
    CrossEntropy, CrossEntropyUpstream, DType, Device, LinearCrossEntropy, LinearInput, Reduction,
    Tensor, TensorRef,
};

pub(super) const ROWS: usize = 300;
pub(super) const FEATURES: usize = 70;

/// A batch of every option.
pub(super) struct Batch {
    pub(super) input: Tensor,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    target: Tensor,
    temperature: Tensor,
    row_weight: Tensor,
    of_tokens: [Tensor; 2],
    class_weight: Tensor,
}

impl Batch {
    pub(super) fn new(dtype: DType, classes: usize) -> Batch {
        let of = |seed, n: usize, scale: f64| -> Vec<f64> {
            noise(seed, n).into_iter().map(|v| v * scale).collect()
        };
        let positive =
            |seed, n| -> Vec<f64> { noise(seed, n).into_iter().map(|v| 1.25 + v).collect() };
        let target = (0..ROWS).map(|row| match row % 11 {
            3 => -100,
            _ => (row * 7919 % classes) as i64,
        });
        let f32s = |seed| floats(DType::F32, &[ROWS], &positive(seed, ROWS));
        Batch {
            input: floats(dtype, &[ROWS, FEATURES], &of(1, ROWS * FEATURES, 1.0)),
            weight: floats(dtype, &[classes, FEATURES], &of(2, classes * FEATURES, 0.7)),
            bias: floats(dtype, &[classes], &of(3, classes, 1.0)),
            target: Tensor::from_vec(target.collect(), &[ROWS]).unwrap(),
            temperature: f32s(4),
            row_weight: f32s(5),
            of_tokens: [f32s(6), f32s(7)],
            class_weight: floats(DType::F32, &[classes], &positive(8, classes)),
        }
    }

    pub(super) fn loss(&self, reduction: Reduction) -> LinearCrossEntropy<'_> {
        let loss = CrossEntropy::default()
            .reduction(reduction)
            .label_smoothing(0.1)
            .lse_square_scale(1e-2)
            .weight(self.class_weight.view());
        loss.into()
    }

    pub(super) fn all(&self) -> LinearInput<'_> {
        self.some(ROWS)
    }

    /// The first rows.
    pub(super) fn some(&self, rows: usize) -> LinearInput<'_> {
        LinearInput {
            linear_bias: Some(self.bias.view()),
            temperature: self.temperature.view().first_rows(rows),
            row_weight: self.row_weight.view().first_rows(rows),
            ..LinearInput::new(
                self.input.view().first_rows(rows).unwrap(),
                self.weight.view(),
                self.target.view().first_rows(rows).unwrap(),
            )
        }
    }

    pub(super) fn upstream(&self, rows: usize) -> CrossEntropyUpstream<'_> {
        let [a, b] = &self.of_tokens;
        let [a, b]: [TensorRef<'_>; 2] = [a, b].map(|t| t.view().first_rows(rows).unwrap());
        CrossEntropyUpstream {
            grad_output: 0.7.into(),
            grad_logprob: a.into(),
            grad_entropy: b.into(),
        }
    }
}

/// The least budget, found by the error that names it.
fn least(device: &Device, loss: &LinearCrossEntropy<'_>, input: &LinearInput<'_>) -> usize {
    least_of(&loss.clone().max_workspace_bytes(1).plan(device, input, true).unwrap_err())
}

#[test]
fn chunks_and_threads_change_no_bit() {
    for (dtype, classes) in
        [(DType::F32, 517), (DType::BF16, 517), (DType::F16, 33), (DType::F32, 1)]
    {
        let batch = Batch::new(dtype, classes);
        // A card's library has an order of its own in each product, which is not ours to choose.
        for (name, device) in devices().iter().filter(|(name, _)| name.starts_with("cpu")) {
            let loss = batch.loss(Reduction::Mean);
            let (input, upstream) = (batch.all(), batch.upstream(ROWS));
            let k = classes.min(5);
            let whole = everything(device, &loss, &input, upstream, (false, k));
            let least = least(device, &loss, &input);
            let mut chunks = Vec::new();
            // Where 16 bits are rounded once, there is room for that.
            let room = least + 4 * classes * FEATURES;
            for budget in [least, 2 * least, 3 * least, 5 * least] {
                let loss = loss.clone().max_workspace_bytes(budget.max(room));
                let plan = loss.plan(device, &input, true).unwrap();
                assert!(plan.workspace_bytes <= budget.max(room), "{name}: {plan:?}");
                chunks.push(plan.chunk_rows);
                let got = everything(device, &loss, &input, upstream, (false, k));
                for ((what, got), (_, whole)) in got.iter().zip(&whole) {
                    let same = bits(got) == bits(whole);
                    assert!(same, "{name}, {dtype}, {classes} classes, {plan:?}: {what}");
                }
            }
            chunks.dedup();
            let several = chunks.iter().any(|&rows| rows < ROWS);
            assert!(several || classes < 100, "{name}: chunks of {chunks:?} rows");
        }
        // Threads, beside one another.
        let on = |threads| Device::cpu_with_threads(threads).unwrap();
        let of = |device: &Device| {
            everything(
                device,
                &batch.loss(Reduction::Sum),
                &batch.all(),
                batch.upstream(ROWS),
                (false, 1),
            )
        };
        let (one, five) = (of(&on(1)), of(&on(5)));
        for ((what, a), (_, b)) in one.iter().zip(&five) {
            assert_eq!(bits(a), bits(b), "{what} on one thread and on five");
        }
    }
}

#[test]
fn a_row_does_not_know_of_the_others() {
    for (dtype, classes) in [(DType::F32, 517), (DType::BF16, 130), (DType::F32, 3)] {
        let batch = Batch::new(dtype, classes);
        let loss = batch.loss(Reduction::None);
        let k = classes.min(2);
        // The product that stands in for a card's library takes other ways where there is little of it.
        let all = |name: &str| classes >= 100 || name.starts_with("cpu");
        for (name, device) in devices().iter().filter(|(name, _)| all(name)) {
            let whole = everything(device, &loss, &batch.all(), batch.upstream(ROWS), (true, k));
            for rows in [1, 2, 3, 15, 17, 127, 128, 129, 255, 257] {
                let input = batch.some(rows);
                let got = everything(device, &loss, &input, batch.upstream(rows), (true, k));
                for ((what, got), (_, whole)) in got.iter().zip(&whole) {
                    if what.starts_with("grad_linear") {
                        continue;
                    }
                    let (got, whole) = (bits(got), bits(whole));
                    let same = got[..] == whole[..got.len()];
                    assert!(same, "{name}, {dtype}: {what} of {rows} rows and of {ROWS}");
                }
            }
        }
    }
}
