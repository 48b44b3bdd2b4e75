//! Against class indices.

use crate::base::error::Result;
use crate::base::host::IndexRef;
use crate::cpu::batch::numbers::{Batch, Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::{Census, Targets};
use crate::cpu::loss::cross_entropy::{Pass, States, TokenResults, TokenUpstream};
use crate::cpu::loss::linear_cross_entropy::Backward;
use crate::cpu::loss::linear_cross_entropy::filter::Filter;
use crate::cpu::loss::linear_cross_entropy::rows::{OfRows, Rows};
use crate::cpu::matrix::chunks::{Chunks, Cut, Logits};
use crate::cpu::processor::{Cpu, host_f32_ref};
use crate::cpu::row::places::Places;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::CheckedLinear;
use std::ops::Range;

/// A batch of which some rows are gone through at a time.
struct Classes<'a> {
    cpu: &'a Cpu,
    batch: Batch<'a>,
    /// Of the kept rows.
    labels: Vec<i64>,
    upstream: OfRows,
    of_tokens: [OfRows; 2],
    /// Whether anything but the loss has a gradient.
    token_gradients: bool,
    back: bool,
    /// Below which bound pieces of rows have no gradient.
    filter: Option<f32>,
}

impl Cpu {
    pub(super) fn linear_classes(
        &self,
        checked: &CheckedLinear<'_>,
        of_logits: Checked<'_>,
        back: Option<Backward<'_>>,
        mut out: Option<CrossEntropyOut<'_>>,
    ) -> Result<()> {
        let given = back.as_ref().map_or(CrossEntropyUpstream::default(), |back| back.upstream);
        let upstream = Upstream::new(&given.grad_output)?;
        let mut batch = Batch::new(self, &of_logits, upstream)?;
        let targets = batch.targets;
        let rows = Rows::new(checked, |row| targets.class(row).is_some())?;
        let weights =
            checked.input.row_weight.map(|w| host_f32_ref(w, "row_weight")).transpose()?;
        if let Some(weights) = weights {
            batch.scaling.census = weighted(&batch, &rows, weights);
        }
        let tokens = [
            Upstream::new_as("grad_logprob", &given.grad_logprob)?,
            Upstream::new_as("grad_entropy", &given.grad_entropy)?,
        ];
        let [of_logprob, of_entropy] = tokens.map(|upstream| rows.upstream(&upstream, None));
        let call = Classes {
            cpu: self,
            labels: rows.losses().iter().map(|&row| targets.indices.get(row)).collect(),
            upstream: rows.upstream(&upstream, weights)?,
            of_tokens: [of_logprob?, of_entropy?],
            token_gradients: given.of_tokens(),
            batch,
            back: back.is_some(),
            filter: checked.options.gradient_filter.filter(|_| back.is_some()),
        };
        let mut losses = vec![[0.0; 2]; checked.losses()];
        let tokens = out.as_mut().map(TokenResults::of).transpose()?.flatten();
        let mut buffers = out.map(Buffers::new).transpose()?;
        let results = match &mut buffers {
            Some(buffers) => buffers.results(batch.scaling.reduction),
            None => Results::NONE,
        };
        // SAFETY: both have an element for each row of the batch, and are there until all rows were gone through.
        let results = unsafe { results.weighted(&mut losses, weights) };
        let gradients = back.map(|back| back.gradients);
        match self.chunks_of(checked, gradients.is_some())?.cut {
            Some(cut) => self.with_chunks(checked, &rows, cut.band, &mut |chunks| {
                call.in_tiles(chunks, cut, (results, tokens))
            })?,
            None => {
                let mut turn = |logits: Logits<'_>| {
                    let span = rows.span(&logits.rows);
                    // SAFETY: the list of kept rows is there until all were gone through, and has those of the
                    // part.
                    let places = unsafe { Places::of(&rows.losses()[span.clone()]) };
                    call.turn(
                        (logits, span),
                        results.at(places),
                        tokens.map(|tokens| tokens.at(places)),
                    );
                    Ok(())
                };
                self.through_logits(checked, &rows, gradients, &mut turn)?;
            }
        }
        // SAFETY: results have an element a row, and nobody else writes any now.
        unsafe { put_ignored(rows.ignored_losses(), results, tokens.as_ref()) };
        if let Some(buffers) = &mut buffers {
            buffers.finish(&batch.scaling, &Sums::of(&losses), batch.lambda > 0.0);
        }
        Ok(())
    }
}

