//! The cheapest cutoffs, exactly, by dynamic programming over cluster by cluster.
//!
//! F_0(b) is the cost of a head of the first b classes, F_{i+1}(b) = min over a < b of
//! F_i(a) + w_i(a, b), w_i being cluster i's cost. Every w_i is a sum of products of two amounts
//! that grow with the interval (its mass and its classes) and of what depends on one of them
//! linearly, so w(a, c) + w(b, d) ≤ w(a, d) + w(b, c) for a ≤ b ≤ c ≤ d: the best a does not fall
//! as b rises, and a layer takes V·log V steps by halving.

use rayon::join;

/// What cutoffs cost, in seconds.
pub(super) trait Prices: Sync {
    /// How many classes there are.
    fn classes(&self) -> usize;
    /// Of each call, whatever its cutoffs.
    fn call(&self) -> f64;
    /// A head of so many columns.
    fn head(&self, columns: usize) -> f64;
    /// A cluster of the classes from `a` to `b`.
    fn tail(&self, width: usize, a: usize, b: usize) -> f64;
}

pub(super) struct Search<'a, P> {
    pub(super) planner: &'a P,
    /// Of each cluster, from the first.
    pub(super) widths: &'a [usize],
}

/// The best cutoffs of some number.
pub(super) struct Found {
    pub(super) cutoffs: Vec<usize>,
    pub(super) seconds: f64,
}

/// Ends below which one thread goes on alone.
const ALONE: usize = 4096;

/// A layer: of each end the cost, and where the last cluster begins.
struct Layer {
    cost: Vec<f64>,
    begin: Vec<u32>,
}

impl<P: Prices> Search<'_, P> {
    /// The best for each number of clusters, from 1.
    pub(super) fn run(&self) -> Vec<Found> {
        let (planner, classes) = (self.planner, self.planner.classes());
        let head = (0..=classes).map(|c| match c {
            0 => f64::INFINITY,
            _ => planner.head(c),
        });
        // A column that stands for a cluster costs the same wherever the cuts are.
        let column = planner.head(1) - planner.head(0);
        let mut layers = vec![Layer { cost: head.collect(), begin: Vec::new() }];
        let mut found = Vec::new();
        for i in 0..self.widths.len() {
            let before = &layers[i].cost;
            let cost = |a: usize, b: usize| before[a] + planner.tail(self.widths[i], a, b);
            // Only the last class's end matters at the end, all of them on the way.
            let (seconds, last) = cheapest(&cost, 1, classes - 1, classes);
            let mut cutoffs = vec![last];
            for layer in layers[1..].iter().rev() {
                cutoffs.push(layer.begin[cutoffs[cutoffs.len() - 1]] as usize);
            }
            cutoffs.reverse();
            let seconds = planner.call() + seconds + column * (i + 1) as f64;
            found.push(Found { cutoffs, seconds });
            if i + 1 < self.widths.len() {
                layers.push(layer(classes, &cost));
            }
        }
        found
    }

    /// For each shortlist the best with all clusters: the same from the other end, on reversed
    /// intervals.
    pub(super) fn by_shortlist(&self, shortlists: &[usize]) -> Vec<f64> {
        let (planner, classes) = (self.planner, self.planner.classes());
        let clusters = self.widths.len();
        // rest[a]: the cheapest clusters i.. over the classes from a on.
        let mut rest: Vec<f64> = (0..=classes)
            .map(|a| match a < classes {
                true => planner.tail(self.widths[clusters - 1], a, classes),
                false => f64::INFINITY,
            })
            .collect();
        for i in (0..clusters - 1).rev() {
            // In mirrored numbers a later begin is an earlier end.
            let mirrored = |end: usize, begin: usize| {
                let (a, b) = (classes - begin, classes - end);
                rest[b] + planner.tail(self.widths[i], a, b)
            };
            let mut next = layer(classes, &mirrored).cost;
            next.reverse();
            rest = next;
        }
        let cost = |&c: &usize| match (1..classes).contains(&c) {
            true => planner.call() + planner.head(c + clusters) + rest[c],
            false => f64::INFINITY,
        };
        shortlists.iter().map(cost).collect()
    }
}

/// The cheapest begin of an end, of those from `low` to `high`; the lowest of equals.
fn cheapest(
    cost: &(impl Fn(usize, usize) -> f64 + Sync),
    low: usize,
    high: usize,
    end: usize,
) -> (f64, usize) {
    (low..=high.min(end - 1)).fold((f64::INFINITY, low), |best, begin| {
        let cost = cost(begin, end);
        if cost < best.0 { (cost, begin) } else { best }
    })
}

/// For every end the cheapest begin before it.
fn layer(classes: usize, cost: &(impl Fn(usize, usize) -> f64 + Sync)) -> Layer {
    let mut costs = vec![f64::INFINITY; classes + 1];
    let mut begins = vec![0u32; classes + 1];
    // End 0 has no begin before it.
    halve(cost, (0, classes - 1), 1, (&mut costs[1..], &mut begins[1..]));
    Layer { cost: costs, begin: begins }
}

/// Fills the layer for the ends from `first` on, whose begins lie in `low..=high`.
fn halve(
    cost: &(impl Fn(usize, usize) -> f64 + Sync),
    (low, high): (usize, usize),
    first: usize,
    (costs, begins): (&mut [f64], &mut [u32]),
) {
    let len = costs.len();
    if len == 0 {
        return;
    }
    let middle = len / 2;
    let (seconds, begin) = cheapest(cost, low, high, first + middle);
    let (costs_before, costs_rest) = costs.split_at_mut(middle);
    let (begins_before, begins_rest) = begins.split_at_mut(middle);
    if let ([at, costs_after @ ..], [begin_at, begins_after @ ..]) = (costs_rest, begins_rest) {
        (*at, *begin_at) = (seconds, begin as u32);
        let mut before = || halve(cost, (low, begin), first, (costs_before, begins_before));
        let next = first + middle + 1;
        let mut after = || halve(cost, (begin, high), next, (costs_after, begins_after));
        if len < ALONE {
            before();
            after();
        } else {
            join(before, after);
        }
    }
}
