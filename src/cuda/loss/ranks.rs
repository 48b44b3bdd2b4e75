//! Argmax and rank on a CUDA device (`kernels/loss/ranked.cuh` finds them beside a loss), and
//! counts of ranks: `kernels/batch/ranks.cu`.

use crate::base::error::{Error, Result};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::{RankArgs, RankOutputs};
use crate::code::variants::Batch;
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;

/// The outputs, where they were asked for.
pub(crate) struct Ranks<'a, 'p> {
    pub(crate) argmax: Option<Output<'a, 'p>>,
    pub(crate) rank: Option<Output<'a, 'p>>,
}

/// Kernels number classes in 32 bits here; the largest number stands for none.
pub(crate) const MOST_CLASSES: usize = u32::MAX as usize;

impl<'a, 'p: 'a> Ranks<'a, 'p> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        classes: usize,
        argmax: Option<TensorMut<'a>>,
        rank: Option<TensorMut<'a>>,
    ) -> Result<Self> {
        let ranks = Ranks {
            argmax: argmax.map(|t| cuda.output("argmax", t, false)).transpose()?,
            rank: rank.map(|t| cuda.output("rank", t, false)).transpose()?,
        };
        if ranks.wanted() && classes > MOST_CLASSES {
            return Err(Error::Value {
                argument: "logits",
                expected: format!("at most {MOST_CLASSES} classes where ranks are asked for"),
                got: classes.to_string(),
            });
        }
        Ok(ranks)
    }

    pub(crate) fn wanted(&self) -> bool {
        self.argmax.is_some() || self.rank.is_some()
    }

    pub(crate) fn args(&self) -> RankOutputs {
        RankOutputs {
            argmax: self.argmax.as_ref().map_or(0, |t| t.address),
            rank: self.rank.as_ref().map_or(0, |t| t.address),
        }
    }
}

impl Cuda {
    /// How many ranks are not negative and below each limit.
    pub(crate) fn count_ranks(
        &self,
        rank: TensorRef<'_>,
        limits: &[i64],
        counts: &mut [i64],
    ) -> Result<()> {
        let rows = count("rank", rank.elements())?;
        let ranks = self.input("rank", rank)?;
        let shape = [limits.len()];
        let limits = self.input("ks", TensorRef::new(limits, &shape)?)?;
        let counts = self.output("counts", TensorMut::new(counts, &shape)?, false)?;
        let args =
            RankArgs { ranks: ranks.address, limits: limits.address, counts: counts.address, rows };
        let blocks = u32::try_from(shape[0]).ok().filter(|&n| n <= i32::MAX as u32);
        let blocks = blocks.ok_or_else(|| Error::Value {
            argument: "ks",
            expected: "numbers that a launch can count".into(),
            got: shape[0].to_string(),
        })?;
        // SAFETY: there is a rank a row, and a limit and a count a block.
        unsafe { self.launch_batch(Batch::Ranks, blocks, args::bytes(&args))? };
        self.read_back([Some(counts)])
    }
}
