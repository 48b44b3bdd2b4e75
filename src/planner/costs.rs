//! What a softmax over products costs on a device: a linear model, and its fit to measured calls.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::device::Device;
use crate::measure::{Budget, time_by};
use crate::spec::adaptive_log_softmax::AdaptiveLogSoftmax;
use crate::spec::output_layer::{LayerGradOut, LayerOut};

/// Seconds, forward and backward together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Of a call.
    pub call: f64,
    /// Of each softmax in it: the head, and every cluster.
    pub softmax: f64,
    /// Of each multiplication or addition of its products.
    pub operation: f64,
    /// Of each logit besides its product.
    pub logit: f64,
    /// Of each parameter, whether rows use it or not: it is read, and its gradient written.
    pub parameter: f64,
}

/// A measured call, and what it was made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostSample {
    /// The head, and the clusters.
    pub softmaxes: f64,
    /// Multiplications and additions of all products, forward and backward.
    pub operations: f64,
    /// Rows times classes, of each softmax its own.
    pub logits: f64,
    /// Elements of all parameters.
    pub parameters: f64,
    /// What the call took.
    pub seconds: f64,
}

/// Products of a forward and a backward pass, two operations a term each.
const OPERATIONS: f64 = 6.0;
/// Constants of the model.
const TERMS: usize = 5;

