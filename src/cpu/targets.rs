//! Class indices and class weights as a loop reads them, and the census of a batch's targets.

use super::Cpu;
use crate::tensor::HostRef;
use crate::{Error, Result};
use rayon::prelude::*;

/// Per-class weights; 1 each where there are none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a>(pub(crate) Option<HostRef<'a>>);

impl Weights<'_> {
    pub(crate) fn get(&self, class: usize) -> f64 {
        self.0.map_or(1.0, |w| f64::from(w.float(class)))
    }

    /// The weights' sum over all classes; an error for the first that is not finite.
    pub(crate) fn sum(&self, classes: usize) -> Result<f64> {
        let Some(weights) = self.0 else {
            return Ok(classes as f64);
        };
        let mut sum = 0.0;
        for index in 0..classes {
            let got = weights.float(index);
            if !got.is_finite() {
                return Err(Error::NotFinite { argument: "weight", index, got });
            }
            sum += f64::from(got);
        }
        Ok(sum)
    }
}

/// A batch's class indices, with what makes them legal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets<'a> {
    pub(crate) indices: HostRef<'a>,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    pub(crate) ignore_index: i64,
}

/// What the mean divides by.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    /// Rows that are not ignored.
    pub(crate) kept: usize,
    /// Σ w_t over kept rows.
    pub(crate) weight: f64,
}

/// Rows whose targets are read by one thread at a time; the sum's order follows from it.
const CHUNK: usize = 16 * 1024;

impl Targets<'_> {
    /// The class of a kept row, `None` for an ignored one.
    pub(crate) fn class(&self, row: usize) -> Option<usize> {
        let value = self.indices.index(row);
        // The census has found every kept target in range.
        (value != self.ignore_index).then_some(value as usize)
    }

    /// Counts the kept rows; an error for the first kept target that names no class.
    pub(crate) fn census(&self, cpu: &Cpu, weights: &Weights<'_>) -> Result<Census> {
        let chunk = |i: usize| self.census_of(i * CHUNK..((i + 1) * CHUNK).min(self.rows), weights);
        if self.rows <= CHUNK {
            return chunk(0);
        }
        let chunks: Vec<_> =
            cpu.install(|| (0..self.rows.div_ceil(CHUNK)).into_par_iter().map(chunk).collect());
        let mut census = Census::default();
        for chunk in chunks {
            let chunk = chunk?;
            census.kept += chunk.kept;
            census.weight += chunk.weight;
        }
        Ok(census)
    }

    fn census_of(&self, rows: std::ops::Range<usize>, weights: &Weights<'_>) -> Result<Census> {
        let mut census = Census::default();
        for row in rows {
            let value = self.indices.index(row);
            if value == self.ignore_index {
                continue;
            }
            match usize::try_from(value) {
                Ok(class) if class < self.classes => {
                    census.kept += 1;
                    census.weight += weights.get(class);
                }
                _ => {
                    return Err(Error::Target {
                        row,
                        value,
                        classes: self.classes,
                        ignore_index: self.ignore_index,
                    });
                }
            }
        }
        Ok(census)
    }
}
