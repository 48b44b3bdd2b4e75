//! Adaptive log-softmax: options, checks and the maths in words.
//!
//! Classes are sorted by falling frequency and cut at c_0 < … < c_{J−1}. The first c_0, the
//! shortlist, have a column of the head each; each of the J clusters behind them has one column of
//! the head, and a softmax of its own over its classes, of a smaller width h_i:
//!
//! ```text
//! head = W_h·x + b                    [c_0 + J]
//! z_i  = W1_i·(W0_i·x)                [c_{i+1} − c_i]
//! output = log_softmax(head)_t                                            t < c_0
//!        = log_softmax(head)_{c_0+i} + log_softmax(z_i)_{t−c_i}           c_i ≤ t < c_{i+1}
//! ℓ = −u·output
//! ```
//!
//! with u the row's weight. The mean divides by Σ u over kept rows. Only the rows of a cluster
//! take part in its softmax, which is what saves the time.

mod checked;
mod layer;
mod order;
mod parameters;
mod state_dict;

use super::output_layer::{LayerGrad, LayerGradOut, LayerOut, LayerOutput};
use super::{GradOutput, WORKSPACE};
use crate::device::{Device, on_device};
use crate::dtype::Element as _;
use crate::error::Result;
use crate::reduction::Reduction;
use crate::tensor::{Tensor, TensorMut, TensorRef};
use std::ops::Range;
use std::sync::Arc;

pub(crate) use checked::CheckedAdaptive;
pub use order::ClassOrder;
pub use parameters::{AdaptiveParameters, AdaptiveTail};
pub(super) use parameters::{fill, tail_key};

/// Softmax over many classes, most of them rare, at the cost of a few
/// (`torch.nn.AdaptiveLogSoftmaxWithLoss`; Grave et al. 2016, arXiv 1609.04309).
///
/// Options have PyTorch's names and defaults; `ignore_index`, reductions, row weights and a class
/// order are extensions. Row r of N has D input features; V is the number of classes.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | `[D]` or `[N, D]`, row stride free | f32, f16, bf16 |
/// | target | `[]` or `[1]`, `[N]` | i64, i32, u32, u8 |
/// | parameters | [`AdaptiveLogSoftmax::shapes`], row strides free | the input's |
/// | row_weight | `[N]` | f32 or the input's |
/// | output | one a row: the target's log-probability; 0 for ignored rows | f32 |
/// | loss | `[]`, or one a row for [`Reduction::None`] | f32 |
///
/// Products and sums are f32 or wider whatever the dtype, on every device, in an order that does not depend
/// on the number of threads. The mean is NaN if no row is kept.
///
/// Losses and gradients read the clusters that a kept row's target lies in; others have a gradient of 0 and no
/// part in any result, whatever their weights hold. `log_prob` reads all clusters, `predict` and `top_k` those
/// that the head and the clusters before do not rule out, `sample` the one that was drawn.
///
/// ```
/// use warploss::{AdaptiveLogSoftmax, DType, Device, TensorRef};
/// let adaptive = AdaptiveLogSoftmax::new(4, 10, &[2, 6]);
/// let parameters = adaptive.init(DType::F32, 7)?;
/// let input = TensorRef::new(&[0.1f32, -0.2, 0.3, 0.4, 1.0, 0.0, -1.0, 0.5], &[2, 4])?;
/// let target = TensorRef::new(&[1i64, 8], &[2])?;
/// let device = Device::cpu();
/// let out = adaptive.forward(&device, &parameters.view(), input, target)?;
/// assert!(out.output.as_slice::<f32>().unwrap().iter().all(|&logp| logp < 0.0));
/// let grad = adaptive.forward_backward(&device, &parameters.view(), input, target, 1.0)?;
/// assert_eq!(*grad.parameters.tails[1].weight.shape(), [4, 0]);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveLogSoftmax<'w> {
    pub(crate) in_features: usize,
    pub(crate) classes: usize,
    pub(crate) cutoffs: Vec<usize>,
    pub(crate) div_value: f64,
    pub(crate) widths: Option<Vec<usize>>,
    pub(crate) head_bias: bool,
    pub(crate) ignore_index: Option<i64>,
    pub(crate) reduction: Reduction,
    pub(crate) row_weight: Option<TensorRef<'w>>,
    pub(crate) class_order: Option<Arc<ClassOrder>>,
    pub(crate) capacities: Option<Vec<usize>>,
    pub(crate) workspace: usize,
}

