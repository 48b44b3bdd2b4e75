//! Negative log-likelihood: zeros and one element a row.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::check::bench::data::{Data, per_row};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::nll::Nll;

pub(in crate::check) struct NllBench;

impl NllBench {
    fn forward(op: &Nll<'_>, device: &Device, data: &mut Data) -> Result<(), Error> {
        let shape: &[usize] = if op.reduction == Reduction::None { &[data.rows] } else { &[] };
        let target = data.targets.view();
        op.forward_into(device, data.logits.view(), target, per_row(&mut data.loss, shape)?)
    }
}

impl Bench for NllBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::nll(pass)
    }

    fn consumes(&self, pass: Pass) -> bool {
        pass == Pass::ForwardBackward
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        let op = Nll::default();
        let target = data.targets.view();
        match pass {
            Pass::Forward => Self::forward(&op, device, data),
            Pass::Backward => op.backward_into(device, target, 1.0, data.work.view_mut()),
            Pass::ForwardBackward => {
                let loss = per_row(&mut data.loss, &[])?;
                op.forward_backward_in_place(device, data.work.view_mut(), target, 1.0, loss)
            }
        }
    }

    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let mean = data.numbers(&data.loss)?[0];
        let op = Nll::default().reduction(Reduction::None);
        Self::forward(&op, device, data)?;
        let losses = data.numbers(&data.loss)?;
        let expected = losses.iter().sum::<f64>() / data.rows as f64;
        if pass != Pass::Backward && (mean - expected).abs() > 1e-5 * (1.0 + expected.abs()) {
            return Ok(Some(format!("mean loss: expected {expected}, got {mean}")));
        }
        for row in data.samples() {
            let (x, grad) = (data.row(&data.logits, row)?, data.row(&data.work, row)?);
            let (shape, target) = ([1, data.classes], [data.target[row]]);
            let expected = reference::nll(&op, &shape, &x, &target, &[1.0 / data.rows as f64]);
            let got = [losses[row]];
            let loss = compare::losses(DType::F32, &got, &expected.loss, &expected.loss_size);
            let grad = compare::gradients(data.dtype, &grad, &expected.grad_input);
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
