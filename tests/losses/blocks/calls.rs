//! Calls whose results lie beside their inputs, on the host or on the device.

use super::{Results, bits};
use warploss::{
    CrossEntropy, Device, JsDivLogits, LogprobEntropy, LogprobEntropyUpstream, MultiMargin, Nll,
    Reduction, Result, RowState, TensorRef, Vocabulary,
};

/// Log-probability and entropy, whose results lie beside the logits.
pub fn tokens(device: &Device, logits: TensorRef<'_>, rows: [TensorRef<'_>; 2]) -> Result<Results> {
    let [target, per_row] = rows;
    let loss = LogprobEntropy::default();
    let (out, ranks) = loss.forward_with_ranks(device, logits, target)?;
    let upstream =
        LogprobEntropyUpstream { grad_logprob: per_row.into(), grad_entropy: per_row.into() };
    let grad = loss.backward(device, logits, target, out.lse.view(), upstream)?;
    Ok([
        ("log-probability", &out.logprob),
        ("entropy", &out.entropy),
        ("argmax", &ranks.argmax),
        ("rank", &ranks.rank),
        ("log-probability gradient", &grad),
    ]
    .map(|(name, tensor)| (name, bits(tensor.view())))
    .into())
}

/// What compares rows with a teacher's: both are gone through side by side.
pub fn teachers(
    device: &Device,
    logits: TensorRef<'_>,
    teacher: TensorRef<'_>,
    [labels, per_row]: [TensorRef<'_>; 2],
) -> Result<Results> {
    let distillation = CrossEntropy::default().teacher_scale(Some(0.5)).logit_scale(0.5);
    let none = distillation.clone().reduction(Reduction::None);
    let out = none.forward(device, logits, teacher)?;
    let grad = none.backward(device, logits, teacher, out.lse.view(), per_row)?;
    let mean = distillation.forward(device, logits, teacher)?;
    let js_div = JsDivLogits::default().beta(0.3).labels(labels);
    let loss = js_div.forward(device, logits, teacher)?;
    let js_grad = js_div.backward(device, logits, teacher, 0.5)?;
    Ok([
        ("distillation", &out.loss),
        ("distillation gradient", &grad),
        ("mean distillation", &mean.loss),
        ("divergence", &loss),
        ("divergence gradient", &js_grad),
    ]
    .map(|(name, tensor)| (name, bits(tensor.view())))
    .into())
}

/// A vocabulary as one shard of it: its state, and what is made of that.
pub fn shards(
    device: &Device,
    logits: TensorRef<'_>,
    [target, per_row]: [TensorRef<'_>; 2],
) -> Result<Results> {
    let loss = CrossEntropy::default().label_smoothing(0.2).reduction(Reduction::None);
    let vocabulary = Vocabulary::all(logits.shape()[1]);
    let state = loss.partial(device, logits, target, vocabulary)?;
    let out = loss.finish(device, &state, target)?;
    let grad = loss.backward_shard(device, (logits, vocabulary), target, &state, per_row)?;
    let merged = RowState::merge(device, &[&state])?;
    Ok(vec![
        ("state", bits(state.values())),
        ("merged state", bits(merged.values())),
        ("loss of a state", bits(out.loss.view())),
        ("gradient of a state", bits(grad.view())),
    ])
}

/// Likelihoods of rows of log-probabilities, taken as they are.
pub fn likelihoods(
    device: &Device,
    input: TensorRef<'_>,
    [target, per_row]: [TensorRef<'_>; 2],
) -> Result<Results> {
    let (mean, none) = (Nll::default(), Nll::default().reduction(Reduction::None));
    let loss = mean.forward(device, input, target)?;
    let losses = none.forward(device, input, target)?;
    let grad = none.backward(device, input, target, per_row)?;
    // No row is ignored there.
    let (rows, classes) = (input.shape()[0], input.shape()[1]);
    let scored: Vec<i64> = (0..rows).map(|r| (r * 7 % classes) as i64).collect();
    let scored = TensorRef::new(&scored, &[rows])?;
    let (margin, none) =
        (MultiMargin::default().p(2), MultiMargin::default().reduction(Reduction::None));
    let lacking = margin.forward(device, input, scored)?;
    let margins = none.forward(device, input, scored)?;
    let margin_grad = none.backward(device, input, scored, per_row)?;
    Ok([
        ("likelihood", &loss),
        ("likelihoods", &losses),
        ("likelihood gradient", &grad),
        ("margin", &lacking),
        ("margins", &margins),
        ("margin gradient", &margin_grad),
    ]
    .map(|(name, tensor)| (name, bits(tensor.view())))
    .into())
}
