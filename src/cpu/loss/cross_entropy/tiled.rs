//! Cross entropy of rows whose logits come a block of classes at a time, in any order, and are gone afterwards.
//!
//! A row's blocks are those that it is summed in where it lies in one piece (`row/cuts.rs`): what each of them
//! sums to is kept until the row has all, and merged in their order. So the bits are those of the whole row.

use crate::base::error::{Error, Result};
use crate::cpu::batch::numbers::{Batch, Sums};
use crate::cpu::batch::results::Results;
use crate::cpu::batch::targets::with_weights;
use crate::cpu::loss::cross_entropy::TokenResults;
use crate::cpu::loss::cross_entropy::tokens::put_kept;
use crate::cpu::matrix::chunks::{Read, Tile};
use crate::cpu::processor::Cpu;
use crate::cpu::row::cuts::Segments;
use crate::cpu::row::partial::Partial;
use crate::cpu::row::state::{Part, RowSum};
use crate::cpu::row::top::Gathering;
use crate::cpu::row::work::{Also, Summing};
use crate::cpu::threads::{SyncPtr, SyncRef};
use crate::spec::row_state::block;

/// What is kept of a band of rows, all of which have a target.
pub(crate) struct States {
    /// Of each row as many as it has segments.
    parts: Vec<Part>,
    /// Targets' logits.
    pub(crate) targets: Vec<f32>,
    /// The likeliest classes, where they are asked for.
    tops: Vec<Gathering>,
    segments: usize,
}

impl States {
    /// Parts of a row of so many classes.
    fn segments(classes: usize) -> usize {
        classes.div_ceil(block(classes)) + 1
    }

    /// Bytes of a row.
    pub(crate) fn bytes(classes: usize) -> usize {
        States::segments(classes) * size_of::<Part>() + size_of::<f32>() + Gathering::BYTES
    }

    /// For so many rows at most, each with so many likeliest classes.
    pub(crate) fn new(rows: usize, classes: usize, top_k: usize) -> Result<States> {
        let segments = States::segments(classes);
        let mut parts = Vec::new();
        let len = rows.saturating_mul(segments);
        let no_memory =
            |_| Error::no_memory("parts of rows", len.saturating_mul(size_of::<Part>()));
        parts.try_reserve_exact(len).map_err(no_memory)?;
        parts.resize(len, Part::of(Partial::EMPTY));
        let of_top = if top_k > 0 { rows } else { 0 };
        let tops = (0..of_top).map(|_| Gathering::new(top_k)).collect();
        Ok(States { parts, targets: vec![0.0; rows], tops, segments })
    }

    /// Forgets what the last rows' likeliest classes were.
    fn begin(&mut self, top_k: usize) {
        self.tops.iter_mut().for_each(|top| *top = Gathering::new(top_k));
    }
}

/// A band whose logits come by.
pub(crate) struct Tiled<'a> {
    batch: &'a Batch<'a>,
    results: Results,
    tokens: Option<TokenResults>,
    summing: Summing,
    /// Smoothing weights over the batch's unit; null for 1 each.
    weights: SyncPtr<f32>,
    parts: SyncPtr<Part>,
    targets: SyncPtr<f32>,
    tops: &'a [Gathering],
    segments: usize,
}

