//! Log-probability and entropy of short rows, sixteen of them side by side.

use crate::cpu::batch::numbers::{Batch, Upstream};
use crate::cpu::batch::tiles::{Lined, TileOp};
use crate::cpu::loss::logprob_entropy::results::Results;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::tile::{Lane, MomentSums, MomentTerms, ROWS, Tile};
use crate::cpu::simd::{Kernel, Level, Simd};

/// A call on short rows.
pub(super) struct Short<'a> {
    pub(super) level: Level,
    pub(super) batch: &'a Batch<'a>,
    pub(super) results: Option<Results>,
    /// Upstream gradients of log-probabilities and of entropies, where the gradient is asked for.
    pub(super) upstream: Option<[Upstream<'a>; 2]>,
}

impl TileOp for Short<'_> {
    type Sum = ();

    fn tile(&self, tile: Lined<'_>, _: &mut ()) {
        let Lined { first, lines, lie, len, ahead, x, .. } = tile;
        let Short { level, batch, results, .. } = self;
        let (level, transform) = (*level, batch.transform);
        let class = batch.targets.classes_of_tile(first, lines);
        let (smoothing, weights) = (false, None);
        let mut tile =
            Tile { level, transform, lie, len, x, ahead, class: None, smoothing, weights };
        if let Some(results) = results {
            // SAFETY: results have an element a row, and these rows are this call's.
            unsafe { tile.put_ranks(&results.ranks, &class, (first, lines)) };
        }
        let mut sums = MomentSums::EMPTY;
        tile.sum_moments(&class, &mut sums);
        let (mut upstream, mut terms) = ([Lane::of(0.0); 2], MomentTerms::NONE);
        if let Some(given) = &self.upstream {
            for (lane, given) in upstream.iter_mut().zip(given) {
                for (row, number) in lane.0.iter_mut().enumerate().take(lines) {
                    *number = given.of(first + row).into();
                }
            }
        }
        let mut numbers = Numbers::EMPTY;
        let (of, upstream) = (&sums, &upstream);
        let rows = (&mut numbers, &mut terms);
        level.run(Finish { transform, of, upstream, rows });
        if let Some(results) = results {
            for row in 0..lines {
                let Numbers { logprob, entropy, lse } = &numbers;
                let all = match class.0[row] >= 0.0 {
                    true => [logprob.0[row], entropy.0[row], lse.0[row]],
                    false => [0.0; 3],
                };
                // SAFETY: results have an element a row, and this row is this call's.
                unsafe { results.put_numbers(first + row, all) };
            }
        }
        if self.upstream.is_some() {
            tile.moment_gradient(&class, &sums, &terms);
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

/// Results of rows.
struct Numbers {
    logprob: Lane<f32>,
    entropy: Lane<f32>,
    lse: Lane<f32>,
}

impl Numbers {
    const EMPTY: Numbers =
        Numbers { logprob: Lane::of(0.0), entropy: Lane::of(0.0), lse: Lane::of(0.0) };
}

/// From what rows sum to their results, and what their gradients are made of: arithmetic of f64 without a
/// branch, so that rows share vectors here too.
struct Finish<'k> {
    transform: Transform,
    of: &'k MomentSums,
    /// Upstream gradients of log-probabilities and of entropies.
    upstream: &'k [Lane<f64>; 2],
    rows: (&'k mut Numbers, &'k mut MomentTerms),
}

impl Kernel for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Finish { transform, of, upstream, rows: (numbers, terms) } = self;
        let scale = f64::from(transform.slope());
        for i in 0..ROWS {
            let (max, log_sum) = (f64::from(of.max.0[i]), f64::from(of.log_sum.0[i]));
            let defined = max.abs() < f64::INFINITY && !log_sum.is_nan();
            // NaN of a row without probabilities, or what changes nothing.
            let nothing = if defined { 0.0 } else { f64::NAN };
            let (rest, target) = (f64::from(of.rest.0[i]), f64::from(of.target.0[i]));
            let share = 1.0 / (rest + target);
            let (others, own) = (rest * share, target * share);
            // A probability of 0 makes 0 of an infinite distance.
            let distance = if own == 0.0 { 0.0 } else { f64::from(of.distance.0[i]) };
            let moment = f64::from(of.moment.0[i]) * share;
            let mean_distance = moment + own * distance;
            numbers.logprob.0[i] = (nothing - f64::from(of.nll.0[i])) as f32;
            numbers.entropy.0[i] = (nothing + (log_sum + mean_distance)) as f32;
            numbers.lse.0[i] = (scale * max + log_sum) as f32;
            let (a, b) = (upstream[0].0[i], upstream[1].0[i]);
            let factor = -scale * share;
            terms.constant.0[i] = (nothing + (a + b * mean_distance) * factor) as f32;
            terms.slope.0[i] = (b * factor) as f32;
            // −p_t·(z_t − lse + H): the target's own share of the mean distance is taken off before
            // anything is added.
            let of_entropy = own * distance * others - own * moment;
            let slope = scale * f64::from(of.slope.0[i]);
            terms.at_target.0[i] = (nothing + (a * others + b * of_entropy) * slope) as f32;
        }
    }
}
