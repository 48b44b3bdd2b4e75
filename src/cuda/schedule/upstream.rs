//! The gradient of a call's result, as kernels are given it.

use crate::base::error::Result;
use crate::code::args;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::grad_output::GradOutput;

/// An upstream gradient: one number, or a tensor with elements between rows.
pub(crate) struct Upstream<'p> {
    number: f32,
    tensor: Option<(Input<'p>, i64)>,
}

/// An upstream gradient as [`RowArgs`] have it.
pub(crate) struct UpstreamFields {
    pub(crate) address: u64,
    pub(crate) stride: i64,
    pub(crate) kind: u32,
    pub(crate) number: f32,
}

impl<'p> Upstream<'p> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        argument: &'static str,
        grad_output: &GradOutput<'p>,
    ) -> Result<Self> {
        Ok(match grad_output {
            GradOutput::Number(number) => Upstream { number: *number, tensor: None },
            GradOutput::Tensor(t) => {
                let stride = i64::from(t.elements() != 1);
                Upstream { number: 0.0, tensor: Some((cuda.input(argument, *t)?, stride)) }
            }
        })
    }

    pub(crate) fn fields(&self) -> UpstreamFields {
        let number = self.number;
        match &self.tensor {
            None => UpstreamFields { address: 0, stride: 0, kind: 0, number },
            Some((t, stride)) => UpstreamFields {
                address: t.address,
                stride: *stride,
                kind: args::kind(t.dtype),
                number,
            },
        }
    }
}
