//! Log-sum-exp on a CUDA device: `kernels/loss/logsumexp.cu`.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::{LogSumExpArgs, RowOperands, UpstreamArgs};
use crate::code::variants::Loss;
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::stream::Cuda;
use crate::spec::log_softmax::CheckedLines;

impl Cuda {
    pub(crate) fn logsumexp_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.read_rows("input", input, |d| checked.along(d))?;
        let lse = self.output("output", output, false)?;
        let rows = RowOperands {
            count: count("input", x.lines.count)?,
            classes: count("input", x.lines.len)?,
            ..RowOperands::default()
        };
        let args = LogSumExpArgs { rows, lse: lse.address, ..LogSumExpArgs::default() };
        let kernels = (Loss::LogSumExp, data(x.dtype)?, Work::Forward);
        let operands = RowTensors { x: Some(&x), ..RowTensors::default() };
        // SAFETY: the input holds its lines, and the output was checked to have one number each.
        unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([Some(lse)])
    }

    /// The rows are summed again: on chip that costs nothing, and it is exact where the saved
    /// result is rounded.
    pub(crate) fn logsumexp_backward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        (_, grad_output): (TensorRef<'_>, TensorRef<'_>),
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let along = |d| checked.along(d);
        let x = self.read_rows("input", input, along)?;
        let g = self.input("grad_output", grad_output)?;
        let y = self.write_rows("grad_input", grad_input, false, along)?;
        let rows = RowOperands {
            count: count("input", x.lines.count)?,
            classes: count("input", x.lines.len)?,
            ..RowOperands::default()
        };
        let kind = args::kind(g.dtype);
        let upstream = UpstreamArgs { values: g.address, stride: 1, kind, number: 0.0 };
        let args = LogSumExpArgs { rows, upstream, ..LogSumExpArgs::default() };
        let kernels = (Loss::LogSumExp, data(x.dtype)?, Work::Fused);
        let operands = RowTensors { x: Some(&x), y: Some(y), ..RowTensors::default() };
        // SAFETY: the gradient has the input's shape, the upstream gradient a number a line.
        let [y, ..] = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([y])
    }
}
