//! Entropy, cross entropy and Kullback–Leibler divergence of rows of probabilities, on a CUDA
//! device: `kernels/loss/information.cu`.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{BesideArgs, InformationArgs, RowOperands};
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
        let (values, stride) = (beside.address, beside.stride as i64);
        let args = InformationArgs {
            rows: RowOperands {
                count: count("p", checked.rows.iter().product())?,
                classes: count("p", p.shape[checked.class_dim])?,
                ..x.read()
            },
            target: BesideArgs { values, stride, ..BesideArgs::default() },
            loss: output.address,
            of_p: checked.what.of_p,
            of_q: checked.what.of_q,
            ..InformationArgs::default()
        };
        // SAFETY: shapes, strides and lengths were checked; the result has a number a row.
        unsafe { self.go(Loss::Information, data(checked.dtype)?, Work::Forward, args)? };
        self.read_back([Some(output)])
    }
}
