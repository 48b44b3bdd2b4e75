//! Views as a kernel sees them: device memory as it is, host memory through a copy.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::HostMut;
use crate::base::shape::Shape;
use crate::base::tensor::buffer::{Debt, DeviceMemory, DeviceMut, DeviceRef, Lease, unshared};
use crate::base::tensor::{Exclusive, Shared, TensorMut, TensorRef};
use crate::cuda::driver::elsewhere;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::pool::Block;
use crate::cuda::stream::staging::HostRows;

/// A tensor that kernels read. Lives until all launches that read it are on the stream.
#[derive(Debug)]
pub(crate) struct Input<'p> {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    /// Elements between rows, on the device.
    pub(crate) row_stride: usize,
    _copy: Option<Block<'p>>,
    _debt: Option<Box<dyn Debt + 'p>>,
}

/// A tensor that kernels write, and that goes back to the host where it came from there.
#[derive(Debug)]
pub(crate) struct Output<'a, 'p> {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    /// Elements between rows, on the device.
    pub(crate) row_stride: usize,
    back: Option<Back<'a, 'p>>,
    _debt: Option<Box<dyn Debt + 'a>>,
}

#[derive(Debug)]
struct Back<'a, 'p> {
    host: HostMut<'a>,
    rows: HostRows,
    block: Block<'p>,
}

/// Elements between rows without padding.
fn row(shape: &Shape) -> usize {
    shape.iter().skip(1).product()
}

impl Cuda {
    /// A tensor to read; host memory is copied.
    pub(crate) fn input<'p>(
        &'p self,
        argument: &'static str,
        tensor: TensorRef<'p>,
    ) -> Result<Input<'p>> {
        let (dtype, shape, row_stride) = (tensor.dtype(), tensor.shape(), tensor.row_stride());
        let device = match tensor.memory() {
            Shared::Device(device) => device,
            Shared::Host(host) => {
                let rows = HostRows::new(&shape, row_stride, dtype.size());
                let block = self.pool.take(argument, rows.bytes())?;
                // SAFETY: the block is this call's and holds the rows.
                unsafe { self.staging.send(block.address(), host.bytes(), rows)? };
                let address = block.address();
                let (copy, row_stride) = (Some(block), row(&shape));
                return Ok(Input { address, dtype, shape, row_stride, _copy: copy, _debt: None });
            }
        };
        let Lease { address, debt } = match device {
            DeviceRef::Raw(memory) => self.raw(argument, memory)?,
            DeviceRef::Buffer(buffer) => buffer.read(argument, &self.driver)?,
        };
        Ok(Input { address, dtype, shape, row_stride, _copy: None, _debt: debt })
    }

    /// A tensor to write; `read` where its contents are read as well.
    pub(crate) fn output<'a, 'p: 'a>(
        &'p self,
        argument: &'static str,
        tensor: TensorMut<'a>,
        read: bool,
    ) -> Result<Output<'a, 'p>> {
        let (dtype, shape, row_stride) = (tensor.dtype(), tensor.shape(), tensor.row_stride());
        let device = match tensor.into_memory() {
            Exclusive::Device(device) => device,
            Exclusive::Host(mut host) => {
                self.to_host.set(true);
                let rows = HostRows::new(&shape, row_stride, dtype.size());
                let block = self.pool.take(argument, rows.bytes())?;
                let address = block.address();
                if read {
                    // SAFETY: the block is this call's and holds the rows.
                    unsafe { self.staging.send(address, host.bytes_mut(), rows)? };
                }
                let back = Some(Back { host, rows, block });
                let row_stride = row(&shape);
                return Ok(Output { address, dtype, shape, row_stride, back, _debt: None });
            }
        };
        let Lease { address, debt } = match device {
            DeviceMut::Raw(memory) => self.raw(argument, memory)?,
            DeviceMut::Owned(buffer) => {
                unshared(buffer, argument)?.write(argument, &self.driver)?
            }
            DeviceMut::Borrowed(buffer) => buffer.into_mut().write(argument, &self.driver)?,
        };
        Ok(Output { address, dtype, shape, row_stride, back: None, _debt: debt })
    }

    /// The caller's memory, in the caller's order.
    fn raw(&self, argument: &'static str, memory: DeviceMemory) -> Result<Lease<'static>> {
        match memory.ordinal == self.driver.ordinal() {
            true => Ok(Lease { address: memory.address, debt: None }),
            false => Err(elsewhere(argument)),
        }
    }

    /// Errors that kernels found, if a result goes to the host now; then copies the results.
    pub(crate) fn read_back<'a, 'p>(
        &self,
        outputs: impl IntoIterator<Item = Option<Output<'a, 'p>>>,
    ) -> Result<()> {
        if self.to_host.get() {
            self.check_call()?;
        }
        for output in outputs.into_iter().flatten() {
            let Some(Back { mut host, rows, block }) = output.back else { continue };
            // SAFETY: the block holds the rows, and kernels that write all of them are on the
            // stream.
            unsafe { self.staging.receive(host.bytes_mut(), block.address(), rows)? };
        }
        Ok(())
    }

    /// Numbers that kernels counted, each at most `most`: waits for them, but takes them all for
    /// `most` while the stream is captured.
    ///
    /// # Safety
    /// So many numbers (i64) at the address are initialised.
    pub(crate) unsafe fn numbers(&self, address: u64, n: usize, most: usize) -> Result<Vec<usize>> {
        if self.driver.capturing()? {
            return Ok(vec![most; n]);
        }
        let mut bytes = vec![0u8; 8 * n];
        // SAFETY: n numbers of 8 bytes at the address are initialised, by kernels that are on the
        // stream: the caller's promise.
        unsafe { self.driver.copy_out(&mut bytes, address)? };
        let number = |b: &[u8; 8]| usize::try_from(i64::from_ne_bytes(*b)).unwrap_or(0).min(most);
        Ok(bytes.as_chunks::<8>().0.iter().map(number).collect())
    }
}