impl<'w> AdaptiveLogSoftmax<'w> {
    /// Of `in_features` inputs and `classes` classes, cut at `cutoffs`: rising, each above 0 and
    /// below `classes`, which is not one of them. What is wrong is told by the first call.
    pub fn new(in_features: usize, classes: usize, cutoffs: &[usize]) -> AdaptiveLogSoftmax<'w> {
        AdaptiveLogSoftmax {
            in_features,
            classes,
            cutoffs: cutoffs.to_vec(),
            div_value: 4.0,
            widths: None,
            head_bias: false,
            ignore_index: None,
            reduction: Reduction::Mean,
            row_weight: None,
            class_order: None,
            capacities: None,
            workspace: WORKSPACE,
        }
    }

    /// v > 0: cluster i has the width ⌊D / v^(i+1)⌋, by Python's float division. A width of 0 is
    /// legal: all classes of that cluster are equally likely. Default 4.
    pub fn div_value(mut self, value: f64) -> Self {
        self.div_value = value;
        self
    }

    /// h_i of each cluster, instead of those that `div_value` gives. Default `None`.
    pub fn widths(mut self, widths: Option<Vec<usize>>) -> Self {
        self.widths = widths;
        self
    }

    /// Whether the head has a bias. Default `false`.
    pub fn head_bias(mut self, bias: bool) -> Self {
        self.head_bias = bias;
        self
    }

    /// The label of rows that do not count, any integer. Default `None`, as in PyTorch: −100 is
    /// an error then.
    pub fn ignore_index(mut self, label: Option<i64>) -> Self {
        self.ignore_index = label;
        self
    }

    /// Default [`Reduction::Mean`], which divides by the weights of the kept rows.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// A weight ≥ 0 for each row, `[N]`, f32 or the input's dtype. Default: 1 each.
    pub fn row_weight(self, weight: TensorRef<'_>) -> AdaptiveLogSoftmax<'_> {
        AdaptiveLogSoftmax {
            in_features: self.in_features,
            classes: self.classes,
            cutoffs: self.cutoffs,
            div_value: self.div_value,
            widths: self.widths,
            head_bias: self.head_bias,
            ignore_index: self.ignore_index,
            reduction: self.reduction,
            row_weight: Some(weight),
            class_order: self.class_order,
            capacities: self.capacities,
            workspace: self.workspace,
        }
    }

    /// What the caller calls the classes: targets, and classes that come back, are the caller's,
    /// the parameters' order is that of falling frequency. Default `None`: they are the same.
    pub fn class_order(mut self, order: Option<Arc<ClassOrder>>) -> Self {
        self.class_order = order;
        self
    }

    /// Rows of a batch that each cluster takes at most, on a CUDA device, which never asks how many it
    /// has and does products for as many (f16 and bf16 clusters of at most 64 features: but for the
    /// projection, for those that it has); one with more is an error, told where a result is next read.
    /// Default `None`: all rows of the batch. Of no effect on the CPU.
    pub fn capacities(mut self, rows: Option<Vec<usize>>) -> Self {
        self.capacities = rows;
        self
    }

    /// Bytes of a buffer at most, on a CUDA device: logits are cut to it, and sums of the
    /// weights' gradients are f32 if they fit. Default 256 MiB. Of no effect on the CPU.
    pub fn workspace(mut self, bytes: usize) -> Self {
        self.workspace = bytes;
        self
    }

    /// Rows that a cluster takes of a batch of so many.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn capacity(&self, i: usize, rows: usize) -> usize {
        let given = self.capacities.as_ref().and_then(|all| all.get(i));
        given.map_or(rows, |&capacity| capacity.min(rows))
    }

    /// D, the input features.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// V, the classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// c_i, the first class of each cluster.
    pub fn cutoffs(&self) -> &[usize] {
        &self.cutoffs
    }

    /// J, the clusters besides the shortlist.
    pub fn clusters(&self) -> usize {
        self.cutoffs.len()
    }

    /// c_0, the classes with a column of the head.
    pub(crate) fn shortlist(&self) -> usize {
        self.cutoffs.first().copied().unwrap_or(self.classes)
    }

    pub(crate) fn head_size(&self) -> usize {
        self.shortlist() + self.clusters()
    }

    /// The classes of a cluster, in the parameters' order.
    pub fn cluster(&self, i: usize) -> Range<usize> {
        let end = self.cutoffs.get(i + 1).copied().unwrap_or(self.classes);
        self.cutoffs.get(i).copied().unwrap_or(end)..end
    }

    /// The width of a cluster: what was given, or D // v^(i+1), as Python divides floats.
    pub fn width(&self, i: usize) -> usize {
        if let Some(widths) = &self.widths {
            return widths.get(i).copied().unwrap_or(0);
        }
        let (features, divisor) = (self.in_features as f64, self.div_value.powf(i as f64 + 1.0));
        // Not floor(D / v), which rounds 1 / 0.1 up to 10.
        ((features - features % divisor) / divisor).round() as usize
    }

    /// Log-probability of each row's target, and the loss.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or target that breaks the rules above; memory that the
    /// device cannot reach; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<LayerOutput> {
        let checked = self.check(parameters, &input, &target)?;
        let mut output = checked.rows.allocate(device, self.reduction, &input)?;
        self.forward_into(device, parameters, (input, target), output.out())?;
        Ok(output)
    }

    /// As [`AdaptiveLogSoftmax::forward`], of `(input, target)`, into the caller's buffers.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        (input, target): (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()> {
        let checked = self.check(parameters, &input, &target)?;
        checked.rows.check_out(self.reduction, &out)?;
        on_device!(device, "input", checked.places(), on => {
            on.adaptive_log_softmax_forward(&checked, out)
        })
    }

    /// Log-probabilities, loss, and the gradients of the input and of every parameter.
    /// `grad_output` is the upstream gradient of the loss.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`], and the shape of `grad_output`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<LayerGrad<AdaptiveParameters<Tensor>>> {
        let checked = self.check(parameters, &input, &target)?;
        let mut output = checked.rows.allocate(device, self.reduction, &input)?;
        let zeros =
            |name, like: &TensorRef<'_>| device.zeros(name, like.dtype(), like.shape(), like);
        let mut grad_input = zeros("grad_input", &input)?;
        let mut grads = parameters.try_map(|_, p| zeros("grad_parameters", p))?;
        let gradients = LayerGradOut {
            input: Some(grad_input.view_mut()),
            parameters: Some(grads.view_mut()),
            accumulate: false,
        };
        let data = (input, target);
        let written = (output.out(), gradients);
        self.forward_backward_into(device, parameters, data, grad_output, written)?;
        Ok(LayerGrad { output, input: grad_input, parameters: grads })
    }

    /// As [`AdaptiveLogSoftmax::forward_backward`], of `(input, target)`, into the caller's
    /// buffers: those gradients for which there is memory, the parameters' added to what is there
    /// if so asked.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into<'g>(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        (input, target): (TensorRef<'_>, TensorRef<'_>),
        grad_output: impl Into<GradOutput<'g>>,
        (out, gradients): (LayerOut<'_>, LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>),
    ) -> Result<()> {
        let checked = self.check(parameters, &input, &target)?;
        let grad_output = grad_output.into();
        checked.rows.check_out(self.reduction, &out)?;
        checked.check_gradients(&grad_output, &gradients)?;
        on_device!(device, "input", checked.places(), on => {
            on.adaptive_log_softmax_forward_backward(&checked, grad_output, out, gradients)
        })
    }

    /// Log-probabilities of all classes: `[N, V]` (or `[V]`), f32.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`].
    pub fn log_prob(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
    ) -> Result<Tensor> {
        let shape = self.check_input(parameters, &input)?.per_class();
        let mut out = device.zeros("log_prob", f32::DTYPE, shape, &input)?;
        self.log_prob_into(device, parameters, input, out.view_mut())?;
        Ok(out)
    }

    /// As [`AdaptiveLogSoftmax::log_prob`], into the caller's buffer, whose row stride is free.
    ///
    /// # Errors
    /// As `log_prob`; nothing is written then.
    pub fn log_prob_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        out: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check_input(parameters, &input)?;
        checked.check_per_class(&out)?;
        on_device!(device, "input", checked.places(), on => {
            on.adaptive_log_softmax_log_prob(&checked, out)
        })
    }

    /// The most likely class of each row, the lowest of equals; i64. The full distribution is
    /// formed only for rows whose head does not decide, and only of clusters that can win; a CUDA
    /// device is waited for to know which, unless its stream is captured.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`].
    pub fn predict(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
    ) -> Result<Tensor> {
        let checked = self.check_input(parameters, &input)?;
        let mut classes = device.zeros("classes", i64::DTYPE, checked.rows.shape, &input)?;
        let (view, none) = (classes.view_mut(), None);
        on_device!(device, "input", checked.places(), on => {
            on.adaptive_log_softmax_top_k(&checked, 1, view, none)
        })?;
        Ok(classes)
    }

    /// The k most likely classes of each row and their log-probabilities, best first, the lower
    /// of equals before the higher: `[N, k]` (or `[k]`), i64 and f32. Clusters are looked at, and a
    /// CUDA device waited for, as [`AdaptiveLogSoftmax::predict`] says.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`]; a `k` that is 0 or above the number of classes.
    pub fn top_k(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        k: usize,
    ) -> Result<(Tensor, Tensor)> {
        let checked = self.check_input(parameters, &input)?;
        let shape = checked.per_row(checked.check_k(k)?);
        let mut classes = device.zeros("classes", i64::DTYPE, shape, &input)?;
        let mut log_prob = device.zeros("log_prob", f32::DTYPE, shape, &input)?;
        let (view, values) = (classes.view_mut(), Some(log_prob.view_mut()));
        on_device!(device, "input", checked.places(), on => {
            on.adaptive_log_softmax_top_k(&checked, k, view, values)
        })?;
        Ok((classes, log_prob))
    }

    /// A class drawn from each row's distribution, by numbers that depend on the seed and the row
    /// alone; i64. A cluster is looked at for rows that drew it, and a CUDA device waited for, as
    /// [`AdaptiveLogSoftmax::predict`] says.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`].
    pub fn sample(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        seed: u64,
    ) -> Result<Tensor> {
        let checked = self.check_input(parameters, &input)?;
        let mut classes = device.zeros("classes", i64::DTYPE, checked.rows.shape, &input)?;
        let view = classes.view_mut();
        on_device!(device, "input", checked.places(), on => {
            on.adaptive_log_softmax_sample(&checked, seed, view)
        })?;
        Ok(classes)
    }
}
