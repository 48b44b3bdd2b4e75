//! Cross entropy over hidden states and a classifier, whose logits are never all in memory.

use crate::graph::{Back, result, scaled};
use crate::memory::{Made, device, in_rows, lend, lend_some, told};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, GradOutput, LinearCrossEntropy,
    LinearGradOut, LinearInput, LinearPath, Reduction,
};

/// Hidden states, a classifier and what comes with them.
#[derive(Debug, Clone)]
pub struct LinearArgs {
    /// `[D]` or `[N, D]`.
    pub input: Tensor,
    /// `[V, D]`.
    pub linear_weight: Tensor,
    /// `[V]`.
    pub linear_bias: Option<Tensor>,
    /// Class indices, one a row; or probabilities, `[N, V]`.
    pub target: Tensor,
    /// What each row's logits are divided by; f32, one a row.
    pub temperature: Option<Tensor>,
    /// What each row's loss is multiplied by; f32, one a row.
    pub row_weight: Option<Tensor>,
}

impl LinearArgs {
    /// Without a bias, temperatures and weights of rows.
    pub fn new(input: &Tensor, linear_weight: &Tensor, target: &Tensor) -> LinearArgs {
        let [input, linear_weight, target] = [input, linear_weight, target].map(Tensor::clone);
        let (linear_bias, temperature, row_weight) = (None, None, None);
        LinearArgs { input, linear_weight, linear_bias, target, temperature, row_weight }
    }

    /// With a bias.
    pub fn linear_bias(mut self, bias: &Tensor) -> Self {
        self.linear_bias = Some(bias.clone());
        self
    }

    /// With temperatures.
    pub fn temperature(mut self, temperature: &Tensor) -> Self {
        self.temperature = Some(temperature.detach());
        self
    }

    /// With weights of rows.
    pub fn row_weight(mut self, row_weight: &Tensor) -> Self {
        self.row_weight = Some(row_weight.detach());
        self
    }

    /// Tensors as views have them.
    fn in_rows(&self) -> Result<LinearArgs> {
        let some = |tensor: &Option<Tensor>| tensor.as_ref().map(in_rows).transpose();
        Ok(LinearArgs {
            input: in_rows(&self.input)?,
            linear_weight: in_rows(&self.linear_weight)?,
            linear_bias: some(&self.linear_bias)?,
            target: in_rows(&self.target)?,
            temperature: some(&self.temperature)?,
            row_weight: some(&self.row_weight)?,
        })
    }

