//! What a launch hands to a kernel: the structs of `kernels/core/args.cuh`, field by field.

mod layers;

use crate::base::dtype::DType;
use crate::spec::elementwise::OPERANDS;
use crate::spec::soft_cap::CapFactors;

pub(crate) use layers::{
    BinArgs, DistributionArgs, EmbeddingArgs, MAX_CLUSTERS, NarrowArgs, PanelArgs, SampledArgs,
    SegmentArgs, SortArgs,
};

/// Numbers of the batch, on the device.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) weight: f64,
    pub(crate) class_weight: f64,
    pub(crate) kept: i64,
    pub(crate) bad_row: i64,
    pub(crate) bad_value: i64,
    pub(crate) per_weight: f64,
    pub(crate) per_row: f32,
    pub(crate) weight_unit: f32,
}

/// The device's memory of an error.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Status {
    pub(crate) kind: u64,
    pub(crate) index: i64,
    pub(crate) value: i64,
    pub(crate) classes: i64,
    pub(crate) ignore_index: i64,
}

/// Rows that a schedule goes through. Addresses are 0 where a loss or a schedule has no use.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowArgs {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) upstream: u64,
    pub(crate) target: u64,
    pub(crate) weight: u64,
    pub(crate) loss: u64,
    pub(crate) z_loss: u64,
    pub(crate) lse: u64,
    pub(crate) partials: u64,
    pub(crate) row_target: u64,
    pub(crate) totals: u64,
    pub(crate) second: u64,
    pub(crate) argmax: u64,
    pub(crate) rank: u64,
    pub(crate) rows: i64,
    pub(crate) classes: i64,
    pub(crate) x_stride: i64,
    pub(crate) y_stride: i64,
    pub(crate) upstream_stride: i64,
    pub(crate) second_stride: i64,
    pub(crate) ignore_index: i64,
    pub(crate) scale: f32,
    pub(crate) cap: f32,
    pub(crate) hard: f32,
    pub(crate) soft: f32,
    pub(crate) cap_first: f32,
    pub(crate) number: f32,
    pub(crate) second_number: f32,
    pub(crate) upstream_kind: u32,
    pub(crate) second_kind: u32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    pub(crate) mean: u32,
    pub(crate) whole: u32,
    pub(crate) parts: u32,
    pub(crate) slice: u32,
    pub(crate) coarse: u32,
    pub(crate) teacher: f32,
    /// Rows' losses are f64.
    pub(crate) wide: u32,
    pub(crate) grad_target: u64,
    pub(crate) target_stride: i64,
    pub(crate) grad_target_stride: i64,
    pub(crate) labels: u64,
    pub(crate) lambda: f64,
    pub(crate) cap_rate: f32,
    pub(crate) cap_line: f32,
}

/// Negative log-likelihood: position k of block n has class c at n·stride + c·class_stride + k.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NllArgs {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) target: u64,
    pub(crate) weight: u64,
    pub(crate) upstream: u64,
    pub(crate) loss: u64,
    pub(crate) totals: u64,
    pub(crate) rows: i64,
    pub(crate) classes: i64,
    pub(crate) stride: i64,
    pub(crate) class_stride: i64,
    pub(crate) positions: i64,
    pub(crate) ignore_index: i64,
    pub(crate) parts: i64,
    pub(crate) slice: i64,
    pub(crate) number: f32,
    pub(crate) kind: u32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    pub(crate) upstream_kind: u32,
    pub(crate) upstream_rows: u32,
    pub(crate) mean: u32,
    /// Rows' losses are f64.
    pub(crate) wide: u32,
}

impl RowArgs {
    /// Logit scale and soft-cap.
    pub(crate) fn transform(&mut self, scale: f32, cap: Option<f32>) {
        self.scale = scale;
        if let Some(cap) = cap {
            let factors = CapFactors::new(scale, cap);
            self.cap = cap;
            (self.cap_first, self.cap_rate) = (factors.first, factors.rate);
            self.cap_line = factors.scale;
        }
    }

