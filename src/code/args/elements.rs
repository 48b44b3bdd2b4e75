//! What is handed to losses of one element of the input and one of the target.

use super::address::{In, InF64, Out, OutF32, OutF64, OutStatus};
use super::batch::MAX_DIMS;
use crate::spec::elementwise::OPERANDS;

/// Tensors of an elementwise loss, over the shape that they broadcast to: the first
/// nine are the operands, in the order of the strides.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ElementwiseArgs {
    pub(crate) x: In,
    pub(crate) y: In,
    pub(crate) weight: In,
    /// A third number an element: a weight of positive targets, or a variance.
    pub(crate) third: In,
    /// One an element.
    pub(crate) upstream: In,
    /// One an element.
    pub(crate) value: OutF32,
    pub(crate) grad_x: Out,
    pub(crate) grad_y: Out,
    pub(crate) grad_third: Out,
    /// The upstream gradient where it is one number of a tensor.
    pub(crate) single: In,
    /// Where the sum is divided by that of the weights: it, and what scales them both.
    pub(crate) weights: OutF64,
    /// Sums of blocks, or of parts of sums.
    pub(crate) partials: OutF64,
    /// What the sum of all becomes.
    pub(crate) loss: OutF32,
    /// Sums of threads over the parts before this one; none at the first.
    pub(crate) before: InF64,
    /// The same, for the part after this one; none at the last.
    pub(crate) after: OutF64,
    /// Where a third number below 0 is noted.
    pub(crate) status: OutStatus,
    /// The upstream gradient, where there is no tensor.
    pub(crate) number: f64,
    pub(crate) denominator: f64,
    /// Elements of the part; of the shape, where there is one.
    pub(crate) count: i64,
    /// Tiles of the part; of all lines, where there is one.
    pub(crate) units: i64,
    /// Tile, or element, that the part begins with.
    pub(crate) first: i64,
    /// The thread that has it in a launch for all.
    pub(crate) turn: i64,
    /// Tiles of a line.
    pub(crate) tiles: i64,
    /// The tile of a line that its ends go with: the first, or -1 for none.
    pub(crate) ends: i64,
    /// Summing back: elements of the gradient.
    pub(crate) outputs: i64,
    /// Summing back: what each element is the sum of.
    pub(crate) terms: i64,
    /// Terms of a part, or packs of a tile.
    pub(crate) part: i64,
    /// Outermost first; summing back: the kept dimensions first.
    pub(crate) sizes: [i64; MAX_DIMS],
    pub(crate) strides: [[i64; MAX_DIMS]; OPERANDS],
    /// The functor's, as its row says.
    pub(crate) options: [f32; 2],
    pub(crate) weight_kind: u32,
    pub(crate) third_kind: u32,
    pub(crate) upstream_kind: u32,
    /// At least 1.
    pub(crate) dims: u32,
    /// Dimensions of the gradient that is summed back.
    pub(crate) kept: u32,
    /// The operand whose packs are aligned: 0 the input, 1 the target.
    pub(crate) lead: u32,
    /// Partial sums, of all or of each output.
    pub(crate) parts: u32,
    /// Threads that share a part: 1 or 32.
    pub(crate) lanes: u32,
    /// What is summed back: 0 the input's gradient, 1 the target's, 2 the third tensor's.
    pub(crate) side: u32,
    /// Element type of that gradient.
    pub(crate) kind: u32,
}
