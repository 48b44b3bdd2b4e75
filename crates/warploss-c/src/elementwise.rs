//! Losses element by element.

use crate::cross_entropy::{given, reduction};
use crate::device::{device, warploss_device};
use crate::status::{Refusal, Result, call, warploss_status};
use crate::tensor::{apart, read, read_some, upstream, warploss_tensor, write, write_some};
use std::ptr::null;
use warploss::{BceWithLogits, ElementwiseGradOut, Huber, KlDiv, L1, Mse, SmoothL1};

/// Which loss.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum warploss_elementwise {
    /// Squared difference.
    Mse = 0,
    /// Absolute difference.
    L1 = 1,
    /// PyTorch's smooth L1; `parameter` is beta.
    SmoothL1 = 2,
    /// Huber's; `parameter` is delta.
    Huber = 3,
    /// Binary cross entropy of logits.
    BceWithLogits = 4,
    /// Kullback-Leibler divergence of log-probabilities from probabilities.
    KlDiv = 5,
}

/// Options of them: `warploss_elementwise_options_default` makes them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_elementwise_options {
    /// A `warploss_elementwise`.
    pub loss: u32,
    /// A `warploss_reduction`. Default the mean.
    pub reduction: u32,
    /// Of the losses that have one. Default 1.
    pub parameter: f32,
    /// A weight for each element, of losses other than the divergence; null: 1 each.
    pub weight: *const warploss_tensor,
}

/// The defaults.
#[unsafe(no_mangle)]
pub extern "C" fn warploss_elementwise_options_default(
    loss: warploss_elementwise,
) -> warploss_elementwise_options {
    warploss_elementwise_options { loss: loss as u32, reduction: 2, parameter: 1.0, weight: null() }
}

/// The loss of input and target, whose shapes broadcast, to `loss` (`[]`, or the broadcast shape; f32); and, each where it
/// is not null, gradients of both, of an upstream gradient that is `grad_output` or, where that is null, 1.
///
/// # Safety
/// As for `warploss_cross_entropy_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_elementwise_call(
    on: *const warploss_device,
    with: *const warploss_elementwise_options,
    input: *const warploss_tensor,
    target: *const warploss_tensor,
    grad_output: *const warploss_tensor,
    grad_input: *const warploss_tensor,
    grad_target: *const warploss_tensor,
    loss: *const warploss_tensor,
) -> warploss_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let (device, with) = (device(on)?, given("options", with)?);
        let written = [("loss", loss), ("grad_input", grad_input), ("grad_target", grad_target)];
        let others = [
            ("input", input),
            ("target", target),
            ("grad_output", grad_output),
            ("weight", with.weight),
        ];
        apart(&written, &others)?;
        let reduction = reduction(with.reduction)?;
        let weight = read_some("weight", with.weight)?;
        let (input, target) = (read("input", input)?, read("target", target)?);
        let g = upstream("grad_output", (grad_output, 1.0))?;
        let grads = ElementwiseGradOut {
            grad_input: write_some("grad_input", grad_input)?,
            grad_target: write_some("grad_target", grad_target)?,
            ..ElementwiseGradOut::default()
        };
        let out = (write("loss", loss)?, grads);
        macro_rules! weighted {
            ($loss:expr) => {{
                let loss = $loss.reduction(reduction);
                match weight {
                    Some(weight) => {
                        loss.weight(weight).forward_backward_into(device, input, target, g, out)?
                    }
                    None => loss.forward_backward_into(device, input, target, g, out)?,
                }
            }};
        }
        match with.loss {
            0 => weighted!(Mse::default()),
            1 => weighted!(L1::default()),
            2 => weighted!(SmoothL1::default().beta(with.parameter)),
            3 => weighted!(Huber::default().delta(with.parameter)),
            4 => weighted!(BceWithLogits::default()),
            5 => {
                no_weight(with.weight)?;
                let loss = KlDiv::default().reduction(reduction);
                loss.forward_backward_into(device, input, target, g, out)?;
            }
            got => return Err(Refusal::argument("loss", "a WARPLOSS_ELEMENTWISE", got)),
        }
        Ok(())
    })
}

fn no_weight(weight: *const warploss_tensor) -> Result<()> {
    match weight.is_null() {
        true => Ok(()),
        false => Err(Refusal::argument("weight", "NULL (of a divergence)", "a tensor")),
    }
}
