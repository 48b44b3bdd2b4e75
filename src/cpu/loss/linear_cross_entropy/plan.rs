//! How many rows' logits are there at once.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::cpu::batch::lines::gathered;
use crate::cpu::loss::cross_entropy::States;
use crate::cpu::matrix::chunks::{
    Cut, TILE, WIDENED, WIDENED_OF_TILE, beyond_wide, block_rows, stride,
};
use crate::cpu::processor::Cpu;
use crate::cpu::row::tile::SHORT;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::linear_cross_entropy::{CheckedLinear, LinearPath, LinearPlan, small_budget};
use crate::spec::row_state::block;

/// Logits of a chunk that nobody goes back over: a share of the last cache, and few pages.
const READ_ONCE: usize = 48 << 20;
/// Logits of a chunk that gradients are made of: of more rows the classifier and its gradient are brought from
/// memory less often, for less of everybody's memory.
const TURNED: usize = 256 << 20;
/// Logits of all threads' tiles, where nobody goes back over them, and rows of one.
const TILES: usize = 32 << 20;
const MOST: usize = 512;
/// What is kept of rows whose tiles come by before those of the next rows do.
const BAND: usize = 24 << 20;
/// What a product takes for itself, a thread: it is counted where a budget has room for it, and else is beside it,
/// as what a thread itself takes is.
const PRODUCT: usize = 4 << 20;
/// Rows of a chunk without gradients at least, if there is room for them: of fewer the classifier's way from
/// memory costs more than its products.
const LEAST: usize = 16;

impl Cpu {
    pub(crate) fn linear_plan(
        &self,
        checked: &CheckedLinear<'_>,
        backward: bool,
    ) -> Result<LinearPlan> {
        self.chunks_of(checked, backward).map(|chunking| chunking.plan)
    }

    /// Bytes that chunks take at the least.
    pub(in crate::cpu::loss) fn least_of_chunks(
        &self,
        checked: &CheckedLinear<'_>,
        backward: bool,
    ) -> usize {
        let rows = block_of(checked, backward).min(checked.rows.max(1));
        Sizes::new(checked, backward, self.threads()).of(rows)
    }

    /// The plan, with what of it only products know.
    pub(super) fn chunks_of(
        &self,
        checked: &CheckedLinear<'_>,
        backward: bool,
    ) -> Result<Chunking> {
        let path = checked.options.path;
        let in_tiles = (path != LinearPath::Chunked && tiles(checked, backward))
            .then(|| self.tiles_of(checked))
            .transpose();
        match (path, in_tiles) {
            (_, Ok(Some(chunking))) => return Ok(chunking),
            (LinearPath::Tiled, Err(small)) => return Err(small),
            (LinearPath::Tiled, Ok(None)) => {
                let has =
                    "auto or chunked (tiled: results alone, of class indices among more than 256)";
                return path.refuse("cpu", has);
            }
            _ => {}
        }
        let (rows, budget) = (checked.rows.max(1), checked.options.workspace);
        let sizes = Sizes::new(checked, backward, self.threads());
        let block = block_of(checked, backward);
        let least = sizes.of(block.min(rows));
        if least > budget {
            return Err(small_budget(least, budget));
        }
        // A gradient of 16 bits that is made of several chunks is rounded once where there is room for its sum.
        let with_sum = Sizes { fixed: sizes.fixed.saturating_add(sizes.sum), ..sizes };
        let needs = Some(with_sum.of(block.min(rows))).filter(|&needs| needs <= budget);
        let products = PRODUCT * self.threads();
        let products = if budget - needs.unwrap_or(least) >= products { products } else { 0 };
        let budget = budget - products;
        let logits = 4 * stride(checked.columns());
        let wanted = match backward {
            true => TURNED / logits,
            false => (READ_ONCE / logits).max(LEAST),
        };
        let chunk = |sizes: &Sizes| {
            let most = (budget - sizes.fixed) / sizes.row;
            (wanted.min(most) / block * block).max(block).min(rows)
        };
        let several = sizes.sum > 0 && chunk(&sizes) < rows;
        let wide = several && with_sum.of(block.min(rows)) <= budget;
        let sizes = if wide { with_sum } else { sizes };
        let chunk_rows = chunk(&sizes);
        let path = LinearPath::Chunked;
        let workspace_bytes = sizes.of(chunk_rows) + products;
        let plan = LinearPlan { path, chunk_rows, workspace_bytes };
        Ok(Chunking { plan, wide, cut: None })
    }
}

