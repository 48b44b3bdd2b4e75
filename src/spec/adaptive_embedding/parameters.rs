//! The parameters of adaptive embeddings, of their own or those of a softmax.

use crate::base::dtype::DType;
use crate::base::error::{Count, Error, Result};
use crate::base::random::{extend, unit};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::spec::adaptive_embedding::AdaptiveEmbedding;
use crate::spec::adaptive_log_softmax::{AdaptiveParameters, AdaptiveTail, fill, tail_key};

/// The parameters of [`AdaptiveEmbedding`], or what has their shapes: `Tensor`s, views of them,
/// gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveEmbeddingParameters<T> {
    /// `shortlist.weight`, `[c_0, D]`.
    pub shortlist: T,
    /// One a cluster, keys and shapes as those of the softmax: `tail.{i}.0.weight`, the projection
    /// `[h_i, D]`, and `tail.{i}.1.weight`, the embeddings `[k_i, h_i]`.
    pub tails: Vec<AdaptiveTail<T>>,
}

impl<T> AdaptiveEmbeddingParameters<T> {
    /// The same with every tensor replaced by what `change` makes of its key and it.
    ///
    /// # Errors
    /// The first of `change`.
    pub fn try_map<'a, U, E>(
        &'a self,
        mut change: impl FnMut(&str, &'a T) -> Result<U, E>,
    ) -> Result<AdaptiveEmbeddingParameters<U>, E> {
        Ok(AdaptiveEmbeddingParameters {
            shortlist: change(SHORTLIST, &self.shortlist)?,
            tails: (self.tails.iter().enumerate())
                .map(|(i, tail)| tail.try_map(i, &mut change))
                .collect::<Result<_, E>>()?,
        })
    }

    /// As [`AdaptiveEmbeddingParameters::try_map`], of the tensors themselves.
    #[cfg(gpu)]
    pub(crate) fn try_into_map<U, E>(
        self,
        mut change: impl FnMut(T) -> Result<U, E>,
    ) -> Result<AdaptiveEmbeddingParameters<U>, E> {
        Ok(AdaptiveEmbeddingParameters {
            shortlist: change(self.shortlist)?,
            tails: (self.tails.into_iter())
                .map(|tail| tail.try_into_map(&mut change))
                .collect::<Result<_, E>>()?,
        })
    }

    /// Keys and tensors, in order.
    pub fn into_named(self) -> Vec<(String, T)> {
        let mut named = vec![(SHORTLIST.into(), self.shortlist)];
        for (i, tail) in self.tails.into_iter().enumerate() {
            named.push((tail_key(i, 0), tail.projection));
            named.push((tail_key(i, 1), tail.weight));
        }
        named
    }
}

const SHORTLIST: &str = "shortlist.weight";

impl AdaptiveEmbeddingParameters<Tensor> {
    /// Views of all tensors.
    pub fn view(&self) -> AdaptiveEmbeddingParameters<TensorRef<'_>> {
        let tails = self.tails.iter().map(AdaptiveTail::view).collect();
        AdaptiveEmbeddingParameters { shortlist: self.shortlist.view(), tails }
    }

    /// Exclusive views of all tensors.
    pub fn view_mut(&mut self) -> AdaptiveEmbeddingParameters<TensorMut<'_>> {
        let tails = self.tails.iter_mut().map(AdaptiveTail::view_mut).collect();
        AdaptiveEmbeddingParameters { shortlist: self.shortlist.view_mut(), tails }
    }
}

impl AdaptiveEmbeddingParameters<TensorMut<'_>> {
    /// The same views, shared.
    pub(crate) fn as_ref(&self) -> AdaptiveEmbeddingParameters<TensorRef<'_>> {
        let tails = self.tails.iter().map(AdaptiveTail::as_ref).collect();
        AdaptiveEmbeddingParameters { shortlist: self.shortlist.as_ref(), tails }
    }
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
