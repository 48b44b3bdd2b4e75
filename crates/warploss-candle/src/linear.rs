//! What losses over hidden states and a classifier are given, and where their gradients go.

use crate::graph::Back;
use crate::memory::{Made, in_rows};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;
use warploss::LinearGradOut;

/// Hidden states and the classifier that makes logits of them.
#[derive(Debug, Clone)]
pub struct LinearSide {
    /// `[D]` or `[N, D]`.
    pub input: Tensor,
    /// `[V, D]`.
    pub linear_weight: Tensor,
    /// `[V]`.
    pub linear_bias: Option<Tensor>,
    /// What each row's logits are divided by; f32, one a row.
    pub temperature: Option<Tensor>,
}

impl LinearSide {
    /// Without a bias and temperatures.
    pub fn new(input: &Tensor, linear_weight: &Tensor) -> LinearSide {
        let [input, linear_weight] = [input, linear_weight].map(Tensor::clone);
        LinearSide { input, linear_weight, linear_bias: None, temperature: None }
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

    /// What `change` makes of each tensor.
    fn try_map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<LinearSide> {
        let some = |tensor: &Option<Tensor>| tensor.as_ref().map(&change).transpose();
        Ok(LinearSide {
            input: change(&self.input)?,
            linear_weight: change(&self.linear_weight)?,
            linear_bias: some(&self.linear_bias)?,
            temperature: some(&self.temperature)?,
        })
    }

    /// Tensors as views have them.
    pub(crate) fn in_rows(&self) -> Result<LinearSide> {
        self.try_map(in_rows)
    }

    /// The shape of what has one number a row.
    pub(crate) fn rows(&self) -> &[usize] {
        &self.input.dims()[..self.input.rank().saturating_sub(1)]
    }

    /// What has a gradient.
    pub(crate) fn of(&self) -> Vec<&Tensor> {
        let all = [Some(&self.input), Some(&self.linear_weight), self.linear_bias.as_ref()];
        all.into_iter().flatten().collect()
    }

    /// Of which of those the graph asks for it.
    pub(crate) fn wanted(&self) -> Vec<bool> {
        self.of().iter().map(|tensor| tensor.track_op()).collect()
    }

    /// Memory for the gradients that are wanted.
    pub(crate) fn gradients(&self, wanted: &[bool]) -> Result<Vec<Option<Made>>> {
        let of = self.of().into_iter().zip(wanted);
        of.map(|(tensor, &wanted)| wanted.then(|| Made::like(tensor)).transpose()).collect()
    }

    /// Gradients in the order of [`LinearSide::of`]; nothing where nobody asks.
    pub(crate) fn tensors(&self, made: Vec<Option<Made>>) -> Result<Vec<Tensor>> {
        let none = || Tensor::zeros((), DType::F32, self.input.device());
        made.into_iter().map(|made| made.map_or_else(none, |made| Ok(made.tensor()))).collect()
    }
}

/// Hidden states, a classifier and what comes with them.
#[derive(Debug, Clone)]
pub struct LinearArgs {
    /// Hidden states and the classifier.
    pub side: LinearSide,
    /// Class indices, one a row; or probabilities, `[N, V]`.
    pub target: Tensor,
    /// What each row's loss is multiplied by; f32, one a row.
    pub row_weight: Option<Tensor>,
}

impl LinearArgs {
    /// Without a bias, temperatures and weights of rows.
    pub fn new(input: &Tensor, linear_weight: &Tensor, target: &Tensor) -> LinearArgs {
        let side = LinearSide::new(input, linear_weight);
        LinearArgs { side, target: target.clone(), row_weight: None }
    }

    /// With a bias.
    pub fn linear_bias(mut self, bias: &Tensor) -> Self {
        self.side = self.side.linear_bias(bias);
        self
    }

    /// With temperatures.
    pub fn temperature(mut self, temperature: &Tensor) -> Self {
        self.side = self.side.temperature(temperature);
        self
    }

    /// With weights of rows.
    pub fn row_weight(mut self, row_weight: &Tensor) -> Self {
        self.row_weight = Some(row_weight.detach());
        self
    }

    /// Tensors as views have them.
    pub(crate) fn in_rows(&self) -> Result<LinearArgs> {
        Ok(LinearArgs {
            side: self.side.in_rows()?,
            target: in_rows(&self.target)?,
            row_weight: self.row_weight.as_ref().map(in_rows).transpose()?,
        })
    }
}

/// What makes gradients by `run` once it is known what they are multiplied by.
pub(crate) fn later(
    args: &LinearArgs,
    run: impl Fn(&LinearArgs, &mut [Option<Made>], &Tensor) -> Result<()> + Send + Sync + 'static,
) -> Result<Arc<Back>> {
    // What the graph asks for is known now; the tensors that a backward pass reads are to be no part of it.
    let wanted = args.side.wanted();
    let args = LinearArgs {
        side: args.side.try_map(|tensor| Ok(tensor.detach()))?,
        target: args.target.detach(),
        row_weight: args.row_weight.clone(),
    };
    Ok(Arc::new(move |grad: &Tensor| {
        let mut made = args.side.gradients(&wanted)?;
        run(&args, &mut made, &grad.contiguous()?)?;
        args.side.tensors(made)
    }))
}

/// Binds what is lent of a side as the library has it; errors say whose it is.
macro_rules! lend_head {
    ($head:ident = $side:expr, $whose:literal) => {
        let side: &$crate::LinearSide = $side;
        $crate::memory::lend!(input = &side.input, concat!($whose, "input"));
        $crate::memory::lend!(weight = &side.linear_weight, concat!($whose, "linear_weight"));
        $crate::memory::lend_some!(bias = side.linear_bias, concat!($whose, "linear_bias"));
        $crate::memory::lend_some!(by = side.temperature, concat!($whose, "temperature"));
        let $head = warploss::LinearHead {
            linear_bias: bias,
            temperature: by,
            ..warploss::LinearHead::new(input, weight)
        };
    };
}

/// A call over what is lent of the arguments.
macro_rules! with_input {
    ($args:expr, $input:ident => $body:expr) => {{
        let args: &$crate::LinearArgs = $args;
        $crate::linear::lend_head!(head = &args.side, "");
        $crate::memory::lend!(target = &args.target, "target");
        $crate::memory::lend_some!(row_weight = args.row_weight, "row_weight");
        let $input = warploss::LinearInput {
            linear_bias: head.linear_bias,
            temperature: head.temperature,
            row_weight,
            ..warploss::LinearInput::new(head.input, head.linear_weight, target)
        };
        $body
    }};
}

pub(crate) use {lend_head, with_input};

/// Where the gradients of [`LinearSide::of`] go.
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
