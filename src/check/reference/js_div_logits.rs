//! Jensen–Shannon divergence from logits, row by row.

use super::elementwise::vanishes;
use super::js_div::js_slopes;
use super::{Lines, Softmax};
use crate::base::reduction::Reduction;
use crate::spec::divergence::Divergence;
use crate::spec::js_div_logits::JsDivLogits;

/// What the divergence should give.
#[derive(Debug, Clone, Default)]
pub struct JsDivLogitsReference {
    /// One loss, or one a row.
    pub loss: Vec<f64>,
    /// Σ|terms| of each loss.
    pub loss_size: Vec<f64>,
    /// In the logits' order.
    pub grad_logits: Vec<f64>,
    /// Sizes of `grad_logits`.
    pub grad_logits_size: Vec<f64>,
    /// In the target's order.
    pub grad_target: Vec<f64>,
    /// Sizes of `grad_target`.
    pub grad_target_size: Vec<f64>,
}

/// The divergence of `logits` from a teacher's (both of `shape`), and its gradients. `labels` say
/// which rows count, if the options have any.
///
/// # Panics
/// Where the engine returns an error for shapes, this may panic.
pub fn js_div_logits(
    options: &JsDivLogits<'_>,
    shape: &[usize],
    (logits, target): (&[f64], &[f64]),
    labels: Option<&[i64]>,
    grad_output: &[f64],
) -> JsDivLogitsReference {
    let class_dim = usize::from(shape.len() > 1);
    let classes = shape[class_dim] as f64;
    let lines = Lines::new(shape, &[class_dim]);
    let rows = lines.bases.len();
    let keeps = |row: usize| labels.is_none_or(|labels| labels[row] != options.ignore_index);
    let kept = (0..rows).filter(|&row| keeps(row)).count() as f64;
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::BatchMean => kept,
        Reduction::Mean => kept * classes,
    };
    let mut result = JsDivLogitsReference {
        grad_logits: vec![0.0; logits.len()],
        grad_logits_size: vec![0.0; logits.len()],
        grad_target: vec![0.0; target.len()],
        grad_target_size: vec![0.0; target.len()],
        ..Default::default()
    };
    for row in 0..rows {
        if !keeps(row) {
            result.loss.push(0.0);
            result.loss_size.push(0.0);
            continue;
        }
        let g = grad_output[if grad_output.len() == 1 { 0 } else { row }] / denominator;
        let (a, b) = (lines.read(row, logits), lines.read(row, target));
        let of = |z: &[f64], scale: f32| {
            let z: Vec<f64> = z.iter().map(|z| f64::from(scale) * z).collect();
            (Softmax::new(&z), z)
        };
        let scales = [options.logit_scale, options.teacher_scale];
        let ((q, x), (p, y)) = (of(&a, scales[0]), of(&b, scales[1]));
        // Differences of logits are no better than the logits, which f64 rounds.
        let finite = x.iter().chain(&y).filter(|z| z.is_finite());
        let unsure = finite.fold(0.0, |m: f64, z| m.max(z.abs())) * 2f64.powi(-30);
        let undefined = (q.undefined() || p.undefined()) && !x.is_empty();
        let mut slopes: Vec<[f64; 2]> = (0..x.len())
            .map(|j| own_slopes(options.divergence, -q.nll(x[j]), -p.nll(y[j])))
            .collect();
        // What a slope is as large as, whatever is taken off it.
        let size = |slopes: &[[f64; 2]], k: usize| slopes.iter().map(|s| s[k].abs()).sum::<f64>();
        let sizes = [0, 1].map(|k| size(&slopes, k));
        let own_sizes = slopes.clone();
        let mut losses: Vec<f64> = slopes.iter().map(|s| s[0] + s[1]).collect();
        // Of total variation, what slopes may be off by: a class that is hardly on either side. Of rows that are
        // the same each has exactly none.
        let alike = a == b && scales[0] == scales[1];
        let mut doubt = vec![0.0; x.len()];
        if options.divergence == Divergence::TotalVariation {
            for (j, loss) in losses.iter_mut().enumerate() {
                let (x, y) = (-q.nll(x[j]), -p.nll(y[j]));
                let [difference, ..] = centred_kl(x, y);
                *loss = difference.abs() / 2.0;
                let hardly = (x - y).abs() <= 1024.0 * unsure && !alike;
                doubt[j] = if hardly { q.probability(j).max(p.probability(j)) } else { 0.0 };
            }
        }
        let beta = options.divergence.beta();
        if beta == 0.0 || beta == 1.0 {
            let forward = beta == 0.0;
            for (j, (slopes, loss)) in slopes.iter_mut().zip(&mut losses).enumerate() {
                let (x, y) = (-q.nll(x[j]), -p.nll(y[j]));
                let [at_q, at_p, own] = if forward { centred_kl(x, y) } else { centred_kl(y, x) };
                (*slopes, *loss) = (if forward { [at_q, at_p] } else { [at_p, at_q] }, own);
            }
        }
        if undefined {
            slopes.fill([f64::NAN; 2]);
            losses.fill(f64::NAN);
        }
        result.loss.push(losses.iter().sum());
        result.loss_size.push(sizes[0] + sizes[1]);
        let totals = [0, 1].map(|k| slopes.iter().map(|s| s[k]).sum::<f64>());
        let gradient = |k: usize, softmax: &Softmax| -> (Vec<f64>, Vec<f64>) {
            let factor = g * f64::from(scales[k]);
            (0..slopes.len())
                .map(|j| {
                    let (share, own) = (softmax.probability(j), slopes[j][k]);
                    let share = if vanishes(share) { 0.0 } else { share };
                    let size = (factor * own_sizes[j][k]).abs()
                        + (factor * share).abs() * (sizes[k] + unsure);
                    let doubt = doubt[j] + share * doubt.iter().sum::<f64>();
                    let doubt = if doubt == 0.0 { 0.0 } else { factor.abs() * doubt * IN_DOUBT };
                    (factor * (own - share * totals[k]), size + doubt)
                })
                .unzip()
        };
        let ((dx, dx_size), (dy, dy_size)) = (gradient(0, &q), gradient(1, &p));
        lines.write(row, &dx, &mut result.grad_logits);
        lines.write(row, &dx_size, &mut result.grad_logits_size);
        lines.write(row, &dy, &mut result.grad_target);
        lines.write(row, &dy_size, &mut result.grad_target_size);
    }
    if options.reduction != Reduction::None {
        let reduce = |values: &[f64]| vec![values.iter().sum::<f64>() / denominator];
        result.loss = reduce(&result.loss);
        result.loss_size = reduce(&result.loss_size);
    }
    result
}

