//! The parameters of an adaptive softmax, named and shaped as in PyTorch's state dict.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::{Float, HostMut};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};

/// The parameters of [`AdaptiveLogSoftmax`](crate::AdaptiveLogSoftmax), or what has their shapes: `Tensor`s, views of them,
/// gradients. D is the number of input features, c_0 the shortlist, J the number of clusters,
/// k_i the classes and h_i the width of cluster i.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveParameters<T> {
    /// `head.weight`, `[c_0 + J, D]`: the shortlist's classes, then one column a cluster.
    pub head_weight: T,
    /// `head.bias`, `[c_0 + J]`.
    pub head_bias: Option<T>,
    /// One a cluster.
    pub tails: Vec<AdaptiveTail<T>>,
}

/// The parameters of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveTail<T> {
    /// `tail.{i}.0.weight`, `[h_i, D]`.
    pub projection: T,
    /// `tail.{i}.1.weight`, `[k_i, h_i]`.
    pub weight: T,
}

impl<T> AdaptiveParameters<T> {
    /// The same with every tensor replaced by what `change` makes of its key and it.
    ///
    /// # Errors
    /// The first of `change`.
    pub fn try_map<'a, U, E>(
        &'a self,
        mut change: impl FnMut(&str, &'a T) -> Result<U, E>,
    ) -> Result<AdaptiveParameters<U>, E> {
        Ok(AdaptiveParameters {
            head_weight: change(HEAD_WEIGHT, &self.head_weight)?,
            head_bias: self.head_bias.as_ref().map(|bias| change(HEAD_BIAS, bias)).transpose()?,
            tails: (self.tails.iter().enumerate())
                .map(|(i, tail)| tail.try_map(i, &mut change))
                .collect::<Result<_, E>>()?,
        })
    }

    /// As [`AdaptiveParameters::try_map`], of the tensors themselves.
    pub(crate) fn try_into_map<U, E>(
        self,
        mut change: impl FnMut(T) -> Result<U, E>,
    ) -> Result<AdaptiveParameters<U>, E> {
        Ok(AdaptiveParameters {
            head_weight: change(self.head_weight)?,
            head_bias: self.head_bias.map(&mut change).transpose()?,
            tails: (self.tails.into_iter())
                .map(|tail| tail.try_into_map(&mut change))
                .collect::<Result<_, E>>()?,
        })
    }

    /// Keys and tensors, in the state dict's order.
    pub fn into_named(self) -> Vec<(String, T)> {
        let mut named = vec![(HEAD_WEIGHT.into(), self.head_weight)];
        named.extend(self.head_bias.map(|bias| (HEAD_BIAS.into(), bias)));
        for (i, tail) in self.tails.into_iter().enumerate() {
            named.push((tail_key(i, 0), tail.projection));
            named.push((tail_key(i, 1), tail.weight));
        }
        named
    }
}

impl<T> AdaptiveTail<T> {
    /// Of cluster i.
    pub(crate) fn try_map<'a, U, E>(
        &'a self,
        i: usize,
        change: &mut impl FnMut(&str, &'a T) -> Result<U, E>,
    ) -> Result<AdaptiveTail<U>, E> {
        Ok(AdaptiveTail {
            projection: change(&tail_key(i, 0), &self.projection)?,
            weight: change(&tail_key(i, 1), &self.weight)?,
        })
    }

    pub(crate) fn try_into_map<U, E>(
        self,
        change: &mut impl FnMut(T) -> Result<U, E>,
    ) -> Result<AdaptiveTail<U>, E> {
        let (projection, weight) = (change(self.projection)?, change(self.weight)?);
        Ok(AdaptiveTail { projection, weight })
    }
}

impl AdaptiveTail<Tensor> {
    pub(crate) fn view(&self) -> AdaptiveTail<TensorRef<'_>> {
        AdaptiveTail { projection: self.projection.view(), weight: self.weight.view() }
    }

    pub(crate) fn view_mut(&mut self) -> AdaptiveTail<TensorMut<'_>> {
        AdaptiveTail { projection: self.projection.view_mut(), weight: self.weight.view_mut() }
    }
}

impl AdaptiveTail<TensorMut<'_>> {
    pub(crate) fn as_ref(&self) -> AdaptiveTail<TensorRef<'_>> {
        AdaptiveTail { projection: self.projection.as_ref(), weight: self.weight.as_ref() }
    }
}

pub(crate) const HEAD_WEIGHT: &str = "head.weight";
pub(crate) const HEAD_BIAS: &str = "head.bias";

pub(crate) fn tail_key(i: usize, layer: usize) -> String {
    format!("tail.{i}.{layer}.weight")
}

impl AdaptiveParameters<Tensor> {
    /// Views of all tensors.
    pub fn view(&self) -> AdaptiveParameters<TensorRef<'_>> {
        AdaptiveParameters {
            head_weight: self.head_weight.view(),
            head_bias: self.head_bias.as_ref().map(Tensor::view),
            tails: self.tails.iter().map(AdaptiveTail::view).collect(),
        }
    }

    /// Exclusive views of all tensors.
    pub fn view_mut(&mut self) -> AdaptiveParameters<TensorMut<'_>> {
        AdaptiveParameters {
            head_weight: self.head_weight.view_mut(),
            head_bias: self.head_bias.as_mut().map(Tensor::view_mut),
            tails: self.tails.iter_mut().map(AdaptiveTail::view_mut).collect(),
        }
    }
}

impl AdaptiveParameters<TensorMut<'_>> {
    /// The same views, shared.
    pub(crate) fn as_ref(&self) -> AdaptiveParameters<TensorRef<'_>> {
        AdaptiveParameters {
            head_weight: self.head_weight.as_ref(),
            head_bias: self.head_bias.as_ref().map(TensorMut::as_ref),
            tails: self.tails.iter().map(AdaptiveTail::as_ref).collect(),
        }
    }
}

/// Numbers of a shape, each a function of its place.
pub(crate) fn fill(dtype: DType, shape: Shape, number: impl Fn(u64) -> f64) -> Result<Tensor> {
    fn each<T: Float>(numbers: &mut [T], number: impl Fn(u64) -> f64) {
        for (i, x) in (0..).zip(numbers) {
            *x = T::from_f32(number(i) as f32);
        }
    }
    let mut tensor = Tensor::zeros_for("parameters", dtype, shape)?;
    match tensor.view_mut().into_host_data() {
        Some(HostMut::F32(x)) => each(x, number),
        Some(HostMut::F16(x)) => each(x, number),
        Some(HostMut::BF16(x)) => each(x, number),
        _ => {}
    }
    Ok(tensor)
}
