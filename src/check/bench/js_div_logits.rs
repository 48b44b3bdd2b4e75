//! Jensen–Shannon divergence from logits, fused in place where forward and backward are one.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::bench::data::{Data, Large, per_row};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::js_div_logits::JsDivLogits;

pub(in crate::check) struct JsDivLogitsBench;

/// The teacher's logits; the harness has made them.
fn teacher<'a>(upstream: &'a Option<Tensor>, logits: &'a Tensor) -> TensorRef<'a> {
    upstream.as_ref().unwrap_or(logits).view()
}

impl Bench for JsDivLogitsBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::soft_cross_entropy(pass)
    }

    fn consumes(&self, pass: Pass) -> bool {
        pass == Pass::ForwardBackward
    }

    fn large(&self, _: Pass) -> Option<Large> {
        Some(Large::Normal)
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        let op = JsDivLogits::default();
        let target = teacher(&data.upstream, &data.logits);
        let loss = per_row(&mut data.loss, &[])?;
        match pass {
            Pass::Forward => op.forward_into(device, data.logits.view(), target, loss),
            Pass::ForwardBackward => {
                op.forward_backward_in_place(device, data.work.view_mut(), target, 1.0, loss)
            }
            Pass::Backward => {
                op.backward_into(device, data.logits.view(), target, 1.0, data.work.view_mut())
            }
        }
    }

    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let op = JsDivLogits::default().reduction(Reduction::None);
        let mean = data.numbers(&data.loss)?[0];
        let out = per_row(&mut data.loss, &[data.rows])?;
        let target = teacher(&data.upstream, &data.logits);
        op.forward_into(device, data.logits.view(), target, out)?;
        let losses = data.numbers(&data.loss)?;
        let expected = losses.iter().sum::<f64>() / data.rows as f64;
        if pass != Pass::Backward && (mean - expected).abs() > 1e-5 * (1.0 + expected.abs()) {
            return Ok(Some(format!("mean loss: expected {expected}, got {mean}")));
        }
        for row in data.samples() {
            let y = data.row(data.upstream.as_ref().unwrap_or(&data.logits), row)?;
            let (x, grad) = (data.row(&data.logits, row)?, data.row(&data.work, row)?);
            let (shape, g) = ([1, data.classes], [1.0 / data.rows as f64]);
            let expected = reference::js_div_logits(&op, &shape, (&x, &y), None, &g);
            let got = [losses[row]];
            let loss = compare::losses(DType::F32, &got, &expected.loss, &expected.loss_size);
            let (values, sizes) = (&expected.grad_logits, &expected.grad_logits_size);
            let grad = compare::summed_gradients(data.dtype, &grad, values, sizes);
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
