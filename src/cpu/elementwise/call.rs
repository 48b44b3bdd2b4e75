//! A call over tiles: what is read and written, the chunks, and what a loss is divided by.

use crate::base::error::{Error, Result};
use crate::base::host::HostRef;
use crate::base::reduction::Reduction;
use crate::base::shape::MAX_RANK;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::elementwise::pass::{Losses, TILE};
use crate::cpu::elementwise::sum_back::Side;
use crate::cpu::elementwise::tiles::{CHUNK_ELEMENTS, CHUNKS, Job};
use crate::cpu::processor::{Cpu, host_data, host_f32};
use crate::cpu::simd::Lanes;
use crate::spec::broadcast::strides;
use crate::spec::elementwise::{
    Call, Checked, Denominator, Input, OPERANDS, Operand, Space, Strides,
};
use crate::spec::grad_output::GradOutput;
use std::ops::Range;
use std::sync::atomic::AtomicU32;

impl Cpu {
    /// The call with the input's type known, and `losses`, those that there are;
    /// `consumed` is the input where it is to hold its own gradient.
    pub(crate) fn in_tiles<T: Lanes>(
        &self,
        checked: &Checked<'_>,
        x: *const T,
        consumed: Option<*mut T>,
        operands: Operands<'_>,
        losses: Losses<T>,
    ) -> Result<()> {
        let Operands { space, target, grad_output, loss, gradients } = operands;
        let (upstream, number) = match grad_output {
            GradOutput::Number(g) => (None, g),
            GradOutput::Tensor(g) if g.elements() == 1 => {
                (None, host_data(g, "grad_output")?.float(0))
            }
            GradOutput::Tensor(g) => (Some(host_data(g, "grad_output")?), 1.0),
        };
        let mut loss = loss.map(|loss| host_f32(loss, "loss")).transpose()?;
        let mut job = Job {
            level: self.level,
            formula: checked.formula,
            losses,
            space,
            x,
            y: host::<T>(&target, "target")?.as_ptr(),
            weight: floats(checked.weight, "weight")?,
            third: match &checked.third {
                Some(third) => floats(Some(third.tensor()), third.argument())?,
                None => None,
            },
            upstream,
            weight_scale: 1.0,
            scale: 1.0,
            value: std::ptr::null_mut(),
            grad_x: consumed.unwrap_or(std::ptr::null_mut()),
            grad_y: std::ptr::null_mut(),
            grad_third: std::ptr::null_mut(),
        };
        let mut grads = [(Side::Input, None), (Side::Target, None), (Side::Third, None)];
        for ((side, grad), tensor) in grads.iter_mut().zip(gradients) {
            let Some(tensor) = tensor else { continue };
            let shape = tensor.shape();
            let p = host_mut::<T>(tensor, side.argument())?.as_mut_ptr();
            match (shape == checked.shape, &side) {
                // As large as the result: written where the tiles are read.
                (true, Side::Input) => job.grad_x = p,
                (true, Side::Target) => job.grad_y = p,
                (true, Side::Third) => job.grad_third = p,
                (false, _) => *grad = Some(p),
            }
        }

        // From here on nothing can fail.
        let count = space.count();
        let denominator = match checked.denominator {
            Denominator::Number(n) => n,
            Denominator::Weights => {
                let largest = AtomicU32::new(0);
                let sum = self.in_chunks(count, |indices| {
                    // SAFETY: views hold their shapes; nothing is written.
                    unsafe { job.sum_of_weights(indices, &largest) }
                });
                // A common factor of the weights is not in the mean: none of them is beyond 1, so
                // that losses keep to f32 where the weights do not.
                job.weight_scale = 1.0 / above(f32::from_bits(largest.into_inner()));
                sum * f64::from(job.weight_scale)
            }
        };
        job.scale = match denominator {
            0.0 => f32::NAN,
            _ => (f64::from(number) / denominator) as f32,
        };
        for (side, grad) in grads {
            if let Some(grad) = grad {
                // SAFETY: views hold their shapes, which were checked; a gradient that is
                // written lies apart from what is read (exclusive borrows), the consumed
                // input among it: it is not yet written.
                unsafe { self.sum_back(&job, side, grad) };
            }
        }
        if let Some(loss) = loss.as_mut().filter(|_| checked.reduction == Reduction::None) {
            job.value = loss.as_mut_ptr();
        }
        let wanted = loss.is_some();
        if !wanted && [job.grad_x, job.grad_y, job.grad_third].iter().all(|p| p.is_null()) {
            return Ok(());
        }
        let sum = self.in_chunks(count, |indices| {
            // SAFETY: as above, and chunks are disjoint; a consumed input is read before it
            // is written, element by element.
            unsafe { job.run(wanted, indices) }
        });
        match (loss, checked.reduction) {
            (None, _) | (_, Reduction::None) => {}
            (Some(loss), Reduction::Sum) => loss[0] = sum as f32,
            (Some(loss), Reduction::Mean | Reduction::BatchMean) => {
                loss[0] = match denominator {
                    0.0 => f32::NAN,
                    _ => (sum / denominator) as f32,
                };
            }
        }
        Ok(())
    }

