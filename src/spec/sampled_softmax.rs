//! Sampled softmax: options, checks and the maths in words.
//!
//! A row's softmax is taken over its target and S negatives, which are drawn once a call for all
//! rows; what is drawn often is held against its expected count E in the call:
//!
//! ```text
//! z_t = w_t·x + b_t − ln E(t)
//! z_s = w_s·x + b_s − ln E(s)      −∞ where s = t, an accidental hit
//! output = z_t − ln(e^{z_t} + Σ_s e^{z_s})
//! ℓ = −output
//! ```
//!
//! The gradient is that of the softmax over those S + 1 columns.

mod checked;
mod sampler;

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::random::{extend, unit};
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::spec::adaptive_log_softmax::fill;
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut, WORKSPACE};

pub(crate) use checked::CheckedSampled;
pub use sampler::NegativeSampler;
pub(crate) use sampler::Negatives;

/// Softmax over a row's target and a few sampled classes: a cheap loss to train with where there
/// are many (Bengio and Senécal 2008; TensorFlow's `sampled_softmax_loss`). With
/// [`NegativeSampler::all`] it is the softmax over all classes, to validate with.
///
/// Row r of N has D input features; V is the number of classes.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | `[D]` or `[N, D]`, row stride free | f32, f16, bf16 |
/// | target | `[]` or `[1]`, `[N]` | i64, i32, u32, u8 |
/// | parameters | [`SampledSoftmax::shapes`], row strides free | the input's |
/// | output | one a row: the target's log-probability among what was drawn; 0 for ignored rows | f32 |
/// | loss | `[]`, or one a row for [`Reduction::None`] | f32 |
///
/// Products and sums are f32 or wider whatever the dtype, in an order that does not depend on the
/// number of threads. The mean is NaN if no row is kept. Negatives are drawn on the host, so that a call
/// which draws any cannot be captured into a CUDA graph.
///
/// ```
/// use warploss::{DType, Device, NegativeSampler, SampledSoftmax, TensorRef};
/// let sampled = SampledSoftmax::new(4, NegativeSampler::log_uniform(1000, 16)?);
/// let parameters = sampled.init(DType::F32, 7)?;
/// let input = TensorRef::new(&[0.1f32, -0.2, 0.3, 0.4], &[1, 4])?;
/// let target = TensorRef::new(&[3i64], &[1])?;
/// for step in 0..10 {
///     let sampled = sampled.clone().step(step); // other negatives each time
///     let grad = sampled.forward_backward(&Device::cpu(), &parameters.view(), input, target, 1.0)?;
///     assert!(grad.output.loss.item()? > 0.0);
/// }
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct SampledSoftmax {
    pub(crate) in_features: usize,
    pub(crate) sampler: NegativeSampler,
    pub(crate) bias: bool,
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) remove_accidental_hits: bool,
    pub(crate) ignore_index: Option<i64>,
    pub(crate) reduction: Reduction,
    pub(crate) workspace: usize,
}

/// The parameters of [`SampledSoftmax`], named and shaped as `torch.nn.Linear`'s, or what has their
/// shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledParameters<T> {
    /// `weight`, `[V, D]`.
    pub weight: T,
    /// `bias`, `[V]`.
    pub bias: Option<T>,
}

impl<T> SampledParameters<T> {
    /// The same with every tensor replaced by what `change` makes of its key and it.
    ///
    /// # Errors
    /// The first of `change`.
    pub fn try_map<'a, U, E>(
        &'a self,
        mut change: impl FnMut(&str, &'a T) -> Result<U, E>,
    ) -> Result<SampledParameters<U>, E> {
        let weight = change("weight", &self.weight)?;
        let bias = self.bias.as_ref().map(|bias| change("bias", bias)).transpose()?;
        Ok(SampledParameters { weight, bias })
    }
}

impl SampledParameters<Tensor> {
    /// Views of all tensors.
    pub fn view(&self) -> SampledParameters<TensorRef<'_>> {
        let bias = self.bias.as_ref().map(Tensor::view);
        SampledParameters { weight: self.weight.view(), bias }
    }

    /// Exclusive views of all tensors.
    pub fn view_mut(&mut self) -> SampledParameters<TensorMut<'_>> {
        let bias = self.bias.as_mut().map(Tensor::view_mut);
        SampledParameters { weight: self.weight.view_mut(), bias }
    }
}

