//! Cross entropy of hidden states and a classifier: against PyTorch's function, cross entropy of the logits
//! themselves, and itself in other chunks, on other threads and among other rows; and what it refuses.

mod errors;
mod extremes;
mod golden;
mod pairs;
mod positions;
mod rest;
mod same_bits;
mod same_logits;
mod tiled;

use crate::adaptive_log_softmax::{floats, noise, values};
use warploss::{
    CrossEntropyOut, CrossEntropyUpstream, DType, Device, LinearCrossEntropy, LinearGradOut,
    LinearInput, Tensor,
};

/// All results of a call, whatever the loss: by name.
pub(crate) type Results = Vec<(&'static str, Tensor)>;

/// A forward and backward pass with everything that can be asked for: of losses that are one a row or not, and
/// with k likeliest classes.
pub(crate) fn everything(
    device: &Device,
    loss: &LinearCrossEntropy<'_>,
    input: &LinearInput<'_>,
    upstream: CrossEntropyUpstream<'_>,
    (none, k): (bool, usize),
) -> Results {
    let soft = input.target.dtype().is_float();
    let mut out = outputs(input, (none, k));
    let like = |of: warploss::TensorRef<'_>| full(of.dtype(), &of.shape());
    let mut grads =
        vec![("grad_input", like(input.input)), ("grad_linear_weight", like(input.linear_weight))];
    grads.extend(input.linear_bias.map(|bias| ("grad_linear_bias", like(bias))));
    if soft {
        grads.push(("grad_target", like(input.target)));
    }
    {
        let out = views(&mut out, soft);
        let mut gradients = LinearGradOut::default();
        for (name, grad) in &mut grads {
            let view = Some(grad.view_mut());
            match *name {
                "grad_input" => gradients.input = view,
                "grad_linear_weight" => gradients.linear_weight = view,
                "grad_linear_bias" => gradients.linear_bias = view,
                _ => gradients.target = view,
            }
        }
        loss.forward_backward_into(device, input, upstream, gradients, out).unwrap();
    }
    out.into_iter().chain(grads).collect()
}

/// The results of a forward pass.
fn results(
    device: &Device,
    loss: &LinearCrossEntropy<'_>,
    input: &LinearInput<'_>,
    (none, k): (bool, usize),
) -> Results {
    let mut out = outputs(input, (none, k));
    loss.forward_into(device, input, views(&mut out, input.target.dtype().is_float())).unwrap();
    out.into_iter().collect()
}

/// What is there before a call.
fn full(dtype: DType, shape: &[usize]) -> Tensor {
    match dtype {
        DType::I64 => Tensor::from_vec(vec![77i64; shape.iter().product()], shape).unwrap(),
        dtype => floats(dtype, shape, &vec![77.0; shape.iter().product()]),
    }
}

/// All that can be asked for beside gradients.
fn outputs(input: &LinearInput<'_>, (none, k): (bool, usize)) -> [(&'static str, Tensor); 9] {
    let rows = input.input.shape().first().copied().unwrap();
    let (per_row, top) = ([rows], [rows, k]);
    let of_loss: &[usize] = if none { &per_row } else { &[] };
    [
        ("loss", full(DType::F32, of_loss)),
        ("z_loss", full(DType::F32, of_loss)),
        ("lse", full(DType::F32, &per_row)),
        ("logprob", full(DType::F32, &per_row)),
        ("entropy", full(DType::F32, &per_row)),
        ("argmax", full(DType::I64, &per_row)),
        ("rank", full(DType::I64, &per_row)),
        ("top_k.classes", full(DType::I64, &top)),
        ("top_k.logprob", full(DType::F32, &top)),
    ]
}

/// Against probabilities fewer of them.
fn views<'a>(out: &'a mut [(&'static str, Tensor); 9], soft: bool) -> CrossEntropyOut<'a> {
    let [one, z_loss, lse, logprob, entropy, argmax, rank, classes, of_top] =
        out.each_mut().map(|(_, tensor)| tensor.view_mut());
    let hard = !soft;
    CrossEntropyOut {
        z_loss: Some(z_loss),
        lse: Some(lse),
        logprob: hard.then_some(logprob),
        entropy: hard.then_some(entropy),
        argmax: hard.then_some(argmax),
        rank: hard.then_some(rank),
        top_k: hard.then_some(warploss::TopKOut { classes, logprob: of_top }),
        ..CrossEntropyOut::loss(one)
    }
}

pub(crate) fn bits(tensor: &Tensor) -> Vec<u64> {
    values(tensor).into_iter().map(|v| if v.is_nan() { 1 } else { v.to_bits() }).collect()
}
