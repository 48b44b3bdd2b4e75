//! Multi-class margin loss on a CUDA device: `kernels/loss/multi_margin.cu` between a census and a sum.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::code::args::{MultiMarginArgs, RowOperands};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::{class_weights, labels};
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::along;
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::spec::elementwise::Input;
use crate::spec::multi_margin::{Call, CheckedMargin};

impl Cuda {
    pub(crate) fn multi_margin(&self, checked: &CheckedMargin<'_>, call: Call<'_>) -> Result<()> {
        let Call { input, grad_output, loss, grad_input } = call;
        let (counting, along) = (&checked.counting, along(checked.class_dim));
        let loss = loss.map(|loss| self.output("loss", loss, false)).transpose()?;
        let dtype = input.view().dtype();
        let (x, y) = match input {
            Input::Kept(input) => {
                let y = grad_input.map(|t| self.write_rows("grad_input", t, false, &along));
                (Some(self.read_rows("input", input, &along)?), y.transpose()?)
            }
            Input::Consumed(input) => (None, Some(self.write_rows("input", input, true, &along)?)),
        };
        let target = self.indices(checked.target)?;
        let weight = counting.weight.map(|w| self.input("weight", w)).transpose()?;
        let upstream = Upstream::new(self, "grad_output", &grad_output)?;
        let census = self.census(counting, Some(&target), weight.as_ref())?;
        let work = if y.is_some() { Work::Fused } else { Work::Forward };
        let mut args = MultiMarginArgs {
            rows: RowOperands {
                count: count("target", counting.rows)?,
                classes: count("input", counting.classes)?,
                ..RowOperands::default()
            },
            upstream: upstream.args(),
            target: labels(&target, 0),
            weight: class_weights(weight.as_ref()),
            totals: census.totals(),
            margin: checked.margin,
            square: checked.square.into(),
            mean: (counting.reduction == Reduction::Mean).into(),
            ..MultiMarginArgs::default()
        };
        let summed = loss.as_ref().filter(|_| counting.reduction != Reduction::None);
        let losses = match summed {
            Some(_) => Some(self.pool.take("workspace", counting.rows * size_of::<f64>())?),
            None => None,
        };
        args.wide = losses.is_some().into();
        args.loss = match &losses {
            Some(losses) => losses.address(),
            None => loss.as_ref().map_or(0, |loss| loss.address),
        };
        if let (Some(loss), Some(losses)) = (&loss, &losses) {
            args.schedule.sum = census.sum(([losses.address(), 0], true), [loss.address, 0]);
        }
        let kernels = (Loss::MultiMargin, data(dtype)?, work);
        let operands = RowTensors { x: x.as_ref(), y, ..RowTensors::default() };
        // SAFETY: shapes, strides and lengths were checked (`CheckedMargin`); outputs are borrowed
        // exclusively.
        let [gradient, ..] = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([loss, gradient])
    }
}