impl SampledParameters<TensorMut<'_>> {
    /// The same views, shared.
    pub(crate) fn as_ref(&self) -> SampledParameters<TensorRef<'_>> {
        let bias = self.bias.as_ref().map(TensorMut::as_ref);
        SampledParameters { weight: self.weight.as_ref(), bias }
    }
}

impl SampledSoftmax {
    /// Of `in_features` inputs and the sampler's classes.
    pub fn new(in_features: usize, sampler: NegativeSampler) -> SampledSoftmax {
        SampledSoftmax {
            in_features,
            sampler,
            bias: false,
            seed: 0,
            step: 0,
            remove_accidental_hits: true,
            ignore_index: None,
            reduction: Reduction::Mean,
            workspace: WORKSPACE,
        }
    }

    /// Whether classes have a bias. Default `false`.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// What is drawn is a function of the seed and the step. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The step of the training: each draws its own negatives. Default 0.
    pub fn step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// Whether a negative that is a row's target is left out of that row. Default `true`.
    pub fn remove_accidental_hits(mut self, remove: bool) -> Self {
        self.remove_accidental_hits = remove;
        self
    }

    /// The label of rows that do not count, any integer. Default `None`.
    pub fn ignore_index(mut self, label: Option<i64>) -> Self {
        self.ignore_index = label;
        self
    }

    /// Default [`Reduction::Mean`], over the kept rows.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Bytes of a buffer at most, on a CUDA device: rows are gone through in chunks that fit. Default
    /// 256 MiB. Of no effect on the CPU.
    pub fn workspace(mut self, bytes: usize) -> Self {
        self.workspace = bytes;
        self
    }

    /// V, the classes.
    pub fn classes(&self) -> usize {
        self.sampler.classes()
    }

    /// The classes that a call draws, in order, repetitions included; with
    /// [`NegativeSampler::all`] every class.
    ///
    /// # Errors
    /// As [`SampledSoftmax::forward`] for the options.
    pub fn negatives(&self) -> Result<Vec<usize>> {
        Ok(self.draw()?.classes)
    }

    /// How often a class is expected among a call's negatives, E of the formula: 1 with
    /// [`NegativeSampler::all`], 0 for a class that is never drawn.
    ///
    /// # Errors
    /// As [`SampledSoftmax::forward`] for the options.
    pub fn expected_count(&self, class: usize) -> Result<f64> {
        Ok(self.sampler.log_expected(class, &self.draw()?).exp())
    }

    pub(crate) fn draw(&self) -> Result<Negatives> {
        self.sampler.draw(extend(self.seed, self.step))
    }

    /// The shapes of the parameters.
    ///
    /// # Errors
    /// As [`SampledSoftmax::forward`] for the options.
    pub fn shapes(&self) -> Result<SampledParameters<Shape>> {
        self.check_options()?;
        let shape = |sizes: &[usize]| Shape::new(sizes).unwrap_or(Shape::SCALAR);
        let weight = shape(&[self.classes(), self.in_features]);
        Ok(SampledParameters { weight, bias: self.bias.then(|| shape(&[self.classes()])) })
    }

    /// New parameters by `torch.nn.Linear`'s rule: uniform in ±1/√D. The same seed gives the same
    /// numbers on every machine (they are not PyTorch's).
    ///
    /// # Errors
    /// `dtype` is not floating-point; as [`SampledSoftmax::shapes`]; out of memory.
    pub fn init(&self, dtype: DType, seed: u64) -> Result<SampledParameters<Tensor>> {
        if !dtype.is_float() {
            let expected = "f32, f16 or bf16".into();
            return Err(Error::Dtype { argument: "dtype", expected, got: dtype });
        }
        let bound = 1.0 / (self.in_features as f64).sqrt();
        self.shapes()?.try_map(|key, shape| {
            let key = extend(seed, key.len() as u64);
            fill(dtype, *shape, |i| (2.0 * unit(key, i) - 1.0) * bound)
        })
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
        gradients: LayerGradOut<'a, SampledParameters<TensorMut<'a>>>,
    },
}
