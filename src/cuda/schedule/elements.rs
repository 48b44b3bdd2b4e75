//! The tensors of an elementwise loss: where they lie over the shape that they broadcast to, and
//! which of them come and go block by block.

pub(crate) mod parts;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::{MAX_RANK, Shape};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::ElementwiseArgs;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::{ReadRows, WriteRows};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::broadcast::strides;
use crate::spec::elementwise::{OPERANDS, Operand, Space, Strides};

/// A tensor of a call: on the device as a whole, or coming and going block by block.
pub(crate) enum Named<W, B> {
    Whole(W),
    Blocks(B),
}

pub(crate) type NamedInput<'p> = Named<Input<'p>, ReadRows<'p>>;
pub(crate) type NamedOutput<'a, 'p> = Named<Output<'a, 'p>, WriteRows<'a, 'p>>;

/// Which tensors come block by block: those on the host that have an element for each of the result.
pub(crate) struct Naming<'p> {
    pub(crate) cuda: &'p Cuda,
    pub(crate) elements: usize,
    /// None does.
    pub(crate) whole: bool,
}

impl<'p> Naming<'p> {
    fn by_blocks(&self, tensor: &TensorRef<'_>) -> bool {
        !self.whole && tensor.host_data().is_some() && tensor.elements() == self.elements
    }

    pub(crate) fn input(
        &self,
        argument: &'static str,
        tensor: TensorRef<'p>,
    ) -> Result<NamedInput<'p>> {
        Ok(match self.by_blocks(&tensor) {
            true => Named::Blocks(self.cuda.read_rows(argument, tensor, |_| false)?),
            false => Named::Whole(self.cuda.input(argument, tensor)?),
        })
    }

    pub(crate) fn output<'a>(
        &self,
        argument: &'static str,
        tensor: TensorMut<'a>,
        read: bool,
    ) -> Result<NamedOutput<'a, 'p>>
    where
        'p: 'a,
    {
        Ok(match self.by_blocks(&tensor.as_ref()) {
            true => Named::Blocks(self.cuda.write_rows(argument, tensor, read, |_| false)?),
            false => Named::Whole(self.cuda.output(argument, tensor, read)?),
        })
    }
}

/// A tensor as kernels see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// 0: it comes block by block.
    pub(crate) address: u64,
    pub(crate) kind: u32,
    pub(crate) shape: Shape,
    pub(crate) row_stride: usize,
}

impl Seen {
    pub(crate) fn whole(input: &Input<'_>) -> Seen {
        let &Input { address, dtype, shape, row_stride, .. } = input;
        Seen { address, kind: args::kind(dtype), shape, row_stride }
    }

    /// One that comes block by block, without padding.
    fn packed(dtype: DType, shape: &Shape) -> Seen {
        let row_stride = shape.iter().skip(1).product();
        Seen { address: 0, kind: args::kind(dtype), shape: *shape, row_stride }
    }
}

impl NamedInput<'_> {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Named::Whole(t) => t.dtype,
            Named::Blocks(rows) => rows.dtype,
        }
    }

    pub(crate) fn seen(&self, all: &Shape) -> Seen {
        match self {
            Named::Whole(input) => Seen::whole(input),
            Named::Blocks(rows) => Seen::packed(rows.dtype, all),
        }
    }
}

impl NamedOutput<'_, '_> {
    pub(crate) fn seen(&self, all: &Shape) -> Seen {
        match self {
            Named::Whole(Output { address, dtype, shape, row_stride, .. }) => {
                let kind = args::kind(*dtype);
                Seen { address: *address, kind, shape: *shape, row_stride: *row_stride }
            }
            Named::Blocks(rows) => Seen::packed(rows.dtype, all),
        }
    }
}

/// The operands of a call, those that it has.
pub(crate) struct Tensors(pub(crate) [Option<Seen>; OPERANDS]);

impl Tensors {
    pub(crate) fn get(&self, operand: Operand) -> Option<&Seen> {
        self.0[operand as usize].as_ref()
    }

    pub(crate) fn space(&self, shape: Shape) -> Space {
        let mut all: Strides = [[0; MAX_RANK]; OPERANDS];
        for (own, tensor) in all.iter_mut().zip(&self.0) {
            if let Some(tensor) = tensor {
                *own = strides(tensor.shape, tensor.row_stride, shape);
            }
        }
        Space::new(&shape, &all)
    }

    /// Addresses, types and strides.
    pub(crate) fn args(&self, space: &Space) -> Result<ElementwiseArgs> {
        let kind = |o| self.get(o).map_or(0, |t| t.kind);
        let mut args = ElementwiseArgs {
            count: count("input", space.count())?,
            weight_kind: kind(Operand::Weight),
            third_kind: kind(Operand::Third),
            upstream_kind: kind(Operand::Upstream),
            ..ElementwiseArgs::default()
        };
        for operand in Operand::READ.into_iter().chain(Operand::WRITTEN) {
            *address(&mut args, operand) = self.get(operand).map_or(0, |t| t.address);
        }
        let order: [usize; MAX_RANK] = std::array::from_fn(|d| d);
        lay_out(&mut args, space, &order[..space.sizes().len()]);
        Ok(args)
    }
}

/// Sizes and strides of the space's dimensions, in this order.
pub(crate) fn lay_out(args: &mut ElementwiseArgs, space: &Space, order: &[usize]) {
    // Without dimensions there is one element.
    (args.dims, args.sizes) = (order.len().max(1) as u32, [1; MAX_RANK]);
    args.strides = [[0; MAX_RANK]; OPERANDS];
    for (to, &d) in order.iter().enumerate() {
        args.sizes[to] = space.sizes()[d] as i64;
        for operand in Operand::READ.into_iter().chain(Operand::WRITTEN) {
            args.strides[operand as usize][to] = space.stride(operand, d) as i64;
        }
    }
}

/// An operand's address in the arguments.
pub(crate) fn address(args: &mut ElementwiseArgs, operand: Operand) -> &mut u64 {
    match operand {
        Operand::Input => &mut args.x,
        Operand::Target => &mut args.y,
        Operand::Weight => &mut args.weight,
        Operand::Third => &mut args.third,
        Operand::Upstream => &mut args.upstream,
        Operand::Loss => &mut args.value,
        Operand::GradInput => &mut args.grad_x,
        Operand::GradTarget => &mut args.grad_y,
        Operand::GradThird => &mut args.grad_third,
    }
}
