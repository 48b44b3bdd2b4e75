//! The ops that can be measured: their calls, their byte models, and the check of their answers.
//!
//! To add one: a type with [`Bench`], a variant and a line in [`BenchOp`].

use super::data::{Data, per_row};
use crate::check::{compare, reference};
use crate::measure::{Pass, Traffic};
use crate::{CrossEntropy, CrossEntropyOut, DType, Device, Error};
use crate::{LogSoftmax, LogSumExp, Reduction, TensorRef};
use clap::ValueEnum;

/// What `bench OP` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchOp {
    /// Fused in place where forward-backward
    CrossEntropy,
    /// Output in the input's dtype
    LogSoftmax,
    /// Along rows
    Logsumexp,
}

impl BenchOp {
    pub(super) fn parts(self) -> (&'static str, &'static dyn Bench) {
        match self {
            BenchOp::CrossEntropy => ("cross-entropy", &CrossEntropyBench),
            BenchOp::LogSoftmax => ("log-softmax", &LogSoftmaxBench),
            BenchOp::Logsumexp => ("logsumexp", &LogsumexpBench),
        }
    }
}

/// A measured op.
pub(super) trait Bench {
    /// What each pass must move.
    fn traffic(&self, pass: Pass) -> Traffic;
    /// Whether the pass consumes its input in `data.work`.
    fn consumes(&self, _pass: Pass) -> bool {
        false
    }
    /// Whether the pass needs an upstream gradient as large as the logits.
    fn upstream(&self, _pass: Pass) -> bool {
        false
    }
    /// Makes what an earlier pass saves.
    fn save(&self, _pass: Pass, _device: &Device, _data: &mut Data) -> Result<(), Error> {
        Ok(())
    }
    /// One run.
    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error>;
    /// Compares a few rows of the last run with a plain f64 computation; what differs, in words.
    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error>;
}

struct CrossEntropyBench;

impl CrossEntropyBench {
    /// Fused on `work`, which holds the logits.
    fn fused(op: &CrossEntropy<'_>, device: &Device, data: &mut Data) -> Result<(), Error> {
        let shape: &[usize] = if op.reduction == Reduction::None { &[data.rows] } else { &[] };
        let target = TensorRef::new(&data.target, &[data.rows])?;
        let mut out = CrossEntropyOut::loss(per_row(&mut data.loss, shape)?);
        out.lse = Some(per_row(&mut data.lse, &[data.rows])?);
        op.forward_backward_in_place(device, data.work.view_mut(), target, 1.0, out)
    }

    fn forward(op: &CrossEntropy<'_>, device: &Device, data: &mut Data) -> Result<(), Error> {
        let shape: &[usize] = if op.reduction == Reduction::None { &[data.rows] } else { &[] };
        let target = TensorRef::new(&data.target, &[data.rows])?;
        let mut out = CrossEntropyOut::loss(per_row(&mut data.loss, shape)?);
        out.lse = Some(per_row(&mut data.lse, &[data.rows])?);
        op.forward_into(device, data.logits.view(), target, out)
    }
}

impl Bench for CrossEntropyBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::cross_entropy(pass)
    }

    fn consumes(&self, pass: Pass) -> bool {
        pass == Pass::ForwardBackward
    }

    fn save(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        match pass {
            Pass::Backward => Self::forward(&CrossEntropy::default(), device, data),
            Pass::Forward | Pass::ForwardBackward => Ok(()),
        }
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        let op = CrossEntropy::default();
        match pass {
            Pass::Forward => Self::forward(&op, device, data),
            Pass::ForwardBackward => Self::fused(&op, device, data),
            Pass::Backward => {
                let target = TensorRef::new(&data.target, &[data.rows])?;
                let lse = TensorRef::new(&data.lse, &[data.rows])?;
                let grad = data.work.view_mut();
                op.backward_into(device, data.logits.view(), (target, lse), 1.0, grad)
            }
        }
    }

    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let op = CrossEntropy::default().reduction(Reduction::None);
        let mean = data.loss[0];
        let gradients: Vec<_> =
            data.samples().into_iter().map(|row| data.row(&data.work, row)).collect();
        match pass {
            Pass::Forward | Pass::Backward => Self::forward(&op, device, data)?,
            Pass::ForwardBackward => {
                data.restore();
                Self::fused(&op, device, data)?;
            }
        }
        let sum: f64 = data.loss.iter().map(|&l| f64::from(l)).sum();
        let expected = sum / data.rows as f64;
        if pass != Pass::Backward && (f64::from(mean) - expected).abs() > 1e-5 * expected {
            return Ok(Some(format!("mean loss: expected {expected}, got {mean}")));
        }
        for (row, gradient) in data.samples().into_iter().zip(gradients) {
            let x = data.row(&data.logits, row);
            let (shape, target) = ([1, data.classes], [data.target[row]]);
            let g = [1.0 / data.rows as f64];
            let expected = reference::cross_entropy(&op, &shape, &x, &target, &g);
            let got = [data.loss[row].into()];
            let loss = compare::losses(DType::F32, &got, &expected.loss, &expected.loss_size);
            let grad = compare::gradients(data.dtype, &gradient, &expected.grad_logits);
            if !loss.agrees() {
                return Ok(Some(format!("loss of row {row}: {loss}")));
            }
            if pass != Pass::Forward && !grad.agrees() {
                return Ok(Some(format!("gradient of row {row}: {grad}")));
            }
        }
        Ok(None)
    }
}

