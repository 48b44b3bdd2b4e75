//! From a plan to launches: the same for every loss.

use super::Cuda;
use super::args::{self, RowArgs};
use super::driver::Launch;
use super::plan::{Pass, Plan, Rows, Schedule};
use super::variants::{Data, Entry, Loss, Variant};
use crate::{DType, Error, Result};

/// What is to be done with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Reduce them.
    Forward,
    /// Reduce them and write a gradient (or whatever the loss writes element by element).
    Fused,
    /// Write a gradient; `lse` in the arguments is a saved one.
    FromLse,
}

/// Warps of a block whose warps have a row each.
const ROWS_A_BLOCK: usize = 4;

impl Cuda {
    /// Goes through rows: plans, takes workspace, launches.
    ///
    /// # Safety
    /// Every address in `args` is 0 or device memory as long as rows, classes and strides say,
    /// and what the loss does without may be 0.
    pub(crate) unsafe fn go(
        &self,
        loss: Loss,
        data: Data,
        work: Work,
        mut args: RowArgs,
    ) -> Result<()> {
        let (rows, classes) = (args.rows as usize, args.classes as usize);
        if rows == 0 {
            return Ok(());
        }
        let pass = match work {
            Work::Forward => Pass::Forward,
            Work::Fused | Work::FromLse => Pass::Gradient,
        };
        let shape = Rows { rows, classes, data, streams: 1 + loss.beside(data) };
        let plan = Plan::new(shape, pass, self.driver.card()).ok_or_else(|| Error::Value {
            argument: "logits",
            expected: "rows and classes that a launch can count".into(),
            got: format!("{rows} rows of {classes}"),
        })?;
        self.note(loss, data, work, plan);
        args.slice = plan.slice;
        args.parts = plan.parts();
        let launch = |entry: Entry, blocks: u32, args: &RowArgs| {
            let kernel = self.driver.kernel(Variant::Row(loss, entry, data))?;
            let launch = Launch {
                kernel,
                blocks,
                threads: entry.block(plan.threads),
                cluster: if entry == Entry::Cluster { plan.cluster() } else { 1 },
                shared: if matches!(entry, Entry::Block | Entry::Cluster) {
                    plan.shared
                } else {
                    0
                },
                args: args::bytes(args),
            };
            // SAFETY: the caller's contract; the workspaces below hold what their entries need.
            unsafe { self.driver.launch(launch) }
        };
        let Schedule::Split(parts) = plan.schedule else {
            if work == Work::FromLse {
                // The row is on chip: its own sum is better than a rounded one, and free.
                args.lse = 0;
            }
            return launch(plan.entry(pass), plan.blocks, &args);
        };

        let blocks = rows * parts as usize;
        let partials = self.pool.take("workspace", blocks * 4 * (loss.words() + 1))?;
        let row_target = self.pool.take("workspace", rows * 4)?;
        args.partials = partials.address();
        args.row_target = row_target.address();
        let warps = rows.div_ceil(ROWS_A_BLOCK) as u32;
        args.coarse = (work == Work::FromLse).into();
        launch(Entry::SplitSum, plan.blocks, &args)?;
        match work {
            Work::Forward => launch(Entry::SplitFinish, warps, &args),
            Work::Fused => launch(Entry::SplitGradient, plan.blocks, &args),
            Work::FromLse => {
                launch(Entry::SplitBackward, plan.blocks, &args)?;
                launch(Entry::SplitTarget, warps, &args)
            }
        }
    }
}

/// The kernels' element type.
pub(crate) fn data(dtype: DType) -> Result<Data> {
    match dtype {
        DType::F32 => Ok(Data::F32),
        DType::F16 => Ok(Data::F16),
        DType::BF16 => Ok(Data::BF16),
        DType::I64 | DType::I32 | DType::U32 | DType::U8 => Err(Error::Dtype {
            argument: "logits",
            expected: "f32, f16 or bf16".into(),
            got: dtype,
        }),
    }
}
