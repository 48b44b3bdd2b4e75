//! Class indices and class weights as a loop reads them, and the census of a batch's targets.

use crate::base::error::{Error, Result};
use crate::base::host::{HostRef, IndexRef};
use crate::cpu::processor::Cpu;
use crate::cpu::row::tile::{Lane, NO_CLASS, ROWS};
use crate::cpu::threads::SyncPtr;
use std::cell::Cell;
use std::ops::Range;

/// Per-class weights; 1 each where there are none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a>(pub(crate) Option<HostRef<'a>>);

impl Weights<'_> {
    pub(crate) fn get(&self, class: usize) -> f64 {
        self.0.map_or(1.0, |w| f64::from(w.float(class)))
    }

    /// The weights' sum over all classes; an error for the first that is not finite.
    pub(crate) fn sum(&self, classes: usize) -> Result<WeightSum> {
        let Some(weights) = self.0 else {
            return Ok(WeightSum { sum: classes as f64, unit: 1.0 });
        };
        let (mut sum, mut largest) = (0.0, 0f32);
        for index in 0..classes {
            let got = weights.float(index);
            if !got.is_finite() {
                return Err(Error::NotFinite { argument: "weight", index, got });
            }
            sum += f64::from(got);
            largest = largest.max(got.abs());
        }
        Ok(WeightSum { sum, unit: unit(largest) })
    }
}

/// What the class weights are together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightSum {
    pub(crate) sum: f64,
    /// Loops over classes see the weights over this power of two.
    pub(crate) unit: f64,
}

/// What weights are divided by, so that no sum of theirs in f32 leaves it: 1, unless the largest
/// of them is beyond 2 or so small that others lose digits.
fn unit(largest: f32) -> f64 {
    const SMALL: f32 = 1e-12;
    if largest == 0.0 || (SMALL..=2.0).contains(&largest) {
        return 1.0;
    }
    f64::from(largest).log2().floor().exp2()
}

thread_local! {
    /// Class weights widened to f32, kept so that later calls allocate nothing. Taken out
    /// while in use: a thread that waits for others may meanwhile be handed another call.
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with the class weights over `unit` as f32; null for 1 each, or where `needed` is
/// false and they would have to be copied.
pub(crate) fn with_weights<R>(
    weights: Weights<'_>,
    (classes, unit): (usize, f64),
    needed: bool,
    work: impl FnOnce(SyncPtr<f32>) -> R,
) -> R {
    match weights.0 {
        Some(HostRef::F32(w)) if unit == 1.0 => work(SyncPtr(w.as_ptr().cast_mut())),
        Some(w) if needed => {
            let mut wide = WIDENED.take();
            wide.clear();
            wide.extend((0..classes).map(|c| (f64::from(w.float(c)) / unit) as f32));
            let result = work(SyncPtr(wide.as_mut_ptr()));
            WIDENED.set(wide);
            result
        }
        _ => work(SyncPtr(std::ptr::null_mut())),
    }
}

/// A batch's class indices, with what makes them legal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets<'a> {
    /// What the caller calls them.
    pub(crate) argument: &'static str,
    pub(crate) indices: IndexRef<'a>,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    pub(crate) ignore_index: Option<i64>,
    /// Whether each counts as 1.
    pub(crate) by_rows: bool,
}

/// What the mean divides by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Census {
    /// Rows that are not ignored.
    pub(crate) kept: usize,
    /// Σ w_t over kept rows.
    pub(crate) weight: f64,
    /// What the z-loss's mean divides by: their number, unless rows have weights.
    pub(crate) rows: f64,
}

impl Census {
    const NONE: Census = Census { kept: 0, weight: 0.0, rows: 0.0 };
}

/// Rows whose labels are read at a time.
const SOME: usize = 128;
/// Fewer rows than this are counted by the calling thread alone.
const ALONE: usize = 16 * 1024;
/// More rows are counted in this many chunks; the sum's order follows from it.
const CHUNKS: usize = 64;

