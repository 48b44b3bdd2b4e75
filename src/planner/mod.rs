//! Cutoffs of an adaptive softmax by measurement: a model of what clusters cost on a device
//! ([`Costs`]), fitted to a short measurement there, and the cutoffs that are cheapest by it, found
//! exactly ([`CutoffPlanner`]).
//!
//! A softmax of n rows over k classes, of hidden rows of width h (made from D features, but for the
//! head, whose rows are the input), is taken to need
//!
//! ```text
//! s + f·(operations of its products) + l·n·k + p·(its parameters)
//! ```
//!
//! seconds, forward and backward, and a call c more. This is the model of Grave et al. 2016
//! (arXiv 1609.04309) with both products of a tail counted, their widths, and what does not depend
//! on rows: a rare cluster's parameters and their gradient pass through memory in every step. The
//! rows of a cluster are those expected: the batch times the clusters' share of the counts.

mod costs;
mod search;

pub use costs::{CostSample, Costs};

use crate::base::error::{Error, Result};
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, ClassOrder};
use search::{Prices, Search};
use std::sync::Arc;

/// Finds the cutoffs that are cheapest for classes of given counts.
///
/// ```
/// use warploss::planner::{Costs, CutoffPlanner};
/// let counts: Vec<u64> = (1..=50_000u64).map(|rank| 1_000_000 / rank).collect();
/// let costs = Costs { call: 1e-4, softmax: 1e-4, operation: 1e-11, logit: 1e-9, parameter: 1e-9 };
/// let plan = CutoffPlanner::new(&counts, 512, 1024, costs)?.plan()?;
/// assert!(plan.predicted_seconds < plan.full_softmax_seconds / 4.0);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until a call is made with them"]
pub struct CutoffPlanner {
    /// Σ of the counts of the most frequent classes, as shares of all; `[V + 1]`.
    mass: Arc<[f64]>,
    order: Arc<ClassOrder>,
    in_features: usize,
    batch: usize,
    costs: Costs,
    max_clusters: usize,
    div_value: f64,
    min_width: usize,
}

/// Cutoffs, and what they are predicted to cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// First class of each cluster, by falling frequency.
    pub cutoffs: Vec<usize>,
    /// Width of each cluster.
    pub widths: Vec<usize>,
    /// A call's seconds, forward and backward.
    pub predicted_seconds: f64,
    /// The same for a softmax over all classes.
    pub full_softmax_seconds: f64,
    /// The cheapest plan's seconds for each number of clusters, from 1.
    pub by_clusters: Vec<f64>,
    in_features: usize,
    classes: usize,
    order: Arc<ClassOrder>,
}

impl Plan {
    /// A loss with these cutoffs and widths, for classes numbered by falling frequency.
    pub fn loss(&self) -> AdaptiveLogSoftmax<'static> {
        AdaptiveLogSoftmax::new(self.in_features, self.classes, &self.cutoffs)
            .widths(Some(self.widths.clone()))
    }

    /// The order of the counts that were planned for, for [`AdaptiveLogSoftmax::class_order`]
    /// where the caller's classes are not numbered by falling frequency.
    pub fn class_order(&self) -> Arc<ClassOrder> {
        self.order.clone()
    }
}

impl CutoffPlanner {
    /// For classes of these counts (in any order), inputs of `in_features` and batches of `batch`
    /// rows, on a device of these costs.
    ///
    /// # Errors
    /// Fewer than two classes, counts that are all 0, no features, no rows, a cost that is no
    /// finite number ≥ 0.
    pub fn new(
        counts: &[u64],
        in_features: usize,
        batch: usize,
        costs: Costs,
    ) -> Result<CutoffPlanner> {
        let refuse = |argument, expected: &str, got: String| {
            Err(Error::Value { argument, expected: expected.into(), got })
        };
        if counts.len() < 2 {
            return refuse("counts", "of at least 2 classes", counts.len().to_string());
        }
        if in_features == 0 {
            return refuse("in_features", "at least 1", "0".into());
        }
        if batch == 0 {
            return refuse("batch", "at least 1", "0".into());
        }
        costs.check()?;
        let order = ClassOrder::from_counts(counts)?;
        let total: f64 = counts.iter().map(|&n| n as f64).sum();
        if total == 0.0 {
            return refuse("counts", "one above 0", "all 0".into());
        }
        let mut mass = Vec::with_capacity(counts.len() + 1);
        let mut sum = 0.0;
        mass.push(sum);
        for place in 0..counts.len() {
            sum += counts[order.class(place).unwrap_or(place)] as f64;
            mass.push(sum / total);
        }
        Ok(CutoffPlanner {
            mass: mass.into(),
            order: Arc::new(order),
            in_features,
            batch,
            costs,
            max_clusters: 4,
            div_value: 4.0,
            min_width: 0,
        })
    }

    /// The largest number of clusters that is considered; default 4. Fewer are where classes are.
    pub fn max_clusters(mut self, clusters: usize) -> Self {
        self.max_clusters = clusters;
        self
    }

    /// v ≥ 1: cluster i has the width ⌊D / v^(i+1)⌋. Default 4.
    pub fn div_value(mut self, value: f64) -> Self {
        self.div_value = value;
        self
    }

    /// No cluster is narrower than this, or than D if that is less. Default 0.
    pub fn min_width(mut self, width: usize) -> Self {
        self.min_width = width;
        self
    }

