//! Distillation from hidden states, row by row.

use super::products::{FLOOR, Matrix, WithSizes};
use super::{Softmax, js_div_logits};
use crate::base::reduction::Reduction;
use crate::spec::divergence::Divergence;
use crate::spec::js_div_logits::JsDivLogits;

/// One side of it.
#[derive(Debug, Clone)]
pub struct HeadData {
    /// `[N, D]`.
    pub input: Vec<f64>,
    /// D.
    pub features: usize,
    /// `[V, D]`.
    pub weight: Vec<f64>,
    /// `[V]`.
    pub bias: Option<Vec<f64>>,
    /// One a row.
    pub temperature: Option<Vec<f64>>,
}

/// What goes into it.
#[derive(Debug, Clone)]
pub struct DistillationData<'a> {
    /// Student and teacher.
    pub sides: [&'a HeadData; 2],
    /// N.
    pub rows: usize,
    /// V.
    pub classes: usize,
    /// What says which rows count.
    pub labels: Option<&'a [i64]>,
    /// One a row.
    pub row_weight: Option<&'a [f64]>,
    /// One number, or one a row.
    pub upstream: &'a [f64],
}

/// Gradients of a side.
#[derive(Debug, Clone, Default)]
pub struct HeadReference {
    /// In the input's order.
    pub input: WithSizes,
    /// In the classifier's order.
    pub weight: WithSizes,
    /// One a class.
    pub bias: WithSizes,
}

/// A slope that may be on the other side is no better than itself.
const IN_DOUBT: f64 = 1e8;

/// The loss, and the gradients of student and teacher.
///
/// # Panics
/// Where the engine returns an error for shapes, this may panic.
pub fn linear_distillation(
    options: &JsDivLogits<'_>,
    of: &DistillationData<'_>,
) -> (WithSizes, [HeadReference; 2]) {
    let kept = |row: usize| of.labels.is_none_or(|labels| labels[row] != options.ignore_index);
    let u = |row: usize| of.row_weight.map_or(1.0, |weights| weights[row]);
    let weight: f64 = (0..of.rows).filter(|&row| kept(row)).map(u).sum();
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::BatchMean => weight,
        Reduction::Mean => weight * of.classes as f64,
    };
    let plain = JsDivLogits { labels: None, ..options.clone() }.reduction(Reduction::None);
    let mut losses = WithSizes::default();
    let mut sides = of.sides.map(|side| HeadReference {
        weight: WithSizes::zeros(side.weight.len()),
        bias: WithSizes::zeros(of.classes),
        ..HeadReference::default()
    });
    for row in 0..of.rows {
        if !kept(row) {
            losses.push(0.0, 0.0);
            for (to, side) in sides.iter_mut().zip(of.sides) {
                to.input.extend(WithSizes::zeros(side.features));
            }
            continue;
        }
        let z = of.sides.map(|side| side.logits(row, of.classes));
        let g = of.upstream[if of.upstream.len() == 1 { 0 } else { row }];
        let g = if u(row) == 0.0 { 0.0 } else { g * u(row) } / denominator;
        let row_of = Row { options: &plain, z: &z };
        let (loss, dz) = row_of.evaluate(g);
        let weighted = |loss: f64| if u(row) == 0.0 { 0.0 } else { loss * u(row) };
        losses.push(weighted(loss.values[0]), weighted(loss.sizes[0]));
        for ((to, side), mut dz) in sides.iter_mut().zip(of.sides).zip(dz) {
            let tau = side.temperature.as_ref().map_or(1.0, |temperature| temperature[row]);
            dz.values.iter_mut().chain(&mut dz.sizes).for_each(|v| *v /= tau);
            let x = WithSizes::exact(&side.input[row * side.features..][..side.features]);
            let mut dx = WithSizes::zeros(side.features);
            Matrix::new(&side.weight, side.features).back(&x, &dz, &mut to.weight, &mut dx);
            for j in 0..of.classes {
                to.bias.add(j, dz.values[j], dz.sizes[j]);
            }
            to.input.extend(dx);
        }
    }
    (losses.reduced(options.reduction, denominator), sides)
}

