//! Against class indices.

use crate::base::error::Result;
use crate::base::host::IndexRef;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::numbers::{Batch, Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::{Targets, Weights};
use crate::cpu::loss::class_subset::lists::{Lists, filled};
use crate::cpu::loss::class_subset::products::Listed;
use crate::cpu::loss::cross_entropy::{Pass, TokenResults, TokenUpstream};
use crate::cpu::loss::linear_cross_entropy::Backward;
use crate::cpu::loss::linear_cross_entropy::classes::{put_ignored, weighted};
use crate::cpu::loss::linear_cross_entropy::rows::Rows;
use crate::cpu::matrix::chunks::{Logits, stride};
use crate::cpu::matrix::scratch::with_large;
use crate::cpu::processor::{Cpu, host_f32_ref, host_i64};
use crate::cpu::row::places::Places;
use crate::spec::class_indices::ClassIndices;
use crate::spec::class_subset::CheckedSubset;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream, TopKOut};
use crate::spec::linear_cross_entropy::CheckedLinear;

impl Cpu {
    pub(super) fn listed_classes(
        &self,
        (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
        back: Option<Backward<'_>>,
        out: Option<CrossEntropyOut<'_>>,
    ) -> Result<()> {
        let Target::Classes(target) = checked.of_logits.target else { return Ok(()) };
        let given = back.as_ref().map_or(CrossEntropyUpstream::default(), |back| back.upstream);
        let options = checked.of_logits.options;
        let of = (checked.rows, Some((target, options.ignore_index)));
        let mut lists = Lists::new(self, subset, of)?;
        let labels = std::mem::take(&mut lists.labels);
        let labels = TensorRef::new(&labels, &[labels.len()])?;
        // Labels, and weights, are of all classes.
        let labels = ClassIndices::new("target", &labels)?;
        let of_all = Checked { classes: subset.classes, ..checked.of_logits.with(labels) };
        let upstream = Upstream::new(&given.grad_output)?;
        let mut batch = Batch::new(self, &of_all, upstream)?;
        let targets = batch.targets;
        let rows = Rows::new(checked, |row| targets.class(row).is_some())?;
        if let Some(error) = lists.wrong.take() {
            return Err(error);
        }
        let weights =
            checked.input.row_weight.map(|w| host_f32_ref(w, "row_weight")).transpose()?;
        if let Some(weights) = weights {
            batch.scaling.census = weighted(&batch, &rows, weights);
        }
        let factors = factors(&batch, (checked.rows, &rows), weights)?;
        let factors = factors.as_deref();
        let tokens = [
            Upstream::new_as("grad_logprob", &given.grad_logprob)?,
            Upstream::new_as("grad_entropy", &given.grad_entropy)?,
        ];
        let [of_logprob, of_entropy] = tokens.map(|upstream| rows.upstream(&upstream, None));
        let (of_logprob, of_entropy) = (of_logprob?, of_entropy?);
        let of_loss = rows.upstream(&upstream, factors)?;
        let all = 0..rows.kept.len();
        let places: Vec<i64> = rows.kept.iter().map(|&row| lists.places[row]).collect();
        let batch = Batch {
            targets: Targets {
                indices: IndexRef::I64(&places),
                rows: places.len(),
                classes: subset.columns,
                ignore_index: None,
                ..batch.targets
            },
            weights: Weights(None),
            weight_sum: subset.columns as f64,
            unit: 1.0,
            ..batch
        };
        let mut batch = batch;
        batch.scaling.upstream = of_loss.part(&all);
        let of_tokens =
            TokenUpstream { logprob: of_logprob.part(&all), entropy: of_entropy.part(&all) };
        let mut losses = vec![[0.0; 2]; checked.rows];
        let mut named = Named::new(checked.rows, out.as_ref())?;
        let (mut out, asked) = named.stand_in(out)?;
        let tokens = out.as_mut().map(TokenResults::of).transpose()?.flatten();
        let mut buffers = out.map(Buffers::new).transpose()?;
        let results = match &mut buffers {
            Some(buffers) => buffers.results(batch.scaling.reduction),
            None => Results::NONE,
        };
        // SAFETY: both have an element for each row of the batch, and are there until all rows were gone through.
        let results = unsafe { results.weighted(&mut losses, factors) };
        // SAFETY: the list of kept rows is there until all were gone through.
        let at = unsafe { Places::of(&rows.kept) };
        let pass = match tokens {
            None if !given.of_tokens() => Pass::Forward(results.at(at)),
            tokens => {
                let tokens = tokens.map(|tokens| tokens.at(at)).unwrap_or_default();
                Pass::Tokens(results.at(at), tokens, of_tokens)
            }
        };
        let listed = Listed::new(self, checked, (&lists, &rows), stride(subset.columns))?;
        let len = rows.kept.len().saturating_mul(listed.stride);
        with_large("logits of listed classes", len, |data| {
            listed.logits(data);
            let (classes, stride) = (subset.columns, listed.stride);
            let logits = Logits { rows: all, classes, stride, data: &mut *data };
            self.cross_entropy_of_rows(&batch, pass, logits, back.is_some());
            back.map_or(Ok(()), |back| listed.gradients(data, back.gradients))
        })??;
        // SAFETY: results have an element a row, and nobody else writes any now.
        unsafe { put_ignored(rows.ignored_losses(), results, tokens.as_ref()) };
        if let Some(buffers) = &mut buffers {
            buffers.finish(&batch.scaling, &Sums::of(&losses), batch.lambda > 0.0);
        }
        named.finish(&lists, asked);
        Ok(())
    }
}

/// What multiplies each row's loss: its weight times that of its class. `None`: nothing does.
fn factors(
    batch: &Batch<'_>,
    (all, rows): (usize, &Rows),
    weights: Option<&[f32]>,
) -> Result<Option<Vec<f32>>> {
    if batch.weights.0.is_none() && weights.is_none() {
        return Ok(None);
    }
    let mut factors = filled(all, 0.0)?;
    for &row in &rows.kept {
        let of_class = batch.targets.class(row).map_or(0.0, |class| batch.weights.get(class));
        let u = weights.map_or(1.0, |weights| weights[row]);
        // A class's weight of 0 leaves NaN where the row's own does not: −0 says so (`Results`).
        factors[row] = match u * of_class as f32 {
            _ if u == 0.0 => 0.0,
            0.0 => -0.0,
            both => both,
        };
    }
    Ok(Some(factors))
}

/// Classes that rows are asked for, which are places in lists until the end.
struct Named {
    argmax: Vec<i64>,
    top: Vec<i64>,
}

/// Where they go.
#[derive(Default)]
struct Asked<'o> {
    argmax: Option<&'o mut [i64]>,
    top: Option<&'o mut [i64]>,
}

