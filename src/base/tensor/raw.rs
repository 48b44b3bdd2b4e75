//! Views of memory that comes untyped: bytes, or an address, with a dtype and strides.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::{Element, HostMut, HostRef, with_dtype};
use crate::base::tensor::layout::Layout;
use crate::base::tensor::memory::{Exclusive, Shared};
use crate::base::tensor::strides::Strided;
use crate::base::tensor::view::{TensorMut, TensorRef};

/// The layout of a view at an address, of so many elements where that is known.
///
/// # Errors
/// What a view cannot be: of overlapping rows or strided ones, of an address that is null or not
/// aligned where there are elements, of more than there are, or than an allocation can hold.
fn layout(
    dtype: DType,
    address: *const u8,
    len: Option<usize>,
    (shape, strides): (&[usize], Option<&[isize]>),
) -> Result<Layout> {
    let (strided, _) = Strided::check(shape, strides, dtype.size())?;
    let row_stride = strided.row_stride()?;
    let layout = Layout::check(shape, Some(row_stride), len.unwrap_or(usize::MAX))?;
    let align = with_dtype!(dtype, T => align_of::<T>());
    if layout.reach() > 0 && (address.is_null() || !address.addr().is_multiple_of(align)) {
        return Err(Error::Value {
            argument: "data",
            expected: format!(
                "an address that is a multiple of {align}, as {dtype} has it (Tensor::copy_bytes \
                 and copy_raw_parts take others)"
            ),
            got: if address.is_null() { "null".into() } else { format!("{address:?}") },
        });
    }
    Ok(layout)
}

impl<'a> TensorRef<'a> {
    /// A view of elements that lie `strides` apart, a distance for each dimension: all but the
    /// first have to be those of elements in one piece.
    ///
    /// ```
    /// use warploss::{Tensor, TensorRef};
    ///
    /// let padded = [1.0f32, 2.0, 0.0, 3.0, 4.0, 0.0];
    /// let rows = TensorRef::with_strides(&padded, &[2, 2], &[3, 1])?;
    /// assert_eq!(rows.row_stride(), 3);
    /// // Columns that lie apart are not what a view can have: a copy can.
    /// assert!(TensorRef::with_strides(&padded, &[2, 2], &[1, 3]).is_err());
    /// let copy = Tensor::copy_strided(&padded, &[2, 2], &[1, 3])?;
    /// assert_eq!(copy.as_slice(), Some(&[1.0f32, 3.0, 2.0, 4.0][..]));
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] for other strides, overlapping rows among them; as [`TensorRef::new`].
    pub fn with_strides<T: Element>(
        data: &'a [T],
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Self> {
        let address = data.as_ptr().cast();
        let layout = layout(T::DTYPE, address, Some(data.len()), (shape, Some(strides)))?;
        Ok(TensorRef { memory: Shared::Host(T::host_ref(data)), layout })
    }

    /// A view of bytes as elements of `dtype`, `strides` apart (as [`TensorRef::with_strides`]; in
    /// elements) or, where there are none, in one piece. More bytes than are needed may follow.
    ///
    /// ```
    /// use warploss::{DType, TensorRef};
    ///
    /// let numbers = [1i32, 2, 3, 4].map(i32::to_ne_bytes);
    /// // A byte's address may be any; this one may not be a number's.
    /// if let Ok(view) = TensorRef::from_bytes(DType::I32, numbers.as_flattened(), &[2, 2], None) {
    ///     assert_eq!(view.to_f64()?, [1.0, 2.0, 3.0, 4.0]);
    /// }
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TensorRef::with_strides`]; [`Error::Value`] where the bytes are not aligned for
    /// `dtype`, as a file's may be: [`Tensor::copy_bytes`](crate::Tensor::copy_bytes) takes any.
    pub fn from_bytes(
        dtype: DType,
        bytes: &'a [u8],
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Self> {
        let len = bytes.len() / dtype.size();
        let layout = layout(dtype, bytes.as_ptr(), Some(len), (shape, strides))?;
        // SAFETY: `layout` found the address aligned, and the bytes that it reaches are lent for
        // `'a`; every bit pattern is a number.
        let host = unsafe { HostRef::from_raw(dtype, bytes.as_ptr(), layout.reach()) };
        Ok(TensorRef { memory: Shared::Host(host), layout })
    }

    /// A view of host memory at an address, which is that of the element of index 0: what another
    /// library's tensor says of itself, in one call. `strides` as in [`TensorRef::from_bytes`]. Of
    /// no elements the address may be null.
    ///
    /// ```
    /// use warploss::{DType, TensorRef};
    ///
    /// let theirs = [1.0f32, 2.0, 0.0, 3.0, 4.0, 0.0]; // Rows of two, padded to three.
    /// let address = theirs.as_ptr().cast();
    /// // SAFETY: the rows lie there, `theirs` outlives the view, and nobody writes it.
    /// let rows = unsafe {
    ///     TensorRef::from_raw_parts(DType::F32, address, &[2, 2], Some(&[3, 1]))?
    /// };
    /// assert_eq!(rows.to_f64()?, [1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Safety
    /// From the first element to the last, what lies between rows included, it is memory of one
    /// allocation that holds initialised numbers, and during `'a` it is neither freed nor written,
    /// by anybody.
    ///
    /// # Errors
    /// As [`TensorRef::with_strides`]; [`Error::Value`] where the address is null or not aligned.
    pub unsafe fn from_raw_parts(
        dtype: DType,
        data: *const u8,
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Self> {
        let layout = layout(dtype, data, None, (shape, strides))?;
        // SAFETY: the caller vouches for the memory that the layout reaches; that the address is
        // aligned, and that no more bytes are reached than an allocation can have, was checked.
        let host = unsafe { HostRef::from_raw(dtype, data, layout.reach()) };
        Ok(TensorRef { memory: Shared::Host(host), layout })
    }
}

