//! Tensors from arrays and views of `ndarray`.

use crate::base::error::{Error, Result};
use crate::base::host::Element;
use crate::base::tensor::owned::Tensor;
use crate::base::tensor::view::{TensorMut, TensorRef};
use ndarray::{Array, ArrayBase, ArrayView, ArrayViewMut, Data, DataMut, Dimension};

/// Padded rows are refused too: what lies between them may be a part of another view, which safe
/// code may write meanwhile (`split_at` makes such), and a slice over all of it would be wrong.
fn not_standard(shape: &[usize], strides: &[isize]) -> Error {
    Error::Value {
        argument: "array",
        expected: "elements in standard layout (Tensor::try_from copies others, and where nobody \
                   has what lies between rows, from_raw_parts takes them as they lie)"
            .into(),
        got: format!("shape {shape:?} with strides {strides:?}"),
    }
}

/// An array of any dimension in standard layout, as it lies (feature `ndarray`); else
/// `Tensor::try_from` copies it.
///
/// ```
/// use ndarray::array;
/// use warploss::{CrossEntropy, Device, Tensor, TensorRef};
///
/// let logits = array![[2.0f32, 1.0, 0.1], [0.5, 2.5, 0.0]];
/// let target = array![0i64, 1];
/// let (logits, target) = (TensorRef::try_from(logits.view())?, TensorRef::try_from(&target)?);
/// let out = CrossEntropy::default().forward(&Device::cpu(), logits, target)?;
/// assert!(out.loss.item()? > 0.0);
///
/// let turned = array![[0, 1], [2, 3]].reversed_axes();
/// assert!(TensorRef::try_from(&turned).is_err());
/// assert_eq!(Tensor::try_from(turned.view())?.as_slice(), Some(&[0, 2, 1, 3][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
impl<'a, T: Element, D: Dimension> TryFrom<ArrayView<'a, T, D>> for TensorRef<'a> {
    type Error = Error;

    fn try_from(array: ArrayView<'a, T, D>) -> Result<Self> {
        match array.to_slice() {
            Some(data) => TensorRef::new(data, array.shape()),
            None => Err(not_standard(array.shape(), array.strides())),
        }
    }
}

/// As of its view.
impl<'a, T, S, D> TryFrom<&'a ArrayBase<S, D>> for TensorRef<'a>
where
    T: Element,
    S: Data<Elem = T>,
    D: Dimension,
{
    type Error = Error;

    fn try_from(array: &'a ArrayBase<S, D>) -> Result<Self> {
        TensorRef::try_from(array.view())
    }
}

/// An array in standard layout, as it lies, to be written (feature `ndarray`).
///
/// ```
/// use ndarray::Array3;
/// use warploss::TensorMut;
///
/// let mut grad = Array3::<f32>::zeros((2, 5, 4));
/// assert_eq!(*TensorMut::try_from(&mut grad)?.shape(), [2, 5, 4]);
/// # Ok::<(), warploss::Error>(())
/// ```
impl<'a, T: Element, D: Dimension> TryFrom<ArrayViewMut<'a, T, D>> for TensorMut<'a> {
    type Error = Error;

    fn try_from(array: ArrayViewMut<'a, T, D>) -> Result<Self> {
        if !array.is_standard_layout() {
            return Err(not_standard(array.shape(), array.strides()));
        }
        let shape = array.raw_dim();
        // In standard layout there always is a slice; of none a shape would be an error.
        TensorMut::new(array.into_slice().unwrap_or_default(), shape.slice())
    }
}

/// As of its view.
impl<'a, T, S, D> TryFrom<&'a mut ArrayBase<S, D>> for TensorMut<'a>
where
    T: Element,
    S: DataMut<Elem = T>,
    D: Dimension,
{
    type Error = Error;

    fn try_from(array: &'a mut ArrayBase<S, D>) -> Result<Self> {
        TensorMut::try_from(array.view_mut())
    }
}

/// A copy of an array of any layout (feature `ndarray`).
impl<T: Element, D: Dimension> TryFrom<ArrayView<'_, T, D>> for Tensor {
    type Error = Error;

    fn try_from(array: ArrayView<'_, T, D>) -> Result<Self> {
        let mut data = Vec::new();
        let bytes = array.len().saturating_mul(size_of::<T>());
        data.try_reserve_exact(array.len()).map_err(|_| Error::no_memory("array", bytes))?;
        data.extend(array.iter().copied());
        Tensor::from_vec(data, array.shape())
    }
}

