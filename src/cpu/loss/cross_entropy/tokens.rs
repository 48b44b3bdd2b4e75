//! Cross entropy with more of each row from the same sums: log-probability and entropy, their gradients,
//! and the likeliest classes.

use crate::base::error::Result;
use crate::base::tensor::TensorMut;
use crate::cpu::batch::lines::{Line, LineOp};
use crate::cpu::batch::numbers::{Batch, Sums, Upstream};
use crate::cpu::batch::results::Results;
use crate::cpu::loss::cross_entropy::call::Call;
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::processor::{host_f32, host_i64};
use crate::cpu::row::entropy::EntropyTerms;
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::places::Places;
use crate::cpu::row::state::RowSum;
use crate::cpu::row::top::{Top, top_of};
use crate::cpu::row::work::Row;
use crate::cpu::simd::Lanes;
use crate::cpu::threads::SyncPtr;
use crate::spec::cross_entropy::{CrossEntropyOut, CrossEntropyUpstream};

/// Where the numbers of rows go; null where nobody asked.
#[derive(Clone, Copy)]
pub(crate) struct TokenResults {
    logprob: SyncPtr<f32>,
    entropy: SyncPtr<f32>,
    places: Places,
    top: TopResults,
}

/// Where the likeliest classes go, `k` a row.
#[derive(Clone, Copy)]
struct TopResults {
    k: usize,
    classes: SyncPtr<i64>,
    logprob: SyncPtr<f32>,
}

impl Default for TokenResults {
    fn default() -> Self {
        let (f32s, i64s) = (SyncPtr(std::ptr::null_mut()), SyncPtr(std::ptr::null_mut()));
        let top = TopResults { k: 0, classes: i64s, logprob: f32s };
        TokenResults { logprob: f32s, entropy: f32s, places: Places::ALL, top }
    }
}

impl TokenResults {
    /// The caller's buffers, borrowed by `out` for as long as rows write to them; `None` where it has none.
    pub(crate) fn of(out: &mut CrossEntropyOut<'_>) -> Result<Option<TokenResults>> {
        if !out.of_tokens() {
            return Ok(None);
        }
        let pointer = |tensor: Option<TensorMut<'_>>, argument| {
            let slice = tensor.map(|t| host_f32(t, argument)).transpose()?;
            Ok(SyncPtr(slice.map_or(std::ptr::null_mut(), |s| s.as_mut_ptr())))
        };
        let mut results = TokenResults {
            logprob: pointer(out.logprob.take(), "logprob")?,
            entropy: pointer(out.entropy.take(), "entropy")?,
            ..TokenResults::default()
        };
        if let Some(top) = out.top_k.take() {
            results.top = TopResults {
                k: top.k(),
                logprob: SyncPtr(host_f32(top.logprob, "top_k.logprob")?.as_mut_ptr()),
                classes: SyncPtr(host_i64(top.classes, "top_k.classes")?.as_mut_ptr()),
            };
        }
        Ok(Some(results))
    }

    /// How many likeliest classes are asked for.
    pub(crate) fn top_k(&self) -> usize {
        self.top.k
    }

    /// The same for rows that have these places among those of the whole.
    pub(crate) fn at(self, places: Places) -> TokenResults {
        TokenResults { places, ..self }
    }

    /// Writes all of an ignored row.
    ///
    /// # Safety
    /// Each pointer is null or good for an element, or k, a row; nobody else writes this row's.
    pub(crate) unsafe fn put_ignored(&self, row: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            self.put(row, None);
            self.put_top(row, None);
        }
    }

    /// Writes one row's log-probability and entropy; `None` for an ignored one.
    ///
    /// # Safety
    /// Each pointer is null or good for an element a row; nobody else writes this row's.
    unsafe fn put(&self, row: usize, sum: Option<&RowSum>) {
        let [logprob, entropy] = sum.map_or([0.0; 2], RowSum::token);
        let row = self.places.row(row);
        for (out, value) in [(self.logprob, logprob), (self.entropy, entropy)] {
            if !out.get().is_null() {
                // SAFETY: a pointer that is not null has an element a row, and this row's is
                // written by this call alone: the caller's promise.
                unsafe { out.get().add(row).write(value) };
            }
        }
    }
}

impl TokenResults {
    /// Writes one row's likeliest classes, of its sum and its logits; `None` for an ignored one.
    ///
    /// # Safety
    /// Both pointers are good for `k` elements a row; nobody else writes this row's.
    unsafe fn put_top(&self, row: usize, of: Option<(&RowSum, &Top, Transform)>) {
        let (row, top) = (self.places.row(row), &self.top);
        let put = |i: usize, class: i64, logprob: f32| {
            // SAFETY: `i` is below `k`, of which there are as many a row: the caller's promise.
            unsafe {
                top.classes.get().add(row * top.k + i).write(class);
                top.logprob.get().add(row * top.k + i).write(logprob);
            }
        };
        let Some((sum, found, transform)) = of else {
            return (0..top.k).for_each(|i| put(i, -1, 0.0));
        };
        // From the first, which is the row's maximum: under a cap its z has more digits than a reference.
        let max = found.each().next().map_or(0.0, |(logit, _)| transform.at(logit).0);
        for (i, (logit, column)) in found.each().enumerate() {
            let logprob = match sum.undefined() {
                true => f64::NAN,
                false => transform.at(logit).0 - max - sum.log_sum,
            };
            put(i, column as i64, logprob as f32);
        }
    }
}

