//! Views as a kernel sees them: device memory as it is, host memory through a copy.

use super::Cuda;
use super::pool::Block;
use crate::memory::{HostMut, HostRef, each_dtype};
use crate::{DType, Result, Shape, TensorMut, TensorRef};

/// A tensor that kernels read.
#[derive(Debug)]
pub(crate) struct Input<'p> {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) row_stride: usize,
    _copy: Option<Block<'p>>,
}

/// A tensor that kernels write, and that goes back to the host where it came from there.
#[derive(Debug)]
pub(crate) struct Output<'a, 'p> {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) row_stride: usize,
    back: Option<(HostMut<'a>, Block<'p>)>,
}

/// Byte ranges of a tensor's rows (one range where they are contiguous), padding left out.
fn ranges(
    shape: &Shape,
    row_stride: usize,
    size: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let row: usize = shape.iter().skip(1).product();
    let rows = shape.first().copied().unwrap_or(1);
    let (rows, row, stride) = match row_stride == row || rows == 1 {
        true => (1, rows * row, 0),
        false => (rows, row, row_stride),
    };
    let rows = if row == 0 { 0 } else { rows };
    (0..rows).map(move |r| r * stride * size..(r * stride + row) * size)
}

/// Bytes from a tensor's first element to its last.
fn reach(shape: &Shape, row_stride: usize, size: usize) -> usize {
    ranges(shape, row_stride, size).last().map_or(0, |range| range.end)
}

impl Cuda {
    /// A tensor to read; host memory is copied.
    pub(crate) fn input<'p>(
        &'p self,
        argument: &'static str,
        tensor: TensorRef<'_>,
    ) -> Result<Input<'p>> {
        let (dtype, shape, row_stride) = (tensor.dtype(), tensor.shape(), tensor.row_stride());
        let (address, copy) = match (tensor.host_data(), tensor.device()) {
            (Some(host), _) => {
                let block = self.pool.take(argument, reach(&shape, row_stride, dtype.size()))?;
                self.copy_in(&block, host.bytes(), &shape, row_stride, dtype)?;
                (block.address(), Some(block))
            }
            (None, span) => (span.map_or(0, |s| s.address), None),
        };
        Ok(Input { address, dtype, shape, row_stride, _copy: copy })
    }

    /// A tensor to write; `read` where its contents are read as well.
    pub(crate) fn output<'a, 'p>(
        &'p self,
        argument: &'static str,
        tensor: TensorMut<'a>,
        read: bool,
    ) -> Result<Output<'a, 'p>> {
        let (dtype, shape, row_stride) = (tensor.dtype(), tensor.shape(), tensor.row_stride());
        let span = tensor.as_ref().device();
        let Some(mut host) = tensor.into_host_data() else {
            let address = span.map_or(0, |s| s.address);
            return Ok(Output { address, dtype, shape, row_stride, back: None });
        };
        let block = self.pool.take(argument, reach(&shape, row_stride, dtype.size()))?;
        if read {
            self.copy_in(&block, host.bytes_mut(), &shape, row_stride, dtype)?;
        }
        let address = block.address();
        Ok(Output { address, dtype, shape, row_stride, back: Some((host, block)) })
    }

    fn copy_in(
        &self,
        block: &Block<'_>,
        bytes: &[u8],
        shape: &Shape,
        row_stride: usize,
        dtype: DType,
    ) -> Result<()> {
        for range in ranges(shape, row_stride, dtype.size()) {
            // SAFETY: the block reaches as far as the tensor's last row.
            unsafe {
                self.driver.copy_in(block.address() + range.start as u64, &bytes[range])?;
            }
        }
        Ok(())
    }

    /// Errors that kernels found, if a result goes to the host now; then copies the results.
    pub(crate) fn read_back<const N: usize>(
        &self,
        outputs: [Option<Output<'_, '_>>; N],
    ) -> Result<()> {
        if outputs.iter().flatten().any(|o| o.back.is_some()) {
            self.status.check()?;
        }
        for output in outputs.into_iter().flatten() {
            let Some((mut host, block)) = output.back else { continue };
            let bytes = host.bytes_mut();
            for range in ranges(&output.shape, output.row_stride, output.dtype.size()) {
                let from = block.address() + range.start as u64;
                // SAFETY: the block reaches as far as the tensor's last row, and kernels that
                // have written all of it are on the stream.
                unsafe { self.driver.copy_out(&mut bytes[range], from)? };
            }
        }
        Ok(())
    }
}

impl<'a> HostRef<'a> {
    fn bytes(self) -> &'a [u8] {
        // SAFETY: every element type is plain numbers, which are initialised bytes.
        each_dtype!(HostRef, self, s => unsafe {
            std::slice::from_raw_parts(s.as_ptr().cast(), size_of_val(s))
        })
    }
}

impl HostMut<'_> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: every element type is plain numbers, for which any bytes will do.
        each_dtype!(HostMut, self, s => unsafe {
            std::slice::from_raw_parts_mut(s.as_mut_ptr().cast(), size_of_val(*s))
        })
    }
}
