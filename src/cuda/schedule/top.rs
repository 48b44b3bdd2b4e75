//! Likeliest classes of rows, where more are asked for than a thread keeps: `kernels/loss/top_classes.cu`.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::code::args;
use crate::code::args::TopArgs;
use crate::code::variants::{Batch, Data};
use crate::cuda::stream::Cuda;

impl Cuda {
    /// # Safety
    /// Rows of that type, their targets and `k` classes of each are as many as the arguments say.
    pub(super) unsafe fn top_classes(&self, data: Data, mut args: TopArgs) -> Result<()> {
        args.kind = args::kind(match data {
            Data::F32 => DType::F32,
            Data::F16 => DType::F16,
            Data::BF16 => DType::BF16,
        });
        let blocks = u32::try_from(args.n).ok().filter(|&n| n <= i32::MAX as u32);
        let blocks = blocks.ok_or_else(|| Error::Value {
            argument: "logits",
            expected: "rows that a launch can count, where likeliest classes are asked for".into(),
            got: args.n.to_string(),
        })?;
        // SAFETY: a block a row; the caller's promise for the rest.
        unsafe { self.launch_batch(Batch::Top, blocks, args::bytes(&args)) }
    }
}
