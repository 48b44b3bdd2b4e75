//! Cross entropy against a target of the logits' size, fused in place where forward and backward
//! are one.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::bench::data::{Data, Large, per_row};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut};

/// Against numbers that stand for probabilities, or for a teacher's logits.
pub(in crate::check) struct SoftCrossEntropyBench {
    pub(in crate::check) teacher_scale: Option<f32>,
}

impl SoftCrossEntropyBench {
    fn op(&self) -> CrossEntropy<'static> {
        CrossEntropy::default().teacher_scale(self.teacher_scale)
    }

    /// In place on `work`, or forward alone.
    fn losses(
        op: &CrossEntropy<'_>,
        fused: bool,
        device: &Device,
        data: &mut Data,
    ) -> Result<(), Error> {
        let shape: &[usize] = if op.reduction == Reduction::None { &[data.rows] } else { &[] };
        let mut out = CrossEntropyOut::loss(per_row(&mut data.loss, shape)?);
        out.lse = Some(per_row(&mut data.lse, &[data.rows])?);
        let target = target(&data.upstream, &data.logits);
        match fused {
            true => op.forward_backward_in_place(device, data.work.view_mut(), target, 1.0, out),
            false => op.forward_into(device, data.logits.view(), target, out),
        }
    }
}

/// The second tensor of that size; the harness has made it.
fn target<'a>(upstream: &'a Option<Tensor>, logits: &'a Tensor) -> TensorRef<'a> {
    upstream.as_ref().unwrap_or(logits).view()
}

impl Bench for SoftCrossEntropyBench {
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
        let op = self.op();
        match pass {
            Pass::Forward => Self::losses(&op, false, device, data),
            Pass::ForwardBackward => Self::losses(&op, true, device, data),
            Pass::Backward => {
                let saved = (target(&data.upstream, &data.logits), data.lse.view());
                let grad = data.work.view_mut();
                op.backward_into(device, data.logits.view(), saved, 1.0, grad)
            }
        }
    }

    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let op = self.op().reduction(Reduction::None);
        let mean = data.numbers(&data.loss)?[0];
        Self::losses(&op, false, device, data)?;
        let losses = data.numbers(&data.loss)?;
        let expected = losses.iter().sum::<f64>() / data.rows as f64;
        if pass != Pass::Backward && (mean - expected).abs() > 1e-5 * (1.0 + expected.abs()) {
            return Ok(Some(format!("mean loss: expected {expected}, got {mean}")));
        }
        for row in data.samples() {
            let q = data.row(data.upstream.as_ref().unwrap_or(&data.logits), row)?;
            let (x, grad) = (data.row(&data.logits, row)?, data.row(&data.work, row)?);
            let (shape, g) = ([1, data.classes], [1.0 / data.rows as f64]);
            let (expected, _) = reference::soft_cross_entropy(&op, &shape, &x, &q, &g);
            let got = [losses[row]];
            let loss = compare::losses(DType::F32, &got, &expected.loss, &expected.loss_size);
            let grad = compare::gradients(data.dtype, &grad, &expected.grad_logits);
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