impl Targets<'_> {
    /// The labels of rows from `first` on, widened.
    pub(crate) fn labels(&self, first: usize, to: &mut [i64]) {
        fn widen<T: Copy + Into<i64>>(from: &[T], to: &mut [i64]) {
            for (to, label) in to.iter_mut().zip(from) {
                *to = (*label).into();
            }
        }
        let rows = first..first + to.len();
        match self.indices {
            IndexRef::I64(s) => widen(&s[rows], to),
            IndexRef::I32(s) => widen(&s[rows], to),
            IndexRef::U32(s) => widen(&s[rows], to),
            IndexRef::U8(s) => widen(&s[rows], to),
        }
    }

    /// The class that a label names, `None` of an ignored row.
    #[inline(always)]
    pub(crate) fn class_of(&self, label: i64) -> Option<usize> {
        // The census has found every kept target in range.
        (Some(label) != self.ignore_index).then_some(label as usize)
    }

    /// The classes of a tile's rows, or [`NO_CLASS`].
    pub(crate) fn classes_of_tile(&self, first: usize, rows: usize) -> Lane<f32> {
        let (mut classes, mut labels) = (Lane::of(NO_CLASS), [0; ROWS]);
        self.labels(first, &mut labels[..rows]);
        for (class, &label) in classes.0.iter_mut().zip(&labels[..rows]) {
            // Exact: there are few classes, and so by way of i32, which the processor has an instruction for.
            *class = self.class_of(label).map_or(NO_CLASS, |class| class as i32 as f32);
        }
        classes
    }

    /// The class of a kept row, `None` for an ignored one.
    pub(crate) fn class(&self, row: usize) -> Option<usize> {
        self.class_of(self.indices.get(row))
    }

    /// Calls `work` with each of the rows and its class, in their order.
    #[inline(always)]
    pub(crate) fn each(&self, rows: Range<usize>, mut work: impl FnMut(usize, Option<usize>)) {
        let mut labels = [0; SOME];
        for first in rows.clone().step_by(SOME) {
            let labels = &mut labels[..SOME.min(rows.end - first)];
            self.labels(first, labels);
            for (row, label) in (first..).zip(&*labels) {
                work(row, self.class_of(*label));
            }
        }
    }

    /// The class of the row after this one, if there is such a row.
    pub(crate) fn class_after(&self, row: usize) -> Option<usize> {
        if row + 1 < self.rows { self.class(row + 1) } else { None }
    }

    /// Counts the kept rows; an error for the first kept target that names no class.
    pub(crate) fn census(&self, cpu: &Cpu, weights: &Weights<'_>) -> Result<Census> {
        if self.rows <= ALONE {
            return self.census_of(0..self.rows, weights);
        }
        let size = self.rows.div_ceil(CHUNKS);
        let mut chunks = [const { Ok(Census::NONE) }; CHUNKS];
        cpu.share_items(&mut chunks, |i, chunk| {
            let rows = (i * size).min(self.rows)..((i + 1) * size).min(self.rows);
            *chunk = self.census_of(rows, weights);
        });
        let mut census = Census::NONE;
        for chunk in chunks {
            let chunk = chunk?;
            census.kept += chunk.kept;
            census.weight += chunk.weight;
            census.rows += chunk.rows;
        }
        Ok(census)
    }

    fn census_of(&self, rows: Range<usize>, weights: &Weights<'_>) -> Result<Census> {
        let mut census = Census::NONE;
        let ignored = |label: i64| Some(label) == self.ignore_index;
        let legal = |label: i64| usize::try_from(label).is_ok_and(|class| class < self.classes);
        let wrong = |label: i64| !ignored(label) && !legal(label);
        let mut labels = [0; SOME];
        for first in rows.clone().step_by(SOME) {
            let labels = &mut labels[..SOME.min(rows.end - first)];
            self.labels(first, labels);
            let (mut kept, mut bad) = (0, false);
            for &label in &*labels {
                kept += usize::from(!ignored(label));
                bad |= wrong(label);
            }
            if bad {
                let i = labels.iter().position(|&label| wrong(label)).unwrap_or_default();
                return Err(self.no_class(first + i, labels[i]));
            }
            census.kept += kept;
            census.rows += kept as f64;
            if self.by_rows || weights.0.is_none() {
                census.weight += kept as f64;
                continue;
            }
            for class in labels.iter().filter_map(|&label| self.class_of(label)) {
                census.weight += weights.get(class);
            }
        }
        Ok(census)
    }

    fn no_class(&self, row: usize, value: i64) -> Error {
        let (argument, classes) = (self.argument, self.classes);
        match self.ignore_index {
            Some(ignore_index) => Error::Target { argument, row, value, classes, ignore_index },
            None => Error::Value {
                argument,
                expected: format!("a class in [0, {classes})"),
                got: format!("{value} at row {row}"),
            },
        }
    }
}
