//! Layers with parameters of their own, as candle-nn has them.

pub use crate::adaptive::AdaptiveLogSoftmaxWithLoss;
use crate::{LinearArgs, LinearCrossEntropyLoss};
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// An output layer that ends in its loss: a classifier `[V, D]`, perhaps a bias `[V]`, and cross entropy, without logits.
///
/// Its parameters are named `weight` and `bias`, as those of `candle_nn::Linear`, and files of one are files of the other.
#[derive(Debug, Clone)]
pub struct OutputLayer {
    weight: Tensor,
    bias: Option<Tensor>,
    loss: LinearCrossEntropyLoss,
}

impl OutputLayer {
    /// Of parameters that are there, which may be another layer's: an embedding's, where they are tied.
    pub fn from_parts(
        weight: Tensor,
        bias: Option<Tensor>,
        loss: LinearCrossEntropyLoss,
    ) -> OutputLayer {
        OutputLayer { weight, bias, loss }
    }

    /// Of a builder's variables, drawn as `candle_nn::linear` draws them where they are new.
    ///
    /// # Errors
    /// The builder's.
    pub fn new(
        [in_features, classes]: [usize; 2],
        bias: bool,
        loss: LinearCrossEntropyLoss,
        variables: VarBuilder<'_>,
    ) -> Result<OutputLayer> {
        let weight = variables.get_with_hints(
            (classes, in_features),
            "weight",
            candle_nn::init::DEFAULT_KAIMING_NORMAL,
        )?;
        let bound = 1.0 / (in_features as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let bias = bias.then(|| variables.get_with_hints(classes, "bias", init)).transpose()?;
        Ok(OutputLayer { weight, bias, loss })
    }

    /// The classifier.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, where there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The loss of hidden states `[N, D]` against class indices `[N]`.
    ///
    /// # Errors
    /// As [`LinearCrossEntropyLoss::forward`].
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = LinearArgs::new(input, &self.weight, target);
        let args = match &self.bias {
            Some(bias) => args.linear_bias(bias),
            None => args,
        };
        self.loss.forward(&args)
    }

    /// Logits `[N, V]`, for who wants to see them.
    ///
    /// # Errors
    /// Candle's.
    pub fn logits(&self, input: &Tensor) -> Result<Tensor> {
        use candle_nn::Module;
        candle_nn::Linear::new(self.weight.clone(), self.bias.clone()).forward(input)
    }
}
