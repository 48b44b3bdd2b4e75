//! Adaptive embeddings: options, checks and the maths in words.
//!
//! Classes are sorted by falling frequency and cut as for an adaptive softmax. The first c_0 have an
//! embedding of D features each; class k of cluster i, which begins at c_i, has a narrower one of h_i
//! features, and the cluster a projection:
//!
//! ```text
//! output = S_k                   k < c_0
//!        = E_i[k − c_i] · P_i    c_i ≤ k < c_{i+1}
//! ```

mod parameters;

use crate::base::dtype::DType;
use crate::base::error::{Count, Error, Result};
use crate::base::random::{extend, unit};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, fill};
use crate::spec::class_indices::ClassIndices;

pub use parameters::AdaptiveEmbeddingParameters;

/// Embeddings of many classes, narrower the rarer they are (adaptive input representations;
/// Baevski and Auli 2019, arXiv 1809.10853), with the cutoffs of an [`AdaptiveLogSoftmax`], whose
/// parameters they can share.
///
/// D is the number of features, V of classes, h_i and k_i the width and the classes of cluster i.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | index | any of at most 7 dimensions, contiguous | i64, i32, u32, u8 |
/// | parameters | [`AdaptiveEmbedding::shapes`], row strides free | f32, f16, bf16, all alike |
/// | output | the index's, and D; row stride free | the parameters' |
///
/// Products and sums are f32, in an order that does not depend on the number of threads.
///
/// ```
/// use warploss::{AdaptiveEmbedding, AdaptiveEmbeddingParameters, AdaptiveLogSoftmax, DType, Device};
/// use warploss::TensorRef;
/// let softmax = AdaptiveLogSoftmax::new(4, 10, &[2, 6]);
/// let embedding = AdaptiveEmbedding::of(&softmax);
/// let (device, shared) = (Device::cpu(), softmax.init(DType::F32, 7)?);
/// // One set of parameters for both.
/// let tied = AdaptiveEmbeddingParameters::tied(&embedding, &shared.view())?;
/// let index = TensorRef::new(&[1i64, 9], &[2])?;
/// let hidden = embedding.forward(&device, &tied, index)?;
/// assert_eq!(*hidden.shape(), [2, 4]);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct AdaptiveEmbedding {
    /// Where the classes are cut, and how wide clusters are.
    pub(crate) cut: AdaptiveLogSoftmax<'static>,
    pub(crate) padding_idx: Option<i64>,
}

/// Inputs that have passed the checks.
pub(crate) struct CheckedEmbedding<'a> {
    pub(crate) options: &'a AdaptiveEmbedding,
    pub(crate) parameters: &'a AdaptiveEmbeddingParameters<TensorRef<'a>>,
    pub(crate) index: ClassIndices<'a>,
}

impl AdaptiveEmbedding {
    /// Of `features` features and `classes` classes, cut at `cutoffs`: rising, each above 0 and
    /// below `classes`. What is wrong is told by the first call.
    pub fn new(features: usize, classes: usize, cutoffs: &[usize]) -> AdaptiveEmbedding {
        let cut = AdaptiveLogSoftmax::new(features, classes, cutoffs);
        AdaptiveEmbedding { cut, padding_idx: None }
    }

    /// With the features, classes, cutoffs, widths, class order and workspace of a softmax.
    pub fn of(softmax: &AdaptiveLogSoftmax<'_>) -> AdaptiveEmbedding {
        let like = AdaptiveEmbedding::new(softmax.in_features, softmax.classes, &softmax.cutoffs);
        let cut = (like.cut.div_value(softmax.div_value).widths(softmax.widths.clone()))
            .class_order(softmax.class_order.clone())
            .workspace(softmax.workspace);
        AdaptiveEmbedding { cut, padding_idx: None }
    }

    /// v > 0: cluster i has the width ⌊D / v^(i+1)⌋, by Python's float division. Default 4.
    pub fn div_value(self, value: f64) -> Self {
        AdaptiveEmbedding { cut: self.cut.div_value(value), ..self }
    }

    /// h_i of each cluster, instead of those that `div_value` gives. Default `None`.
    pub fn widths(self, widths: Option<Vec<usize>>) -> Self {
        AdaptiveEmbedding { cut: self.cut.widths(widths), ..self }
    }

