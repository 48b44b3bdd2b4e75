//! Cross entropy over logits.

use crate::device::{device, warploss_device};
use crate::status::{Refusal, Result, call, warploss_status};
use crate::tensor::{apart, read, read_some, upstream, warploss_tensor, write, write_some};
use std::ptr::null;
use warploss::{CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, Reduction};

/// What losses of rows come to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum warploss_reduction {
    /// One a row.
    None = 0,
    /// Their sum.
    Sum = 1,
    /// Their mean.
    Mean = 2,
    /// Their sum over the number of rows: of divergences alone.
    BatchMean = 3,
}

/// A number that C may have made anything of.
pub(crate) fn reduction(number: u32) -> Result<Reduction> {
    match number {
        0 => Ok(Reduction::None),
        1 => Ok(Reduction::Sum),
        2 => Ok(Reduction::Mean),
        3 => Ok(Reduction::BatchMean),
        got => Err(Refusal::argument("reduction", "a WARPLOSS_REDUCTION", got)),
    }
}

/// Options of cross entropy: `warploss_cross_entropy_options_default` makes them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_cross_entropy_options {
    /// Class weights, `[C]`; null: 1 each.
    pub weight: *const warploss_tensor,
    /// The label of rows that do not count. Default -100.
    pub ignore_index: i64,
    /// A `warploss_reduction`. Default the mean.
    pub reduction: u32,
    /// From 0 to 1. Default 0.
    pub label_smoothing: f64,
    /// Of the z-loss. Default 0.
    pub lse_square_scale: f64,
    /// The inverse temperature. Default 1.
    pub logit_scale: f32,
    /// Logits are bent to stay within it; 0 (the default): they are not.
    pub softcap: f32,
}

/// The defaults.
#[unsafe(no_mangle)]
pub extern "C" fn warploss_cross_entropy_options_default() -> warploss_cross_entropy_options {
    warploss_cross_entropy_options {
        weight: null(),
        ignore_index: -100,
        reduction: warploss_reduction::Mean as u32,
        label_smoothing: 0.0,
        lse_square_scale: 0.0,
        logit_scale: 1.0,
        softcap: 0.0,
    }
}

/// Where results go; null: they are not asked for, but the loss is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_cross_entropy_outputs {
    /// `[]`, or one a row without a reduction; f32.
    pub loss: *const warploss_tensor,
    /// Log-sum-exp, one a row; f32.
    pub lse: *const warploss_tensor,
    /// The loss's z-loss; its shape.
    pub z_loss: *const warploss_tensor,
    /// Log-probability of the target, one a row; f32.
    pub logprob: *const warploss_tensor,
    /// Entropy, one a row; f32.
    pub entropy: *const warploss_tensor,
    /// The likeliest class, one a row; i64.
    pub argmax: *const warploss_tensor,
    /// Classes that are likelier than the target, one a row; i64.
    pub rank: *const warploss_tensor,
}

/// Upstream gradients: a tensor where it is not null, else the number.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct warploss_upstream {
    /// Of the loss: its shape.
    pub grad_output: *const warploss_tensor,
    /// The same as a number. Default 1.
    pub grad_output_number: f32,
    /// Of log-probabilities, one a row; null: none.
    pub grad_logprob: *const warploss_tensor,
    /// Of entropies, one a row; null: none.
    pub grad_entropy: *const warploss_tensor,
}

/// Of a loss that is differentiated itself.
#[unsafe(no_mangle)]
pub extern "C" fn warploss_upstream_default() -> warploss_upstream {
    warploss_upstream {
        grad_output: null(),
        grad_output_number: 1.0,
        grad_logprob: null(),
        grad_entropy: null(),
    }
}

/// # Safety
/// A pointer, where not null, is good for what it says.
pub(crate) unsafe fn given<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Refusal::argument(name, "a pointer", "NULL"))
}

/// # Safety
/// As for [`read`], of what the options name.
pub(crate) unsafe fn options<'a>(of: &warploss_cross_entropy_options) -> Result<CrossEntropy<'a>> {
    let options = CrossEntropy::default()
        .ignore_index(of.ignore_index)
        .reduction(reduction(of.reduction)?)
        .label_smoothing(of.label_smoothing)
        .lse_square_scale(of.lse_square_scale)
        .logit_scale(of.logit_scale)
        .softcap((of.softcap != 0.0).then_some(of.softcap));
    // SAFETY: the caller's promise.
    Ok(match unsafe { read_some("weight", of.weight)? } {
        Some(weight) => options.weight(weight),
        None => options,
    })
}

