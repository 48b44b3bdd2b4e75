//! Cross entropy over hidden states and a classifier, whose logits are never all in memory.

use crate::LinearArgs;
use crate::graph::{Back, result, scaled};
use crate::linear::{later, outputs, with_input};
use crate::memory::{Made, device, lend, told};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, GradOutput, LinearCrossEntropy,
    LinearPath, Reduction,
};

/// Cross entropy of hidden states times a classifier (plus a bias), with candle's backward: products, loss and the
/// gradients of hidden states, classifier and bias a chunk of rows at a time. What takes most of a training step's memory,
/// logits `[N, V]` and their gradient, is never there, nor is what candle adds to it.
///
/// Of a mean or a sum gradients are made with the loss, and [`backward`](Tensor::backward) hands them out; of losses by
/// row they are made in `backward`. Shapes and dtypes: [`LinearArgs`]; the result is f32.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use warploss_candle::{LinearArgs, LinearCrossEntropyLoss};
/// let hidden = Var::new(&[[1.0f32, 2.0], [-1.0, 0.5]], &Device::Cpu)?;
/// let classifier = Var::new(&[[1.0f32, 0.0], [0.0, 1.0], [-1.0, 1.0]], &Device::Cpu)?;
/// let target = Tensor::new(&[1u32, 2], &Device::Cpu)?;
/// let args = LinearArgs::new(&hidden, &classifier, &target);
/// let loss = LinearCrossEntropyLoss::default().forward(&args)?;
/// let gradients = loss.backward()?;
/// assert_eq!(gradients.get(&classifier).unwrap().dims(), [3, 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LinearCrossEntropyLoss {
    of_logits: CrossEntropy<'static>,
    reduction: Reduction,
    max_workspace_bytes: Option<usize>,
    path: LinearPath,
}

impl Default for LinearCrossEntropyLoss {
    fn default() -> Self {
        LinearCrossEntropyLoss::new(CrossEntropy::default())
    }
}

impl LinearCrossEntropyLoss {
    /// With the library's options of cross entropy; the mean of the rows' losses unless
    /// [`LinearCrossEntropyLoss::reduction`] says otherwise.
    pub fn new(options: CrossEntropy<'static>) -> LinearCrossEntropyLoss {
        LinearCrossEntropyLoss {
            of_logits: options,
            reduction: Reduction::Mean,
            max_workspace_bytes: None,
            path: LinearPath::Auto,
        }
    }

    /// Default [`Reduction::Mean`].
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// [`LinearCrossEntropy::max_workspace_bytes`].
    pub fn max_workspace_bytes(mut self, bytes: usize) -> Self {
        self.max_workspace_bytes = Some(bytes);
        self
    }

    /// [`LinearCrossEntropy::path`].
    pub fn path(mut self, path: LinearPath) -> Self {
        self.path = path;
        self
    }

    fn options(&self) -> LinearCrossEntropy<'static> {
        let of_logits = self.of_logits.clone().reduction(self.reduction);
        let options = LinearCrossEntropy::from(of_logits).path(self.path);
        match self.max_workspace_bytes {
            Some(bytes) => options.max_workspace_bytes(bytes),
            None => options,
        }
    }

    /// The loss.
    ///
    /// # Errors
    /// The library's, in its words.
    pub fn forward(&self, args: &LinearArgs) -> Result<Tensor> {
        let args = args.in_rows()?;
        let tracked = args.side.wanted().contains(&true);
        if args.target.track_op() && args.target.dtype().is_float() {
            candle_core::bail!("target: expected no gradient of it, got a tensor that has one");
        }
        match (tracked, self.reduction) {
            (false, _) => self.losses(&args),
            (true, Reduction::None) => {
                result(&self.losses(&args)?, &args.side.of(), self.later(&args)?)
            }
            (true, _) => {
                let (loss, ready) = self.fused(&args)?;
                result(&loss, &args.side.of(), Arc::new(move |grad: &Tensor| scaled(&ready, grad)))
            }
        }
    }

    fn losses(&self, args: &LinearArgs) -> Result<Tensor> {
        let shape = if self.reduction == Reduction::None { args.side.rows() } else { &[] };
        let mut loss = Made::new(args.side.input.device(), DType::F32, shape)?;
        let device = device(args.side.input.device())?;
        with_input!(args, input => {
            let out = CrossEntropyOut::loss(loss.view_mut()?);
            self.options().forward_into(&device, &input, out).map_err(told)?;
        });
        Ok(loss.tensor())
    }

    fn fused(&self, args: &LinearArgs) -> Result<(Tensor, Vec<Tensor>)> {
        let mut loss = Made::new(args.side.input.device(), DType::F32, &[])?;
        let (mut made, device) =
            (args.side.gradients(&args.side.wanted())?, device(args.side.input.device())?);
        with_input!(args, input => {
            let (out, to) = (CrossEntropyOut::loss(loss.view_mut()?), outputs(&mut made)?);
            let done = self.options().forward_backward_into(&device, &input, 1.0, to, out);
            done.map_err(told)?;
        });
        Ok((loss.tensor(), args.side.tensors(made)?))
    }

    fn later(&self, args: &LinearArgs) -> Result<Arc<Back>> {
        let options = self.options();
        later(args, move |args, made, grad| {
            let device = device(args.side.input.device())?;
            with_input!(args, input => {
                lend!(g = grad, "grad_output");
                let upstream = CrossEntropyUpstream::from(GradOutput::Tensor(g));
                options.backward_into(&device, &input, upstream, outputs(made)?).map_err(told)
            })
        })
    }
}