impl Named {
    fn new(rows: usize, out: Option<&CrossEntropyOut<'_>>) -> Result<Named> {
        let argmax = out.is_some_and(|out| out.argmax.is_some());
        let k = out.and_then(|out| out.top_k.as_ref()).map_or(0, TopKOut::k);
        Ok(Named { argmax: filled(if argmax { rows } else { 0 }, -1)?, top: filled(rows * k, -1)? })
    }

    /// The outputs with these in the place of the caller's classes, and those.
    fn stand_in<'n, 'o: 'n>(
        &'n mut self,
        out: Option<CrossEntropyOut<'o>>,
    ) -> Result<(Option<CrossEntropyOut<'n>>, Asked<'o>)> {
        let mut asked = Asked::default();
        let Some(out) = out else { return Ok((None, asked)) };
        let CrossEntropyOut { loss, lse, z_loss, argmax, rank, logprob, entropy, top_k } = out;
        let mut out = CrossEntropyOut {
            lse,
            z_loss,
            rank,
            logprob,
            entropy,
            ..CrossEntropyOut::<'n>::loss(loss)
        };
        if let Some(argmax) = argmax {
            let shape = argmax.shape();
            asked.argmax = Some(host_i64(argmax, "argmax")?);
            out.argmax = Some(TensorMut::new(&mut self.argmax, &shape)?);
        }
        if let Some(TopKOut { classes, logprob }) = top_k {
            let shape = classes.shape();
            asked.top = Some(host_i64(classes, "top_k.classes")?);
            let classes = TensorMut::new(&mut self.top, &shape)?;
            out.top_k = Some(TopKOut { classes, logprob });
        }
        Ok((Some(out), asked))
    }
    /// Writes the classes that were found to the caller's memory.
    fn finish(&mut self, lists: &Lists, asked: Asked<'_>) {
        for (found, to) in [(&mut self.argmax, asked.argmax), (&mut self.top, asked.top)] {
            let Some(to) = to else { continue };
            let each = found.len() / lists.rows().max(1);
            for (row, places) in found.chunks_exact_mut(each.max(1)).enumerate() {
                lists.name(row, places);
            }
            to[..found.len()].copy_from_slice(found);
        }
    }
}