    /// A class whose embedding has no gradient, and is 0 at first; its output is read as any
    /// other's (`torch.nn.Embedding`). Default `None`.
    pub fn padding_idx(mut self, class: Option<i64>) -> Self {
        self.padding_idx = class;
        self
    }

    /// What the caller calls the classes. Default `None`: by falling frequency, from 0.
    pub fn class_order(
        self,
        order: Option<std::sync::Arc<crate::spec::adaptive_log_softmax::ClassOrder>>,
    ) -> Self {
        AdaptiveEmbedding { cut: self.cut.class_order(order), ..self }
    }

    /// Bytes of a buffer at most, on a CUDA device. Default 256 MiB. Of no effect on the CPU.
    pub fn workspace(self, bytes: usize) -> Self {
        AdaptiveEmbedding { cut: self.cut.workspace(bytes), ..self }
    }

    /// D, the features of an embedding.
    pub fn features(&self) -> usize {
        self.cut.in_features
    }

    /// The parameters' place of a class, if there is such a class.
    pub(crate) fn place(&self, class: i64) -> Option<usize> {
        let class = usize::try_from(class).ok().filter(|&class| class < self.cut.classes)?;
        match &self.cut.class_order {
            Some(order) => order.place(class),
            None => Some(class),
        }
    }

    pub(crate) fn check<'a>(
        &'a self,
        parameters: &'a AdaptiveEmbeddingParameters<TensorRef<'a>>,
        index: &TensorRef<'a>,
    ) -> Result<CheckedEmbedding<'a>> {
        validate::float("parameters", &parameters.shortlist)?;
        self.check_parameters("parameters", parameters, parameters.shortlist.dtype())?;
        let index = ClassIndices::new("index", index)?;
        let rank = index.tensor().rank();
        if rank >= crate::base::shape::MAX_RANK {
            let expected = format!("at most {}", crate::base::shape::MAX_RANK - 1);
            return Err(Error::Rank { argument: "index", expected, got: rank });
        }
        Ok(CheckedEmbedding { options: self, parameters, index })
    }

    pub(crate) fn check_parameters(
        &self,
        argument: &'static str,
        parameters: &AdaptiveEmbeddingParameters<TensorRef<'_>>,
        dtype: DType,
    ) -> Result<()> {
        let shapes = self.shapes()?;
        let (clusters, got) = (shapes.tails.len(), parameters.tails.len());
        if got != clusters {
            let expected = format!("{} (cutoffs)", Count(clusters, "tail"));
            return Err(Error::Value { argument, expected, got: got.to_string() });
        }
        let mut shapes = shapes.into_named().into_iter();
        parameters.try_map(|key, tensor| {
            let shape = shapes.next().map_or(Shape::SCALAR, |(_, shape)| shape);
            validate::parameter(argument, (key, tensor), shape, (dtype, "the shortlist's"))
        })?;
        Ok(())
    }
}

impl CheckedEmbedding<'_> {
    pub(crate) fn dtype(&self) -> DType {
        self.parameters.shortlist.dtype()
    }

    pub(crate) fn shape(&self) -> Shape {
        let mut shape = self.index.shape();
        shape.push(self.options.features());
        shape
    }

    /// `output`, or its gradient.
    pub(crate) fn check_like_output(
        &self,
        argument: &'static str,
        tensor: &TensorRef<'_>,
    ) -> Result<()> {
        validate::shape(argument, tensor, self.shape(), "the index's, and the features")?;
        validate::dtype(argument, tensor, &[self.dtype()], "the parameters'")?;
        // Rows of more dimensions are stepped through as if they were one.
        if tensor.rank() == 2 { Ok(()) } else { validate::contiguous(argument, tensor) }
    }

    /// Where index and parameters lie: they must lie together.
    pub(crate) fn places(&self) -> [&'static str; 2] {
        let all = self.parameters.clone().into_named();
        let index = self.index.tensor().place();
        let other = all.iter().map(|(_, p)| p.place()).find(|&place| place != index);
        [index, other.unwrap_or(index)]
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Forward {
        output: TensorMut<'a>,
    },
    Backward {
        grad_output: TensorRef<'a>,
        gradients: AdaptiveEmbeddingParameters<TensorMut<'a>>,
        /// Gradients are added to what is there.
        accumulate: bool,
    },
}

