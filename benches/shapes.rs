//! One call on a tensor of any shape, timed: what `benches/peers/short.py` sets beside its peers.
//!
//! `cargo bench --bench shapes -- cross-entropy f32 8,21,128,128 SECONDS`: forward and backward, losses of
//! rows fused in place, log-softmax from an upstream gradient; `plain-loop` is cross entropy of rows without the library. Prints a line of JSON: the loss, or the
//! largest output, of the first run, the sum of the gradient's sizes, and the seconds of every run.

#[path = "data/logits.rs"]
mod logits;
#[path = "data/timed.rs"]
mod timed;

use logits::logits;
use std::error::Error;
use std::time::Duration;
use timed::timed;
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, Float, LogSoftmax, LogprobEntropy, LogprobEntropyOut,
    LogprobEntropyUpstream, Reduction, Result, TensorMut, TensorRef, bf16, f16,
};

/// Losses with a class, or a distribution, for each row: `cross-entropy-options` with label smoothing and an
/// upstream gradient for each row, `probabilities` and `teacher` against those, `ranks` forward alone.
const OF_ROWS: [&str; 7] = [
    "cross-entropy",
    "cross-entropy-options",
    "logprob-entropy",
    "plain-loop",
    "probabilities",
    "ranks",
    "teacher",
];

/// Cross entropy as anybody would write it: the mean loss, and its gradient over the logits.
fn plain_loop<T: Float>(logits: &mut [T], target: &[i64], classes: usize) -> f32 {
    let (mut loss, rows) = (0.0, target.len() as f32);
    for (row, &target) in logits.chunks_exact_mut(classes).zip(target) {
        let max = row.iter().map(|x| x.to_f32()).fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|x| (x.to_f32() - max).exp()).sum();
        loss += sum.ln() + max - row[target as usize].to_f32();
        for (class, x) in row.iter_mut().enumerate() {
            let p = (x.to_f32() - max).exp() / sum;
            let onehot = f32::from(u8::from(class as i64 == target));
            *x = T::from_f32((p - onehot) / rows);
        }
    }
    loss / rows
}

struct Case {
    shape: Vec<usize>,
    seconds: Duration,
}

