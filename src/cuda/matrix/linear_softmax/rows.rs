//! Rows of logits that are products, as a cross entropy takes them; what they lack of a bias it adds itself
//! (`kernels/loss/biased.cuh`).

use crate::base::dtype::DType;
use crate::code::args;
use crate::code::args::{
    CrossEntropyArgs, LabelArgs, LogitArgs, LossOutputs, RowOperands, SmoothingArgs, UpstreamArgs,
};
use crate::code::variants::Loss;
use crate::cuda::driver::product::Panel;

/// Rows of logits for a cross entropy in their place.
pub(crate) struct Rows {
    pub(crate) z: Panel,
    pub(crate) n: usize,
    pub(crate) classes: usize,
    /// Address of each row's target (i64), below 0 where it does not count.
    pub(crate) marks: u64,
    /// Address of the rows' upstream gradients (f32); 0: there is no backward pass.
    pub(crate) factors: u64,
    /// Address of the rows' losses (f32).
    pub(crate) nll: u64,
    /// Address of what the logits still lack, one a class (f32); 0: nothing.
    pub(crate) bias: u64,
}

impl Rows {
    pub(crate) fn loss(&self) -> Loss {
        if self.bias == 0 { Loss::CrossEntropy } else { Loss::CrossEntropyBiased }
    }

    pub(crate) fn args(&self) -> CrossEntropyArgs {
        CrossEntropyArgs {
            rows: RowOperands {
                x: self.z.address,
                y: self.z.address,
                count: self.n as i64,
                classes: self.classes as i64,
                x_stride: self.z.stride as i64,
                y_stride: self.z.stride as i64,
                ..RowOperands::default()
            },
            upstream: UpstreamArgs {
                values: self.factors,
                stride: (self.factors != 0).into(),
                kind: args::kind(DType::F32),
                number: 0.0,
            },
            logits: LogitArgs::new(1.0, None, false),
            target: LabelArgs {
                values: self.marks,
                ignore_index: -1,
                kind: args::kind(DType::I64),
                pad: 0,
            },
            options: SmoothingArgs { hard: 1.0, ..SmoothingArgs::default() },
            out: LossOutputs { loss: self.nll, whole: 1, ..LossOutputs::default() },
            bias: self.bias,
            ..CrossEntropyArgs::default()
        }
    }
}
