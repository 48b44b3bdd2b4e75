//! Log-softmax on a CUDA device: `kernels/log_softmax.cu`.

use super::Cuda;
use super::args::RowArgs;
use super::lines::{Lines, count};
use super::rows::{Work, data};
use super::variants::Loss;
use crate::loss::CheckedLines;
use crate::{DType, Result, TensorMut, TensorRef};

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
        let x = self.input("input", input)?;
        let x_lines = Lines::new(&x.shape, x.row_stride, along);
        let x_rows = self.rows_in(&x, &x_lines)?;
        let g = upstream.map(|t| self.input("grad_output", t)).transpose()?;
        let g_rows = match &g {
            Some(g) => Some(self.rows_in(g, &Lines::new(&g.shape, g.row_stride, along))?),
            None => None,
        };
        let y = self.output("output", output, false)?;
        let y_lines = Lines::new(&y.shape, y.row_stride, along);
        let y_rows = self.rows_out(&y, &y_lines, false)?;
        let args = RowArgs {
            x: x_rows.address,
            x_stride: x_rows.stride as i64,
            y: y_rows.address,
            y_stride: y_rows.stride as i64,
            upstream: g_rows.as_ref().map_or(0, |g| g.address),
            upstream_stride: g_rows.as_ref().map_or(0, |g| g.stride as i64),
            rows: count("input", x_lines.count)?,
            classes: count("input", x_lines.len)?,
            ..RowArgs::default()
        };
        // SAFETY: all three tensors have the input's shape, each with its own strides.
        unsafe { self.go(loss, data(x.dtype)?, Work::Fused, args)? };
        self.settle(y_rows, &y, &y_lines)?;
        self.read_back([Some(y)])
    }
}
