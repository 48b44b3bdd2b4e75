//! A plain f64 computation, and sizes that golden files do not reach.

use super::*;

/// What is compared: outputs, the input's gradient, and the parameters' by key.
struct Answer {
    output: Vec<f64>,
    grad_input: Vec<f64>,
    grads: Vec<(String, Vec<f64>)>,
}

/// A matrix by rows.
struct Matrix {
    values: Vec<f64>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    fn of(tensor: &Tensor) -> Matrix {
        let (rows, columns) = (tensor.shape()[0], *tensor.shape().last().unwrap());
        Matrix { values: values(tensor), rows, columns }
    }

    fn zeros_like(&self) -> Matrix {
        Matrix { values: vec![0.0; self.values.len()], ..*self }
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.rows).map(|row| &self.values[row * self.columns..][..self.columns])
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        self.rows().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    }

    /// Adds the gradients of `self·x`: to those of self and of x.
    fn back(&self, x: &[f64], dz: &[f64], grad: &mut Matrix, dx: &mut [f64]) {
        for (i, &dz) in dz.iter().enumerate() {
            for j in 0..self.columns {
                grad.values[i * self.columns + j] += dz * x[j];
                dx[j] += dz * self.values[i * self.columns + j];
            }
        }
    }
}

/// ln p of a column, and g·([j = column] − p).
fn log_softmax(z: &[f64], column: usize, g: f64) -> (f64, Vec<f64>) {
    let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
    let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    let onehot = |j| f64::from(u8::from(j == column));
    let dz = z.iter().enumerate().map(|(j, z)| g * (onehot(j) - (z - lse).exp()));
    (z[column] - lse, dz.collect())
}

/// `upstream`: of each row's output.
fn answer(
    cutoffs: &[usize],
    parameters: &AdaptiveParameters<Tensor>,
    (input, targets): (&Tensor, &[usize]),
    upstream: &[f64],
) -> Answer {
    let head = Matrix::of(&parameters.head_weight);
    let bias = parameters.head_bias.as_ref().map(values);
    let mut d_head = head.zeros_like();
    let mut d_bias = vec![0.0; head.rows];
    let tails: Vec<_> = (parameters.tails.iter())
        .map(|t| [Matrix::of(&t.projection), Matrix::of(&t.weight)])
        .collect();
    let mut d_tails: Vec<_> = tails.iter().map(|t| t.each_ref().map(Matrix::zeros_like)).collect();
    let x = Matrix::of(input);
    let mut answer = Answer { output: vec![], grad_input: vec![], grads: vec![] };
    for ((x, &target), &g) in x.rows().zip(targets).zip(upstream) {
        let cluster = cutoffs.partition_point(|&c| c <= target).checked_sub(1);
        let mut z = head.times(x);
        if let Some(bias) = &bias {
            z.iter_mut().zip(bias).for_each(|(z, b)| *z += b);
        }
        let (mut logp, dz) = log_softmax(&z, cluster.map_or(target, |i| cutoffs[0] + i), g);
        let mut dx = vec![0.0; x.len()];
        head.back(x, &dz, &mut d_head, &mut dx);
        d_bias.iter_mut().zip(&dz).for_each(|(b, dz)| *b += dz);
        if let Some(i) = cluster {
            let [projection, weight] = &tails[i];
            let hidden = projection.times(x);
            let (own, dz) = log_softmax(&weight.times(&hidden), target - cutoffs[i], g);
            logp += own;
            let mut dh = vec![0.0; hidden.len()];
            weight.back(&hidden, &dz, &mut d_tails[i][1], &mut dh);
            projection.back(x, &dh, &mut d_tails[i][0], &mut dx);
        }
        answer.output.push(logp);
        answer.grad_input.extend(dx);
    }
    answer.grads.push(("head.weight".into(), d_head.values));
    if bias.is_some() {
        answer.grads.push(("head.bias".into(), d_bias));
    }
    for (i, [projection, weight]) in d_tails.into_iter().enumerate() {
        answer.grads.push((format!("tail.{i}.0.weight"), projection.values));
        answer.grads.push((format!("tail.{i}.1.weight"), weight.values));
    }
    answer
}

/// Deterministic numbers in ±1.
pub(super) fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Few rows and many classes (tiles), many rows and few classes, wide and narrow, in every type.
#[test]
fn clusters_of_any_size_agree_with_f64() {
    // Rows, features, classes, cutoffs, div_value, bias.
    type Size<'a> = (usize, usize, usize, &'a [usize], f64, bool);
    let sizes: [Size<'_>; 5] = [
        (150, 12, 40_000, &[5, 600], 2.0, true),
        (6, 8, 1_000_003, &[3], 2.0, false),
        (600, 9, 9_000, &[300, 1_100], 3.0, true),
        (3, 300, 5_000, &[4_000], 1.0, true),
        (33, 5, 200_000, &[1, 2], 5.0, false),
    ];
    for (rows, features, classes, cutoffs, div_value, bias) in sizes {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let loss = AdaptiveLogSoftmax::new(features, classes, cutoffs)
                .div_value(div_value)
                .head_bias(bias)
                .reduction(warploss::Reduction::None);
            let mut parameters = loss.init(dtype, 3).unwrap();
            // Larger than PyTorch's, so that probabilities differ.
            for tail in &mut parameters.tails {
                let shape = tail.weight.shape();
                tail.weight = floats(dtype, &shape, &noise(5, shape.iter().product()));
            }
            let input = floats(dtype, &[rows, features], &noise(1, rows * features));
            let spread = noise(2, rows);
            let targets: Vec<usize> = (spread.iter())
                .map(|u| ((classes as f64).powf(u.abs()) as usize).min(classes) - 1)
                .collect();
            let upstream = noise(4, rows);
            let g: Vec<f32> = upstream.iter().map(|&g| g as f32).collect();
            let upstream: Vec<f64> = g.iter().map(|&g| -f64::from(g)).collect();
            let data = (&input, &targets[..]);
            let expected = answer(cutoffs, &parameters, data, &upstream);
            let target: Vec<i64> = targets.iter().map(|&t| t as i64).collect();
            let target = TensorRef::new(&target, &[rows]).unwrap();
            let g = TensorRef::new(&g, &[rows]).unwrap();
            let what = format!("{rows} × {features}, {classes} {cutoffs:?} {dtype}");
            let mut before = None;
            for device in devices() {
                let view = parameters.view();
                let out = loss.forward(&device, &view, input.view(), target).unwrap();
                assert_close(&format!("{what} output"), &out.output, &expected.output);
                let grad = loss.forward_backward(&device, &view, input.view(), target, g).unwrap();
                assert_close(&format!("{what} output"), &grad.output.output, &expected.output);
                assert_close(&format!("{what} grad_input"), &grad.input, &expected.grad_input);
                let named = grad.parameters.clone().into_named();
                for ((key, got), (expected_key, values)) in named.iter().zip(&expected.grads) {
                    assert_eq!(key, expected_key);
                    assert_close(&format!("{what} grad_{key}"), got, values);
                }
                let bits = before.get_or_insert_with(|| grad.clone());
                assert!(*bits == grad, "{what}: threads change bits");
            }
        }
    }
}
