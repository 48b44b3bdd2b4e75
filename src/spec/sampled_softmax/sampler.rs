//! Where negatives come from, and how often each is expected.

use crate::base::error::{Error, Result};
use crate::base::random::unit;
use std::collections::HashSet;
use std::sync::Arc;

/// Draws the negatives of a [`SampledSoftmax`](crate::SampledSoftmax).
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct NegativeSampler {
    classes: usize,
    samples: usize,
    unique: bool,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Every class.
    All,
    /// P(k) = ln((k + 2) / (k + 1)) / ln(V + 1).
    LogUniform,
    /// Any distribution.
    Table(Arc<AliasTable>),
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Negatives {
    /// In the order of their drawing, repetitions included.
    pub(crate) classes: Vec<usize>,
    /// ln of each one's expected count.
    pub(crate) log_expected: Vec<f64>,
    /// Draws that it took, of which unique samplers reject some.
    tries: u64,
}

#[cfg(gpu)]
impl Negatives {
    /// Draws that distinct negatives took; 0 where they may repeat.
    pub(crate) fn distinct_tries(&self, sampler: &NegativeSampler) -> f64 {
        if sampler.unique { self.tries as f64 } else { 0.0 }
    }
}

/// Draws that distinct classes may take.
const TRIES: u64 = 1 << 26;

impl NegativeSampler {
    /// `samples` of `classes` classes that are numbered by falling frequency: class k comes with
    /// the probability ln((k + 2) / (k + 1)) / ln(V + 1), as Zipf's law has it. Distinct ones,
    /// unless [`NegativeSampler::unique`] says otherwise.
    ///
    /// # Errors
    /// No classes or samples; more samples than classes.
    pub fn log_uniform(classes: usize, samples: usize) -> Result<NegativeSampler> {
        check_sizes(classes, classes, samples)?;
        Ok(NegativeSampler { classes, samples, unique: true, kind: Kind::LogUniform })
    }

    /// `samples` of the classes that `counts` has, in proportion to countᵅ; α of 1 is the unigram
    /// distribution, 0.75 word2vec's. Classes that do not occur are not drawn. Distinct ones,
    /// unless [`NegativeSampler::unique`] says otherwise.
    ///
    /// # Errors
    /// Counts that are all 0, or none; an `alpha` that is not finite or below 0; no samples, or
    /// more than there are classes that occur.
    pub fn unigram(counts: &[u64], alpha: f64, samples: usize) -> Result<NegativeSampler> {
        if !(alpha >= 0.0 && alpha.is_finite()) {
            let expected = "a finite number ≥ 0".into();
            return Err(Error::Value { argument: "alpha", expected, got: alpha.to_string() });
        }
        let occurring = counts.iter().filter(|&&n| n > 0).count();
        if occurring == 0 {
            let (argument, expected) = ("counts", "one above 0".into());
            let got = if counts.is_empty() { "none" } else { "all 0" };
            return Err(Error::Value { argument, expected, got: got.into() });
        }
        check_sizes(counts.len(), occurring, samples)?;
        let most = counts.iter().max().map_or(1.0, |&n| n as f64);
        // Shares of the largest, so that no power overflows.
        let weight = |&n: &u64| if n == 0 { 0.0 } else { (n as f64 / most).powf(alpha) };
        let table = AliasTable::new(counts.iter().map(weight).collect())?;
        let kind = Kind::Table(Arc::new(table));
        Ok(NegativeSampler { classes: counts.len(), samples, unique: true, kind })
    }

    /// Every class, of which each row leaves its target out: the softmax over all classes.
    ///
    /// # Errors
    /// No classes.
    pub fn all(classes: usize) -> Result<NegativeSampler> {
        check_sizes(classes, classes, classes)?;
        Ok(NegativeSampler { classes, samples: classes, unique: true, kind: Kind::All })
    }

    /// Whether a call's negatives are distinct: drawn until there are as many as asked for, with
    /// the expected count 1 − (1 − P)^tries. Else they may repeat, and each repetition counts.
    /// Default `true`. Of no effect on [`NegativeSampler::all`].
    pub fn unique(mut self, unique: bool) -> Self {
        self.unique = unique || self.is_all();
        self
    }

    /// V, the classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// S, the negatives of a call.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The distribution, where it is one that was given.
    #[cfg(gpu)]
    pub(crate) fn table(&self) -> Option<&Arc<AliasTable>> {
        match &self.kind {
            Kind::Table(table) => Some(table),
            Kind::All | Kind::LogUniform => None,
        }
    }

    pub(crate) fn is_all(&self) -> bool {
        self.kind == Kind::All
    }

    /// The probability that a draw gives a class.
    pub fn probability(&self, class: usize) -> f64 {
        match &self.kind {
            _ if class >= self.classes => 0.0,
            Kind::All => 1.0 / self.classes as f64,
            Kind::LogUniform => {
                (1.0 / (class as f64 + 1.0)).ln_1p() / (self.classes as f64).ln_1p()
            }
            Kind::Table(table) => table.probabilities[class],
        }
    }

    /// ln of a class's expected count among what was drawn; −∞ if it is never drawn.
    pub(crate) fn log_expected(&self, class: usize, drawn: &Negatives) -> f64 {
        let p = self.probability(class);
        match (&self.kind, self.unique) {
            (Kind::All, _) => 0.0,
            (_, false) => (self.samples as f64 * p).ln(),
            (_, true) => (-(drawn.tries as f64 * (-p).ln_1p()).exp_m1()).ln(),
        }
    }

    /// Negatives as a function of the key.
    ///
    /// # Errors
    /// Distinct classes that are not found within 2²⁶ draws.
    pub(crate) fn draw(&self, key: u64) -> Result<Negatives> {
        let mut drawn = Negatives { classes: Vec::new(), log_expected: Vec::new(), tries: 0 };
        if self.is_all() {
            drawn.classes = (0..self.classes).collect();
            drawn.log_expected = vec![0.0; self.classes];
            return Ok(drawn);
        }
        let mut seen = HashSet::with_capacity(if self.unique { self.samples } else { 0 });
        while drawn.classes.len() < self.samples {
            if self.unique && drawn.tries == TRIES {
                return Err(Error::Value {
                    argument: "samples",
                    expected: format!("as many distinct classes as {TRIES} draws find"),
                    got: format!("{}, of which {} were found", self.samples, seen.len()),
                });
            }
            let class = self.one(key, drawn.tries);
            drawn.tries += 1;
            if !self.unique || seen.insert(class) {
                drawn.classes.push(class);
            }
        }
        let log_expected = drawn.classes.iter().map(|&class| self.log_expected(class, &drawn));
        drawn.log_expected = log_expected.collect();
        Ok(drawn)
    }

    /// The class of one draw.
    fn one(&self, key: u64, number: u64) -> usize {
        let u = unit(key, 2 * number);
        match &self.kind {
            Kind::All => 0,
            Kind::LogUniform => {
                // The inverse of ln(k + 1) / ln(V + 1).
                let class = (u * (self.classes as f64).ln_1p()).exp_m1() as usize;
                class.min(self.classes - 1)
            }
            Kind::Table(table) => table.draw(u, unit(key, 2 * number + 1)),
        }
    }
}

fn check_sizes(classes: usize, occurring: usize, samples: usize) -> Result<()> {
    let refuse = |argument, expected: String, got: usize| {
        Err(Error::Value { argument, expected, got: got.to_string() })
    };
    if classes == 0 || classes > u32::MAX as usize {
        return refuse("classes", "1 to 2^32 − 1".into(), classes);
    }
    if samples == 0 || samples > occurring {
        return refuse("samples", format!("1 to {occurring} (classes that can be drawn)"), samples);
    }
    Ok(())
}

/// Draws from any distribution in constant time (Walker 1977; built as Vose 1991 does).
#[derive(Debug, PartialEq)]
pub(crate) struct AliasTable {
    pub(crate) probabilities: Vec<f64>,
    /// Of each slot, how much of it is its own class.
    own: Vec<f64>,
    /// The class of the rest.
    other: Vec<u32>,
}

impl AliasTable {
    /// # Errors
    /// Out of memory.
    fn new(weights: Vec<f64>) -> Result<AliasTable> {
        let n = weights.len();
        let sum: f64 = weights.iter().sum();
        let mut probabilities = weights;
        probabilities.iter_mut().for_each(|p| *p /= sum);
        let mut own: Vec<f64> = probabilities.iter().map(|p| p * n as f64).collect();
        let mut other: Vec<u32> = (0..n as u32).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..n as u32).partition(|&slot| own[slot as usize] < 1.0);
        while let (Some(&giver), Some(slot)) = (large.last(), small.pop()) {
            other[slot as usize] = giver;
            own[giver as usize] -= 1.0 - own[slot as usize];
            if own[giver as usize] < 1.0 {
                large.pop();
                small.push(giver);
            }
        }
        // What is left is 1 but for rounding; a class that never occurs must not be drawn for that.
        let likeliest = (0..n).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        for slot in large.into_iter().chain(small) {
            match probabilities[slot as usize] {
                0.0 => other[slot as usize] = likeliest.unwrap_or(0) as u32,
                _ => own[slot as usize] = 1.0,
            }
        }
        Ok(AliasTable { probabilities, own, other })
    }

    fn draw(&self, slot: f64, part: f64) -> usize {
        let at = ((slot * self.own.len() as f64) as usize).min(self.own.len() - 1);
        if part < self.own[at] { at } else { self.other[at] as usize }
    }
}
