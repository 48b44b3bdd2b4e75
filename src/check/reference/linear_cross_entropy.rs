//! Cross entropy of hidden states times a classifier, row by row.

mod filter;

use super::products::{FLOOR, Matrix, WithSizes};
use super::{Softmax, cross_entropy, soft_cross_entropy};
use crate::base::reduction::Reduction;
use crate::check::compare::FAR;
use crate::spec::cross_entropy::CrossEntropy;
use crate::spec::logprob_entropy::LogprobEntropy;
use std::borrow::Cow;

/// What goes into it: N hidden rows and, of a classifier for each of P positions, N·P rows of logits.
#[derive(Debug, Clone)]
pub struct LinearData<'a> {
    /// `[N, D]`.
    pub input: &'a [f64],
    /// D.
    pub features: usize,
    /// `[V, P, D]`.
    pub weight: &'a [f64],
    /// V.
    pub classes: usize,
    /// P: 1 where rows share a classifier.
    pub positions: usize,
    /// `[V, P]`.
    pub bias: Option<&'a [f64]>,
    /// Class indices, or class probabilities.
    pub target: LinearTarget<'a>,
    /// One a row.
    pub temperature: Option<&'a [f64]>,
    /// One a row.
    pub row_weight: Option<&'a [f64]>,
    /// The bound below which pieces of rows have no gradient.
    pub gradient_filter: Option<f64>,
    /// Upstream gradients of loss, log-probability and entropy: one number each, or one a row.
    pub upstream: [&'a [f64]; 3],
}

