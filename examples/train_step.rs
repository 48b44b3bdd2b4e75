//! Softmax regression by gradient descent: logits = features·weightsᵀ, cross entropy, update.
//!
//! Rows of logits are padded from 1000 classes to a stride of 1024, as matrix products like them.
//! The loss overwrites the logits with their gradient, from which the weights' follows; a step
//! allocates nothing.

use warploss::{CrossEntropy, CrossEntropyOut, Device, TensorMut, TensorRef};

const ROWS: usize = 256;
const FEATURES: usize = 32;
const CLASSES: usize = 1000;
const STRIDE: usize = 1024;
const STEPS: usize = 60;
const LEARNING_RATE: f32 = 40.0;

fn main() -> warploss::Result<()> {
    let device = Device::best();
    let criterion = CrossEntropy::default();
    let mut random = Random(1);

    // Each class has a centre; a row is its class's centre with noise.
    let centres: Vec<f32> = (0..CLASSES * FEATURES).map(|_| random.normal()).collect();
    let target: Vec<i64> = (0..ROWS).map(|_| random.below(CLASSES) as i64).collect();
    let features: Vec<f32> = target
        .iter()
        .flat_map(|&t| centres[t as usize * FEATURES..][..FEATURES].iter())
        .map(|centre| centre + 0.3 * random.normal())
        .collect();

    let mut weights = vec![0.0f32; CLASSES * FEATURES];
    let mut logits = vec![0.0f32; ROWS * STRIDE];
    let mut first = f32::NAN;
    let mut loss = [f32::NAN];
    for step in 0..STEPS {
        for (row, x) in logits.chunks_mut(STRIDE).zip(features.chunks(FEATURES)) {
            for (z, w) in row[..CLASSES].iter_mut().zip(weights.chunks(FEATURES)) {
                *z = x.iter().zip(w).map(|(x, w)| x * w).sum();
            }
        }
        criterion.forward_backward_in_place(
            &device,
            TensorMut::with_row_stride(&mut logits, &[ROWS, CLASSES], STRIDE)?,
            TensorRef::new(&target, &[ROWS])?,
            1.0,
            CrossEntropyOut::loss(TensorMut::new(&mut loss, &[])?),
        )?;
        for (grad, x) in logits.chunks(STRIDE).zip(features.chunks(FEATURES)) {
            for (g, w) in grad[..CLASSES].iter().zip(weights.chunks_mut(FEATURES)) {
                w.iter_mut().zip(x).for_each(|(w, x)| *w -= LEARNING_RATE * g * x);
            }
        }
        if step == 0 {
            first = loss[0]; // ln 1000 = 6.908: with zero weights every class is as likely
        }
        if step % 10 == 0 || step + 1 == STEPS {
            println!("step {step:3}  loss {:.4}", loss[0]);
        }
    }
    assert!(loss[0] < first / 10.0, "the loss did not fall: {first} to {}", loss[0]);
    Ok(())
}

/// Numbers that are the same on every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// About normal: the sum of twelve uniform numbers, centred.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
}
