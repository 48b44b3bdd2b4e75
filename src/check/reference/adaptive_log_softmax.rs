//! Adaptive log-softmax, row by row.

use super::products::{FLOOR, Matrix, Part, WithSizes};
use crate::base::reduction::Reduction;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, AdaptiveTail};

/// What an adaptive log-softmax should give.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveReference {
    /// The target's log-probability, one a row.
    pub output: WithSizes,
    /// One number, or one a row.
    pub loss: WithSizes,
    /// Log-probabilities of all classes, row by row.
    pub log_prob: WithSizes,
    /// In the input's order.
    pub grad_input: WithSizes,
    /// In the parameters' order.
    pub grads: AdaptiveParameters<WithSizes>,
}

/// One row: its hidden state, what is made of it, and where it adds to.
struct Row<'a> {
    options: &'a AdaptiveLogSoftmax<'a>,
    parameters: &'a AdaptiveParameters<Vec<f64>>,
    x: WithSizes,
}

impl Row<'_> {
    fn head(&self) -> Part {
        let options = self.options;
        let head = Matrix::new(&self.parameters.head_weight, options.in_features);
        let mut z = head.times(options.head_size(), &self.x);
        for (i, &b) in self.parameters.head_bias.iter().flatten().enumerate() {
            z.add(i, b, b.abs());
        }
        Part::new(z)
    }

    /// What the projection makes of it, and the softmax over that.
    fn cluster(&self, i: usize) -> (WithSizes, Part) {
        let (options, tail) = (self.options, &self.parameters.tails[i]);
        let (width, classes) = (options.width(i), options.cluster(i).len());
        let projection = Matrix::new(&tail.projection, options.in_features);
        let hidden = projection.times(width, &self.x);
        let z = Matrix::new(&tail.weight, width).times(classes, &hidden);
        (hidden, Part::new(z))
    }

    /// Log-probabilities of all places.
    fn log_prob(&self) -> WithSizes {
        let (options, head) = (self.options, self.head());
        let mut all = WithSizes::default();
        (0..options.shortlist()).for_each(|place| all.push(head.log_prob(place), head.size));
        for i in 0..options.clusters() {
            let (_, part) = self.cluster(i);
            for class in 0..options.cluster(i).len() {
                let shift = head.log_prob(options.shortlist() + i);
                all.push(shift + part.log_prob(class), head.size + part.size);
            }
        }
        all
    }

    /// Log-probability of a place, and its size; adds −g times its gradient.
    fn back(
        &self,
        place: usize,
        g: f64,
        grads: &mut AdaptiveParameters<WithSizes>,
    ) -> (f64, f64, WithSizes) {
        let (options, head) = (self.options, self.head());
        let cluster = (0..options.clusters()).find(|&i| options.cluster(i).contains(&place));
        let column = cluster.map_or(place, |i| options.shortlist() + i);
        let (mut output, mut size) = (head.log_prob(column), head.size);
        let (mut dx, dz) = (WithSizes::zeros(options.in_features), head.gradient(column, g));
        let weight = Matrix::new(&self.parameters.head_weight, options.in_features);
        weight.back(&self.x, &dz, &mut grads.head_weight, &mut dx);
        if let Some(bias) = &mut grads.head_bias {
            (0..dz.values.len()).for_each(|j| bias.add(j, dz.values[j], dz.sizes[j]));
        }
        if let Some(i) = cluster {
            let (hidden, part) = self.cluster(i);
            let class = place - options.cluster(i).start;
            output += part.log_prob(class);
            size += part.size;
            let (tail, grad) = (&self.parameters.tails[i], &mut grads.tails[i]);
            let (dz, mut dh) = (part.gradient(class, g), WithSizes::zeros(options.width(i)));
            let weight = Matrix::new(&tail.weight, options.width(i));
            weight.back(&hidden, &dz, &mut grad.weight, &mut dh);
            dh.sizes.iter_mut().for_each(|size| *size += FLOOR);
            let projection = Matrix::new(&tail.projection, options.in_features);
            projection.back(&self.x, &dh, &mut grad.projection, &mut dx);
        }
        (output, size, dx)
    }
}