    /// What has a gradient.
    fn of(&self) -> Vec<&Tensor> {
        [Some(&self.input), Some(&self.linear_weight), self.linear_bias.as_ref()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The same tensors, which no graph is asked about.
    fn detached(&self) -> LinearArgs {
        let some = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::detach);
        LinearArgs {
            input: self.input.detach(),
            linear_weight: self.linear_weight.detach(),
            linear_bias: some(&self.linear_bias),
            target: self.target.detach(),
            temperature: some(&self.temperature),
            row_weight: some(&self.row_weight),
        }
    }

    /// Memory for the gradients of what has one: of those alone that the graph asks for.
    fn gradients(&self) -> Result<Vec<Option<Made>>> {
        let made = |tensor: &&Tensor| tensor.track_op().then(|| Made::like(tensor)).transpose();
        self.of().iter().map(made).collect()
    }

    /// Gradients in the order of [`LinearArgs::of`]; nothing where nobody asks.
    fn tensors(&self, made: Vec<Option<Made>>) -> Result<Vec<Tensor>> {
        let none = || Tensor::zeros((), DType::F32, self.input.device());
        made.into_iter().map(|made| made.map_or_else(none, |made| Ok(made.tensor()))).collect()
    }
}

/// A call over what is lent of the arguments.
macro_rules! with_input {
    ($args:expr, $input:ident => $body:expr) => {{
        let args: &LinearArgs = $args;
        lend!(input = &args.input, "input");
        lend!(linear_weight = &args.linear_weight, "linear_weight");
        lend!(target = &args.target, "target");
        lend_some!(linear_bias = args.linear_bias, "linear_bias");
        lend_some!(temperature = args.temperature, "temperature");
        lend_some!(row_weight = args.row_weight, "row_weight");
        let $input = LinearInput {
            linear_bias,
            temperature,
            row_weight,
            ..LinearInput::new(input, linear_weight, target)
        };
        $body
    }};
}

fn outputs(made: &mut [Option<Made>]) -> Result<LinearGradOut<'_>> {
    let mut views = made.iter_mut().map(|made| made.as_mut().map(Made::view_mut).transpose());
    let mut next = || views.next().unwrap_or(Ok(None));
    Ok(LinearGradOut {
        input: next()?,
        linear_weight: next()?,
        linear_bias: next()?,
        ..LinearGradOut::default()
    })
}

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
    options: LinearCrossEntropy<'static>,
    of_logits: CrossEntropy<'static>,
    reduction: Reduction,
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
        let of_logits = options.reduction(Reduction::Mean);
        let options = LinearCrossEntropy::from(of_logits.clone());
        LinearCrossEntropyLoss { options, of_logits, reduction: Reduction::Mean }
    }

    /// Default [`Reduction::Mean`]. It is to be called before the options of products are.
    pub fn reduction(self, reduction: Reduction) -> Self {
        let of_logits = self.of_logits.reduction(reduction);
        let options = LinearCrossEntropy::from(of_logits.clone());
        LinearCrossEntropyLoss { options, of_logits, reduction }
    }

    /// [`LinearCrossEntropy::max_workspace_bytes`].
    pub fn max_workspace_bytes(mut self, bytes: usize) -> Self {
        self.options = self.options.max_workspace_bytes(bytes);
        self
    }

    /// [`LinearCrossEntropy::path`].
    pub fn path(mut self, path: LinearPath) -> Self {
        self.options = self.options.path(path);
        self
    }

    /// The loss.
    ///
    /// # Errors
    /// The library's, in its words.
    pub fn forward(&self, args: &LinearArgs) -> Result<Tensor> {
        let args = args.in_rows()?;
        let tracked = args.of().iter().any(|tensor| tensor.track_op());
        if args.target.track_op() && args.target.dtype().is_float() {
            candle_core::bail!("target: expected no gradient of it, got a tensor that has one");
        }
        match (tracked, self.reduction) {
            (false, _) => self.losses(&args),
            (true, Reduction::None) => result(&self.losses(&args)?, &args.of(), self.later(&args)),
            (true, _) => {
                let (loss, ready) = self.fused(&args)?;
                result(&loss, &args.of(), Arc::new(move |grad: &Tensor| scaled(&ready, grad)))
            }
        }
    }

    fn losses(&self, args: &LinearArgs) -> Result<Tensor> {
        let rows = &args.input.dims()[..args.input.rank().saturating_sub(1)];
        let shape = if self.reduction == Reduction::None { rows } else { &[] };
        let mut loss = Made::new(args.input.device(), DType::F32, shape)?;
        let device = device(args.input.device())?;
        with_input!(args, input => {
            let out = CrossEntropyOut::loss(loss.view_mut()?);
            self.options.forward_into(&device, &input, out).map_err(told)?;
        });
        Ok(loss.tensor())
    }

    fn fused(&self, args: &LinearArgs) -> Result<(Tensor, Vec<Tensor>)> {
        let mut loss = Made::new(args.input.device(), DType::F32, &[])?;
        let (mut made, device) = (args.gradients()?, device(args.input.device())?);
        with_input!(args, input => {
            let (out, to) = (CrossEntropyOut::loss(loss.view_mut()?), outputs(&mut made)?);
            let done = self.options.forward_backward_into(&device, &input, 1.0, to, out);
            done.map_err(told)?;
        });
        Ok((loss.tensor(), args.tensors(made)?))
    }

    fn later(&self, args: &LinearArgs) -> Arc<Back> {
        // What the graph asks for is known now; the tensors that a backward pass reads are to be no part of it.
        let wanted: Vec<bool> = args.of().iter().map(|tensor| tensor.track_op()).collect();
        let (args, options) = (args.detached(), self.options.clone());
        Arc::new(move |grad: &Tensor| {
            let grad = grad.contiguous()?;
            let made = args.of().into_iter().zip(&wanted);
            let made = made.map(|(tensor, &wanted)| wanted.then(|| Made::like(tensor)).transpose());
            let mut made: Vec<Option<Made>> = made.collect::<Result<_>>()?;
            let device = device(args.input.device())?;
            with_input!(&args, input => {
                lend!(g = &grad, "grad_output");
                let upstream = CrossEntropyUpstream::from(GradOutput::Tensor(g));
                let to = outputs(&mut made)?;
                options.backward_into(&device, &input, upstream, to).map_err(told)?;
            });
            args.tensors(made)
        })
    }
}
