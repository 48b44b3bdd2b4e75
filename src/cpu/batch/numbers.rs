//! The maths of a batch with class targets, in f64: what a row's sums make of its loss, and what
//! its gradient is made of. No loops over logits here.

use crate::base::error::Result;
use crate::base::host::HostRef;
use crate::base::reduction::Reduction;
use crate::cpu::batch::targets::{Census, Targets, WeightSum, Weights};
use crate::cpu::processor::{Cpu, host_data};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::state::Summed;
use crate::cpu::row::work::Terms;
use crate::cpu::simd::Lanes;
use crate::spec::class_indices::ClassIndices;
use crate::spec::counting::Counting;
use crate::spec::cross_entropy::Checked;
use crate::spec::grad_output::GradOutput;

/// Numbers of the batch that every row uses.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) targets: Targets<'a>,
    pub(crate) weights: Weights<'a>,
    pub(crate) weight_sum: f64,
    /// Loops see class weights over this.
    pub(crate) unit: f64,
    pub(crate) scaling: Scaling<'a>,
    pub(crate) epsilon: f64,
    pub(crate) lambda: f64,
    pub(crate) transform: Transform,
}

/// What multiplies and divides a batch's results: the reduction and the upstream gradient.
#[derive(Clone, Copy)]
pub(crate) struct Scaling<'a> {
    pub(crate) reduction: Reduction,
    pub(crate) census: Census,
    pub(crate) upstream: Upstream<'a>,
}

impl Scaling<'_> {
    /// Upstream gradients of a row's loss and of its z-loss: the reduction is in them.
    pub(crate) fn upstream(&self, row: usize) -> (f64, f64) {
        let g = f64::from(self.upstream.of(row));
        match self.reduction {
            Reduction::None | Reduction::Sum => (g, g),
            Reduction::Mean | Reduction::BatchMean if self.census.weight == 0.0 => {
                (f64::NAN, f64::NAN)
            }
            Reduction::Mean | Reduction::BatchMean => {
                (g / self.census.weight, g / self.census.rows)
            }
        }
    }

    /// Those of every row, where they are the same.
    pub(crate) fn upstream_of_all(&self) -> Option<(f64, f64)> {
        matches!(self.upstream, Upstream::Number(_)).then(|| self.upstream(0))
    }

    /// The result, and the z-loss part of it, from what the kept rows add up to.
    pub(crate) fn reduce(&self, sum: &Sums, z_loss: bool) -> (f32, f32) {
        let (loss, z_loss) = match self.reduction {
            Reduction::None | Reduction::Sum => (sum.loss, sum.z_loss),
            Reduction::Mean | Reduction::BatchMean => {
                let (w, n) = (self.census.weight, self.census.rows);
                // No kept row makes 0/0; no weight makes NaN of whatever the sum is.
                let loss = if w == 0.0 { f64::NAN } else { sum.loss / w };
                (loss, if z_loss { sum.z_loss / n } else { 0.0 })
            }
        };
        ((loss + z_loss) as f32, z_loss as f32)
    }
}

/// Class indices and class weights as loops read them.
pub(crate) fn read<'a>(
    indices: ClassIndices<'a>,
    counting: &Counting<'a>,
) -> Result<(Targets<'a>, Weights<'a>)> {
    let weights = Weights(counting.weight.map(|w| host_data(w, "weight")).transpose()?);
    let targets = Targets {
        argument: indices.argument(),
        indices: indices.on_host()?,
        rows: counting.rows,
        classes: counting.classes,
        ignore_index: counting.ignore_index,
        by_rows: counting.by_rows,
    };
    Ok((targets, weights))
}

#[derive(Clone, Copy)]
pub(crate) enum Upstream<'a> {
    Number(f32),
    PerRow(HostRef<'a>),
}