impl<'a> TensorMut<'a> {
    /// As [`TensorRef::with_strides`], to be written; what lies between rows never is.
    ///
    /// ```
    /// use warploss::TensorMut;
    ///
    /// let mut padded = [0f32; 6];
    /// assert!(TensorMut::with_strides(&mut padded, &[2, 2], &[3, 1]).is_ok());
    /// // Rows that lie on one another would be written twice.
    /// assert!(TensorMut::with_strides(&mut padded, &[2, 2], &[0, 1]).is_err());
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn with_strides<T: Element>(
        data: &'a mut [T],
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Self> {
        let address = data.as_ptr().cast();
        let layout = layout(T::DTYPE, address, Some(data.len()), (shape, Some(strides)))?;
        Ok(TensorMut { memory: Exclusive::Host(T::host_mut(data)), layout })
    }

    /// As [`TensorRef::from_bytes`], to be written.
    ///
    /// ```
    /// use warploss::{DType, TensorMut};
    ///
    /// let mut labels = [0u8; 6];
    /// let view = TensorMut::from_bytes(DType::U8, &mut labels, &[2, 3], None)?;
    /// assert_eq!(view.elements(), 6);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn from_bytes(
        dtype: DType,
        bytes: &'a mut [u8],
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Self> {
        let len = bytes.len() / dtype.size();
        let layout = layout(dtype, bytes.as_ptr(), Some(len), (shape, strides))?;
        // SAFETY: `layout` found the address aligned, and the bytes that it reaches are lent for
        // `'a` alone; every bit pattern is a number, and every number is bytes.
        let host = unsafe { HostMut::from_raw(dtype, bytes.as_mut_ptr(), layout.reach()) };
        Ok(TensorMut { memory: Exclusive::Host(host), layout })
    }

    /// As [`TensorRef::from_raw_parts`], to be written.
    ///
    /// ```
    /// use warploss::{DType, TensorMut};
    ///
    /// let mut theirs = [0f32; 6];
    /// let address = theirs.as_mut_ptr().cast();
    /// // SAFETY: the elements lie there, and nobody else touches them while the view is used.
    /// let view = unsafe { TensorMut::from_raw_parts(DType::F32, address, &[2, 3], None)? };
    /// assert_eq!(view.elements(), 6);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Safety
    /// As there, and nobody else reads or writes any of the memory during `'a`, what lies between
    /// rows included: two views of the left and the right half of one matrix are too many.
    ///
    /// # Errors
    /// As there.
    pub unsafe fn from_raw_parts(
        dtype: DType,
        data: *mut u8,
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Self> {
        let layout = layout(dtype, data, None, (shape, strides))?;
        // SAFETY: as for the shared view, and the caller vouches that the memory is nobody else's.
        let host = unsafe { HostMut::from_raw(dtype, data, layout.reach()) };
        Ok(TensorMut { memory: Exclusive::Host(host), layout })
    }
}