impl AdaptiveEmbedding {
    /// The shapes of the parameters.
    ///
    /// # Errors
    /// As [`AdaptiveEmbedding::forward`] for the options.
    pub fn shapes(&self) -> Result<AdaptiveEmbeddingParameters<Shape>> {
        let softmax = self.cut.shapes()?;
        if let Some(class) = self.padding_idx.filter(|&class| self.place(class).is_none()) {
            let expected = format!("a class in [0, {})", self.cut.classes);
            let got = class.to_string();
            return Err(Error::Value { argument: "padding_idx", expected, got });
        }
        let sizes = [self.cut.shortlist(), self.features()];
        let shortlist = Shape::new(&sizes).unwrap_or(Shape::SCALAR);
        Ok(AdaptiveEmbeddingParameters { shortlist, tails: softmax.tails })
    }

    /// New parameters, as fairseq makes them: embeddings normal with the deviation 1/√width,
    /// projections uniform in ±√(6 / (h_i + D)) (Glorot and Bengio 2010), the padding class 0. The
    /// same seed gives the same numbers on every machine.
    ///
    /// # Errors
    /// `dtype` is not floating-point; as [`AdaptiveEmbedding::shapes`]; out of memory.
    pub fn init(&self, dtype: DType, seed: u64) -> Result<AdaptiveEmbeddingParameters<Tensor>> {
        if !dtype.is_float() {
            let expected = "f32, f16 or bf16".into();
            return Err(Error::Dtype { argument: "dtype", expected, got: dtype });
        }
        let padding = self.padding_idx.and_then(|class| self.place(class));
        let mut number = 0;
        let mut begins = std::iter::once(0).chain(self.cut.cutoffs.iter().copied());
        self.shapes()?.try_map(|key, shape| {
            number += 1;
            let (key_of, columns) = (extend(seed, number), shape[1].max(1));
            if key.ends_with(".0.weight") {
                let bound = (6.0 / (shape[0] + shape[1]) as f64).sqrt();
                return fill(dtype, *shape, |i| bound * (2.0 * unit(key_of, i) - 1.0));
            }
            let deviation = 1.0 / (columns as f64).sqrt();
            let row = begins.next().and_then(|begin| padding?.checked_sub(begin));
            fill(dtype, *shape, |i| match row == Some(i as usize / columns) {
                true => 0.0,
                false => deviation * normal(key_of, i),
            })
        })
    }
}

/// A normal number (Box and Muller 1958).
fn normal(key: u64, i: u64) -> f64 {
    let (radius, turn) = (unit(key, 2 * i), unit(key, 2 * i + 1));
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
}

impl<'a> AdaptiveEmbeddingParameters<TensorRef<'a>> {
    /// A softmax's parameters as those of embeddings: the shortlist's columns of its head, and all
    /// of its clusters. Its bias, and the columns that stand for clusters, are left out.
    ///
    /// # Errors
    /// A head with fewer columns than the shortlist has classes.
    pub fn tied(
        embedding: &AdaptiveEmbedding,
        softmax: &AdaptiveParameters<TensorRef<'a>>,
    ) -> Result<Self> {
        let (head, rows) = (softmax.head_weight, embedding.cut.shortlist());
        let shortlist = head.first_rows(rows).ok_or_else(|| short_head(rows, head.shape()))?;
        Ok(AdaptiveEmbeddingParameters { shortlist, tails: softmax.tails.clone() })
    }
}

impl<'a> AdaptiveEmbeddingParameters<TensorMut<'a>> {
    /// As [`AdaptiveEmbeddingParameters::tied`] for what is written: with `accumulate` the
    /// embeddings' gradients are added to the softmax's.
    ///
    /// # Errors
    /// As `tied`.
    pub fn tied_mut(
        embedding: &AdaptiveEmbedding,
        softmax: AdaptiveParameters<TensorMut<'a>>,
    ) -> Result<Self> {
        let (head, rows) = (softmax.head_weight, embedding.cut.shortlist());
        let shape = head.shape();
        let shortlist = head.first_rows(rows).ok_or_else(|| short_head(rows, shape))?;
        Ok(AdaptiveEmbeddingParameters { shortlist, tails: softmax.tails })
    }
}

fn short_head(rows: usize, got: Shape) -> Error {
    let rows = Count(rows, "row");
    let expected = format!("`head.weight` of at least {rows} (the shortlist)");
    Error::Value { argument: "parameters", expected, got: got.to_string() }
}
