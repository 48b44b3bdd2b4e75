//! Log-probability and entropy.

use super::targets::{Targets, unread};
use super::{Call, Draw, First, Upstream, logits_shape};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::logprob_entropy::{LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream};
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: logits_shape, call: draw };

#[derive(Debug)]
struct LogprobEntropyCall {
    targets: Targets,
    options: LogprobEntropy,
    grad_logprob: Upstream,
    grad_entropy: Upstream,
}

impl LogprobEntropyCall {
    fn upstream(&self) -> LogprobEntropyUpstream<'_> {
        LogprobEntropyUpstream {
            grad_logprob: self.grad_logprob.view(),
            grad_entropy: self.grad_entropy.view(),
        }
    }
}

impl Call for LogprobEntropyCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogprobEntropyCall { targets, options, grad_logprob, grad_entropy } = self;
        let rows = &options.rows;
        write!(f, ", target {}, ignore_index {}", targets.indices.dtype(), rows.ignore_index)?;
        write!(f, ", logit_scale {}, softcap {:?}", rows.logit_scale, rows.softcap)?;
        write!(f, ", grad_logprob {grad_logprob}, grad_entropy {grad_entropy}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let target = reference::indices(self.targets.indices.view())?;
        let a = reference::upstream(self.grad_logprob.view())?;
        let b = reference::upstream(self.grad_entropy.view())?;
        let out = reference::logprob_entropy(&self.options, &case.shape, &x, &target, [&a, &b]);
        let [argmax, rank] = reference::ranks(&case.shape, &x, &target, self.targets.ignore_index);
        Ok(vec![
            Expected::term(Quantity::Output, out.logprob),
            Expected::term(Quantity::Entropy, out.entropy),
            Expected::term(Quantity::Lse, out.lse),
            Expected::gradient(Quantity::Gradient, out.grad_logits),
            Expected::term(Quantity::Argmax, argmax),
            Expected::term(Quantity::Rank, rank),
        ])
    }

    /// Forward with ranks, backward from its log-sum-exp, and the fused call on a copy of the
    /// logits.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (logits, target) = (case.input()?, self.targets.indices.view());
        let (out, ranks) = self.options.forward_with_ranks(device, logits, target)?;
        let grad =
            self.options.backward(device, logits, target, out.lse.view(), self.upstream())?;

        let mut memory = case.memory.clone();
        let mut logprob = Tensor::zeros("logprob", DType::F32, target.shape())?;
        let mut entropy = Tensor::zeros("entropy", DType::F32, target.shape())?;
        let fused = LogprobEntropyOut::new(logprob.view_mut(), entropy.view_mut());
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        self.options.forward_backward_in_place(device, view, target, self.upstream(), fused)?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        Ok(vec![
            Outcome::new(Quantity::Output, "forward", out.logprob.view())?,
            Outcome::new(Quantity::Entropy, "forward", out.entropy.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
            Outcome::new(Quantity::Argmax, "forward", ranks.argmax.view())?,
            Outcome::new(Quantity::Rank, "forward", ranks.rank.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Output, pass, logprob.view())?,
            Outcome::new(Quantity::Entropy, pass, entropy.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            Outcome::padding(case, pass, &memory)?,
        ])
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        unread(case, self.targets.indices.view(), self.targets.ignore_index)
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let class_dim = usize::from(shape.len() > 1);
    let mut rows = shape.to_vec();
    rows.remove(class_dim);
    let targets = Targets::draw(random, shape[class_dim], &rows)?;
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0, 16.0] } else { &[1.0, 0.5, 2.0] };
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let options = LogprobEntropy::default()
        .ignore_index(targets.ignore_index)
        .logit_scale(random.pick(scales))
        .softcap(random.pick(caps));
    let count: usize = rows.iter().product();
    let mut upstream = |default: f32| -> Result<Upstream> {
        Ok(match random.below(3) {
            0 => Upstream::Number(default),
            1 => Upstream::Number(random.normal()),
            _ => {
                let g: Vec<f64> = (0..count).map(|_| random.normal().into()).collect();
                let dtype = random.pick(&[DType::F32, dtype]);
                Upstream::Tensor(typed::tensor(dtype, &rows, &g)?)
            }
        })
    };
    let (grad_logprob, grad_entropy) = (upstream(1.0)?, upstream(0.0)?);
    Ok(Box::new(LogprobEntropyCall { targets, options, grad_logprob, grad_entropy }))
}
