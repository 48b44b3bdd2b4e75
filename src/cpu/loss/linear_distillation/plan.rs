//! How many rows' logits are there at once, of both sides.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::cpu::matrix::chunks::{TILE, WIDENED, beyond_wide, block_rows, stride};
use crate::cpu::processor::Cpu;
use crate::cpu::row::room::ROOM;
use crate::spec::linear_cross_entropy::{LinearPath, LinearPlan, small_budget};
use crate::spec::linear_distillation::{CheckedDistillation, CheckedHead};

/// Logits of a chunk, of both sides: with gradients longer ones, so that classifiers and their gradients are
/// brought from memory less often.
const READ_ONCE: usize = 48 << 20;
const TURNED: usize = 256 << 20;
/// Rows of a chunk at least, if there is room for them.
const LEAST: usize = 16;

/// A plan, and whether gradients of classifiers have f32 sums of their own.
pub(super) struct Chunking {
    pub(super) plan: LinearPlan,
    pub(super) wide: bool,
}

impl Cpu {
    pub(crate) fn distillation_plan(
        &self,
        checked: &CheckedDistillation<'_>,
        back: [bool; 2],
    ) -> Result<LinearPlan> {
        self.distillation_chunks(checked, back).map(|chunking| chunking.plan)
    }

    pub(super) fn distillation_chunks(
        &self,
        checked: &CheckedDistillation<'_>,
        back: [bool; 2],
    ) -> Result<Chunking> {
        let options = checked.options;
        if options.path == LinearPath::Tiled {
            return options.path.refuse("cpu", "auto or chunked");
        }
        let (rows, budget) = (checked.rows().max(1), options.workspace);
        let sides = [(&checked.student, back[0]), (&checked.teacher, back[1])];
        let sizes = Sizes::new(checked, sides, self.threads());
        // What is added up over rows is added up over whole blocks.
        let any = back[0] || back[1];
        let block = if any { block_rows(checked.classes()) } else { 1 };
        let least = sizes.of(block.min(rows));
        if least > budget {
            return Err(small_budget(least, budget));
        }
        let logits = 8 * stride(checked.classes());
        let wanted = if any { TURNED / logits } else { (READ_ONCE / logits).max(LEAST) };
        let chunk = |sizes: &Sizes| match wanted.min((budget - sizes.fixed) / sizes.row) {
            most if most >= rows => rows,
            most => (most / block * block).max(block).min(rows),
        };
        // A gradient of 16 bits that is made of several chunks is rounded once where there is room for its sum.
        let with_sum = Sizes { fixed: sizes.fixed.saturating_add(sizes.sum), ..sizes };
        let several = sizes.sum > 0 && chunk(&sizes) < rows;
        let wide = several && with_sum.of(block.min(rows)) <= budget;
        let sizes = if wide { with_sum } else { sizes };
        let chunk_rows = chunk(&sizes);
        let path = LinearPath::Chunked;
        let plan = LinearPlan { path, chunk_rows, workspace_bytes: sizes.of(chunk_rows) };
        Ok(Chunking { plan, wide })
    }
}

/// Bytes that a call takes beside inputs, outputs and gradients.
#[derive(Clone, Copy)]
struct Sizes {
    /// Whatever the chunk.
    fixed: usize,
    /// For each row of a chunk.
    row: usize,
    /// f32 sums of gradients of classifiers, where those are of 16 bits.
    sum: usize,
}

impl Sizes {
    fn new(
        checked: &CheckedDistillation<'_>,
        sides: [(&CheckedHead<'_>, bool); 2],
        threads: usize,
    ) -> Sizes {
        let classes = checked.classes();
        // What is known of a row: its place, loss, scales and upstream gradient.
        let mut sizes = Sizes { fixed: 64 * checked.rows(), row: 0, sum: 0 };
        // A task's tile of weights or of their gradient, and what is widened for all tasks: a side after the other.
        let (mut of_task, mut shared) = (0, 0);
        for (head, back) in sides {
            let (features, narrow) = (head.features, head.of.input.dtype() != DType::F32);
            of_task = of_task.max(if narrow { 4 * TILE.min(classes) * features } else { 4 * TILE });
            shared = shared.max(if narrow { 4 * WIDENED.min(classes) * features } else { 0 });
            // A class's bias and its gradient.
            sizes.fixed += 8 * classes + if narrow { beyond_wide(features) } else { 0 };
            // Logits, the hidden row, and its gradient.
            sizes.row += 4 * stride(classes) + if back { 8 * features } else { 4 * features };
            let elements = classes.saturating_mul(features);
            let sum = if narrow && back { elements.saturating_mul(4) } else { 0 };
            sizes.sum = sizes.sum.saturating_add(sum);
        }
        // And a row's slopes.
        sizes.fixed += (of_task + 4 * ROOM.min(classes)) * threads + shared;
        sizes
    }

    /// Of a chunk of so many rows.
    fn of(&self, chunk: usize) -> usize {
        self.fixed.saturating_add(self.row.saturating_mul(chunk))
    }
}
