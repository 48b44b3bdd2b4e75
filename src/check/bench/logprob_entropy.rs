//! Log-probability and entropy, each with an upstream gradient.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::tensor::Tensor;
use crate::check::bench::data::{Data, per_row};
use crate::check::{compare, reference};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::logprob_entropy::{LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream};

pub(in crate::check) struct LogprobEntropyBench;

/// As of a policy gradient with an entropy bonus.
const GRADS: [f32; 2] = [-1.0, 0.01];

fn upstream() -> LogprobEntropyUpstream<'static> {
    let [grad_logprob, grad_entropy] = GRADS.map(Into::into);
    LogprobEntropyUpstream { grad_logprob, grad_entropy }
}

/// The results' buffers, one number a row each.
fn out<'a>(
    [logprob, entropy, lse]: [&'a mut Tensor; 3],
    rows: usize,
) -> Result<LogprobEntropyOut<'a>, Error> {
    let mut out = LogprobEntropyOut::new(per_row(logprob, &[rows])?, per_row(entropy, &[rows])?);
    out.lse = Some(per_row(lse, &[rows])?);
    Ok(out)
}

impl LogprobEntropyBench {
    fn forward(device: &Device, data: &mut Data) -> Result<(), Error> {
        let out = out([&mut data.loss, &mut data.second, &mut data.lse], data.rows)?;
        let (logits, target) = (data.logits.view(), data.targets.view());
        LogprobEntropy::default().forward_into(device, logits, target, out)
    }
}

impl Bench for LogprobEntropyBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::cross_entropy(pass)
    }

    fn consumes(&self, pass: Pass) -> bool {
        pass == Pass::ForwardBackward
    }

    fn save(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        match pass {
            Pass::Backward => Self::forward(device, data),
            Pass::Forward | Pass::ForwardBackward => Ok(()),
        }
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        let op = LogprobEntropy::default();
        match pass {
            Pass::Forward => Self::forward(device, data),
            Pass::ForwardBackward => {
                let out = out([&mut data.loss, &mut data.second, &mut data.lse], data.rows)?;
                let logits = data.work.view_mut();
                let target = data.targets.view();
                op.forward_backward_in_place(device, logits, target, upstream(), out)
            }
            Pass::Backward => {
                let saved = (data.targets.view(), data.lse.view());
                let grad = data.work.view_mut();
                op.backward_into(device, data.logits.view(), saved, upstream(), grad)
            }
        }
    }

    fn check(&self, pass: Pass, _: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let op = LogprobEntropy::default();
        let grads = GRADS.map(|g| [f64::from(g)]);
        let [logprob, entropy] = [data.numbers(&data.loss)?, data.numbers(&data.second)?];
        for row in data.samples() {
            let x = data.row(&data.logits, row)?;
            let (shape, target) = ([1, data.classes], [data.target[row]]);
            let grads = [&grads[0][..], &grads[1][..]];
            let expected = reference::logprob_entropy(&op, &shape, &x, &target, grads);
            for (name, got, expected) in [
                ("log-probability", logprob[row], &expected.logprob),
                ("entropy", entropy[row], &expected.entropy),
            ] {
                let size = compare::sizes(expected);
                let worst = compare::losses(DType::F32, &[got], expected, &size);
                if !worst.agrees() {
                    return Ok(Some(format!("{name} of row {row}: {worst}")));
                }
            }
            let got = data.row(&data.work, row)?;
            let worst = compare::gradients(data.dtype, &got, &expected.grad_logits);
            if pass != Pass::Forward && !worst.agrees() {
                return Ok(Some(format!("gradient of row {row}: {worst}")));
            }
        }
        Ok(None)
    }
}