/// What rows are to be.
#[derive(Debug, Clone, Copy)]
pub enum LinearTarget<'a> {
    /// One a row.
    Classes(&'a [i64]),
    /// `[N, V, P]`.
    Probabilities(&'a [f64]),
}

/// What a row is to be.
enum RowTarget<'a> {
    Class(i64),
    Probabilities(Cow<'a, [f64]>),
}

impl<'a> LinearData<'a> {
    /// Hidden rows of so many features, a classifier of so many classes that they share, and targets; with nothing else,
    /// and the gradient of the loss alone.
    pub fn new(
        (input, features): (&'a [f64], usize),
        (weight, classes): (&'a [f64], usize),
        target: LinearTarget<'a>,
    ) -> LinearData<'a> {
        LinearData {
            input,
            features,
            weight,
            classes,
            positions: 1,
            bias: None,
            target,
            temperature: None,
            row_weight: None,
            gradient_filter: None,
            upstream: [&[1.0], &[0.0], &[0.0]],
        }
    }

    fn rows(&self) -> usize {
        match self.target {
            LinearTarget::Classes(target) => target.len(),
            LinearTarget::Probabilities(all) => all.len() / self.classes,
        }
    }

    /// Where a class of a row of logits stands among those of all, `[N, V, P]`.
    fn place(&self, row: usize, class: usize) -> usize {
        let (hidden, position) = (row / self.positions, row % self.positions);
        (hidden * self.classes + class) * self.positions + position
    }

    fn target(&self, row: usize) -> RowTarget<'_> {
        match self.target {
            LinearTarget::Classes(target) => RowTarget::Class(target[row]),
            LinearTarget::Probabilities(all) if self.positions == 1 => {
                RowTarget::Probabilities(all[row * self.classes..][..self.classes].into())
            }
            LinearTarget::Probabilities(all) => {
                let classes = 0..self.classes;
                RowTarget::Probabilities(classes.map(|class| all[self.place(row, class)]).collect())
            }
        }
    }
}

/// What it should give.
#[derive(Debug, Clone, Default)]
pub struct LinearReference {
    /// One number, or one a row; the z-loss is part of it.
    pub loss: WithSizes,
    /// The z-loss part of it.
    pub z_loss: WithSizes,
    /// One a row; 0 for ignored rows, as the next two.
    pub lse: WithSizes,
    /// Of the target.
    pub logprob: WithSizes,
    /// Of the row.
    pub entropy: WithSizes,
    /// In the input's order.
    pub grad_input: WithSizes,
    /// In the classifier's order.
    pub grad_weight: WithSizes,
    /// One a class.
    pub grad_bias: WithSizes,
    /// In the order of probabilities; empty where there are none.
    pub grad_target: WithSizes,
}

/// A row's results, of upstream gradients that have the reduction in them.
struct Of {
    loss: f64,
    loss_size: f64,
    z_loss: f64,
    lse: f64,
    logprob: f64,
    entropy: f64,
    dz: WithSizes,
    grad_target: WithSizes,
}

/// The loss and its gradients.
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn linear_cross_entropy(options: &CrossEntropy<'_>, of: &LinearData<'_>) -> LinearReference {
    let (features, classes, positions) = (of.features, of.classes, of.positions);
    let rows = of.rows();
    let weight = match options.class_weight() {
        Some(weight) => weight.to_f64().expect("weights in host memory"),
        None => vec![1.0; classes],
    };
    let kept = |row: usize| match of.target {
        LinearTarget::Classes(target) => target[row] != options.ignore_index,
        LinearTarget::Probabilities(_) => true,
    };
    let u = |row: usize| of.row_weight.map_or(1.0, |weights| weights[row]);
    let of_class = |row: usize| match of.target {
        LinearTarget::Classes(target) => weight[target[row] as usize],
        LinearTarget::Probabilities(_) => 1.0,
    };
    let all = || (0..rows).filter(|&row| kept(row));
    let by_weight: f64 = all().map(|row| u(row) * of_class(row)).sum();
    let by_rows: f64 = all().map(u).sum();
    let mean = options.reduction == Reduction::Mean;
    let divided = |g: f64, by: f64| match mean {
        false => g,
        true if by_weight == 0.0 => f64::NAN,
        true => g / by,
    };
    let mut result = LinearReference {
        grad_input: WithSizes::zeros(rows / positions * features),
        grad_weight: WithSizes::zeros(of.weight.len()),
        grad_bias: WithSizes::zeros(classes * positions),
        grad_target: WithSizes::zeros(match of.target {
            LinearTarget::Classes(_) => 0,
            LinearTarget::Probabilities(all) => all.len(),
        }),
        ..LinearReference::default()
    };
    let [mut losses, mut z_losses] = [(); 2].map(|()| WithSizes::default());
    for row in 0..rows {
        let (hidden, position) = (row / positions, row % positions);
        let matrix = Matrix::new(of.weight, features).every(positions, position);
        let x = WithSizes::exact(&of.input[hidden * features..][..features]);
        if !kept(row) {
            for to in [&mut losses, &mut z_losses] {
                to.push(0.0, 0.0);
            }
            for to in [&mut result.lse, &mut result.logprob, &mut result.entropy] {
                to.push(0.0, 0.0);
            }
            continue;
        }
        let tau = of.temperature.map_or(1.0, |temperature| temperature[row]);
        let mut z = matrix.times(classes, &x);
        for j in 0..classes {
            let b = of.bias.map_or(0.0, |bias| bias[j * positions + position]);
            z.values[j] = (z.values[j] + b) / tau;
            z.sizes[j] = (z.sizes[j] + b.abs()) / tau;
        }
        let [g, a, b] = of.upstream.map(|g| g[if g.len() == 1 { 0 } else { row }]);
        let g = if u(row) == 0.0 { 0.0 } else { g * u(row) };
        let row_of = Row { options, weight: &weight, z: &z };
        let target = of.target(row);
        let out = row_of.evaluate(&target, [divided(g, by_weight), divided(g, by_rows), a, b]);
        let off = out.loss_size + row_of.off();
        let weighted = |loss: f64| if u(row) == 0.0 { 0.0 } else { loss * u(row) };
        losses.push(weighted(out.loss), weighted(off));
        let lambda = options.lse_square_scale;
        let of_z = match lambda {
            0.0 => 0.0,
            _ => lambda * out.lse.abs() * (1.0 + out.lse.abs()) * row_of.off(),
        };
        z_losses.push(weighted(out.z_loss), weighted(of_z));
        result.lse.push(out.lse, out.lse.abs() + row_of.off());
        result.logprob.push(out.logprob, out.logprob.abs() + row_of.off());
        result.entropy.push(out.entropy, out.entropy.abs() + 4.0 * row_of.off());
        let mut dz = out.dz;
        if let (Some(bound), RowTarget::Class(own)) = (of.gradient_filter, &target) {
            row_of.leave_out(&mut dz, *own as usize, bound);
        }
        dz.values.iter_mut().chain(&mut dz.sizes).for_each(|v| *v /= tau);
        let mut dx = WithSizes::zeros(features);
        matrix.back(&x, &dz, &mut result.grad_weight, &mut dx);
        for d in 0..features {
            result.grad_input.add(hidden * features + d, dx.values[d], dx.sizes[d]);
        }
        for j in 0..classes {
            result.grad_bias.add(j * positions + position, dz.values[j], dz.sizes[j]);
        }
        for j in 0..out.grad_target.values.len() {
            let (value, size) = (out.grad_target.values[j], out.grad_target.sizes[j]);
            result.grad_target.add(of.place(row, j), value, size);
        }
    }
    let reduce = |of: WithSizes, by: f64| {
        let divide = |values: Vec<f64>| {
            vec![match mean {
                true if by == 0.0 => f64::NAN,
                true => values.iter().sum::<f64>() / by,
                false => values.iter().sum(),
            }]
        };
        match options.reduction {
            Reduction::None => of,
            _ => WithSizes { values: divide(of.values), sizes: divide(of.sizes) },
        }
    };
    let none = options.lse_square_scale == 0.0;
    result.z_loss = reduce(z_losses, if none { 1.0 } else { by_rows });
    let mut loss = reduce(losses, by_weight);
    for (i, (value, size)) in loss.values.iter_mut().zip(&mut loss.sizes).enumerate() {
        *value += result.z_loss.values[i];
        *size += result.z_loss.sizes[i];
    }
    result.loss = loss;
    result
}

struct Row<'a> {
    options: &'a CrossEntropy<'a>,
    weight: &'a [f64],
    z: &'a WithSizes,
}

