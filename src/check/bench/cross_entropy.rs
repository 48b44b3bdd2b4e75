//! Cross entropy, fused in place where forward and backward are one.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::check::bench::data::{Data, per_row};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut};

pub(in crate::check) struct CrossEntropyBench;

impl CrossEntropyBench {
    /// Fused on `work`, which holds the logits.
    fn fused(op: &CrossEntropy<'_>, device: &Device, data: &mut Data) -> Result<(), Error> {
        let shape: &[usize] = if op.reduction == Reduction::None { &[data.rows] } else { &[] };
        let target = data.targets.view();
        let mut out = CrossEntropyOut::loss(per_row(&mut data.loss, shape)?);
        out.lse = Some(per_row(&mut data.lse, &[data.rows])?);
        op.forward_backward_in_place(device, data.work.view_mut(), target, 1.0, out)
    }

    fn forward(op: &CrossEntropy<'_>, device: &Device, data: &mut Data) -> Result<(), Error> {
        let shape: &[usize] = if op.reduction == Reduction::None { &[data.rows] } else { &[] };
        let target = data.targets.view();
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
                let saved = (data.targets.view(), data.lse.view());
                let grad = data.work.view_mut();
                op.backward_into(device, data.logits.view(), saved, 1.0, grad)
            }
        }
    }

    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let op = CrossEntropy::default().reduction(Reduction::None);
        let mean = data.numbers(&data.loss)?[0];
        let samples = data.samples().into_iter();
        let gradients =
            samples.map(|row| data.row(&data.work, row)).collect::<Result<Vec<_>, _>>()?;
        match pass {
            Pass::Forward | Pass::Backward => Self::forward(&op, device, data)?,
            Pass::ForwardBackward => {
                data.restore()?;
                Self::fused(&op, device, data)?;
            }
        }
        let losses = data.numbers(&data.loss)?;
        let expected = losses.iter().sum::<f64>() / data.rows as f64;
        if pass != Pass::Backward && (mean - expected).abs() > 1e-5 * expected {
            return Ok(Some(format!("mean loss: expected {expected}, got {mean}")));
        }
        for (row, gradient) in data.samples().into_iter().zip(gradients) {
            let x = data.row(&data.logits, row)?;
            let (shape, target) = ([1, data.classes], [data.target[row]]);
            let g = [1.0 / data.rows as f64];
            let expected = reference::cross_entropy(&op, &shape, &x, &target, &g);
            let got = [losses[row]];
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