impl<'a> Upstream<'a> {
    pub(crate) fn new(grad_output: &GradOutput<'a>) -> Result<Upstream<'a>> {
        Upstream::new_as("grad_output", grad_output)
    }

    /// As [`Upstream::new`], under the name that it has beside another one.
    pub(crate) fn new_as(
        argument: &'static str,
        grad_output: &GradOutput<'a>,
    ) -> Result<Upstream<'a>> {
        Ok(match grad_output {
            GradOutput::Number(g) => Upstream::Number(*g),
            GradOutput::Tensor(t) => {
                let data = host_data(*t, argument)?;
                match t.elements() {
                    1 => Upstream::Number(data.float(0)),
                    _ => Upstream::PerRow(data),
                }
            }
        })
    }

    /// A row's.
    pub(crate) fn of(&self, row: usize) -> f32 {
        match self {
            Upstream::Number(g) => *g,
            Upstream::PerRow(g) => g.float(row),
        }
    }
}

/// Up to here a z has no fewer digits behind the point in f32 than a tolerance asks for.
const FINE: f64 = 1024.0;

impl<'a> Batch<'a> {
    /// Reads targets and weights; an error for what is wrong with them.
    pub(crate) fn new(
        cpu: &Cpu,
        checked: &Checked<'a>,
        upstream: Upstream<'a>,
    ) -> Result<Batch<'a>> {
        let options = checked.options;
        let (targets, weights) = read(checked.target, &checked.counting())?;
        let WeightSum { sum: weight_sum, unit } = weights.sum(checked.classes)?;
        let census = targets.census(cpu, &weights)?;
        Ok(Batch {
            targets,
            weights,
            weight_sum,
            unit,
            scaling: Scaling { reduction: options.reduction, census, upstream },
            epsilon: options.label_smoothing,
            lambda: options.lse_square_scale,
            transform: Transform::new(options.logit_scale, options.softcap),
        })
    }

    /// Whether a row's loss is its negative log-likelihood, of logits as they are.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = matches!(self.transform, Transform::Linear(Linear::Plain(_)));
        plain && self.epsilon == 0.0 && self.lambda == 0.0
    }

    /// ε/V.
    fn smooth(&self) -> f64 {
        match self.epsilon {
            0.0 => 0.0,
            epsilon => epsilon / self.targets.classes as f64,
        }
    }

    /// The target's column with its z, slope and smoothing weight.
    ///
    /// # Safety
    /// `class` is a column of the row at `x`.
    pub(crate) unsafe fn hole<X: Lanes>(&self, x: *const X, class: usize) -> Hole {
        // SAFETY: `class` is a column of the row at `x`: the census has found it in range, says the
        // caller.
        self.hole_of(unsafe { x.add(class).read() }.to_f32(), class, class)
    }

    /// The same from the target's logit, where it stands in another column than that of its class.
    pub(crate) fn hole_of(&self, logit: f32, column: usize, class: usize) -> Hole {
        let (mut z, slope) = self.transform.at(logit);
        let reference = match self.transform {
            Transform::Linear(_) => logit,
            Transform::Capped(_) => {
                // The other classes have theirs in f32: where its places are far apart, the target
                // is on one of them as well, or it would be apart from itself as the maximum.
                if z.abs() > FINE {
                    z = f64::from(z as f32);
                }
                z as f32
            }
        };
        Hole { column, logit, reference, z, slope, weight: self.smoothing_weight(class) }
    }

    /// A class's weight over the batch's unit; 0 without smoothing.
    pub(crate) fn smoothing_weight(&self, class: usize) -> f64 {
        self.smoothing_of(self.weights.get(class))
    }

    #[inline(always)]
    pub(crate) fn smoothing_of(&self, weight: f64) -> f64 {
        if self.epsilon > 0.0 { weight / self.unit } else { 0.0 }
    }

    /// ℓ without its z-loss, and the z-loss, of a kept row.
    pub(crate) fn loss(&self, sum: &Summed, class: usize) -> (f64, f64) {
        self.loss_of(sum, self.weights.get(class))
    }

    /// The same from the class's weight.
    #[inline(always)]
    pub(crate) fn loss_of(&self, sum: &Summed, weight: f64) -> (f64, f64) {
        let hard = (1.0 - self.epsilon) * weight;
        let mut loss = 0.0;
        if hard != 0.0 {
            loss += hard * sum.nll;
        }
        if self.epsilon > 0.0 {
            // Σ w·(lse − z) = (Σ w)·ln Σ + Σ w·(max − z).
            let spread = match self.weight_sum {
                0.0 => 0.0,
                weight_sum => weight_sum * sum.log_sum,
            };
            loss += self.smooth() * (spread + sum.deviation * self.unit);
        }
        let mut z_loss = 0.0;
        if self.lambda > 0.0 {
            z_loss = self.lambda * sum.lse() * sum.lse();
        }
        if sum.undefined() {
            (f64::NAN, if self.lambda > 0.0 { f64::NAN } else { 0.0 })
        } else {
            (loss, z_loss)
        }
    }

    /// Factors of p_j, of w_j and of the target's own term, dz/dx not included.
    pub(crate) fn factors(&self, row: usize, class: usize, lse: f64) -> Factors {
        self.factors_of(self.scaling.upstream(row), self.weights.get(class), lse)
    }

    /// The same from the row's upstream gradients and the class's weight.
    #[inline(always)]
    pub(crate) fn factors_of(&self, (g, g_z): (f64, f64), weight: f64, lse: f64) -> Factors {
        let hard = (1.0 - self.epsilon) * weight;
        // What an option leaves out is nothing, of an infinite upstream gradient as well.
        let part = |on: f64, factor: f64| if on > 0.0 { factor } else { 0.0 };
        let smooth = part(self.epsilon, g * self.smooth());
        let smoothed = part(self.epsilon, smooth * self.weight_sum);
        Factors {
            hard: g * hard,
            prob_without_hard: smoothed + part(self.lambda, g_z * 2.0 * self.lambda * lse),
            smooth: smooth * self.unit,
        }
    }
}