    /// The same for batches of another number of rows, at least 1.
    #[cfg(feature = "cli")]
    pub(crate) fn batch(mut self, rows: usize) -> Self {
        self.batch = rows.max(1);
        self
    }

    /// The place of the class that a number in [0, 1) draws from the counts.
    #[cfg(feature = "cli")]
    pub(crate) fn draw(&self, unit: f64) -> usize {
        // The first share is that of no class.
        let beyond = self.mass.partition_point(|&share| share <= unit);
        beyond.saturating_sub(1).min(self.classes() - 1)
    }

    /// A call's predicted seconds for a softmax over all classes.
    pub(crate) fn full_softmax(&self) -> f64 {
        self.costs.call + self.head(self.classes())
    }

    /// Whether the options are legal.
    pub(crate) fn check(&self) -> Result<()> {
        if self.max_clusters == 0 {
            return Err(few_clusters());
        }
        if !(self.div_value >= 1.0 && self.div_value.is_finite()) {
            return Err(Error::Value {
                argument: "div_value",
                expected: "a finite number ≥ 1".into(),
                got: self.div_value.to_string(),
            });
        }
        Ok(())
    }

    /// The widths of so many clusters.
    pub(crate) fn widths(&self, clusters: usize) -> Vec<usize> {
        let rule = AdaptiveLogSoftmax::new(self.in_features, self.classes(), &[])
            .div_value(self.div_value);
        let floor = self.min_width.min(self.in_features);
        (0..clusters).map(|i| rule.width(i).max(floor)).collect()
    }

    /// The cheapest cutoffs.
    ///
    /// # Errors
    /// No clusters allowed; a `div_value` below 1, or not finite.
    pub fn plan(&self) -> Result<Plan> {
        self.check()?;
        let most = self.max_clusters.min(self.classes() - 1);
        let widths = self.widths(most);
        let found = Search { planner: self, widths: &widths }.run();
        let cheapest = |a: &&search::Found, b: &&search::Found| a.seconds.total_cmp(&b.seconds);
        let Some(best) = found.iter().min_by(cheapest) else {
            return Err(few_clusters());
        };
        Ok(Plan {
            cutoffs: best.cutoffs.clone(),
            widths: widths[..best.cutoffs.len()].to_vec(),
            predicted_seconds: best.seconds,
            full_softmax_seconds: self.full_softmax(),
            by_clusters: found.iter().map(|found| found.seconds).collect(),
            in_features: self.in_features,
            classes: self.classes(),
            order: self.order.clone(),
        })
    }

    /// A call's predicted seconds with other cutoffs, of widths by the same rule.
    ///
    /// # Errors
    /// Cutoffs that are none; see [`AdaptiveLogSoftmax::new`].
    pub fn predict(&self, cutoffs: &[usize]) -> Result<f64> {
        let widths = self.widths(cutoffs.len());
        let loss = AdaptiveLogSoftmax::new(self.in_features, self.classes(), cutoffs)
            .widths(Some(widths.clone()));
        loss.shapes()?;
        let tails = (0..widths.len()).map(|i| {
            let classes = loss.cluster(i);
            self.tail(widths[i], classes.start, classes.end)
        });
        Ok(self.costs.call + self.head(cutoffs[0] + widths.len()) + tails.sum::<f64>())
    }

    /// Rows that each cluster of such cutoffs may have of a batch, for
    /// [`AdaptiveLogSoftmax::capacities`]: those expected, six standard deviations of independent
    /// draws, and one more. Batches whose rows resemble one another want more.
    ///
    /// # Errors
    /// As [`CutoffPlanner::predict`].
    pub fn capacities(&self, cutoffs: &[usize]) -> Result<Vec<usize>> {
        let loss = AdaptiveLogSoftmax::new(self.in_features, self.classes(), cutoffs);
        loss.shapes()?;
        let capacity = |i: usize| {
            let (classes, n) = (loss.cluster(i), self.batch as f64);
            let p = self.mass[classes.end] - self.mass[classes.start];
            let most = n * p + 6.0 * (n * p * (1.0 - p).max(0.0)).sqrt() + 1.0;
            (most.ceil() as usize).min(self.batch)
        };
        Ok((0..cutoffs.len()).map(capacity).collect())
    }

    /// For shortlists of these sizes the predicted seconds of the best plan with as many clusters
    /// as given; infinite where there are not so many classes.
    ///
    /// # Errors
    /// As [`CutoffPlanner::plan`].
    pub fn by_shortlist(&self, clusters: usize, shortlists: &[usize]) -> Result<Vec<f64>> {
        if clusters == 0 {
            return Err(few_clusters());
        }
        self.check()?;
        let widths = self.widths(clusters);
        Ok(Search { planner: self, widths: &widths }.by_shortlist(shortlists))
    }
}

impl Prices for CutoffPlanner {
    fn classes(&self) -> usize {
        self.mass.len() - 1
    }

    fn call(&self) -> f64 {
        self.costs.call
    }

    fn head(&self, columns: usize) -> f64 {
        let n = self.batch as f64;
        self.costs.product(n, self.in_features as f64, columns as f64)
    }

    fn tail(&self, width: usize, a: usize, b: usize) -> f64 {
        let n = self.batch as f64 * (self.mass[b] - self.mass[a]);
        let (features, width) = (self.in_features as f64, width as f64);
        self.costs.product(n, width, (b - a) as f64) + self.costs.projection(n, features, width)
    }
}

fn few_clusters() -> Error {
    Error::Value { argument: "max_clusters", expected: "at least 1".into(), got: "0".into() }
}