impl Row<'_> {
    /// What a log-probability may be off by, in units of rounding: what the logits may.
    fn off(&self) -> f64 {
        let largest = self.z.sizes.iter().fold(0.0, |m: f64, &size| m.max(size));
        1.0 + largest * f64::from(self.options.logit_scale).max(1.0)
    }

    fn evaluate(&self, target: &RowTarget<'_>, upstream: [f64; 4]) -> Of {
        let plain = self.options.clone().reduction(Reduction::None);
        let classes = self.z.values.len();
        let shape = [1, classes];
        let [g, g_z, a, b] = upstream;
        let without = CrossEntropy { lse_square_scale: 0.0, ..plain.clone() };
        // Of an upstream gradient each: the z-loss is divided by another number.
        let (one, with_z, grad_target, own) = match target {
            RowTarget::Class(target) => {
                let target = std::slice::from_ref(target);
                let one = cross_entropy(&without, &shape, &self.z.values, target, &[g]);
                let with_z = cross_entropy(&plain, &shape, &self.z.values, target, &[1.0]);
                let no_z = cross_entropy(&without, &shape, &self.z.values, target, &[1.0]);
                (one, [with_z, no_z], WithSizes::default(), Some(target[0] as usize))
            }
            RowTarget::Probabilities(target) => {
                let soft =
                    |options, g| soft_cross_entropy(options, &shape, &self.z.values, target, &[g]);
                let (one, grad_target) = soft(&without, g);
                let sizes = one.grad_target_size.iter().zip(self.weight);
                // All but a weight may be beyond f32 together, which it then cannot bring back.
                let largest = self.weight.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
                let far = |size: f64, w: f64| match w {
                    0.0 => false,
                    w => size / w.abs() * largest > f64::from(f32::MAX) / 2.0,
                };
                let sizes = sizes.map(|(size, &w)| match far(*size, w) {
                    true => FAR,
                    false => size + (g * w).abs() * self.off(),
                });
                let grad_target = WithSizes { sizes: sizes.collect(), values: grad_target };
                (one, [soft(&plain, 1.0).0, soft(&without, 1.0).0], grad_target, None)
            }
        };
        let mut dz = WithSizes {
            values: one.grad_logits.clone(),
            sizes: one.grad_logits_size.iter().map(|size| size + FLOOR).collect(),
        };
        let [with_z, no_z] = with_z;
        let lse = with_z.lse[0];
        for j in 0..classes {
            if self.options.lse_square_scale > 0.0 {
                dz.values[j] += g_z * (with_z.grad_logits[j] - no_z.grad_logits[j]);
                let cancelled = with_z.grad_logits_size[j] + no_z.grad_logits_size[j];
                dz.sizes[j] += g_z.abs() * cancelled;
            }
        }
        let tokens = own.map(|own| {
            let rows = LogprobEntropy::default()
                .ignore_index(plain.ignore_index)
                .logit_scale(plain.logit_scale)
                .softcap(plain.softcap);
            let target = [own as i64];
            super::logprob_entropy(&rows, &shape, &self.z.values, &target, [&[a], &[b]])
        });
        if let Some(tokens) = &tokens {
            for j in 0..classes {
                dz.values[j] += tokens.grad_logits[j];
                dz.sizes[j] += tokens.grad_logits_size[j];
            }
        }
        self.widen(&mut dz, (own, target), upstream, lse);
        let [logprob, entropy] = match &tokens {
            Some(tokens) => [tokens.logprob[0], tokens.entropy[0]],
            None => [0.0; 2],
        };
        let z_loss = with_z.z_loss[0];
        let loss_size = no_z.loss_size[0];
        Of { loss: no_z.loss[0], loss_size, z_loss, lse, logprob, entropy, dz, grad_target }
    }

    /// Adds what gradients are off by where logits are.
    fn widen(
        &self,
        dz: &mut WithSizes,
        (own, target): (Option<usize>, &RowTarget<'_>),
        [g, g_z, a, b]: [f64; 4],
        lse: f64,
    ) {
        let options = self.options;
        // A cap bends, and where it does so a logit that is a little off has another slope.
        let near = |x: f64| (x.abs() - 1e-6 * self.off()).max(0.0);
        // What is left of a slope far beyond the cap is no better than f32's places of 1.
        let least = options.softcap.map_or(0.0, |_| 1e-7 * f64::from(options.logit_scale));
        let (z, _): (Vec<f64>, Vec<f64>) =
            self.z.values.iter().map(|&x| super::cross_entropy::transform(options, x)).unzip();
        let slopes: Vec<f64> = self
            .z
            .values
            .iter()
            .map(|&x| super::cross_entropy::transform(options, near(x)).1 + least)
            .collect();
        let softmax = Softmax::new(&z);
        if softmax.undefined() {
            return;
        }
        let mass: f64 = match target {
            RowTarget::Class(_) => {
                let own = own.map_or(0.0, |own| self.weight[own]);
                own + options.label_smoothing * self.weight.iter().sum::<f64>() / z.len() as f64
            }
            RowTarget::Probabilities(q) => {
                let share = options.label_smoothing / z.len() as f64;
                q.iter().zip(self.weight).map(|(q, w)| w * (q.abs() + share)).sum()
            }
        };
        let factor =
            g.abs() * mass + 2.0 * g_z.abs() * options.lse_square_scale * (1.0 + lse.abs());
        let capped = options.softcap.map_or(0.0, |cap| 2.0 / f64::from(cap));
        for j in 0..z.len() {
            let p = softmax.probability(j);
            let away = if p == 0.0 { 0.0 } else { softmax.max - z[j] };
            let own = f64::from(u8::from(own == Some(j)));
            let of_tokens = a.abs() + b.abs() * (1.0 + away + softmax.log_total());
            let amount = (factor + of_tokens) * (p + own + FLOOR) * slopes[j].abs();
            let bent = dz.sizes[j] * capped * self.off();
            dz.sizes[j] += amount * self.off() + bent;
        }
    }
}
