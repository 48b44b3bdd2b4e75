//! What passes products of matrices: numbers with their sizes, and softmaxes over them.

use super::Softmax;
use crate::base::reduction::Reduction;

/// Numbers, and what each may be off by in units of rounding: Σ|terms| of all that they are made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WithSizes {
    /// The numbers.
    pub values: Vec<f64>,
    /// Their sizes.
    pub sizes: Vec<f64>,
}

impl WithSizes {
    /// The k largest of each row of so many numbers, each as large as any of the row's.
    pub(in crate::check) fn top(&self, classes: usize, k: usize) -> WithSizes {
        let mut top = WithSizes::default();
        let rows = self.values.chunks_exact(classes);
        for (row, sizes) in rows.zip(self.sizes.chunks_exact(classes)) {
            let mut row = row.to_vec();
            row.sort_unstable_by(|a, b| b.total_cmp(a));
            let size = sizes.iter().fold(0.0, |m: f64, &size| m.max(size));
            top.values.extend(&row[..k]);
            top.sizes.extend(vec![size; k]);
        }
        top
    }

    /// Numbers that are what they are.
    pub(super) fn exact(values: &[f64]) -> WithSizes {
        WithSizes { values: values.to_vec(), sizes: values.iter().map(|v| v.abs()).collect() }
    }

    pub(super) fn zeros(n: usize) -> WithSizes {
        WithSizes { values: vec![0.0; n], sizes: vec![0.0; n] }
    }

    pub(super) fn push(&mut self, value: f64, size: f64) {
        self.values.push(value);
        self.sizes.push(size);
    }

    /// Others after those that are there.
    pub(crate) fn extend(&mut self, other: WithSizes) {
        self.values.extend(other.values);
        self.sizes.extend(other.sizes);
    }

    /// Rows' losses as the reduction has them.
    pub(super) fn reduced(self, reduction: Reduction, denominator: f64) -> WithSizes {
        let reduce = |values: Vec<f64>| vec![values.iter().sum::<f64>() / denominator];
        match reduction {
            Reduction::None => self,
            _ => WithSizes { values: reduce(self.values), sizes: reduce(self.sizes) },
        }
    }

    pub(super) fn add(&mut self, at: usize, value: f64, size: f64) {
        self.values[at] += value;
        self.sizes[at] += size;
    }
}

/// A gradient on its way below the smallest normal f32 may be 0: what is allowed of a size of this.
pub(super) const FLOOR: f64 = f32::MIN_POSITIVE as f64 / 2e-5;

/// `[rows, columns]`, row by row; or every so many of such rows.
pub(super) struct Matrix<'a> {
    values: &'a [f64],
    columns: usize,
    every: usize,
    first: usize,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(values: &'a [f64], columns: usize) -> Matrix<'a> {
        Matrix { values, columns, every: 1, first: 0 }
    }

    /// The rows `first`, `first + every` and so on alone.
    pub(super) fn every(self, every: usize, first: usize) -> Matrix<'a> {
        Matrix { every, first, ..self }
    }

    fn start(&self, row: usize) -> usize {
        (row * self.every + self.first) * self.columns
    }

    /// The products with a vector, with their sizes; of finite terms alone, as others have none.
    pub(super) fn times(&self, rows: usize, x: &WithSizes) -> WithSizes {
        let mut products = WithSizes::default();
        for row in 0..rows {
            let weights = &self.values[self.start(row)..][..self.columns];
            let terms = weights.iter().zip(&x.values).map(|(w, x)| w * x);
            let sizes = weights.iter().zip(&x.sizes).map(|(w, x)| (w * x).abs());
            products.push(terms.sum(), sizes.filter(|size| size.is_finite()).sum());
        }
        products
    }

    /// Adds the gradients of such products: to those of the matrix, and of the vector.
    pub(super) fn back(
        &self,
        x: &WithSizes,
        dz: &WithSizes,
        grad: &mut WithSizes,
        dx: &mut WithSizes,
    ) {
        for (row, (&dz, &size)) in dz.values.iter().zip(&dz.sizes).enumerate() {
            for d in 0..self.columns {
                let at = self.start(row) + d;
                grad.add(at, dz * x.values[d], size * x.sizes[d]);
                dx.add(d, dz * self.values[at], size * self.values[at].abs());
            }
        }
    }
}

/// A row's softmax over the head's columns, or a cluster's classes.
pub(super) struct Part {
    softmax: Softmax,
    z: WithSizes,
    /// How large the terms of a log-probability are at most, but for its own size.
    pub(super) size: f64,
}

impl Part {
    pub(super) fn new(z: WithSizes) -> Part {
        // The sum of exponentials is as exact as 1 whatever the logits.
        let size = z.sizes.iter().fold(0.0, |m: f64, &size| m.max(size)) + 1.0;
        Part { softmax: Softmax::new(&z.values), z, size }
    }

    pub(super) fn log_prob(&self, column: usize) -> f64 {
        match self.softmax.undefined() {
            true => f64::NAN,
            false => -self.softmax.nll(self.z.values[column]),
        }
    }

    /// g·(p − [column]).
    pub(super) fn gradient(&self, column: usize, g: f64) -> WithSizes {
        let mut dz = WithSizes::default();
        for j in 0..self.z.values.len() {
            let (p, own) = (self.softmax.probability(j), j == column);
            let slope = if own { -self.softmax.complement(j) } else { p };
            let slope = if self.softmax.undefined() { f64::NAN } else { slope };
            let size = g.abs() * (p + f64::from(u8::from(own))) * self.size;
            dz.push(g * slope, size + FLOOR);
        }
        dz
    }
}
