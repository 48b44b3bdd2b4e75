//! What the schedules that go through rows are handed: operands, what the schedule needs of its own, and
//! each loss's options, put together for each loss.

use super::address::{In, InF32, InTotals, Out, OutF32, OutI64, OutU32};
use super::argument::Argument;
use super::batch::SumArgs;
use crate::spec::soft_cap::CapFactors;

/// Rows that a schedule goes through.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowOperands {
    /// Rows of logits.
    pub(crate) x: In,
    /// Rows written: the gradient, or log-probabilities.
    pub(crate) y: Out,
    pub(crate) count: i64,
    pub(crate) classes: i64,
    /// Elements between rows.
    pub(crate) x_stride: i64,
    /// Elements between rows.
    pub(crate) y_stride: i64,
    /// Rows that lie side by side, element by element; strides are then those between such groups of rows. 0: a
    /// row lies in one piece.
    pub(crate) side_by_side: i64,
    /// Elements between those of a row that lies side by side with others: of x, of y, and of what lies beside x.
    pub(crate) x_step: i64,
    pub(crate) y_step: i64,
    pub(crate) beside_step: i64,
}

/// What a schedule hands from launch to launch.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowSchedule {
    /// Split rows: a State a part, then a float a part.
    pub(crate) partials: OutF32,
    /// Split rows: the target's x, saved before a gradient overwrites it.
    pub(crate) row_target: OutF32,
    /// Split rows: blocks a row.
    pub(crate) parts: u32,
    /// Packs of a block; of rows side by side: threads of a row.
    pub(crate) slice: u32,
    /// Split rows in one launch: turns taken so far, then how many parts of each row are summed; all 0 before.
    pub(crate) turns: OutU32,
    /// Of which so many parts are summed before the first is written.
    pub(crate) lead: u32,
    /// Split sums: only rows whose saved lse is too coarse.
    pub(crate) coarse: u32,
    /// Of the rows' losses.
    pub(crate) sum: SumArgs,
}

/// Gradient of a result: one number, one a row, or one an element.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UpstreamArgs {
    pub(crate) values: In,
    /// Elements between rows; 0: all have the same one.
    pub(crate) stride: i64,
    pub(crate) kind: u32,
    /// Where `values` is null.
    pub(crate) number: f32,
}

/// Logit scale and soft-cap: src/spec/soft_cap.rs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogitArgs {
    /// `z = scale * x`, before a cap.
    pub(crate) scale: f32,
    /// 0: none.
    pub(crate) cap: f32,
    pub(crate) cap_first: f32,
    pub(crate) cap_rate: f32,
    pub(crate) cap_line: f32,
    /// Up to this size of s·x/c a vector of logits is near 0 (`WL_CAP_NEAR`); below 0: none is, as `cap_first`
    /// is not 1.
    pub(crate) cap_near: f32,
    /// tanh is the special-function unit's.
    pub(crate) cap_approximate: u32,
    pub(crate) pad: u32,
}

/// A class a row.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LabelArgs {
    pub(crate) values: In,
    /// The class of rows that do not count.
    pub(crate) ignore_index: i64,
    pub(crate) kind: u32,
    pub(crate) pad: u32,
}

/// A weight a class, or null: 1.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WeightArgs {
    pub(crate) values: In,
    /// f32's, or the logits'.
    pub(crate) kind: u32,
    pub(crate) pad: u32,
}

/// Rows of the logits' type and length beside them, and their gradient.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BesideArgs {
    pub(crate) values: In,
    pub(crate) gradient: Out,
    /// Elements between rows.
    pub(crate) stride: i64,
    /// Elements between rows.
    pub(crate) gradient_stride: i64,
}

/// What a row's loss is written to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LossOutputs {
    /// Doubles where they are wide.
    pub(crate) loss: OutF32,
    /// The same.
    pub(crate) z_loss: OutF32,
    /// Written forward, read backward.
    pub(crate) lse: OutF32,
    /// Losses are doubles.
    pub(crate) wide: u32,
    /// Losses include the z-loss.
    pub(crate) whole: u32,
}

/// What a row's log-probability and entropy are written to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenOutputs {
    pub(crate) logprob: OutF32,
    pub(crate) entropy: OutF32,
    /// Written forward, read backward.
    pub(crate) lse: OutF32,
}

