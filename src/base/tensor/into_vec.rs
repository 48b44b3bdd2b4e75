//! From a tensor to the vector that it was made of.

use crate::base::error::{Error, Result};
use crate::base::host::Element;
use crate::base::tensor::buffer::not_on_host;
use crate::base::tensor::owned::Tensor;

impl Tensor {
    /// The elements as a vector: the tensor's own memory, uncopied.
    ///
    /// ```
    /// use warploss::Tensor;
    ///
    /// let logits = vec![2.0f32, 1.0, 0.1];
    /// let address = logits.as_ptr();
    /// let back = Tensor::from_vec(logits, &[1, 3])?.into_vec::<f32>()?;
    /// assert_eq!(back.as_ptr(), address);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Dtype`] where the elements are of another type, [`Error::Place`] where they lie on
    /// a device ([`Tensor::to_host`] brings a copy). The tensor is gone then; `Vec::try_from` does
    /// the same and gives it back.
    pub fn into_vec<T: Element>(self) -> Result<Vec<T>> {
        Vec::try_from(self).map_err(|tensor: Tensor| match tensor.is_on_device() {
            true => not_on_host("tensor"),
            false => Error::Dtype {
                argument: "tensor",
                expected: format!("{} (as asked for)", T::DTYPE),
                got: tensor.dtype(),
            },
        })
    }
}

/// [`Tensor::into_vec`], but a tensor of another type, or on a device, comes back as it was.
///
/// ```
/// use warploss::Tensor;
///
/// let labels = Tensor::from_vec(vec![3i64, 1], &[2])?;
/// let labels = Vec::<f32>::try_from(labels).expect_err("they are i64");
/// assert_eq!(Vec::try_from(labels), Ok(vec![3i64, 1]));
/// # Ok::<(), warploss::Error>(())
/// ```
impl<T: Element> TryFrom<Tensor> for Vec<T> {
    type Error = Tensor;

    fn try_from(tensor: Tensor) -> Result<Vec<T>, Tensor> {
        tensor.into_host()
    }
}