impl Classes<'_> {
    /// The batch of some losses of the kept rows.
    fn of_rows(&self, rows: &Range<usize>) -> Batch<'_> {
        let labels = &self.labels[rows.clone()];
        let indices = IndexRef::I64(labels);
        let targets = Targets { indices, rows: labels.len(), ..self.batch.targets };
        Batch { targets, ..self.batch }
    }

    /// Results alone, of logits that come a tile at a time.
    fn in_tiles(
        &self,
        chunks: &Chunks<'_>,
        cut: Cut,
        (results, tokens): (Results, Option<TokenResults>),
    ) -> Result<()> {
        let classes = self.batch.targets.classes;
        let band = cut.band.min(chunks.rows.len());
        let top_k = tokens.map_or(0, |tokens| tokens.top_k());
        let mut states = States::new(band, classes, top_k)?;
        let mut targets = Vec::new();
        chunks.bands(cut, &mut |band| {
            // SAFETY: the list of kept rows is there until all were gone through, and has those of the band.
            let places = unsafe { Places::of(&chunks.rows[band.rows()]) };
            let batch = self.of_rows(&band.rows());
            if results.ranks.wanted() {
                targets.clear();
                targets.extend((0..batch.targets.rows).filter_map(|row| batch.targets.class(row)));
                band.logits_of(&targets, &mut states.targets);
            }
            let to = (results.at(places), tokens.map(|tokens| tokens.at(places)));
            self.cpu.cross_entropy_in_tiles(&batch, to, &mut states, &mut |read| band.tiles(read));
            Ok(())
        })
    }

    /// Results of some rows of logits with these losses, and their gradient in place.
    fn turn(
        &self,
        (mut logits, losses): (Logits<'_>, Range<usize>),
        results: Results,
        tokens: Option<TokenResults>,
    ) {
        let mut batch = self.of_rows(&losses);
        batch.scaling.upstream = self.upstream.part(&losses);
        let [logprob, entropy] = &self.of_tokens;
        let of_tokens =
            TokenUpstream { logprob: logprob.part(&losses), entropy: entropy.part(&losses) };
        let pass = match tokens {
            None if !self.token_gradients => Pass::Forward(results),
            tokens => Pass::Tokens(results, tokens.unwrap_or_default(), of_tokens),
        };
        let filter = self.filter.map(|bound| Filter::of(self.cpu, &batch, &logits, bound));
        self.cpu.cross_entropy_of_rows(&batch, pass, logits.again(), self.back);
        if let Some(filter) = filter {
            filter.clear(logits);
        }
    }
}

/// What rows that do not count have: zeros, and no rank.
///
/// # Safety
/// The results have an element a row, and nobody else writes any.
pub(in crate::cpu::loss) unsafe fn put_ignored(
    ignored: impl Iterator<Item = usize>,
    results: Results,
    tokens: Option<&TokenResults>,
) {
    for row in ignored {
        // SAFETY: a row that the results have an element of: the caller's promise.
        unsafe {
            results.unweighted().put(row, (0.0, 0.0), 0.0, &mut Sums::default());
            results.ranks.put(row, None);
            if let Some(tokens) = tokens {
                tokens.put_ignored(row);
            }
        }
    }
}

/// The census with weights of rows.
pub(in crate::cpu::loss) fn weighted(batch: &Batch<'_>, rows: &Rows, weights: &[f32]) -> Census {
    let mut census = Census { kept: rows.kept.len(), weight: 0.0, rows: 0.0 };
    for &row in &rows.kept {
        let weight = f64::from(weights[row]);
        let of_class = batch.targets.class(row).map_or(0.0, |class| batch.weights.get(class));
        census.weight += weight * of_class;
        census.rows += weight;
    }
    census
}
