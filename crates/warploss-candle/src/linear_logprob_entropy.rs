//! Log-probabilities and entropies over hidden states and a classifier, whose logits are never all in memory.

use crate::LinearArgs;
use crate::graph::result;
use crate::linear::{later, outputs, with_input};
use crate::memory::{Made, device, lend, told};
use candle_core::{DType, Result, Tensor};
use warploss::{
    GradOutput, LinearLogprobEntropy, LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream,
};

/// Log-probability of the target, and entropy, of rows whose logits are hidden states times a classifier, each divided by its
/// temperature: what policy gradients are made of, with candle's backward of both.
///
/// Shapes and dtypes: [`LinearArgs`], without weights of rows and probabilities; the results are f32, `[N]`, and 0 for rows
/// that are ignored. Gradients are made in `backward`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use warploss_candle::{LinearArgs, LinearLogprobEntropyOp};
/// let hidden = Var::new(&[[1.0f32, 2.0], [-1.0, 0.5]], &Device::Cpu)?;
/// let classifier = Var::new(&[[1.0f32, 0.0], [0.0, 1.0], [-1.0, 1.0]], &Device::Cpu)?;
/// let token = Tensor::new(&[1u32, 2], &Device::Cpu)?;
/// let temperature = Tensor::new(&[1.0f32, 0.7], &Device::Cpu)?;
/// let args = LinearArgs::new(&hidden, &classifier, &token).temperature(&temperature);
/// let (logprob, entropy) = LinearLogprobEntropyOp::default().forward(&args)?;
/// let advantage = Tensor::new(&[0.5f32, -2.0], &Device::Cpu)?;
/// let loss = ((logprob * advantage)?.sum_all()?.neg()? - (entropy.sum_all()? * 0.01)?)?;
/// assert_eq!(loss.backward()?.get(&classifier).unwrap().dims(), [3, 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LinearLogprobEntropyOp {
    options: LinearLogprobEntropy,
}

impl From<LogprobEntropy> for LinearLogprobEntropyOp {
    fn from(options: LogprobEntropy) -> Self {
        LinearLogprobEntropyOp { options: options.into() }
    }
}

impl From<LinearLogprobEntropy> for LinearLogprobEntropyOp {
    fn from(options: LinearLogprobEntropy) -> Self {
        LinearLogprobEntropyOp { options }
    }
}

impl LinearLogprobEntropyOp {
    /// Log-probabilities and entropies.
    ///
    /// # Errors
    /// The library's, in its words; weights of rows.
    pub fn forward(&self, args: &LinearArgs) -> Result<(Tensor, Tensor)> {
        let args = args.in_rows()?;
        let both = self.both(&args)?;
        let options = self.options.clone();
        let back = later(&args, move |args, made, grad| {
            let (device, halves) =
                (device(args.side.input.device())?, [grad.get(0)?, grad.get(1)?]);
            with_input!(args, input => {
                lend!(of_logprob = &halves[0], "grad_logprob");
                lend!(of_entropy = &halves[1], "grad_entropy");
                let upstream = LogprobEntropyUpstream {
                    grad_logprob: GradOutput::Tensor(of_logprob),
                    grad_entropy: GradOutput::Tensor(of_entropy),
                };
                options.backward_into(&device, &input, upstream, outputs(made)?).map_err(told)
            })
        })?;
        // One operation with both for its value, so that one backward pass makes the gradients of both.
        let both = result(&both, &args.side.of(), back)?;
        Ok((both.get(0)?, both.get(1)?))
    }

    fn both(&self, args: &LinearArgs) -> Result<Tensor> {
        let new = || Made::new(args.side.input.device(), DType::F32, args.side.rows());
        let (mut logprob, mut entropy) = (new()?, new()?);
        let device = device(args.side.input.device())?;
        with_input!(args, input => {
            let out = LogprobEntropyOut::new(logprob.view_mut()?, entropy.view_mut()?);
            self.options.forward_into(&device, &input, out).map_err(told)?;
        });
        Tensor::stack(&[logprob.tensor(), entropy.tensor()], 0)
    }
}
