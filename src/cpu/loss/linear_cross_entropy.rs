//! Cross entropy of hidden rows and a classifier on the CPU: the loss over logits, a chunk of them at a time.

pub(in crate::cpu::loss) mod classes;
mod filter;
mod plan;
pub(super) mod rows;
mod soft;

use crate::base::error::Result;
use crate::cpu::loss::linear_cross_entropy::rows::Rows;
use crate::cpu::matrix::chunks::{Chunks, Gradients, Turn, clear_rows};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::matrix::scratch::zeros;
use crate::cpu::processor::Cpu;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::cross_entropy::{CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::{Call, CheckedLinear, LinearGradOut, REST};

/// What a call makes beside its results.
pub(in crate::cpu::loss) struct Backward<'a> {
    pub(in crate::cpu::loss) upstream: CrossEntropyUpstream<'a>,
    pub(in crate::cpu::loss) gradients: LinearGradOut<'a>,
}

impl Cpu {
    pub(crate) fn linear_cross_entropy(
        &self,
        checked: &CheckedLinear<'_>,
        call: Call<'_>,
    ) -> Result<()> {
        let (back, out): (_, Option<CrossEntropyOut<'_>>) = match call {
            Call::Forward { out } => (None, Some(out)),
            Call::Backward { upstream, gradients, out } => {
                (Some(Backward { upstream, gradients }), out)
            }
        };
        self.linear_plan(checked, back.is_some())?;
        match checked.of_logits.target {
            Target::Classes(classes) => {
                self.linear_classes(checked, checked.of_logits.with(classes), back, out)
            }
            Target::Soft(soft) => {
                self.linear_soft(checked, checked.of_logits.with(soft), back, out)
            }
        }
    }

    /// Has `turn` go through the logits of the kept rows, and multiplies out what it makes of them.
    pub(in crate::cpu::loss) fn through_logits(
        &self,
        checked: &CheckedLinear<'_>,
        rows: &Rows,
        mut gradients: Option<LinearGradOut<'_>>,
        turn: Turn<'_>,
    ) -> Result<()> {
        let chunking = self.chunks_of(checked, gradients.is_some())?;
        self.with_chunks(checked, rows, chunking.plan.chunk_rows, &mut |chunks| {
            self.through_chunks(chunks, rows, (gradients.take(), chunking.wide), turn)
        })
    }

    /// The hidden rows and the classifier, of which so many rows are gone through at a time.
    fn with_chunks(
        &self,
        checked: &CheckedLinear<'_>,
        rows: &Rows,
        chunk: usize,
        work: &mut dyn FnMut(&Chunks<'_>) -> Result<()>,
    ) -> Result<()> {
        let of = &checked.input;
        let bias = match &of.linear_bias {
            Some(tensor) => {
                let mut wide = zeros("bias in f32", tensor.elements())?;
                Matrix::new(self, "linear_bias", tensor)?.widen(0, &mut wide);
                Some(wide)
            }
            None => None,
        };
        work(&Chunks {
            cpu: self,
            input: Matrix::new(self, "input", &of.input)?,
            rows: &rows.kept,
            weight: Matrix::new(self, "linear_weight", &of.linear_weight)?,
            bias: bias.as_deref(),
            scales: rows.scales.as_deref(),
            chunk,
        })
    }

    fn through_chunks(
        &self,
        chunks: &Chunks<'_>,
        rows: &Rows,
        (gradients, wide): (Option<LinearGradOut<'_>>, bool),
        turn: Turn<'_>,
    ) -> Result<()> {
        let Some(out) = gradients else { return chunks.run(None, turn) };
        let LinearGradOut { accumulate, accumulate_input, .. } = out;
        let named = |name, tensor, add| Gradient::new(self, name, tensor, add);
        let parameter = |name, tensor: Option<_>| {
            tensor.map(|tensor| named(name, tensor, accumulate)).transpose()
        };
        let input = out.input.map(|tensor| named("grad_input", tensor, accumulate_input));
        let weight = parameter("grad_linear_weight", out.linear_weight)?;
        let gradients = Gradients {
            input: input.transpose()?,
            weight: weight
                .map(|weight| weight.keeping(REST, out.linear_weight_rest))
                .transpose()?,
            bias: parameter("grad_linear_bias", out.linear_bias)?,
            wide,
        };
        chunks.run(Some(&gradients), turn)?;
        if let Some(input) = &gradients.input {
            clear_rows(self, input, &rows.ignored);
        }
        Ok(())
    }
}