impl Cpu {
    /// Calls `go` with what reads the tiles of rows whose batch this is, then writes what the rows came to. Where
    /// ranks are asked for, the states hold all targets' logits already.
    pub(crate) fn cross_entropy_in_tiles(
        &self,
        batch: &Batch<'_>,
        (results, tokens): (Results, Option<TokenResults>),
        states: &mut States,
        go: &mut dyn FnMut(Read<'_>),
    ) {
        states.begin(tokens.map_or(0, |tokens| tokens.top_k()));
        with_weights(
            batch.weights,
            (batch.targets.classes, batch.unit),
            batch.epsilon > 0.0,
            |w| {
                let also = Also { moment: tokens.is_some(), standing: results.ranks.wanted() };
                let tiled = Tiled {
                    batch,
                    results,
                    tokens,
                    summing: Summing {
                        level: self.level,
                        transform: batch.transform,
                        smoothing: batch.epsilon > 0.0,
                        also,
                    },
                    weights: w,
                    parts: SyncPtr(states.parts.as_mut_ptr()),
                    targets: SyncPtr(states.targets.as_mut_ptr()),
                    tops: &states.tops,
                    segments: states.segments,
                };
                // SAFETY: a tile's parts are written by the thread that has the tile, a row's results by that of the
                // row, once all tiles were read.
                let tiled = unsafe { SyncRef::new(&tiled) };
                go(&|tile| tiled.get().read(&tile));
                self.share(batch.targets.rows, 16, &|row| tiled.get().finish(row));
            },
        );
    }
}

impl Tiled<'_> {
    fn target(&self, row: usize) -> SyncPtr<f32> {
        assert!(row < self.batch.targets.rows, "a row of the batch");
        SyncPtr(self.targets.get().wrapping_add(row))
    }

    /// Sums the rows of a tile, which holds a block of classes.
    fn read(&self, tile: &Tile) {
        let batch = self.batch;
        let Tile { rows, classes, logits } = tile;
        let of_block = classes.start / block(batch.targets.classes);
        for row in rows.clone() {
            let Some(class) = batch.targets.class(row) else { continue };
            // SAFETY: a row of the tile, which is this thread's.
            let x = unsafe { logits.row(row - rows.start, classes.len()) };
            if let Some(x) = class.checked_sub(classes.start).and_then(|at| x.get(at))
                && !self.summing.also.standing
            {
                // SAFETY: there is one a row, which the tile with the target alone writes.
                unsafe { self.target(row).get().write(*x) };
            }
            // What is left and right of the target: it is in no part.
            let segments = Segments::new(batch.targets.classes, Some(class));
            let after = segments.after_hole().unwrap_or(0);
            let first = of_block + usize::from(of_block >= after);
            let last = if of_block + 1 == after { first + 1 } else { first };
            // SAFETY: there is one a row; those that are compared with were all there before the first tile.
            let own = self.summing.also.standing.then(|| unsafe { self.target(row).get().read() });
            let hole = own.map(|logit| batch.hole_of(logit, class, class));
            for segment in first..=last {
                let columns = segments.range(segment);
                let weights = match self.weights.get() {
                    null if null.is_null() => null,
                    weights => weights.wrapping_add(columns.start),
                };
                let x = x[columns.start - classes.start..][..columns.len()].as_ptr();
                // SAFETY: the columns are some of the tile's and of the classes' weights; each segment of a row
                // comes once, and has a part.
                unsafe {
                    if let Some(top) = self.tops.get(row) {
                        top.offer(self.summing.level, x, columns.clone());
                    }
                    let part = self.summing.part((x, weights.cast_const()), columns, hole);
                    assert!(segment < self.segments);
                    self.parts.get().add(row * self.segments + segment).write(part);
                }
            }
        }
    }

    /// Writes what a row came to.
    fn finish(&self, row: usize) {
        let batch = self.batch;
        let Some(class) = batch.targets.class(row) else { return };
        // SAFETY: all tiles were read: the row's parts and its target's logit are written, and nobody writes any
        // more; results have an element, or k, a row, and this row's are this call's.
        unsafe {
            let parts = self.parts.get().add(row * self.segments);
            let parts = std::slice::from_raw_parts(parts.cast_const(), self.segments);
            let hole = batch.hole_of(self.target(row).get().read(), class, class);
            let sum = RowSum::merge(batch.transform, parts.iter().copied(), Some(hole));
            let top = self.tops.get(row).map(|top| {
                let mut top = top.found().clone();
                top.offer(hole.logit, class);
                top
            });
            let to = (&self.results, self.tokens.as_ref());
            put_kept(batch, to, (row, class), (&sum, top), &mut Sums::default());
        }
    }
}