/// What else is asked for of a row beside its loss: log-probability and entropy, their gradients, and the
/// likeliest classes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenArgs {
    pub(crate) of_logprob: UpstreamArgs,
    pub(crate) of_entropy: UpstreamArgs,
    pub(crate) logprob: OutF32,
    pub(crate) entropy: OutF32,
    /// `k` a row.
    pub(crate) top_classes: OutI64,
    /// The same.
    pub(crate) top_logprob: OutF32,
    pub(crate) k: u32,
    pub(crate) pad: u32,
}

/// Rows whose likeliest classes are asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TopArgs {
    pub(crate) logits: LogitArgs,
    pub(crate) target: LabelArgs,
    pub(crate) x: In,
    /// `[n, k]`.
    pub(crate) top_classes: OutI64,
    /// `[n, k]`.
    pub(crate) top_logprob: OutF32,
    pub(crate) n: i64,
    pub(crate) classes: i64,
    /// Elements between rows.
    pub(crate) stride: i64,
    pub(crate) k: i64,
    pub(crate) kind: u32,
    pub(crate) pad: u32,
}

/// How a row's target stands among the classes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RankOutputs {
    /// The class that beats all others.
    pub(crate) argmax: OutI64,
    /// How many classes beat the target.
    pub(crate) rank: OutI64,
}

/// Label smoothing, z-loss and reduction.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SmoothingArgs {
    pub(crate) totals: InTotals,
    /// What the z-loss is multiplied by.
    pub(crate) lambda: f64,
    /// `1 - epsilon`.
    pub(crate) hard: f32,
    /// `epsilon / classes`.
    pub(crate) soft: f32,
    /// Divide by the totals.
    pub(crate) mean: u32,
    pub(crate) pad: u32,
}

/// The classes that x and y hold of a vocabulary, and the state of each row: src/spec/row_state.rs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ShardArgs {
    /// Numbers of states, a row's one after another; written, or read.
    pub(crate) state: OutF32,
    /// The class that column 0 of x and y is.
    pub(crate) first: i64,
    /// Columns of x and y.
    pub(crate) len: i64,
    /// Classes of a block, a multiple of 64.
    pub(crate) block: i64,
    /// Blocks of x and y.
    pub(crate) blocks: u32,
    /// Blocks of the states.
    pub(crate) listed: u32,
    /// Numbers of a block.
    pub(crate) fields: u32,
    /// Numbers of a row.
    pub(crate) numbers: u32,
}

/// Cross entropy with class indices.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CrossEntropyArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    pub(crate) upstream: UpstreamArgs,
    pub(crate) logits: LogitArgs,
    pub(crate) target: LabelArgs,
    pub(crate) weight: WeightArgs,
    pub(crate) options: SmoothingArgs,
    pub(crate) out: LossOutputs,
    pub(crate) ranks: RankOutputs,
    pub(crate) tokens: TokenArgs,
    /// Of calls on shards.
    pub(crate) shard: ShardArgs,
    /// What logits that are products still lack, one a class.
    pub(crate) bias: InF32,
}

/// Log-probability of the target and entropy.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogprobEntropyArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    /// Of the log-probability.
    pub(crate) upstream: UpstreamArgs,
    /// Of the entropy.
    pub(crate) of_entropy: UpstreamArgs,
    pub(crate) logits: LogitArgs,
    pub(crate) target: LabelArgs,
    pub(crate) out: TokenOutputs,
    pub(crate) ranks: RankOutputs,
}

/// Cross entropy against probabilities, or against a teacher's logits.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SoftCrossEntropyArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    pub(crate) upstream: UpstreamArgs,
    pub(crate) logits: LogitArgs,
    pub(crate) target: BesideArgs,
    pub(crate) weight: WeightArgs,
    pub(crate) options: SmoothingArgs,
    pub(crate) out: LossOutputs,
    /// The teacher's scale.
    pub(crate) teacher: f32,
    pub(crate) pad: u32,
}