impl Costs {
    fn terms(&self) -> [(&'static str, f64); TERMS] {
        [
            ("call", self.call),
            ("softmax", self.softmax),
            ("operation", self.operation),
            ("logit", self.logit),
            ("parameter", self.parameter),
        ]
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.terms().into_iter().find(|(_, x)| !(*x >= 0.0 && x.is_finite())) {
            Some((name, got)) => Err(Error::Value {
                argument: "costs",
                expected: format!("`{name}` to be a finite number ≥ 0"),
                got: got.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// A softmax of n rows of a width over so many columns.
    pub(super) fn product(&self, n: f64, width: f64, columns: f64) -> f64 {
        let logits = n * columns;
        self.softmax
            + self.operation * OPERATIONS * logits * width
            + self.logit * logits
            + self.parameter * columns * width
    }

    /// The projection of n rows of features to a width.
    pub(super) fn projection(&self, n: f64, features: f64, width: f64) -> f64 {
        self.operation * OPERATIONS * n * features * width + self.parameter * features * width
    }

    /// The seconds of a call that is made of such parts.
    pub fn predict(&self, sample: &CostSample) -> f64 {
        self.terms().into_iter().zip(sample.terms()).map(|((_, cost), of)| cost * of).sum()
    }

    /// The costs, none below 0, that are nearest to measured calls: Σ (predicted / measured − 1)²
    /// is least.
    ///
    /// # Errors
    /// Fewer samples than the model has constants; one that is not finite, or took no time.
    pub fn fit(samples: &[CostSample]) -> Result<Costs> {
        let refuse = |expected: String, got: String| {
            Err(Error::Value { argument: "samples", expected, got })
        };
        if samples.len() < TERMS {
            return refuse(format!("at least {TERMS}"), samples.len().to_string());
        }
        let legal = |s: &CostSample| s.seconds > 0.0 && s.terms().iter().all(|t| t.is_finite());
        if let Some(bad) = samples.iter().find(|s| !(legal(s) && s.seconds.is_finite())) {
            return refuse("finite numbers and a time above 0".into(), format!("{bad:?}"));
        }
        // The best set of constants that are not 0, of all 2⁵: exact, and quick enough.
        let fits = (1u32..1 << TERMS).filter_map(|used| {
            let costs = least_squares(samples, used)?;
            let error = |s: &CostSample| (costs.predict(s) / s.seconds - 1.0).powi(2);
            costs.check().is_ok().then(|| (samples.iter().map(error).sum::<f64>(), costs))
        });
        match fits.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((_, costs)) => Ok(costs),
            None => refuse("calls that differ".into(), "no costs fit".into()),
        }
    }

    /// Measures calls of several sizes on a device, which takes some seconds, and fits the costs.
    ///
    /// # Errors
    /// `dtype` is not floating-point; no features or rows; what the device reports.
    pub fn measure(
        device: &Device,
        dtype: DType,
        in_features: usize,
        batch: usize,
    ) -> Result<Costs> {
        if in_features == 0 || batch == 0 {
            let argument = if batch == 0 { "batch" } else { "in_features" };
            return Err(Error::Value { argument, expected: "at least 1".into(), got: "0".into() });
        }
        let calls = calls(in_features, batch.clamp(2, ROWS));
        let samples = calls.iter().map(|call| call.measure(device, dtype));
        Costs::fit(&samples.collect::<Result<Vec<_>>>()?)
    }
}

impl CostSample {
    fn terms(&self) -> [f64; TERMS] {
        [1.0, self.softmaxes, self.operations, self.logits, self.parameters]
    }
}

/// The constants that are used, by least squares; `None` where the samples do not decide them.
fn least_squares(samples: &[CostSample], used: u32) -> Option<Costs> {
    let used: Vec<usize> = (0..TERMS).filter(|i| used >> i & 1 == 1).collect();
    let n = used.len();
    // Columns of length 1, so that terms of all sizes meet the same arithmetic.
    let column = |i: usize| samples.iter().map(move |s| s.terms()[i] / s.seconds);
    let lengths: Vec<f64> =
        used.iter().map(|&i| column(i).map(|x| x * x).sum::<f64>().sqrt()).collect();
    if lengths.contains(&0.0) {
        return None;
    }
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let dot =
                |j: usize| column(used[i]).zip(column(used[j])).map(|(a, b)| a * b).sum::<f64>();
            let mut row: Vec<f64> = (0..n).map(|j| dot(j) / (lengths[i] * lengths[j])).collect();
            row.push(column(used[i]).sum::<f64>() / lengths[i]);
            row
        })
        .collect();
    for at in 0..n {
        let pivot = (at..n).max_by(|&a, &b| rows[a][at].abs().total_cmp(&rows[b][at].abs()))?;
        rows.swap(at, pivot);
        let (above, below) = rows.split_at_mut(at + 1);
        let row = &above[at];
        if row[at].abs() < 1e-9 {
            return None;
        }
        for other in below {
            let factor = other[at] / row[at];
            other.iter_mut().zip(row).skip(at).for_each(|(x, r)| *x -= factor * r);
        }
    }
    let mut solution = [0.0; TERMS];
    for at in (0..n).rev() {
        let known: f64 = (at + 1..n).map(|j| rows[at][j] * solution[used[j]] * lengths[j]).sum();
        solution[used[at]] = (rows[at][n] - known) / rows[at][at] / lengths[at];
    }
    let [call, softmax, operation, logit, parameter] = solution;
    Some(Costs { call, softmax, operation, logit, parameter })
}

/// Rows of a measured call at most: beyond, costs grow with rows alone.
const ROWS: usize = 1024;

/// A call to measure: a head, and clusters.
struct Call {
    in_features: usize,
    rows: usize,
    shortlist: usize,
    tails: Vec<Tail>,
}

#[derive(Clone, Copy)]
struct Tail {
    classes: usize,
    width: usize,
    rows: usize,
}

/// Calls in which the terms of the model have different shares.
fn calls(in_features: usize, rows: usize) -> Vec<Call> {
    let tail = |classes, width: usize, part: usize| Tail {
        classes,
        width: (in_features / width).max(1),
        rows: (rows / part).max(1),
    };
    let none = Tail { classes: 1, width: 1, rows: 0 };
    // Heads of one and three thousand million operations.
    let head =
        |millions: usize| (millions * 1_000_000 / (6 * rows * in_features)).clamp(64, 1 << 14);
    let call = |shortlist, tails| Call { in_features, rows, shortlist, tails };
    vec![
        call(32, vec![none]),
        call(head(1000), vec![none]),
        call(head(3000), vec![none]),
        call(32, vec![tail(1 << 13, 4, 4)]),
        call(32, vec![tail(1 << 15, 16, 4)]),
        call(32, vec![tail(1 << 18, 64, 16)]),
        call(32, vec![tail(1 << 17, 64, 4)]),
        call(32, vec![tail(1 << 18, 16, 64)]),
        call(256, vec![tail(1 << 12, 4, 8), tail(1 << 14, 16, 8), tail(1 << 17, 64, 16)]),
    ]
}

impl Call {
    fn loss(&self) -> AdaptiveLogSoftmax<'static> {
        let mut end = self.shortlist;
        let mut cutoffs = Vec::new();
        for tail in &self.tails {
            cutoffs.push(end);
            end += tail.classes;
        }
        AdaptiveLogSoftmax::new(self.in_features, end, &cutoffs)
            .widths(Some(self.tails.iter().map(|t| t.width).collect()))
            .capacities(Some(self.tails.iter().map(|t| t.rows).collect()))
            .reduction(Reduction::Sum)
    }

    fn sample(&self, seconds: f64) -> CostSample {
        let (n, features) = (self.rows as f64, self.in_features as f64);
        let columns = (self.shortlist + self.tails.len()) as f64;
        let mut sample = CostSample {
            softmaxes: 1.0 + self.tails.iter().filter(|t| t.rows > 0).count() as f64,
            operations: OPERATIONS * n * features * columns,
            logits: n * columns,
            parameters: features * columns,
            seconds,
        };
        for tail in &self.tails {
            let [rows, width, classes] = [tail.rows, tail.width, tail.classes].map(|x| x as f64);
            sample.operations += OPERATIONS * rows * width * (features + classes);
            sample.logits += rows * classes;
            sample.parameters += width * (features + classes);
        }
        sample
    }

    /// The class of each row: the clusters' rows first, then those of the shortlist.
    fn targets(&self, loss: &AdaptiveLogSoftmax<'_>) -> Vec<i64> {
        let tails = self.tails.iter().enumerate().flat_map(|(i, tail)| {
            let classes = loss.cluster(i);
            (0..tail.rows).map(move |row| (classes.start + row * 7919 % classes.len()) as i64)
        });
        let mut targets: Vec<i64> = tails.take(self.rows).collect();
        let shortlist = self.shortlist as i64;
        targets.extend((targets.len()..self.rows).map(|row| row as i64 % shortlist));
        targets
    }

    fn measure(&self, device: &Device, dtype: DType) -> Result<CostSample> {
        let loss = self.loss();
        let parameters = loss.init(dtype, 1)?.try_into_map(|p| device.hold(p))?;
        let zeros = |like: &Tensor| device.zeros("gradient", dtype, like.shape(), &like.view());
        let mut gradients = parameters.try_map(|_, p| zeros(p))?;
        // Any numbers of ordinary size will do for the input: a weight of as many rows.
        let rows = AdaptiveLogSoftmax::new(self.in_features, self.rows, &[self.rows - 1]);
        let input = device.hold(rows.init(dtype, 2)?.head_weight)?;
        let mut grad_input = zeros(&input)?;
        let target = device.hold(Tensor::from_vec(self.targets(&loss), &[self.rows])?)?;
        let mut output = device.hold(Tensor::from_vec(vec![0f32; self.rows], &[self.rows])?)?;
        let mut sum = device.hold(Tensor::from_vec(vec![0f32], &[])?)?;
        let mut run = || {
            device.time(|| {
                let gradients = LayerGradOut {
                    input: Some(grad_input.view_mut()),
                    parameters: Some(gradients.view_mut()),
                    accumulate: false,
                };
                let out = LayerOut { output: output.view_mut(), loss: sum.view_mut() };
                let data = (input.view(), target.view());
                loss.forward_backward_into(device, &parameters.view(), data, 1.0, (out, gradients))
            })
        };
        let budget = Budget { seconds: 0.05, ..Budget::default() };
        let timing = time_by(&budget, &mut (), |()| Ok(()), |()| run())?;
        Ok(self.sample(timing.median))
    }
}