    /// The same for `n` rows from row `first` on, but for `x` and `y`, which stay.
    pub(crate) fn part(mut self, first: usize, n: usize) -> RowArgs {
        // Every field is named, so that a new one has to say whether each row has its own.
        #[rustfmt::skip]
        let RowArgs {
            target, upstream, second, loss, z_loss, lse, argmax, rank, rows,
            x: _, y: _, weight: _, partials: _, row_target: _, totals: _, classes: _,
            x_stride: _, y_stride: _, upstream_stride, second_stride, ignore_index: _, scale: _, cap: _,
            hard: _, soft: _, lambda: _, cap_first: _, cap_rate: _, cap_line: _, number: _, second_number: _, upstream_kind, second_kind, target_kind,
            weight_kind, mean: _, whole: _, parts: _, slice: _, coarse: _,
            teacher: _, wide, grad_target, target_stride, grad_target_stride,
            labels,
        } = &mut self;
        let (f32s, i64s) = (size_of::<f32>(), size_of::<i64>());
        let losses = if *wide != 0 { size_of::<f64>() } else { f32s };
        for (address, bytes) in [
            // A class a row, or numbers as many as logits.
            (target, (*target_stride).max(1) as usize * size(*target_kind)),
            (grad_target, *grad_target_stride as usize * size(*target_kind)),
            (upstream, *upstream_stride as usize * size(*upstream_kind)),
            (labels, size(*weight_kind)),
            (loss, losses),
            (z_loss, losses),
            (lse, f32s),
            (second, *second_stride as usize * size(*second_kind)),
            (argmax, i64s),
            (rank, i64s),
        ] {
            if *address != 0 {
                *address += (first * bytes) as u64;
            }
        }
        *rows = n as i64;
        self
    }
}

/// Targets, class weights and rows' losses.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BatchArgs {
    pub(crate) target: u64,
    pub(crate) weight: u64,
    pub(crate) loss: u64,
    pub(crate) z_loss: u64,
    pub(crate) chunks: u64,
    pub(crate) bad: u64,
    pub(crate) totals: u64,
    pub(crate) status: u64,
    pub(crate) loss_out: u64,
    pub(crate) z_loss_out: u64,
    pub(crate) rows: i64,
    pub(crate) classes: i64,
    pub(crate) ignore_index: i64,
    pub(crate) chunk: i64,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    pub(crate) mean: u32,
    /// The kind of error that a class out of range is.
    pub(crate) bad_target: u32,
    /// Rows' losses are f64.
    pub(crate) wide: u32,
    pub(crate) pad: u32,
}

/// Ranks of rows, and the limits that they are counted below.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RankArgs {
    pub(crate) ranks: u64,
    pub(crate) limits: u64,
    pub(crate) counts: u64,
    pub(crate) rows: i64,
}

/// Most dimensions of a permutation.
pub(crate) const MAX_DIMS: usize = crate::base::shape::MAX_RANK;

/// Elements between a tensor and the same elements line by line.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PermuteArgs {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) elements: i64,
    /// Sizes, outermost first, in the order of the lines; 1 where there are fewer dimensions.
    pub(crate) sizes: [i64; MAX_DIMS],
    /// The tensor's strides in that order.
    pub(crate) strides: [i64; MAX_DIMS],
    /// Bytes of an element.
    pub(crate) size: u32,
    /// 0: from the tensor to the lines, 1: back.
    pub(crate) back: u32,
}

