//! Views as a kernel sees them: device memory as it is, host memory through a copy.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::HostMut;
use crate::base::shape::Shape;
use crate::base::tensor::buffer::{DeviceMemory, DeviceMut, DeviceRef};
use crate::base::tensor::{Exclusive, Shared, TensorMut, TensorRef};
use crate::cuda::driver::Driver;
#[cfg(feature = "cuda")]
use crate::cuda::real::slices::Events;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::pool::Block;
use crate::cuda::stream::resident::Resident;
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
    _order: Order<'p>,
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
    _order: Order<'a>,
}

#[derive(Debug)]
struct Back<'a, 'p> {
    host: HostMut<'a>,
    rows: HostRows,
    block: Block<'p>,
}

/// What is owed to others that use the same memory, once a call's launches are on the stream.
#[derive(Debug)]
pub(crate) enum Order<'p> {
    /// Nothing: the memory is used on this stream alone, or the caller sees to it.
    None,
    /// The owner's stream waits for the user's.
    Streams { owner: &'p dyn Driver, user: &'p dyn Driver },
    /// cudarc's events are recorded.
    #[cfg(feature = "cuda")]
    Events { _events: Events<'p> },
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        if let Order::Streams { owner, user } = self {
            // A stream that cannot be made to wait has failed; its next call says so.
            let _ = owner.after(*user);
        }
    }
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
                return Ok(Input {
                    address,
                    dtype,
                    shape,
                    row_stride,
                    _copy: copy,
                    _order: Order::None,
                });
            }
        };
        let (address, order) = match device {
            DeviceRef::Raw(memory) => (self.raw(argument, memory)?, Order::None),
            DeviceRef::Owned(resident) => self.owned(argument, resident)?,
            #[cfg(feature = "cuda")]
            DeviceRef::Slice(slice) => {
                let (address, events) = slice.begin(argument, self.driver.real())?;
                (address, Order::Events { _events: events })
            }
            #[cfg(not(feature = "cuda"))]
            DeviceRef::Slice(slice) => (slice.len() as u64, Order::None),
        };
        Ok(Input { address, dtype, shape, row_stride, _copy: None, _order: order })
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
                return Ok(Output { address, dtype, shape, row_stride, back, _order: Order::None });
            }
        };
        let (address, order) = match device {
            DeviceMut::Raw(memory) => (self.raw(argument, memory)?, Order::None),
            DeviceMut::Owned(resident) => {
                Resident::unshare(resident, argument)?;
                self.owned(argument, resident)?
            }
            #[cfg(feature = "cuda")]
            DeviceMut::Slice(slice) => {
                let (address, events) = slice.begin(argument, self.driver.real())?;
                (address, Order::Events { _events: events })
            }
            #[cfg(not(feature = "cuda"))]
            DeviceMut::Slice(slice) => (slice.as_ref().len() as u64, Order::None),
        };
        Ok(Output { address, dtype, shape, row_stride, back: None, _order: order })
    }

    /// The caller's memory, in the caller's order.
    fn raw(&self, argument: &'static str, memory: DeviceMemory) -> Result<u64> {
        match memory.ordinal == self.driver.ordinal() {
            true => Ok(memory.address),
            false => Err(elsewhere(argument)),
        }
    }

    /// A tensor's memory, from now on in order on this stream.
    fn owned<'p>(
        &'p self,
        argument: &'static str,
        resident: &'p Resident,
    ) -> Result<(u64, Order<'p>)> {
        let owner = &*resident.stream().driver;
        let user = &*self.driver;
        if std::ptr::addr_eq(owner, user) {
            return Ok((resident.address(), Order::None));
        }
        if owner.space() != user.space() {
            return Err(elsewhere(argument));
        }
        if owner.capturing()? || user.capturing()? {
            let reason = format!(
                "{argument}: memory of another stream, while a stream is captured into a graph"
            );
            return Err(Error::Device { reason });
        }
        user.after(owner)?;
        Ok((resident.address(), Order::Streams { owner, user }))
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
}

/// Memory that is not this device's.
pub(crate) fn elsewhere(argument: &'static str) -> Error {
    Error::Place { argument, expected: "this device's", got: "another device's" }
}
