//! The adaptive softmax as a layer.

use crate::graph::{result, scaled};
use crate::memory::{Lent, Made, Part, device, in_rows, lend, told};
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use std::sync::Arc;
use warploss::{
    AdaptiveLogSoftmax, AdaptiveParameters, AdaptiveTail, LayerGradOut, LayerOut, Reduction,
    TensorMut, TensorRef,
};

/// An output layer over many classes, most of them rare, at the cost of a few: `torch.nn.AdaptiveLogSoftmaxWithLoss`, with
/// its names of parameters (`head.weight`, `tail.0.0.weight`, …), with candle's backward.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use warploss_candle::{nn::AdaptiveLogSoftmaxWithLoss, warploss::AdaptiveLogSoftmax};
/// let map = VarMap::new();
/// let variables = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
/// let options = AdaptiveLogSoftmax::new(4, 10, &[2, 6]).div_value(2.0);
/// let layer = AdaptiveLogSoftmaxWithLoss::new(options, variables)?;
/// let hidden = Tensor::randn(0f32, 1.0, (3, 4), &Device::Cpu)?;
/// let target = Tensor::new(&[1u32, 9, 4], &Device::Cpu)?;
/// let gradients = layer.forward(&hidden, &target)?.backward()?;
/// assert!(map.all_vars().iter().all(|var| gradients.get(var).is_some()));
/// assert_eq!(layer.log_prob(&hidden)?.dims(), [3, 10]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AdaptiveLogSoftmaxWithLoss {
    options: AdaptiveLogSoftmax<'static>,
    parameters: AdaptiveParameters<Tensor>,
}

impl AdaptiveLogSoftmaxWithLoss {
    /// Of parameters that are there; the loss is the mean of the rows', whatever the options say.
    pub fn from_parameters(
        options: AdaptiveLogSoftmax<'static>,
        parameters: AdaptiveParameters<Tensor>,
    ) -> AdaptiveLogSoftmaxWithLoss {
        let options = options.reduction(Reduction::Mean);
        AdaptiveLogSoftmaxWithLoss { options, parameters }
    }

    /// Of a builder's variables, drawn as PyTorch draws them where they are new.
    ///
    /// # Errors
    /// The builder's; cutoffs and widths that cannot be.
    pub fn new(
        options: AdaptiveLogSoftmax<'static>,
        variables: VarBuilder<'_>,
    ) -> Result<AdaptiveLogSoftmaxWithLoss> {
        let in_features = options.in_features();
        let shapes = options.shapes().map_err(told)?;
        let parameters = shapes.try_map(|key, shape| {
            // Each is the weight or the bias of a linear layer, of so many features.
            let features = if shape.len() == 2 { shape[1] } else { in_features };
            let bound = 1.0 / (features.max(1) as f64).sqrt();
            let init = Init::Uniform { lo: -bound, up: bound };
            variables.get_with_hints(&shape[..], key, init)
        })?;
        Ok(AdaptiveLogSoftmaxWithLoss::from_parameters(options, parameters))
    }

    /// The parameters.
    pub fn parameters(&self) -> &AdaptiveParameters<Tensor> {
        &self.parameters
    }

    /// The mean loss of hidden states `[N, D]` and class indices `[N]`, f32; with the gradients of hidden states and
    /// parameters, which [`backward`](Tensor::backward) hands out.
    ///
    /// # Errors
    /// The library's, in its words.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let (input, target) = (in_rows(input)?, in_rows(target)?);
        let parameters = self.parameters.try_map(|_, tensor| in_rows(tensor))?;
        let named: Vec<(String, &Tensor)> =
            parameters.try_map(|_, t| Ok::<_, candle_core::Error>(t))?.into_named();
        let of: Vec<&Tensor> = [&input].into_iter().chain(named.iter().map(|(_, t)| *t)).collect();
        let trains = named.iter().any(|(_, tensor)| tensor.track_op());
        let tracked = trains || input.track_op();
        let rows = &input.dims()[..input.rank().saturating_sub(1)];
        let mut output = Made::new(input.device(), DType::F32, rows)?;
        let mut loss = Made::new(input.device(), DType::F32, &[])?;
        let mut of_input = tracked.then(|| Made::like(&input)).transpose()?;
        let mut grads = trains.then(|| parameters.try_map(|_, t| Made::like(t))).transpose()?;
        let device = device(input.device())?;
        {
            let lent = parameters.try_map(|_, t| Ok::<_, candle_core::Error>(Lent::new(t)))?;
            let parts = lent.try_map(|_, lent| lent.part("parameters"))?;
            let views = views(&parts)?;
            lend!(x = &input, "input");
            lend!(t = &target, "target");
            let out = LayerOut { output: output.view_mut()?, loss: loss.view_mut()? };
            match tracked {
                false => self.options.forward_into(&device, &views, (x, t), out).map_err(told)?,
                true => {
                    let gradients = LayerGradOut {
                        input: of_input.as_mut().map(Made::view_mut).transpose()?,
                        parameters: grads.as_mut().map(views_mut).transpose()?,
                        accumulate: false,
                    };
                    let written = (out, gradients);
                    let done =
                        self.options.forward_backward_into(&device, &views, (x, t), 1.0, written);
                    done.map_err(told)?;
                }
            }
        }
        let loss = loss.tensor();
        let Some(of_input) = of_input else { return Ok(loss) };
        let mut ready = vec![of_input.tensor()];
        match grads {
            Some(grads) => {
                ready.extend(grads.into_named().into_iter().map(|(_, made)| made.tensor()))
            }
            // Nobody asks for these.
            None => ready.extend(named.iter().map(|_| loss.clone())),
        }
        result(&loss, &of, Arc::new(move |grad: &Tensor| scaled(&ready, grad)))
    }

    /// Log-probabilities of all classes, `[N, V]`, f32; without a gradient.
    ///
    /// # Errors
    /// The library's, in its words.
    pub fn log_prob(&self, input: &Tensor) -> Result<Tensor> {
        let input = in_rows(&input.detach())?;
        let parameters = self.parameters.try_map(|_, tensor| in_rows(&tensor.detach()))?;
        let rows = &input.dims()[..input.rank().saturating_sub(1)];
        let shape = [rows, &[self.options.classes()]].concat();
        let mut made = Made::new(input.device(), DType::F32, &shape)?;
        let device = device(input.device())?;
        {
            let lent = parameters.try_map(|_, t| Ok::<_, candle_core::Error>(Lent::new(t)))?;
            let parts = lent.try_map(|_, lent| lent.part("parameters"))?;
            lend!(x = &input, "input");
            let out = made.view_mut()?;
            self.options.log_prob_into(&device, &views(&parts)?, x, out).map_err(told)?;
        }
        Ok(made.tensor())
    }
}

fn views<'p>(parts: &'p AdaptiveParameters<Part<'_>>) -> Result<AdaptiveParameters<TensorRef<'p>>> {
    parts.try_map(|_, part| part.view())
}

fn views_mut(made: &mut AdaptiveParameters<Made>) -> Result<AdaptiveParameters<TensorMut<'_>>> {
    Ok(AdaptiveParameters {
        head_weight: made.head_weight.view_mut()?,
        head_bias: made.head_bias.as_mut().map(Made::view_mut).transpose()?,
        tails: made
            .tails
            .iter_mut()
            .map(|tail| {
                Ok(AdaptiveTail {
                    projection: tail.projection.view_mut()?,
                    weight: tail.weight.view_mut()?,
                })
            })
            .collect::<Result<_>>()?,
    })
}