/// The loss of an `input` of rows, log-probabilities, and the gradients for the upstream gradient
/// `grad_output` (one number, or one per row).
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn adaptive_log_softmax(
    options: &AdaptiveLogSoftmax<'_>,
    parameters: &AdaptiveParameters<Vec<f64>>,
    (input, target): (&[f64], &[i64]),
    grad_output: &[f64],
) -> AdaptiveReference {
    let order = options.class_order.as_ref();
    let place = |class: i64| {
        let class = class as usize;
        order.map_or(class, |order| order.place(class).expect("a class of the order"))
    };
    let weight = match &options.row_weight {
        Some(weight) => weight.to_f64().expect("weights in host memory"),
        None => vec![1.0; target.len()],
    };
    let kept = |row: usize| options.ignore_index != Some(target[row]);
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::Mean | Reduction::BatchMean => {
            (0..target.len()).filter(|&row| kept(row)).map(|row| weight[row]).sum()
        }
    };
    let zeros = |values: &Vec<f64>| WithSizes::zeros(values.len());
    let mut result = AdaptiveReference {
        output: WithSizes::default(),
        loss: WithSizes::default(),
        log_prob: WithSizes::default(),
        grad_input: WithSizes::default(),
        grads: AdaptiveParameters {
            head_weight: zeros(&parameters.head_weight),
            head_bias: parameters.head_bias.as_ref().map(zeros),
            tails: (parameters.tails.iter())
                .map(|t| AdaptiveTail {
                    projection: zeros(&t.projection),
                    weight: zeros(&t.weight),
                })
                .collect(),
        },
    };
    for (row, x) in input.chunks_exact(options.in_features).enumerate() {
        let row_of = Row { options, parameters, x: WithSizes::exact(x) };
        let by_place = row_of.log_prob();
        for class in 0..options.classes {
            let at = place(class as i64);
            let (value, size) = (by_place.values[at], by_place.sizes[at]);
            result.log_prob.push(value, value.abs() + size);
        }
        let (mut output, mut size, mut dx) = (0.0, 0.0, WithSizes::zeros(options.in_features));
        if kept(row) {
            let g = grad_output[if grad_output.len() == 1 { 0 } else { row }];
            let g = g * weight[row] / denominator;
            (output, size, dx) = row_of.back(place(target[row]), g, &mut result.grads);
        }
        result.output.push(output, output.abs() + size);
        result.loss.push(-weight[row] * output, weight[row] * (output.abs() + size));
        result.grad_input.extend(dx);
    }
    result.loss = result.loss.reduced(options.reduction, denominator);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_hand() {
        // One feature; the head's logits are 0 and ln 3, the cluster's equal.
        let options = AdaptiveLogSoftmax::new(1, 3, &[1]).widths(Some(vec![1]));
        let tail = AdaptiveTail { projection: vec![1.0], weight: vec![2.0, 2.0] };
        let parameters = AdaptiveParameters {
            head_weight: vec![0.0, 3f64.ln()],
            head_bias: None,
            tails: vec![tail],
        };
        let out = adaptive_log_softmax(&options, &parameters, (&[1.0], &[2]), &[1.0]);
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-15, "{got}");
        near(out.output.values[0], (3.0f64 / 8.0).ln());
        near(out.loss.values[0], (8.0f64 / 3.0).ln());
        near(out.log_prob.values[0], (1.0f64 / 4.0).ln());
        // Head: p − onehot = (1/4, −1/4); cluster: (1/2, −1/2).
        near(out.grads.head_weight.values[0], 0.25);
        near(out.grads.head_weight.values[1], -0.25);
        near(out.grads.tails[0].weight.values[1], -0.5);
        near(out.grads.tails[0].projection.values[0], 0.0);
        near(out.grad_input.values[0], -0.25 * 3f64.ln());
    }
}