struct LogSoftmaxBench;

impl Bench for LogSoftmaxBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::log_softmax(pass)
    }

    fn upstream(&self, pass: Pass) -> bool {
        pass != Pass::Forward
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        let op = LogSoftmax::dim(1);
        if pass != Pass::Backward {
            op.forward_into(device, data.logits.view(), data.work.view_mut())?;
        }
        match (pass, &data.upstream) {
            (Pass::Backward | Pass::ForwardBackward, Some(upstream)) => {
                let grad = data.work.view_mut();
                op.backward_into(device, data.logits.view(), upstream.view(), grad)
            }
            _ => Ok(()),
        }
    }

    fn check(&self, pass: Pass, _: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        for row in data.samples() {
            let (x, got) = (data.row(&data.logits, row), data.row(&data.work, row));
            let shape = [1, data.classes];
            let worst = match &data.upstream {
                Some(upstream) if pass != Pass::Forward => {
                    let g = data.row(upstream, row);
                    let expected = reference::log_softmax_grad(&shape, 1, &x, &g);
                    compare::gradients(data.dtype, &got, &expected)
                }
                _ => {
                    let expected = reference::log_softmax(&shape, 1, &x);
                    compare::losses(data.dtype, &got, &expected, &compare::sizes(&expected))
                }
            };
            if !worst.agrees() {
                return Ok(Some(format!("row {row}: {worst}")));
            }
        }
        Ok(None)
    }
}

struct LogsumexpBench;

impl LogsumexpBench {
    fn forward(device: &Device, data: &mut Data) -> Result<(), Error> {
        let out = per_row(&mut data.lse, &[data.rows])?;
        LogSumExp::dims(&[1])?.forward_into(device, data.logits.view(), out)
    }
}

impl Bench for LogsumexpBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::logsumexp(pass)
    }

    fn save(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        data.loss.fill(1.0);
        match pass {
            Pass::Backward => Self::forward(device, data),
            Pass::Forward | Pass::ForwardBackward => Ok(()),
        }
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        if pass != Pass::Backward {
            Self::forward(device, data)?;
        }
        if pass == Pass::Forward {
            return Ok(());
        }
        // The losses, all 1, are the upstream gradient.
        let lse = TensorRef::new(&data.lse, &[data.rows])?;
        let upstream = TensorRef::new(&data.loss, &[data.rows])?;
        let grad = data.work.view_mut();
        LogSumExp::dims(&[1])?.backward_into(device, data.logits.view(), lse, upstream, grad)
    }

    fn check(&self, pass: Pass, _: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        for row in data.samples() {
            let (x, shape) = (data.row(&data.logits, row), [1, data.classes]);
            let expected = reference::logsumexp(&shape, &[1], &x);
            let size = compare::sizes(&expected);
            let lse = compare::losses(DType::F32, &[data.lse[row].into()], &expected, &size);
            let expected = reference::logsumexp_grad(&shape, &[1], &x, &[1.0]);
            let grad = compare::gradients(data.dtype, &data.row(&data.work, row), &expected);
            if !lse.agrees() {
                return Ok(Some(format!("row {row}: {lse}")));
            }
            if pass != Pass::Forward && !grad.agrees() {
                return Ok(Some(format!("gradient of row {row}: {grad}")));
            }
        }
        Ok(None)
    }
}
