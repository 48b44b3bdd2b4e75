//! Cross entropy over lists of classes on the CPU: logits of listed classes, a row of them beside the other, which
//! the losses over logits go through as they go through all others. What a list has no class for is −∞.

mod bucket;
mod classes;
mod lists;
mod products;
mod soft;

use crate::base::error::Result;
use crate::cpu::loss::class_subset::bucket::Sums;
use crate::cpu::loss::class_subset::lists::Lists;
use crate::cpu::loss::linear_cross_entropy::Backward;
use crate::cpu::matrix::chunks::stride;
use crate::cpu::processor::Cpu;
use crate::spec::class_subset::CheckedSubset;
use crate::spec::cross_entropy::CrossEntropyOut;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::linear_cross_entropy::{
    Call, CheckedLinear, LinearPath, LinearPlan, small_budget,
};

impl Cpu {
    pub(crate) fn class_subset(
        &self,
        (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
        call: Call<'_>,
    ) -> Result<()> {
        let (back, out): (_, Option<CrossEntropyOut<'_>>) = match call {
            Call::Forward { out } => (None, Some(out)),
            Call::Backward { upstream, gradients, out } => {
                (Some(Backward { upstream, gradients }), out)
            }
        };
        let plan = self.class_subset_plan(checked, back.is_some())?;
        match checked.of_logits.target {
            Target::Classes(_) => self.listed_classes((checked, subset), back, out),
            Target::Soft(soft) => {
                let of_logits = checked.of_logits.with(soft);
                self.listed_soft((checked, subset), of_logits, back, out, plan)
            }
        }
    }

    /// All rows' logits are there at once: there are as many as were listed. Where the rest has a part, a chunk of
    /// rows has those of all classes besides.
    pub(crate) fn class_subset_plan(
        &self,
        checked: &CheckedLinear<'_>,
        backward: bool,
    ) -> Result<LinearPlan> {
        if checked.options.path == LinearPath::Tiled {
            return checked.options.path.refuse("lists of classes", "auto or chunked");
        }
        let bytes = self.listed_bytes(checked, backward);
        if let Some(subset) = checked.subset.filter(|subset| subset.bucket) {
            return self.bucket_plan((checked, &subset), bytes, backward);
        }
        let rows = checked.rows;
        let budget = checked.options.workspace;
        if bytes > budget {
            return Err(small_budget(bytes, budget));
        }
        Ok(LinearPlan { path: LinearPath::Chunked, chunk_rows: rows, workspace_bytes: bytes })
    }

    /// Bytes of lists, and of what is made of what they list.
    fn listed_bytes(&self, checked: &CheckedLinear<'_>, backward: bool) -> usize {
        let (rows, columns) = (checked.rows, checked.classes());
        let soft = matches!(checked.of_logits.target, Target::Soft(_));
        let passes = if backward { 2 } else { 1 };
        let bucket = checked.subset.is_some_and(|subset| subset.bucket);
        // Slopes of what is listed; of the rest of a row, what it sums to.
        let beside = if bucket { 4 * stride(columns) + size_of::<Sums>() } else { 0 };
        let logits = 4 * stride(columns) * if soft { 1 + passes } else { 1 };
        let parts = if backward { 8 * columns } else { 0 };
        // A task's row of each kind, and what is known of a row.
        let of_task = 16 * checked.features * self.threads();
        let of_rows = rows.saturating_mul(logits + parts + beside + 96);
        let lists = Lists::bytes(rows, columns, soft);
        of_rows.saturating_add(lists).saturating_add(of_task)
    }
}
