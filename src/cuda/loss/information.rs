//! Entropy, cross entropy and Kullback–Leibler divergence of rows of probabilities, on a CUDA
//! device: `kernels/loss/information.cu`.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::RowArgs;
use crate::code::variants::Loss;
use crate::cuda::schedule::lines::{Lines, count};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::information::CheckedInformation;

impl Cuda {
    pub(crate) fn information(
        &self,
        checked: CheckedInformation,
        p: TensorRef<'_>,
        q: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let output = self.output("result", output, false)?;
        let [p, q] = [self.input("p", p)?, self.input("q", q)?];
        let lines = |t: &Input<'_>| Lines::new(&t.shape, t.row_stride, |d| d == checked.class_dim);
        let [x, beside] = [self.rows_in(&p, &lines(&p))?, self.rows_in(&q, &lines(&q))?];
        let args = RowArgs {
            x: x.address,
            x_stride: x.stride as i64,
            target: beside.address,
            target_stride: beside.stride as i64,
            loss: output.address,
            rows: count("p", checked.rows.iter().product())?,
            classes: count("p", p.shape[checked.class_dim])?,
            soft: checked.what.of_p,
            hard: checked.what.of_q,
            ..RowArgs::default()
        };
        // SAFETY: shapes, strides and lengths were checked; the result has a number a row.
        unsafe { self.go(Loss::Information, data(checked.dtype)?, Work::Forward, args)? };
        self.read_back([Some(output)])
    }
}
