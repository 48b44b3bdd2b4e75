//! Log-sum-exp on a CUDA device: `kernels/logsumexp.cu`.

use super::Cuda;
use super::args::{self, RowArgs};
use super::lines::{Lines, count};
use super::rows::{Work, data};
use super::variants::Loss;
use crate::loss::CheckedLines;
use crate::{Result, TensorMut, TensorRef};

impl Cuda {
    pub(crate) fn logsumexp_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.input("input", input)?;
        let lines = Lines::new(&x.shape, x.row_stride, |d| checked.along(d));
        let rows = self.rows_in(&x, &lines)?;
        let lse = self.output("output", output, false)?;
        let args = RowArgs {
            x: rows.address,
            x_stride: rows.stride as i64,
            lse: lse.address,
            rows: count("input", lines.count)?,
            classes: count("input", lines.len)?,
            ..RowArgs::default()
        };
        // SAFETY: the input holds its lines, and the output was checked to have one number each.
        unsafe { self.go(Loss::LogSumExp, data(x.dtype)?, Work::Forward, args)? };
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
        let x = self.input("input", input)?;
        let x_lines = Lines::new(&x.shape, x.row_stride, along);
        let x_rows = self.rows_in(&x, &x_lines)?;
        let g = self.input("grad_output", grad_output)?;
        let y = self.output("grad_input", grad_input, false)?;
        let y_lines = Lines::new(&y.shape, y.row_stride, along);
        let y_rows = self.rows_out(&y, &y_lines, false)?;
        let args = RowArgs {
            x: x_rows.address,
            x_stride: x_rows.stride as i64,
            y: y_rows.address,
            y_stride: y_rows.stride as i64,
            upstream: g.address,
            upstream_stride: 1,
            upstream_kind: args::kind(g.dtype),
            rows: count("input", x_lines.count)?,
            classes: count("input", x_lines.len)?,
            ..RowArgs::default()
        };
        // SAFETY: the gradient has the input's shape, the upstream gradient a number a line.
        unsafe { self.go(Loss::LogSumExp, data(x.dtype)?, Work::Fused, args)? };
        self.settle(y_rows, &y, &y_lines)?;
        self.read_back([Some(y)])
    }
}
