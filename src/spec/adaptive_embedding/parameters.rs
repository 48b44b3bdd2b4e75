//! The parameters of adaptive embeddings, of their own or those of a softmax.

use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::spec::adaptive_log_softmax::{AdaptiveTail, tail_key};

/// The parameters of [`AdaptiveEmbedding`](crate::AdaptiveEmbedding), or what has their shapes: `Tensor`s, views of them,
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
