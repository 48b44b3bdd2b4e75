//! Log-softmax on a CUDA device: `kernels/loss/log_softmax.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{LogSoftmaxArgs, RowOperands};
use crate::code::variants::Loss;
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::stream::Cuda;
use crate::spec::log_softmax::CheckedLines;

impl Cuda {
    pub(crate) fn log_softmax_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let narrow = output.dtype() != DType::F32;
        let loss = if narrow { Loss::LogSoftmaxNarrow } else { Loss::LogSoftmax };
        self.log_softmax(checked, loss, input, None, output)
    }

    pub(crate) fn log_softmax_backward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        grad_output: TensorRef<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let narrow = grad_output.dtype() != DType::F32;
        let loss = if narrow { Loss::LogSoftmaxGradientNarrow } else { Loss::LogSoftmaxGradient };
        self.log_softmax(checked, loss, input, Some(grad_output), grad_input)
    }

    fn log_softmax(
        &self,
        checked: CheckedLines,
        loss: Loss,
        input: TensorRef<'_>,
        upstream: Option<TensorRef<'_>>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let along = |d| checked.along(d);
        let x = self.read_rows("input", input, along)?;
        let upstream = upstream.map(|t| self.read_rows("grad_output", t, along)).transpose()?;
        let y = self.write_rows("output", output, false, along)?;
        let rows = RowOperands {
            count: count("input", x.lines.count)?,
            classes: count("input", x.lines.len)?,
            ..RowOperands::default()
        };
        let args = LogSoftmaxArgs { rows, ..LogSoftmaxArgs::default() };
        let kernels = (loss, data(x.dtype)?, Work::Fused);
        let operands = RowTensors {
            x: Some(&x),
            upstream: upstream.as_ref(),
            y: Some(y),
            ..RowTensors::default()
        };
        // SAFETY: all three tensors have the input's shape, each with its own strides.
        let [y, ..] = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([y])
    }
}