/// Tensors of an elementwise loss, in the order of [`crate::spec::elementwise::Operand`]; addresses
/// are 0 where there is no such tensor.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ElementwiseArgs {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) weight: u64,
    pub(crate) pos_weight: u64,
    pub(crate) upstream: u64,
    pub(crate) value: u64,
    pub(crate) grad_x: u64,
    pub(crate) grad_y: u64,
    /// The upstream gradient where it is one number of a tensor.
    pub(crate) single: u64,
    /// The sum of the weights, where the sum of all is divided by it.
    pub(crate) weights: u64,
    pub(crate) partials: u64,
    pub(crate) loss: u64,
    pub(crate) number: f64,
    pub(crate) denominator: f64,
    pub(crate) count: i64,
    pub(crate) units: i64,
    pub(crate) tiles: i64,
    pub(crate) outputs: i64,
    pub(crate) terms: i64,
    /// Terms of a part, or packs of a tile.
    pub(crate) part: i64,
    pub(crate) sizes: [i64; MAX_DIMS],
    pub(crate) strides: [[i64; MAX_DIMS]; OPERANDS],
    pub(crate) threshold: f32,
    pub(crate) divisor: f32,
    pub(crate) weight_kind: u32,
    pub(crate) pos_weight_kind: u32,
    pub(crate) upstream_kind: u32,
    pub(crate) dims: u32,
    pub(crate) kept: u32,
    /// The operand whose packs are aligned: 0 the input, 1 the target.
    pub(crate) lead: u32,
    pub(crate) parts: u32,
    pub(crate) lanes: u32,
    /// What is summed back: 0 the input's gradient, 1 the target's.
    pub(crate) side: u32,
    pub(crate) kind: u32,
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<Totals>() == 56 && size_of::<Status>() == 40);
    assert!(size_of::<RowArgs>() == 288 && offset_of!(RowArgs, rows) == 112);
    assert!(offset_of!(RowArgs, scale) == 168 && offset_of!(RowArgs, coarse) == 228);
    assert!(offset_of!(RowArgs, grad_target) == 240);
    assert!(size_of::<NllArgs>() == 152 && offset_of!(NllArgs, rows) == 56);
    assert!(offset_of!(NllArgs, mean) == 144);
    assert!(size_of::<BatchArgs>() == 136 && offset_of!(BatchArgs, rows) == 80);
    assert!(offset_of!(BatchArgs, mean) == 120);
    assert!(size_of::<RankArgs>() == 32);
    assert!(size_of::<PermuteArgs>() == 160 && offset_of!(PermuteArgs, size) == 152);
    assert!(size_of::<ElementwiseArgs>() == 784 && offset_of!(ElementwiseArgs, sizes) == 160);
    assert!(offset_of!(ElementwiseArgs, threshold) == 736);
    assert!(offset_of!(ElementwiseArgs, kind) == 780);
};

/// A struct that is handed to a kernel as it lies in memory.
///
/// # Safety
/// `repr(C)` without padding, plain numbers alone, aligned to at most 8 bytes.
pub(crate) unsafe trait Argument: Copy {}
// SAFETY: the assertions above leave no room for padding; every field is a number.
unsafe impl Argument for RowArgs {}
// SAFETY: as above.
unsafe impl Argument for BatchArgs {}
// SAFETY: as above.
unsafe impl Argument for RankArgs {}
// SAFETY: as above.
unsafe impl Argument for NllArgs {}
// SAFETY: as above.
unsafe impl Argument for PermuteArgs {}
// SAFETY: as above.
unsafe impl Argument for ElementwiseArgs {}

/// The bytes of an argument.
pub(crate) fn bytes<A: Argument>(args: &A) -> &[u8] {
    // SAFETY: a plain struct without padding is that many initialised bytes.
    unsafe { std::slice::from_raw_parts((&raw const *args).cast(), size_of::<A>()) }
}

/// Bytes of an element of a [`kind`].
fn size(number: u32) -> usize {
    DType::ALL.iter().find(|&&dtype| kind(dtype) == number).map_or(0, |dtype| dtype.size())
}

/// The number that stands for a dtype in a kernel (`KIND_*` in dtype.cuh).
pub(crate) fn kind(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::I64 => 3,
        DType::I32 => 4,
        DType::U32 => 5,
        DType::U8 => 6,
    }
}
