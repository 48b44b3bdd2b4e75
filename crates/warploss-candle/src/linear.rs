//! What losses over hidden states and a classifier are given, and where their gradients go.

use crate::graph::Back;
use crate::memory::{Made, in_rows};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;
use warploss::LinearGradOut;

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
    pub(crate) fn in_rows(&self) -> Result<LinearArgs> {
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
    pub(crate) fn of(&self) -> Vec<&Tensor> {
        [Some(&self.input), Some(&self.linear_weight), self.linear_bias.as_ref()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The same tensors, which no graph is asked about.
    pub(crate) fn detached(&self) -> LinearArgs {
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
    pub(crate) fn gradients(&self) -> Result<Vec<Option<Made>>> {
        let made = |tensor: &&Tensor| tensor.track_op().then(|| Made::like(tensor)).transpose();
        self.of().iter().map(made).collect()
    }

    /// Gradients in the order of [`LinearArgs::of`]; nothing where nobody asks.
    pub(crate) fn tensors(&self, made: Vec<Option<Made>>) -> Result<Vec<Tensor>> {
        let none = || Tensor::zeros((), DType::F32, self.input.device());
        made.into_iter().map(|made| made.map_or_else(none, |made| Ok(made.tensor()))).collect()
    }
}

/// What makes gradients by `run` once it is known what they are multiplied by.
pub(crate) fn later(
    args: &LinearArgs,
    run: impl Fn(&LinearArgs, &mut [Option<Made>], &Tensor) -> Result<()> + Send + Sync + 'static,
) -> Arc<Back> {
    // What the graph asks for is known now; the tensors that a backward pass reads are to be no part of it.
    let wanted: Vec<bool> = args.of().iter().map(|tensor| tensor.track_op()).collect();
    let args = args.detached();
    Arc::new(move |grad: &Tensor| {
        let made = args.of().into_iter().zip(&wanted);
        let made = made.map(|(tensor, &wanted)| wanted.then(|| Made::like(tensor)).transpose());
        let mut made: Vec<Option<Made>> = made.collect::<Result<_>>()?;
        run(&args, &mut made, &grad.contiguous()?)?;
        args.tensors(made)
    })
}

/// A call over what is lent of the arguments.
macro_rules! with_input {
    ($args:expr, $input:ident => $body:expr) => {{
        use $crate::memory::{lend, lend_some};
        let args: &$crate::LinearArgs = $args;
        lend!(input = &args.input, "input");
        lend!(linear_weight = &args.linear_weight, "linear_weight");
        lend!(target = &args.target, "target");
        lend_some!(linear_bias = args.linear_bias, "linear_bias");
        lend_some!(temperature = args.temperature, "temperature");
        lend_some!(row_weight = args.row_weight, "row_weight");
        let $input = warploss::LinearInput {
            linear_bias,
            temperature,
            row_weight,
            ..warploss::LinearInput::new(input, linear_weight, target)
        };
        $body
    }};
}

pub(crate) use with_input;

/// Where the gradients of [`LinearArgs::of`] go.
pub(crate) fn outputs(made: &mut [Option<Made>]) -> Result<LinearGradOut<'_>> {
    let mut views = made.iter_mut().map(|made| made.as_mut().map(Made::view_mut).transpose());
    let mut next = || views.next().unwrap_or(Ok(None));
    Ok(LinearGradOut {
        input: next()?,
        linear_weight: next()?,
        linear_bias: next()?,
        ..LinearGradOut::default()
    })
}