impl Case {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// One of the losses with a class, or a distribution, for each row.
    fn of_rows<T: Float>(&self, op: &str, device: &Device) -> Result<(f64, f64, Vec<f64>)> {
        let mut logits = logits::<T>([1, self.elements()]);
        // Of the sum 1 or not, as the loss is as fast either way.
        let soft: Vec<T> = logits.iter().rev().map(|x| T::from_f32(x.to_f32() + 4.0)).collect();
        let of_targets: Vec<usize> =
            self.shape.iter().enumerate().filter(|(d, _)| *d != 1).map(|(_, n)| *n).collect();
        let rows = of_targets.iter().product::<usize>();
        let target: Vec<i64> = (0..rows).map(|r| (r * 7919 % self.shape[1]) as i64).collect();
        let upstream: Vec<f32> = (0..rows).map(|r| (r % 7) as f32 - 3.0).collect();
        let (mut value, mut second) = (vec![0f32; rows], vec![0f32; rows]);
        let [mut argmax, mut rank] = [vec![0i64; rows], vec![0i64; rows]];
        let loss = match op {
            "cross-entropy-options" => {
                CrossEntropy::default().reduction(Reduction::None).label_smoothing(0.1)
            }
            "teacher" => CrossEntropy::default().teacher_scale(Some(1.0)),
            _ => CrossEntropy::default(),
        };
        let mut step = |logits: &mut [T]| {
            if op == "plain-loop" {
                return Ok(plain_loop(logits, &target, self.shape[1]));
            }
            let target = TensorRef::new(&target, &of_targets)?;
            let upstream = TensorRef::new(&upstream, &of_targets)?;
            let logits = TensorMut::new(logits, &self.shape)?;
            let one = TensorMut::new(&mut value[..1], &[]);
            match op {
                "logprob-entropy" => {
                    let own = TensorMut::new(&mut value, &of_targets)?;
                    let out =
                        LogprobEntropyOut::new(own, TensorMut::new(&mut second, &of_targets)?);
                    let (grad_logprob, grad_entropy) = (upstream.into(), 0.1.into());
                    let upstream = LogprobEntropyUpstream { grad_logprob, grad_entropy };
                    LogprobEntropy::default()
                        .forward_backward_in_place(device, logits, target, upstream, out)?;
                }
                "ranks" => {
                    let out = CrossEntropyOut {
                        argmax: Some(TensorMut::new(&mut argmax, &of_targets)?),
                        rank: Some(TensorMut::new(&mut rank, &of_targets)?),
                        ..CrossEntropyOut::loss(one?)
                    };
                    loss.forward_into(device, logits.as_ref(), target, out)?;
                }
                "cross-entropy-options" => {
                    let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &of_targets)?);
                    loss.forward_backward_in_place(device, logits, target, upstream, out)?;
                }
                "probabilities" | "teacher" => {
                    let soft = TensorRef::new(&soft, &self.shape)?;
                    let out = CrossEntropyOut::loss(one?);
                    loss.forward_backward_in_place(device, logits, soft, 1.0, out)?;
                }
                _ => {
                    let out = CrossEntropyOut::loss(one?);
                    loss.forward_backward_in_place(device, logits, target, 1.0, out)?;
                }
            }
            Ok(value[0])
        };
        let first = step(&mut logits)?;
        let sizes = logits.iter().map(|g| f64::from(g.to_f32().abs())).sum();
        // From here on the logits are the last run's gradient: as good as any other.
        let times = timed(self.seconds, || step(&mut logits).map(drop))?;
        Ok((first.into(), sizes, times))
    }

    fn log_softmax<T: Float>(&self, device: &Device) -> Result<(f64, f64, Vec<f64>)> {
        let x = logits::<T>([1, self.elements()]);
        let upstream: Vec<T> = x.iter().rev().copied().collect();
        let mut y = vec![T::default(); x.len()];
        let mut grad = y.clone();
        let op = LogSoftmax::dim(1);
        let mut step = || {
            let x = TensorRef::new(&x, &self.shape)?;
            op.forward_into(device, x, TensorMut::new(&mut y, &self.shape)?)?;
            let upstream = TensorRef::new(&upstream, &self.shape)?;
            op.backward_into(device, x, upstream, TensorMut::new(&mut grad, &self.shape)?)
        };
        step()?;
        let times = timed(self.seconds, &mut step)?;
        let largest = y.iter().map(|y| y.to_f32()).fold(f32::NEG_INFINITY, f32::max);
        let sizes = grad.iter().map(|g| f64::from(g.to_f32().abs())).sum();
        Ok((largest.into(), sizes, times))
    }

    fn run<T: Float>(&self, op: &str) -> std::result::Result<(f64, f64, Vec<f64>), Box<dyn Error>> {
        let device = Device::cpu();
        Ok(match op {
            "log-softmax" => self.log_softmax::<T>(&device)?,
            op if OF_ROWS.contains(&op) => self.of_rows::<T>(op, &device)?,
            _ => {
                return Err(
                    format!("op: expected log-softmax or one of {OF_ROWS:?}, got {op}").into()
                );
            }
        })
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [op, dtype, shape, seconds] = args.as_slice() else {
        // Where all benches are run one after another there is nothing to say.
        return Ok(());
    };
    let shape = shape.split(',').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    if shape.len() < 2 {
        return Err("shape: expected N,C or N,C,d1,…".into());
    }
    let case = Case { shape, seconds: Duration::from_secs_f64(seconds.parse()?) };
    let (answer, sizes, times) = match dtype.as_str() {
        "f32" => case.run::<f32>(op)?,
        "bf16" => case.run::<bf16>(op)?,
        "f16" => case.run::<f16>(op)?,
        other => return Err(format!("dtype: expected f32, bf16 or f16, got {other}").into()),
    };
    println!("{{\"answer\": {answer}, \"grad_abs\": {sizes}, \"seconds\": {times:?}}}");
    Ok(())
}