/// Jensen-Shannon divergence from a teacher's logits.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JsDivLogitsArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    pub(crate) upstream: UpstreamArgs,
    /// The teacher's logits.
    pub(crate) target: BesideArgs,
    /// Which rows do not count; null: all do.
    pub(crate) labels: LabelArgs,
    /// Per row.
    pub(crate) loss: OutF32,
    pub(crate) totals: InTotals,
    pub(crate) scale: f32,
    /// The teacher's scale.
    pub(crate) teacher: f32,
    pub(crate) beta: f32,
    /// A row's share of its sum: 1, or 1 / classes.
    pub(crate) share: f32,
    /// Divide by the totals.
    pub(crate) mean: u32,
    pub(crate) pad: u32,
}

/// Log-softmax, and its gradient.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogSoftmaxArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    /// One an element.
    pub(crate) upstream: UpstreamArgs,
    /// What logits that are products still lack, one a class.
    pub(crate) bias: InF32,
}

/// Log-sum-exp, and its gradient.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogSumExpArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    pub(crate) upstream: UpstreamArgs,
    pub(crate) lse: OutF32,
}

/// Multi-class margin loss.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MultiMarginArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    pub(crate) upstream: UpstreamArgs,
    pub(crate) target: LabelArgs,
    pub(crate) weight: WeightArgs,
    /// Per row, doubles where they are wide.
    pub(crate) loss: OutF32,
    pub(crate) totals: InTotals,
    pub(crate) margin: f32,
    /// The exponent is 2.
    pub(crate) square: u32,
    /// Divide by the totals.
    pub(crate) mean: u32,
    pub(crate) wide: u32,
}

/// Sums over rows of probabilities.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InformationArgs {
    pub(crate) rows: RowOperands,
    pub(crate) schedule: RowSchedule,
    /// q, without a gradient.
    pub(crate) target: BesideArgs,
    /// Per row.
    pub(crate) loss: OutF32,
    /// What ln p counts in a term.
    pub(crate) of_p: f32,
    /// What ln q does.
    pub(crate) of_q: f32,
}

impl LogitArgs {
    /// Of a logit scale and a soft-cap, whose tanh may be an `approximate` one.
    pub(crate) fn new(scale: f32, cap: Option<f32>, approximate: bool) -> LogitArgs {
        let plain = LogitArgs { scale, ..LogitArgs::default() };
        let Some(cap) = cap else { return plain };
        let factors = CapFactors::new(scale, cap);
        let (cap_first, cap_rate, cap_line) = (factors.first, factors.rate, factors.scale);
        let cap_near = if cap_first == 1.0 { 0.75 } else { -1.0 };
        // Factors that leave f32 when they are one take the exact way.
        let cap_approximate = (approximate && cap_first == 1.0).into();
        LogitArgs { cap, cap_first, cap_rate, cap_line, cap_near, cap_approximate, ..plain }
    }
}

/// Arguments of kernels that go through rows.
pub(crate) trait RowArgument: Argument {
    /// The rows.
    fn rows(&mut self) -> &mut RowOperands;
    /// The schedule's own.
    fn schedule(&mut self) -> &mut RowSchedule;
    /// Forgets a saved log-sum-exp: rows are summed again.
    fn forget_lse(&mut self) {}
    /// Takes what asks for more likeliest classes than the rows' own kernels name.
    fn take_top(&mut self) -> Option<TopArgs> {
        None
    }
    /// Whether there are such classes, which are found in rows of one piece.
    fn has_top(&self) -> bool {
        false
    }
}

macro_rules! row_arguments {
    ($($name:ident $({$($lse:ident).+})? $([$top:ident $has_top:ident])?)*) => {$(
        impl RowArgument for $name {
            fn rows(&mut self) -> &mut RowOperands {
                &mut self.rows
            }
            fn schedule(&mut self) -> &mut RowSchedule {
                &mut self.schedule
            }
            $(fn forget_lse(&mut self) {
                self.$($lse).+ = 0;
            })?
            $(fn take_top(&mut self) -> Option<TopArgs> {
                $name::$top(self)
            }
            fn has_top(&self) -> bool {
                $name::$has_top(self)
            })?
        }
    )*};
}
row_arguments! {
    CrossEntropyArgs {out.lse} [many_likeliest has_many_likeliest]
    LogprobEntropyArgs {out.lse}
    SoftCrossEntropyArgs
    JsDivLogitsArgs
    LogSoftmaxArgs
    LogSumExpArgs
    InformationArgs
    MultiMarginArgs
}
