//! The gradient of a call's result, as kernels are given it.

use crate::base::error::Result;
use crate::code::args;
use crate::code::args::UpstreamArgs;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::grad_output::GradOutput;

/// An upstream gradient: one number, or a tensor with elements between rows.
pub(crate) struct Upstream<'p> {
    number: f32,
    tensor: Option<(Input<'p>, i64)>,
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

    /// The same as kernels have it.
    pub(crate) fn args(&self) -> UpstreamArgs {
        let number = self.number;
        match &self.tensor {
            None => UpstreamArgs { number, ..UpstreamArgs::default() },
            Some((t, stride)) => UpstreamArgs {
                values: t.address,
                stride: *stride,
                kind: args::kind(t.dtype),
                number,
            },
        }
    }
}
