//! Tensors from views of the safetensors format, and its dtypes.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::tensor::owned::Tensor;
use crate::base::tensor::view::TensorRef;
use safetensors::tensor::TensorView;

/// The format's dtype for ours.
pub(crate) fn file_dtype(dtype: DType) -> safetensors::Dtype {
    match dtype {
        DType::F32 => safetensors::Dtype::F32,
        DType::F16 => safetensors::Dtype::F16,
        DType::BF16 => safetensors::Dtype::BF16,
        DType::I64 => safetensors::Dtype::I64,
        DType::I32 => safetensors::Dtype::I32,
        DType::U32 => safetensors::Dtype::U32,
        DType::U8 => safetensors::Dtype::U8,
    }
}

/// Our dtype for the format's; `None` for those that no loss takes.
pub(crate) fn dtype_of(dtype: safetensors::Dtype) -> Option<DType> {
    DType::ALL.into_iter().find(|&d| file_dtype(d) == dtype)
}

/// As [`dtype_of`].
///
/// # Errors
/// [`Error::Value`] for the others.
fn taken(view: &TensorView<'_>) -> Result<DType> {
    dtype_of(view.dtype()).ok_or_else(|| {
        let names: Vec<_> = DType::ALL.iter().map(|dtype| file_dtype(*dtype).to_string()).collect();
        Error::Value {
            argument: "tensor",
            expected: format!("one of the dtypes {}", names.join(", ")),
            got: view.dtype().to_string(),
        }
    })
}

/// The file's own bytes (feature `safetensors`), where they are aligned; else `Tensor::try_from`
/// copies them.
///
/// ```
/// use safetensors::tensor::{Dtype, TensorView};
/// use warploss::{Tensor, TensorRef};
///
/// let bytes = [0, 0, 128, 63, 0, 0, 0, 64]; // 1 and 2
/// let view = TensorView::new(Dtype::F32, vec![2], &bytes).expect("two numbers");
/// // The format aligns its data to 8 bytes from the beginning of a file, which may lie anywhere.
/// let copy;
/// let weight = match TensorRef::try_from(&view) {
///     Ok(lent) => lent,
///     Err(_) => {
///         copy = Tensor::try_from(&view)?;
///         copy.view()
///     }
/// };
/// assert_eq!(weight.to_f64()?, [1.0, 2.0]);
/// # Ok::<(), warploss::Error>(())
/// ```
impl<'data> TryFrom<&TensorView<'data>> for TensorRef<'data> {
    type Error = Error;

    fn try_from(view: &TensorView<'data>) -> Result<Self> {
        TensorRef::from_bytes(taken(view)?, view.data(), view.shape(), None)
    }
}

/// A copy of the file's bytes (feature `safetensors`), whatever address they have.
impl TryFrom<&TensorView<'_>> for Tensor {
    type Error = Error;

    fn try_from(view: &TensorView<'_>) -> Result<Self> {
        Tensor::copy_bytes(taken(view)?, view.data(), view.shape(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(8))]
    struct File([u8; 16]);

    #[test]
    fn bytes_of_a_file_are_lent_where_they_are_aligned_and_copied_anywhere() {
        let file = File(std::array::from_fn(|i| i as u8));
        for offset in 0..8 {
            let bytes = &file.0[offset..][..8];
            let view = TensorView::new(safetensors::Dtype::F32, vec![2], bytes).unwrap();
            let copy = Tensor::try_from(&view).unwrap();
            let bytes: Vec<u8> =
                copy.as_slice::<f32>().unwrap().iter().flat_map(|x| x.to_ne_bytes()).collect();
            assert_eq!(bytes, view.data());
            match TensorRef::try_from(&view) {
                Ok(lent) => {
                    assert_eq!(offset % 4, 0);
                    assert_eq!(lent.host::<f32>(), copy.as_slice());
                }
                Err(error) => {
                    assert_ne!(offset % 4, 0);
                    let said = error.to_string();
                    let begins = "data: expected an address that is a multiple of 4, as f32 has it";
                    assert!(said.starts_with(begins) && said.contains("copy"), "{said}");
                }
            }
        }
    }

    #[test]
    fn a_dtype_that_no_loss_takes_is_named() {
        let view = TensorView::new(safetensors::Dtype::F64, vec![1], &[0; 8]).unwrap();
        let said = TensorRef::try_from(&view).unwrap_err().to_string();
        assert_eq!(
            said,
            "tensor: expected one of the dtypes F32, F16, BF16, I64, I32, U32, U8, got F64"
        );
        assert_eq!(Tensor::try_from(&view).unwrap_err().to_string(), said);
    }
}
