//! Cross entropy over hidden states and a classifier, whose logits are never all in memory.

use crate::cross_entropy::{
    given, options, warploss_cross_entropy_options, warploss_cross_entropy_outputs,
    warploss_upstream,
};
use crate::device::{device, warploss_device};
use crate::status::{Result, call, warploss_status};
use crate::tensor::{apart, read, read_some, warploss_tensor, write_some};
use warploss::{LinearCrossEntropy, LinearGradOut, LinearInput};

/// Hidden states, a classifier and what comes with them; what there need not be is null.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_linear_input {
    /// Hidden states, `[N, D]`.
    pub input: *const warploss_tensor,
    /// The classifier, `[V, D]`.
    pub linear_weight: *const warploss_tensor,
    /// `[V]`, or null.
    pub linear_bias: *const warploss_tensor,
    /// Class indices, `[N]`; or probabilities, `[N, V]`.
    pub target: *const warploss_tensor,
    /// What each row's logits are divided by, f32, `[N]`; or null.
    pub temperature: *const warploss_tensor,
    /// What each row's loss is multiplied by, f32, `[N]`; or null.
    pub row_weight: *const warploss_tensor,
}

/// Where gradients go; null: none is made.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_linear_gradients {
    /// As the hidden states.
    pub input: *const warploss_tensor,
    /// As the classifier.
    pub linear_weight: *const warploss_tensor,
    /// As the bias.
    pub linear_bias: *const warploss_tensor,
    /// Whether those of classifier and bias are added to what is there.
    pub accumulate: bool,
}

impl warploss_linear_input {
    fn each(&self) -> [(&'static str, *const warploss_tensor); 6] {
        [
            ("input", self.input),
            ("linear_weight", self.linear_weight),
            ("linear_bias", self.linear_bias),
            ("target", self.target),
            ("temperature", self.temperature),
            ("row_weight", self.row_weight),
        ]
    }

    /// # Safety
    /// As for [`read`], of each that is not null.
    unsafe fn views<'a>(&self) -> Result<LinearInput<'a>> {
        // SAFETY: the caller's promise.
        unsafe {
            let input = read("input", self.input)?;
            let weight = read("linear_weight", self.linear_weight)?;
            Ok(LinearInput {
                linear_bias: read_some("linear_bias", self.linear_bias)?,
                temperature: read_some("temperature", self.temperature)?,
                row_weight: read_some("row_weight", self.row_weight)?,
                ..LinearInput::new(input, weight, read("target", self.target)?)
            })
        }
    }
}

/// # Safety
/// As for [`options`].
unsafe fn loss<'a>(
    with: &warploss_cross_entropy_options,
    bytes: usize,
) -> Result<LinearCrossEntropy<'a>> {
    // SAFETY: the caller's promise.
    let loss = LinearCrossEntropy::from(unsafe { options(with)? });
    Ok(if bytes == 0 { loss } else { loss.max_workspace_bytes(bytes) })
}

/// Loss, and what else is asked for, within so many bytes of memory (0: 512 MiB).
///
/// # Safety
/// As for `warploss_cross_entropy_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_linear_cross_entropy_forward(
    on: *const warploss_device,
    with: *const warploss_cross_entropy_options,
    max_workspace_bytes: usize,
    input: *const warploss_linear_input,
    outputs: *const warploss_cross_entropy_outputs,
) -> warploss_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let (device, with) = (device(on)?, given("options", with)?);
        let (input, outputs) = (given("input", input)?, given("outputs", outputs)?);
        let mut others = input.each().to_vec();
        others.push(("weight", with.weight));
        apart(&outputs.each(), &others)?;
        let loss = loss(with, max_workspace_bytes)?;
        Ok(loss.forward_into(device, &input.views()?, outputs.views()?)?)
    })
}

/// The same with gradients.
///
/// # Safety
/// As for `warploss_cross_entropy_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_linear_cross_entropy_forward_backward(
    on: *const warploss_device,
    with: *const warploss_cross_entropy_options,
    max_workspace_bytes: usize,
    input: *const warploss_linear_input,
    upstream: *const warploss_upstream,
    gradients: *const warploss_linear_gradients,
    outputs: *const warploss_cross_entropy_outputs,
) -> warploss_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let (device, with) = (device(on)?, given("options", with)?);
        let (input, outputs) = (given("input", input)?, given("outputs", outputs)?);
        let (upstream, to) = (given("upstream", upstream)?, given("gradients", gradients)?);
        let mut written = outputs.each().to_vec();
        written.extend([
            ("grad_input", to.input),
            ("grad_linear_weight", to.linear_weight),
            ("grad_linear_bias", to.linear_bias),
        ]);
        let mut others = [&input.each()[..], &upstream.each()].concat();
        others.push(("weight", with.weight));
        apart(&written, &others)?;
        let gradients = LinearGradOut {
            input: write_some("grad_input", to.input)?,
            linear_weight: write_some("grad_linear_weight", to.linear_weight)?,
            linear_bias: write_some("grad_linear_bias", to.linear_bias)?,
            accumulate: to.accumulate,
            ..LinearGradOut::default()
        };
        let (loss, input) = (loss(with, max_workspace_bytes)?, input.views()?);
        let (upstream, out) = (upstream.views()?, outputs.views()?);
        Ok(loss.forward_backward_into(device, &input, upstream, gradients, out)?)
    })
}