/// A slope that may be another one is no better than itself, whatever f32 could tell of it.
const IN_DOUBT: f64 = 1e8;

/// Slopes of a class to ln Q = x and to ln P = y, by definition.
fn own_slopes(divergence: Divergence, x: f64, y: f64) -> [f64; 2] {
    match divergence {
        Divergence::TotalVariation => {
            let [difference, ..] = centred_kl(x, y);
            let side = if difference == 0.0 { 0.0 } else { difference.signum() / 2.0 };
            [side * x.exp(), -side * y.exp()]
        }
        of => js_slopes(of.beta(), x, y),
    }
}

/// Slopes of KL(P‖Q) to ln Q = x, but for a multiple of Q, and to ln P = y, but for one of P, which
/// the gradients do not see; and the term P·(e^u − 1 − u), u = x − y, as P and Q add up to 1 both.
fn centred_kl(x: f64, y: f64) -> [f64; 3] {
    let (q, p, u) = (x.exp(), y.exp(), x - y);
    if y == f64::NEG_INFINITY {
        return [q, 0.0, q];
    }
    if u == f64::NEG_INFINITY {
        return [-p, f64::INFINITY, f64::INFINITY];
    }
    let at_q = if u.abs() < 1.0 { p * u.exp_m1() } else { q - p };
    [at_q, -p * u, at_q - p * u]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_hand() {
        // Q = (1/2, 1/2), P = (1, 0): M = (3/4, 1/4).
        let (x, y) = ([0.0, 0.0], [0.0, f64::NEG_INFINITY]);
        let options = JsDivLogits::default();
        let out = js_div_logits(&options, &[2], (&x, &y), None, &[1.0]);
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-15, "{got}");
        near(out.loss[0], 0.75 * (4.0f64 / 3.0).ln());
        let slopes = [0.25 * (2.0f64 / 3.0).ln(), 0.25 * 2f64.ln()];
        near(out.grad_logits[0], slopes[0] - 0.5 * (slopes[0] + slopes[1]));
        near(out.grad_target[0], 0.0);
    }

    #[test]
    fn a_total_variation_by_hand() {
        // Q = (1/2, 1/2), P = (3/4, 1/4): slopes (−1/4, 1/4) to ln Q, which are the gradient as they add up to 0,
        // and (3/8, −1/8) to ln P.
        let (x, y) = ([0.0, 0.0], [3f64.ln(), 0.0]);
        let options = JsDivLogits::default().divergence(Divergence::TotalVariation);
        let out = js_div_logits(&options, &[2], (&x, &y), None, &[1.0]);
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-15, "{got}");
        near(out.loss[0], 0.25);
        near(out.grad_logits[0], -0.25);
        near(out.grad_target[0], 0.375 - 0.75 * 0.25);
        let equal = js_div_logits(&options, &[2], (&x, &x), None, &[1.0]);
        assert_eq!((equal.loss, equal.grad_logits), (vec![0.0], vec![0.0; 2]));
    }
}
