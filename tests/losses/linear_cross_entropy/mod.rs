//! Cross entropy of hidden states and a classifier: against PyTorch's function, cross entropy of the logits
//! themselves, and itself in other chunks, on other threads and among other rows; and what it refuses.

mod errors;
mod extremes;
mod golden;
mod same_bits;
mod same_logits;

use crate::adaptive_log_softmax::{floats, noise, values};
use warploss::{
    CrossEntropyOut, CrossEntropyUpstream, DType, Device, LinearCrossEntropy, LinearGradOut,
    LinearInput, Tensor,
};

/// All results of a call, whatever the loss: by name.
type Results = Vec<(&'static str, Tensor)>;

/// A forward and backward pass with everything that can be asked for: of losses that are one a row or not, and
/// with k likeliest classes.
fn everything(
    device: &Device,
    loss: &LinearCrossEntropy<'_>,
    input: &LinearInput<'_>,
    upstream: CrossEntropyUpstream<'_>,
    (none, k): (bool, usize),
) -> Results {
    let zeros = |dtype: DType, shape: &[usize]| match dtype {
        DType::I64 => Tensor::from_vec(vec![77i64; shape.iter().product()], shape).unwrap(),
        dtype => floats(dtype, shape, &vec![77.0; shape.iter().product()]),
    };
    let rows = input.input.shape().first().copied().unwrap();
    let soft = input.target.dtype().is_float();
    let per_row = [rows];
    let top = [rows, k];
    let of_loss: &[usize] = if none { &per_row } else { &[] };
    let mut out = [
        ("loss", zeros(DType::F32, of_loss)),
        ("z_loss", zeros(DType::F32, of_loss)),
        ("lse", zeros(DType::F32, &per_row)),
        ("logprob", zeros(DType::F32, &per_row)),
        ("entropy", zeros(DType::F32, &per_row)),
        ("argmax", zeros(DType::I64, &per_row)),
        ("rank", zeros(DType::I64, &per_row)),
        ("top_k.classes", zeros(DType::I64, &top)),
        ("top_k.logprob", zeros(DType::F32, &top)),
    ];
    let like = |of: warploss::TensorRef<'_>| zeros(of.dtype(), &of.shape());
    let mut grads =
        vec![("grad_input", like(input.input)), ("grad_linear_weight", like(input.linear_weight))];
    grads.extend(input.linear_bias.map(|bias| ("grad_linear_bias", like(bias))));
    if soft {
        grads.push(("grad_target", like(input.target)));
    }
    {
        let [one, z_loss, lse, logprob, entropy, argmax, rank, classes, of_top] =
            out.each_mut().map(|(_, tensor)| tensor.view_mut());
        let hard = !soft;
        let out = CrossEntropyOut {
            z_loss: Some(z_loss),
            lse: Some(lse),
            logprob: hard.then_some(logprob),
            entropy: hard.then_some(entropy),
            argmax: hard.then_some(argmax),
            rank: hard.then_some(rank),
            top_k: hard.then_some(warploss::TopKOut { classes, logprob: of_top }),
            ..CrossEntropyOut::loss(one)
        };
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

fn bits(tensor: &Tensor) -> Vec<u64> {
    values(tensor).into_iter().map(|v| if v.is_nan() { 1 } else { v.to_bits() }).collect()
}