impl warploss_cross_entropy_outputs {
    pub(crate) fn each(&self) -> [(&'static str, *const warploss_tensor); 7] {
        [
            ("loss", self.loss),
            ("lse", self.lse),
            ("z_loss", self.z_loss),
            ("logprob", self.logprob),
            ("entropy", self.entropy),
            ("argmax", self.argmax),
            ("rank", self.rank),
        ]
    }

    /// # Safety
    /// As for [`write`], of each that is not null.
    pub(crate) unsafe fn views<'a>(&self) -> Result<CrossEntropyOut<'a>> {
        // SAFETY: the caller's promise.
        unsafe {
            Ok(CrossEntropyOut {
                lse: write_some("lse", self.lse)?,
                z_loss: write_some("z_loss", self.z_loss)?,
                logprob: write_some("logprob", self.logprob)?,
                entropy: write_some("entropy", self.entropy)?,
                argmax: write_some("argmax", self.argmax)?,
                rank: write_some("rank", self.rank)?,
                ..CrossEntropyOut::loss(write("loss", self.loss)?)
            })
        }
    }
}

impl warploss_upstream {
    pub(crate) fn each(&self) -> [(&'static str, *const warploss_tensor); 3] {
        [
            ("grad_output", self.grad_output),
            ("grad_logprob", self.grad_logprob),
            ("grad_entropy", self.grad_entropy),
        ]
    }

    /// # Safety
    /// As for [`read`], of each that is not null.
    pub(crate) unsafe fn views<'a>(&self) -> Result<CrossEntropyUpstream<'a>> {
        // SAFETY: the caller's promise.
        unsafe {
            Ok(CrossEntropyUpstream {
                grad_output: upstream("grad_output", (self.grad_output, self.grad_output_number))?,
                grad_logprob: upstream("grad_logprob", (self.grad_logprob, 0.0))?,
                grad_entropy: upstream("grad_entropy", (self.grad_entropy, 0.0))?,
            })
        }
    }
}

/// Loss, and what else is asked for, of logits `[N, C]` or `[N, C, d1, ...]` and class indices, or probabilities shaped as
/// the logits.
///
/// # Safety
/// Each pointer is null, or names what its type says, for as long as the call (on a CUDA device, what it began) lasts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_cross_entropy_forward(
    on: *const warploss_device,
    with: *const warploss_cross_entropy_options,
    logits: *const warploss_tensor,
    target: *const warploss_tensor,
    outputs: *const warploss_cross_entropy_outputs,
) -> warploss_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let (device, with) = (device(on)?, given("options", with)?);
        let outputs = given("outputs", outputs)?;
        apart(&outputs.each(), &[("logits", logits), ("target", target), ("weight", with.weight)])?;
        let (logits, target) = (read("logits", logits)?, read("target", target)?);
        Ok(options(with)?.forward_into(device, logits, target, outputs.views()?)?)
    })
}

/// The same with the gradient of the logits, in one pass: to `grad_logits`, or, where that is null, over the logits.
///
/// # Safety
/// As for `warploss_cross_entropy_forward`; the logits may be written where `grad_logits` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_cross_entropy_forward_backward(
    on: *const warploss_device,
    with: *const warploss_cross_entropy_options,
    logits: *const warploss_tensor,
    target: *const warploss_tensor,
    upstream: *const warploss_upstream,
    grad_logits: *const warploss_tensor,
    outputs: *const warploss_cross_entropy_outputs,
) -> warploss_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let (device, with) = (device(on)?, given("options", with)?);
        let (upstream, outputs) = (given("upstream", upstream)?, given("outputs", outputs)?);
        let mut written = outputs.each().to_vec();
        let mut others = upstream.each().to_vec();
        others.extend([("target", target), ("weight", with.weight)]);
        match grad_logits.is_null() {
            true => written.push(("logits", logits)),
            false => {
                written.push(("grad_logits", grad_logits));
                others.push(("logits", logits));
            }
        }
        apart(&written, &others)?;
        let (options, target) = (options(with)?, read("target", target)?);
        let (upstream, out) = (upstream.views()?, outputs.views()?);
        match grad_logits.is_null() {
            true => {
                let logits = write("logits", logits)?;
                options.forward_backward_in_place(device, logits, target, upstream, out)?;
            }
            false => {
                let (logits, grad) = (read("logits", logits)?, write("grad_logits", grad_logits)?);
                options.forward_backward_into(device, logits, target, upstream, grad, out)?;
            }
        }
        Ok(())
    })
}