/// Writes all that was asked of a kept row, whose target this is.
///
/// # Safety
/// Results have an element, or k, a row, and nobody else writes this row's; there is a top where k is asked for.
pub(super) unsafe fn put_kept(
    batch: &Batch<'_>,
    (results, tokens): (&Results, Option<&TokenResults>),
    (row, class): (usize, usize),
    (sum, top): (&RowSum, Option<Top>),
    sums: &mut Sums,
) {
    // SAFETY: the caller's promise.
    unsafe {
        results.put(row, batch.loss(&sum.summed(), class), sum.lse() as f32, sums);
        results.ranks.put(row, Some(&sum.standing));
        if let Some(tokens) = tokens {
            tokens.put(row, Some(sum));
            if let Some(top) = &top {
                tokens.put_top(row, Some((sum, top, batch.transform)));
            }
        }
    }
}

/// Upstream gradients of log-probability and entropy.
#[derive(Clone, Copy)]
pub(crate) struct TokenUpstream<'a> {
    pub(crate) logprob: Upstream<'a>,
    pub(crate) entropy: Upstream<'a>,
}

impl<'a> TokenUpstream<'a> {
    pub(super) const NOTHING: TokenUpstream<'static> =
        TokenUpstream { logprob: Upstream::Number(0.0), entropy: Upstream::Number(0.0) };

    pub(super) fn new(upstream: &CrossEntropyUpstream<'a>) -> Result<TokenUpstream<'a>> {
        Ok(TokenUpstream {
            logprob: Upstream::new_as("grad_logprob", &upstream.grad_logprob)?,
            entropy: Upstream::new_as("grad_entropy", &upstream.grad_entropy)?,
        })
    }

    fn of(&self, row: usize) -> (f64, f64) {
        (f64::from(self.logprob.of(row)), f64::from(self.entropy.of(row)))
    }
}

/// All of a line: its numbers, and the gradient of all of them in the line's output.
pub(super) struct Tokens<'a> {
    pub(super) call: Call<'a>,
    pub(super) results: Results,
    pub(super) tokens: TokenResults,
    pub(super) upstream: TokenUpstream<'a>,
}

impl Tokens<'_> {
    /// The gradient of a row that was summed: its maximum is what distances are measured from.
    ///
    /// # Safety
    /// As for [`LineOp::line`]; the row is the line's, and `sum` is this row's.
    unsafe fn gradient<X: Lanes, A, Y: Lanes>(
        &self,
        line: &Line<X, A, Y>,
        row: &Row<X>,
        sum: &RowSum,
        (class, hole): (usize, &Hole),
    ) {
        let factors = self.call.batch.factors(line.index, class, sum.lse());
        let terms = factors.terms(row.transform);
        let (a, b) = self.upstream.of(line.index);
        let slope = f64::from(row.transform.slope());
        let terms = EntropyTerms {
            reference: sum.reference(),
            constant: ((terms.prob - (a + b * sum.mean_distance()) * slope) / sum.total()) as f32,
            slope: (-b * slope / sum.total()) as f32,
            smooth: terms.smooth,
        };
        let (rest, target) = (sum.rest / sum.total(), sum.target / sum.total());
        let of_z = factors.of_z((rest, target), hole.weight) + a * rest + b * sum.entropy_slope();
        // SAFETY: the caller's contract for the line, whose row this is; the class is a column of it.
        unsafe {
            row.entropy_gradient(line.y, hole.column, terms);
            line.y.add(hole.column).write(Y::from_f32((of_z * hole.slope) as f32));
        }
    }
}

impl LineOp for Tokens<'_> {
    type Sum = Sums;

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sums: &mut Sums) {
        let (batch, results, tokens) = (self.call.batch, &self.results, &self.tokens);
        // SAFETY: the caller's contract for the line; results have an element, or k, a row; the
        // census found the class in range.
        unsafe {
            let Some(class) = batch.targets.class(line.index) else {
                results.put(line.index, (0.0, 0.0), 0.0, sums);
                results.ranks.put(line.index, None);
                tokens.put_ignored(line.index);
                if !line.y.is_null() {
                    fill(&line, 0.0);
                }
                return;
            };
            line.ask_for_next(batch.targets.class_after(line.index));
            let mut row = self.call.row(&line);
            row.also.moment = true;
            let hole = batch.hole(line.x, class);
            let sum = row.sum(Some(hole));
            let top = (tokens.top.k > 0).then(|| top_of(&row, &hole, tokens.top.k));
            put_kept(batch, (results, Some(tokens)), (line.index, class), (&sum, top), sums);
            match line.y.is_null() {
                true => {}
                false if sum.undefined() => fill(&line, f32::NAN),
                false => self.gradient(&line, &row, &sum, (class, &hole)),
            }
        }
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}
