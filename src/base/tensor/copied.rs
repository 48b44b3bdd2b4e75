//! Tensors that are copies of what a view cannot have: of any strides, at any address.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::{Element, with_dtype};
use crate::base::tensor::owned::Tensor;
use crate::base::tensor::strides::Strided;

impl Tensor {
    /// A copy, in one piece, of elements that lie `strides` apart from `data[0]` on: transposed
    /// ones, repeated ones (a stride of 0), every other one.
    ///
    /// ```
    /// use warploss::Tensor;
    ///
    /// let matrix = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
    /// let transposed = Tensor::copy_strided(&matrix, &[3, 2], &[1, 3])?;
    /// assert_eq!(transposed.as_slice(), Some(&[1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0][..]));
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] where an element would lie outside of `data`, or there are not as many
    /// strides as sizes; [`Error::Rank`], [`Error::OutOfMemory`].
    pub fn copy_strided<T: Element>(
        data: &[T],
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Tensor> {
        let (strided, _) = Strided::check(shape, Some(strides), T::DTYPE.size())?;
        let strided = strided.within(data.len())?;
        // SAFETY: `within` keeps every offset inside of `data`.
        unsafe { copy(T::DTYPE, data.as_ptr().cast(), &strided) }
    }

    /// As [`Tensor::copy_strided`], of bytes, which may begin at any address; in one piece where
    /// there are no strides. They are in elements.
    ///
    /// ```
    /// use warploss::{DType, Tensor};
    ///
    /// let file = [0xff, 1, 0, 2, 0]; // After a first byte, two numbers.
    /// let ids = Tensor::copy_bytes(DType::F16, &file[1..], &[2], None)?;
    /// assert_eq!(ids.as_slice::<warploss::f16>().map(|ids| ids[1].to_bits()), Some(2));
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn copy_bytes(
        dtype: DType,
        bytes: &[u8],
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Tensor> {
        let (strided, _) = Strided::check(shape, strides, dtype.size())?;
        let strided = strided.within(bytes.len() / dtype.size())?;
        // SAFETY: `within` keeps every offset inside of `bytes`.
        unsafe { copy(dtype, bytes.as_ptr(), &strided) }
    }

    /// As [`Tensor::copy_bytes`], from the address of the element of index 0: strides may be
    /// negative too. Of no elements the address may be null.
    ///
    /// ```
    /// use warploss::{DType, Tensor};
    ///
    /// let numbers = [1i64, 2, 3];
    /// let last = (&raw const numbers[2]).cast();
    /// // SAFETY: three numbers lie backwards from there.
    /// let turned = unsafe { Tensor::copy_raw_parts(DType::I64, last, &[3], Some(&[-1]))? };
    /// assert_eq!(turned.as_slice(), Some(&[3i64, 2, 1][..]));
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Safety
    /// Every element that shape and strides name is initialised memory of one allocation, which
    /// nobody writes meanwhile. It need not be aligned.
    ///
    /// # Errors
    /// As there; [`Error::Value`] where the address is null.
    pub unsafe fn copy_raw_parts(
        dtype: DType,
        data: *const u8,
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Tensor> {
        let (strided, whole) = Strided::check(shape, strides, dtype.size())?;
        if data.is_null() && whole.reach() > 0 {
            let expected = format!("the address of {} numbers", whole.reach());
            return Err(Error::Value { argument: "data", expected, got: "null".into() });
        }
        // SAFETY: the caller vouches for every element.
        unsafe { copy(dtype, data, &strided) }
    }
}

/// # Safety
/// Every element of `strided` lies, initialised, where it says from `from` on.
unsafe fn copy(dtype: DType, from: *const u8, strided: &Strided) -> Result<Tensor> {
    let mut tensor = Tensor::zeros_for("tensor", dtype, strided.shape())?;
    with_dtype!(dtype, T => if let Some(to) = tensor.as_mut_slice::<T>() {
        // SAFETY: as the caller vouches.
        unsafe { gather(from, strided, to) };
    });
    Ok(tensor)
}

/// Fills `to` line by line along the last dimension.
///
/// # Safety
/// As [`copy`]; `to` has as many elements, which lie elsewhere.
unsafe fn gather<T: Element>(from: *const u8, strided: &Strided, to: &mut [T]) {
    let (n, stride) = strided.last();
    let size = size_of::<T>() as isize;
    // Of no elements there is no line.
    for (i, line) in to.chunks_exact_mut(n.max(1)).enumerate() {
        // SAFETY: the first element of a line is one that the caller vouches for; no offset of one
        // exceeds an isize in bytes, as `Strided::check` found.
        let first = unsafe { from.offset(strided.line(i) * size) };
        if stride == 1 {
            // SAFETY: n elements follow one another there, and `line` has room for them.
            unsafe { first.copy_to_nonoverlapping(line.as_mut_ptr().cast(), size_of_val(line)) };
            continue;
        }
        for (j, to) in line.iter_mut().enumerate() {
            // SAFETY: element j of the line is the caller's; any bits are a number, and an
            // unaligned read asks for no alignment.
            *to = unsafe { first.offset(j as isize * stride * size).cast::<T>().read_unaligned() };
        }
    }
}