impl HeadData {
    /// A row's, over its temperature.
    fn logits(&self, row: usize, classes: usize) -> WithSizes {
        let x = WithSizes::exact(&self.input[row * self.features..][..self.features]);
        let tau = self.temperature.as_ref().map_or(1.0, |temperature| temperature[row]);
        let mut z = Matrix::new(&self.weight, self.features).times(classes, &x);
        for j in 0..classes {
            let b = self.bias.as_ref().map_or(0.0, |bias| bias[j]);
            z.values[j] = (z.values[j] + b) / tau;
            z.sizes[j] = (z.sizes[j] + b.abs()) / tau;
        }
        z
    }
}

struct Row<'a> {
    options: &'a JsDivLogits<'a>,
    z: &'a [WithSizes; 2],
}

impl Row<'_> {
    /// What a difference of log-probabilities may be off by, in units of rounding: what the logits may.
    fn off(&self) -> f64 {
        let scales = [self.options.logit_scale, self.options.teacher_scale];
        let largest = |z: &WithSizes| z.sizes.iter().fold(0.0, |m: f64, &size| m.max(size));
        let sides = self.z.iter().zip(scales);
        1.0 + sides.map(|(z, scale)| largest(z) * f64::from(scale).max(1.0)).sum::<f64>()
    }

    /// The loss, and the gradients of both rows of logits.
    fn evaluate(&self, g: f64) -> (WithSizes, [WithSizes; 2]) {
        let (x, y) = (&self.z[0].values, &self.z[1].values);
        let shape = [1, x.len()];
        let one = js_div_logits(self.options, &shape, (x, y), None, &[1.0]);
        let out = js_div_logits(self.options, &shape, (x, y), None, &[g]);
        let scales = [self.options.logit_scale, self.options.teacher_scale].map(f64::from);
        let scaled = |z: &[f64], scale: f64| z.iter().map(|z| z * scale).collect::<Vec<f64>>();
        let z = [scaled(x, scales[0]), scaled(y, scales[1])];
        let [q, p] = z.each_ref().map(|z| Softmax::new(z));
        let mut dz = [
            WithSizes { values: out.grad_logits, sizes: out.grad_logits_size },
            WithSizes { values: out.grad_target, sizes: out.grad_target_size },
        ];
        let off = self.off();
        let mut loss = WithSizes { values: one.loss, sizes: one.loss_size };
        if q.undefined() || p.undefined() {
            return (loss, dz);
        }
        let slopes = one.grad_logits.iter().chain(&one.grad_target).map(|slope| slope.abs());
        // What is 0 may be what rounding leaves of it.
        loss.sizes[0] += 1e-3 + slopes.filter(|slope| slope.is_finite()).sum::<f64>() * off;
        let share = |j: usize| q.probability(j) + p.probability(j);
        let apart = |j: usize| match p.nll(z[1][j]) - q.nll(z[0][j]) {
            u if u.is_finite() => u.abs(),
            _ => 0.0,
        };
        let spread: f64 = (0..x.len()).map(|j| share(j) * apart(j)).sum();
        let variation = self.options.divergence == Divergence::TotalVariation;
        let doubt = |j: usize| match variation && apart(j) <= 2e-6 * off {
            true => share(j),
            false => 0.0,
        };
        let doubts: f64 = (0..x.len()).map(doubt).sum();
        for (dz, scale) in dz.iter_mut().zip(scales) {
            for (j, size) in dz.sizes.iter_mut().enumerate() {
                let bends = share(j) * (2.0 + apart(j) + spread) * off;
                let flips = (doubt(j) + share(j) * doubts) * IN_DOUBT;
                *size += (g * scale).abs() * (bends + flips) + FLOOR;
            }
        }
        (loss, dz)
    }
}