/// A plan, and what of it only products know.
pub(super) struct Chunking {
    pub(super) plan: LinearPlan,
    /// Whether the classifier's gradient has an f32 sum of its own.
    pub(super) wide: bool,
    /// Where logits are made a tile at a time.
    pub(super) cut: Option<Cut>,
}

/// Rows that a chunk has at the least: what is added up over rows is added up over whole blocks.
fn block_of(checked: &CheckedLinear<'_>, backward: bool) -> usize {
    if backward { block_rows(checked.columns()) } else { 1 }
}

/// Whether rows can be made of the parts that blocks of classes leave: rows of a few classes are summed side by
/// side, which is another order.
fn tiles(checked: &CheckedLinear<'_>, backward: bool) -> bool {
    let hard = matches!(checked.of_logits.target, Target::Classes(_));
    hard && !backward && checked.positions == 1 && checked.classes() > SHORT
}

impl Cpu {
    /// The plan of a call that makes logits a tile at a time, of which results alone are wanted.
    fn tiles_of(&self, checked: &CheckedLinear<'_>) -> Result<Chunking> {
        let (rows, budget) = (checked.rows.max(1), checked.options.workspace);
        let (classes, threads) = (checked.classes(), self.threads());
        let narrow = checked.input.input.dtype() != DType::F32;
        let of_task = PRODUCT + if narrow { 4 * WIDENED_OF_TILE } else { 0 };
        // Packs are within that: their products take less.
        let fixed = 8 * classes + 96 * rows + of_task * threads;
        // A row of every thread's tile, and one of the band: its hidden states and parts.
        let of_tile = 4 * block(classes).min(classes) * threads;
        let of_band = 4 * checked.features + States::bytes(classes);
        let least = fixed.saturating_add(of_tile).saturating_add(of_band);
        if least > budget {
            return Err(small_budget(least, budget));
        }
        let room = budget - fixed;
        let tile = (TILES.min(room / 2) / of_tile).clamp(1, MOST).min(rows);
        let band = BAND.max(tile * of_band).min(room - tile * of_tile) / of_band;
        let (band, path) = (band.max(1).min(rows), LinearPath::Tiled);
        let workspace_bytes = fixed + tile * of_tile + band * of_band;
        let plan = LinearPlan { path, chunk_rows: band, workspace_bytes };
        let cut = Cut { band, rows: tile.min(band), classes: block(classes) };
        Ok(Chunking { plan, wide: false, cut: Some(cut) })
    }
}

/// Bytes that a call takes beside inputs, outputs and gradients.
struct Sizes {
    /// Whatever the chunk.
    fixed: usize,
    /// For each row of a chunk.
    row: usize,
    /// An f32 sum of the classifier's gradient, where that is of 16 bits.
    sum: usize,
}

impl Sizes {
    fn new(checked: &CheckedLinear<'_>, backward: bool, threads: usize) -> Sizes {
        let (classes, features) = (checked.columns(), checked.features);
        let narrow = checked.input.input.dtype() != DType::F32;
        let passes = if backward { 2 } else { 1 };
        // A class's bias and its gradient; what is known of a row; a task's tile of weights or of their gradient,
        // and what is widened for all tasks.
        let of_task = if narrow { 4 * TILE.min(classes) * features } else { 4 * TILE };
        let shared = if narrow { 4 * WIDENED.min(classes) * features } else { 0 };
        let packed = if narrow { beyond_wide(features) } else { 0 };
        // Lines that lie side by side are gone through in a tile of a thread's own.
        let turned = if checked.positions > 1 { gathered(checked.classes()) } else { 0 };
        let fixed =
            8 * classes + 96 * checked.losses() + (of_task + turned) * threads + shared + packed;
        // Logits, the hidden row, and its gradient; probabilities in f32, and their gradient.
        let soft = matches!(checked.of_logits.target, Target::Soft(_));
        let beside = if soft { 4 * passes * classes } else { 0 };
        let row = 4 * stride(classes) + 4 * passes * features + beside;
        let elements = classes.saturating_mul(features);
        let sum = if narrow && backward { elements.saturating_mul(4) } else { 0 };
        Sizes { fixed, row, sum }
    }

    /// Of a chunk of so many rows.
    fn of(&self, chunk: usize) -> usize {
        self.fixed.saturating_add(self.row.saturating_mul(chunk))
    }
}
