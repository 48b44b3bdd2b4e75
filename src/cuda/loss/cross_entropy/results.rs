//! Where a forward pass writes, whatever the target is: losses of rows, or what they add up to.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorMut;
use crate::code::args::{LossOutputs, SmoothingArgs, SumArgs};
use crate::cuda::schedule::batch::Census;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::cuda::stream::pool::Block;

/// The caller's outputs, and workspace for losses of rows that are summed up.
pub(crate) struct Results<'a, 'p> {
    loss: Output<'a, 'p>,
    z_loss: Option<Output<'a, 'p>>,
    lse: Option<Output<'a, 'p>>,
    rows: Option<Block<'p>>,
}

impl<'a, 'p: 'a> Results<'a, 'p> {
    /// Names the outputs to the call.
    pub(crate) fn new(
        cuda: &'p Cuda,
        loss: TensorMut<'a>,
        z_loss: Option<TensorMut<'a>>,
        lse: Option<TensorMut<'a>>,
    ) -> Result<Self> {
        Ok(Results {
            loss: cuda.output("loss", loss, false)?,
            z_loss: z_loss.map(|t| cuda.output("z_loss", t, false)).transpose()?,
            lse: lse.map(|t| cuda.output("lse", t, false)).transpose()?,
            rows: None,
        })
    }

    /// What kernels write of so many rows: results themselves, or f64 in a workspace.
    pub(crate) fn of_rows(
        &mut self,
        cuda: &'p Cuda,
        (rows, reduction): (usize, Reduction),
        options: &SmoothingArgs,
    ) -> Result<LossOutputs> {
        let lse = self.lse.as_ref().map_or(0, |t| t.address);
        let mut out = LossOutputs { lse, ..LossOutputs::default() };
        match reduction {
            Reduction::None => {
                let [loss, z_loss] = self.addresses();
                (out.loss, out.z_loss, out.whole) = (loss, z_loss, 1);
            }
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                let workspace = cuda.pool.take("workspace", rows * 16)?;
                (out.loss, out.wide) = (workspace.address(), 1);
                // Without a z-loss its rows are 0, and only written where the caller asked for them.
                let wants_z = options.lambda > 0.0;
                out.z_loss = if wants_z { out.loss + 8 * rows as u64 } else { 0 };
                self.rows = Some(workspace);
            }
        }
        Ok(out)
    }

    /// What the losses that kernels write of rows are to add up to; nothing where they are the results.
    pub(crate) fn sum(&self, census: &Census<'_>, out: &LossOutputs) -> SumArgs {
        match self.rows {
            Some(_) => census.sum(([out.loss, out.z_loss], true), self.addresses()),
            None => SumArgs::default(),
        }
    }

    /// The outputs to be read back.
    pub(crate) fn outputs(self) -> [Option<Output<'a, 'p>>; 3] {
        [Some(self.loss), self.z_loss, self.lse]
    }

    /// Of the loss and the z-loss.
    fn addresses(&self) -> [u64; 2] {
        [self.loss.address, self.z_loss.as_ref().map_or(0, |t| t.address)]
    }
}