    /// Sums what `work` gives for chunks of `0..count`, in order.
    fn in_chunks(&self, count: usize, work: impl Fn(Range<usize>) -> f64 + Sync) -> f64 {
        let per = count.div_ceil(CHUNKS).max(CHUNK_ELEMENTS).next_multiple_of(TILE);
        let chunk = |i: usize| i * per..((i + 1) * per).min(count);
        let mut sums = [0.0; CHUNKS];
        let sums = &mut sums[..count.div_ceil(per)];
        if sums.len() <= 1 || self.threads() == 1 {
            sums.iter_mut().enumerate().for_each(|(i, sum)| *sum = work(chunk(i)));
        } else {
            self.share_items(sums, |i, sum| *sum = work(chunk(i)));
        }
        sums.iter().fold(0.0, |total, sum| total + sum)
    }
}

/// A power of two above a weight, if it may be: it and what it is divided by are normal numbers.
fn above(weight: f32) -> f32 {
    match weight.is_finite() && weight > 0.0 {
        true => (f64::from(weight).log2().floor() + 1.0).clamp(-126.0, 126.0).exp2() as f32,
        false => 1.0,
    }
}

/// A call without its input, and how all its tensors lie.
pub(crate) struct Operands<'a> {
    space: Space,
    target: TensorRef<'a>,
    grad_output: GradOutput<'a>,
    loss: Option<TensorMut<'a>>,
    /// Of input, target and third tensor.
    gradients: [Option<TensorMut<'a>>; 3],
}

impl<'a> Operands<'a> {
    pub(crate) fn of(checked: &Checked<'_>, call: Call<'a>) -> (Input<'a>, Operands<'a>) {
        let space = Space::new(&checked.shape, &all_strides(checked, &call));
        let Call { input, target, grad_output, loss, grad_input, grad_target, grad_third } = call;
        let gradients = [grad_input, grad_target, grad_third];
        (input, Operands { space, target, grad_output, loss, gradients })
    }
}

/// How each tensor of the call lies over the broadcast shape.
fn all_strides(checked: &Checked<'_>, call: &Call<'_>) -> Strides {
    let mut all: Strides = [[0; MAX_RANK]; OPERANDS];
    let mut set = |operand: Operand, tensor: TensorRef<'_>| {
        all[operand as usize] = strides(tensor.shape(), tensor.row_stride(), checked.shape);
    };
    let input = call.input.view();
    set(Operand::Input, input);
    set(Operand::Target, call.target);
    if let Some(weight) = checked.weight {
        set(Operand::Weight, weight);
    }
    if let GradOutput::Tensor(g) = call.grad_output
        && g.shape() == checked.shape
    {
        set(Operand::Upstream, g);
    }
    if let Some(loss) = &call.loss
        && checked.reduction == Reduction::None
    {
        set(Operand::Loss, loss.as_ref());
    }
    match (&call.input, &call.grad_input) {
        (Input::Consumed(input), _) => set(Operand::GradInput, input.as_ref()),
        (Input::Kept(_), Some(grad)) => set(Operand::GradInput, grad.as_ref()),
        (Input::Kept(_), None) => {}
    }
    if let Some(grad) = &call.grad_target {
        set(Operand::GradTarget, grad.as_ref());
    }
    if let Some(third) = &checked.third {
        let lies = |row_stride| strides(third.seen(&checked.shape), row_stride, checked.shape);
        all[Operand::Third as usize] = lies(third.tensor().row_stride());
        if let Some(grad) = &call.grad_third {
            all[Operand::GradThird as usize] = lies(grad.as_ref().row_stride());
        }
    }
    all
}

fn floats<'a>(
    tensor: Option<TensorRef<'a>>,
    argument: &'static str,
) -> Result<Option<HostRef<'a>>> {
    tensor.map(|t| host_data(t, argument)).transpose()
}

fn host<'a, T: Lanes>(tensor: &TensorRef<'a>, argument: &'static str) -> Result<&'a [T]> {
    tensor.host().ok_or(Error::Place { argument, expected: "host", got: "device" })
}

fn host_mut<'a, T: Lanes>(tensor: TensorMut<'a>, argument: &'static str) -> Result<&'a mut [T]> {
    tensor.into_host().ok_or(Error::Place { argument, expected: "host", got: "device" })
}
