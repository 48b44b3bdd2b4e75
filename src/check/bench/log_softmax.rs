//! Log-softmax along rows.

use super::Bench;
use crate::base::error::Error;
use crate::check::bench::data::{Data, Large};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::log_softmax::LogSoftmax;

pub(in crate::check) struct LogSoftmaxBench;

impl Bench for LogSoftmaxBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::log_softmax(pass)
    }

    fn large(&self, pass: Pass) -> Option<Large> {
        (pass != Pass::Forward).then_some(Large::Normal)
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
            let (x, got) = (data.row(&data.logits, row)?, data.row(&data.work, row)?);
            let shape = [1, data.classes];
            let worst = match &data.upstream {
                Some(upstream) if pass != Pass::Forward => {
                    let g = data.row(upstream, row)?;
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