/// What a row's gradient is made of, in f64.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    /// g·(1−ε)·w_t: multiplies p_t − 1 at the target and p_j elsewhere.
    hard: f64,
    /// The rest of what multiplies p_j.
    prob_without_hard: f64,
    /// g·ε/V·unit: multiplies w_j/unit.
    smooth: f64,
}

impl Factors {
    /// Those of the negative log-likelihood alone, for its upstream gradient.
    pub(crate) fn of_nll(upstream: f64) -> Factors {
        Factors { hard: upstream, prob_without_hard: 0.0, smooth: 0.0 }
    }

    /// For the vector loops: the constant part of dz/dx multiplied in.
    #[inline(always)]
    pub(crate) fn terms(&self, transform: Transform) -> Terms {
        let slope = f64::from(transform.slope());
        Terms {
            prob: (self.hard + self.prob_without_hard) * slope,
            smooth: (self.smooth * slope) as f32,
        }
    }

    /// The target's gradient from the exponentials of all other classes and of the target:
    /// p_t − 1 is −rest/total, a sum over classes and not a difference. Then the target's dz/dx and
    /// smoothing weight.
    pub(crate) fn at_target(&self, rest: f64, target: f64, (slope, weight): (f64, f64)) -> f32 {
        let total = rest + target;
        self.at_share((rest / total, target / total), (slope, weight))
    }

    /// The same from the others' probability, and the target's.
    #[inline(always)]
    pub(crate) fn at_share(&self, shares: (f64, f64), (slope, weight): (f64, f64)) -> f32 {
        (self.of_z(shares, weight) * slope) as f32
    }

    /// The same before rounding, with respect to the target's z.
    #[inline(always)]
    pub(crate) fn of_z(&self, (rest, target): (f64, f64), weight: f64) -> f64 {
        self.prob_without_hard * target - self.hard * rest - self.smooth * weight
    }
}

/// Losses of kept rows, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) loss: f64,
    pub(crate) z_loss: f64,
}

impl Sums {
    /// Of rows' losses, one after another.
    pub(crate) fn of(rows: &[[f64; 2]]) -> Sums {
        let mut sums = Sums::default();
        for &[loss, z_loss] in rows {
            sums.add(&Sums { loss, z_loss });
        }
        sums
    }

    /// Adds those of more rows.
    pub(crate) fn add(&mut self, more: &Sums) {
        self.loss += more.loss;
        self.z_loss += more.z_loss;
    }
}