/// An array's own memory (feature `ndarray`), without a copy where it is in standard layout;
/// [`Tensor::into_vec`] and `Array::from_shape_vec` give it back.
///
/// ```
/// use ndarray::Array2;
/// use warploss::Tensor;
///
/// let logits = Tensor::try_from(Array2::<f32>::zeros((2, 3)))?;
/// let back = Array2::from_shape_vec((2, 3), logits.into_vec::<f32>()?);
/// assert!(back.is_ok());
/// # Ok::<(), warploss::Error>(())
/// ```
impl<T: Element, D: Dimension> TryFrom<Array<T, D>> for Tensor {
    type Error = Error;

    fn try_from(array: Array<T, D>) -> Result<Self> {
        if !array.is_standard_layout() {
            return Tensor::try_from(array.view());
        }
        let (shape, n) = (array.shape().to_vec(), array.len());
        let (mut data, offset) = array.into_raw_vec_and_offset();
        // An array may have been cut out of its memory.
        let first = offset.unwrap_or(0);
        data.truncate(first + n);
        data.drain(..first);
        Tensor::from_vec(data, &shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array0, Array1, Array2, Array4, ArrayD, IxDyn, arr0, s};

    fn counted(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| (i * columns + j) as f32)
    }

    #[test]
    fn arrays_of_any_dimension_are_taken_as_they_lie() {
        let number: Array0<i64> = arr0(3);
        assert_eq!(TensorRef::try_from(&number).unwrap().to_f64().unwrap(), [3.0]);
        let array = Array4::<u8>::ones((2, 1, 3, 4));
        let view = TensorRef::try_from(&array).unwrap();
        assert_eq!((&*view.shape(), view.host::<u8>()), (array.shape(), array.as_slice()));
        let dynamic = ArrayD::<half::bf16>::zeros(IxDyn(&[1; 8]));
        assert_eq!(TensorRef::try_from(&dynamic).unwrap().rank(), 8);
        let said = TensorRef::try_from(&ArrayD::<f32>::zeros(IxDyn(&[1; 9]))).map(|v| v.rank());
        assert!(matches!(said, Err(Error::Rank { got: 9, .. })), "{said:?}");
        for empty in [[0, 3], [3, 0]] {
            let empty = Array2::<f32>::zeros(empty);
            assert_eq!(TensorRef::try_from(empty.t()).unwrap().elements(), 0);
        }
        // Rows of a matrix are in one piece; a row, a single column and a row of many steps too.
        let matrix = counted(4, 3);
        let rows = TensorRef::try_from(matrix.slice(s![1..3, ..])).unwrap();
        assert_eq!(rows.to_f64().unwrap(), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn other_layouts_are_refused_in_words_and_copied_on_request() {
        let matrix = counted(3, 4);
        let others = [
            matrix.t(),
            matrix.slice(s![.., ..3]),
            matrix.slice(s![..;-1, ..]),
            matrix.slice(s![.., ..;2]),
        ];
        for view in others {
            let said = TensorRef::try_from(view).unwrap_err().to_string();
            let strides = format!("{:?}", view.strides());
            assert!(said.contains("standard layout") && said.contains(&strides), "{said}");
            let copy = Tensor::try_from(view).unwrap();
            assert_eq!(&*copy.shape(), view.shape());
            let expected: Vec<f32> = view.iter().copied().collect();
            assert_eq!(copy.as_slice(), Some(&expected[..]));
        }
    }

    /// Two views of one matrix, a half each, must not become slices that overlap.
    #[test]
    fn halves_of_a_matrix_are_refused() {
        let mut matrix = counted(3, 4);
        let (left, right) = matrix.view_mut().split_at(ndarray::Axis(1), 2);
        assert!(TensorMut::try_from(left).is_err());
        assert!(TensorMut::try_from(right).is_err());
        assert!(TensorMut::try_from(matrix.slice_mut(s![1.., ..])).is_ok());
    }

    #[test]
    fn an_arrays_memory_is_taken_and_given_back() {
        let array = counted(2, 3);
        let address = array.as_ptr();
        let back = Tensor::try_from(array).unwrap().into_vec::<f32>().unwrap();
        assert_eq!(back.as_ptr(), address);
        let cut = counted(4, 3).slice_move(s![1..3, ..]);
        assert_eq!(
            Tensor::try_from(cut).unwrap().as_slice(),
            Some(&[3.0f32, 4.0, 5.0, 6.0, 7.0, 8.0][..])
        );
        let column = counted(2, 3).slice_move(s![.., 1]);
        assert_eq!(Tensor::try_from(column).unwrap().as_slice(), Some(&[1.0f32, 4.0][..]));
        let none = Array1::<f32>::zeros(0);
        assert_eq!(Tensor::try_from(none).unwrap().as_slice::<f32>(), Some(&[][..]));
        let mut written = counted(2, 2);
        let data = TensorMut::try_from(&mut written).unwrap().into_host::<f32>().unwrap();
        data.fill(7.0);
        assert!(written.iter().all(|&x| x == 7.0));
    }
}
