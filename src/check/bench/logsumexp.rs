//! Log-sum-exp along rows.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::check::bench::data::{Data, per_row};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::logsumexp::LogSumExp;

pub(in crate::check) struct LogsumexpBench;

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
        data.set_loss(device, 1.0)?;
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
        let (lse, upstream) = (data.lse.view(), data.loss.view());
        let grad = data.work.view_mut();
        LogSumExp::dims(&[1])?.backward_into(device, data.logits.view(), lse, upstream, grad)
    }

    fn check(&self, pass: Pass, _: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let sums = data.numbers(&data.lse)?;
        for row in data.samples() {
            let (x, shape) = (data.row(&data.logits, row)?, [1, data.classes]);
            let expected = reference::logsumexp(&shape, &[1], &x);
            let size = compare::sizes(&expected);
            let lse = compare::losses(DType::F32, &[sums[row]], &expected, &size);
            let expected = reference::logsumexp_grad(&shape, &[1], &x, &[1.0]);
            let grad = compare::gradients(data.dtype, &data.row(&data.work, row)?, &expected);
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
