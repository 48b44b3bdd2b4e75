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

pub(crate) mod checked;
mod order;
pub(crate) mod parameters;

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::random::{extend, unit};
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut, WORKSPACE};
use std::ops::Range;
use std::sync::Arc;

pub(crate) use checked::CheckedAdaptive;
pub use order::ClassOrder;
pub use parameters::{AdaptiveParameters, AdaptiveTail};
pub(crate) use parameters::{fill, tail_key};

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
#[must_use = "options do nothing until a call is made with them"]
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
    #[cfg(gpu)]
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
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum Call<'a> {
    Forward {
        out: LayerOut<'a>,
    },
    ForwardBackward {
        grad_output: GradOutput<'a>,
        out: LayerOut<'a>,
        gradients: LayerGradOut<'a, AdaptiveParameters<TensorMut<'a>>>,
    },
    LogProb {
        out: TensorMut<'a>,
    },
    /// The k likeliest classes, and their log-probabilities.
    TopK {
        k: usize,
        classes: TensorMut<'a>,
        log_prob: Option<TensorMut<'a>>,
    },
    /// A class by chance.
    Sample {
        seed: u64,
        classes: TensorMut<'a>,
    },
}

impl AdaptiveLogSoftmax<'_> {
    /// The shapes of the parameters, as `torch.nn.AdaptiveLogSoftmaxWithLoss` gives them.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`] for the options.
    pub fn shapes(&self) -> Result<AdaptiveParameters<Shape>> {
        self.check_options()?;
        let matrix = |rows, columns| Shape::new(&[rows, columns]).unwrap_or(Shape::SCALAR);
        let head = self.head_size();
        Ok(AdaptiveParameters {
            head_weight: matrix(head, self.in_features),
            head_bias: self.head_bias.then(|| Shape::new(&[head]).unwrap_or(Shape::SCALAR)),
            tails: (0..self.clusters())
                .map(|i| AdaptiveTail {
                    projection: matrix(self.width(i), self.in_features),
                    weight: matrix(self.cluster(i).len(), self.width(i)),
                })
                .collect(),
        })
    }

    /// New parameters by PyTorch's rule: uniform in ±1/√fan_in, fan_in being a weight's second
    /// size, and D for the bias. The same seed gives the same numbers on every machine (they are
    /// not PyTorch's).
    ///
    /// # Errors
    /// `dtype` is not floating-point; as [`AdaptiveLogSoftmax::shapes`]; out of memory.
    pub fn init(&self, dtype: DType, seed: u64) -> Result<AdaptiveParameters<Tensor>> {
        if !dtype.is_float() {
            let expected = "f32, f16 or bf16".into();
            return Err(Error::Dtype { argument: "dtype", expected, got: dtype });
        }
        let mut number = 0;
        self.shapes()?.try_map(|_, shape| {
            number += 1;
            let fan_in = shape.get(1).copied().unwrap_or(self.in_features);
            let (bound, key) = (1.0 / (fan_in as f64).sqrt(), extend(seed, number));
            fill(dtype, *shape, |i| (2.0 * unit(key, i) - 1.0) * bound)
        })
    }
}
