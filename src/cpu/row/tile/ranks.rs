//! How the targets of short rows stand among the classes: what `../ranks.rs` does with one row.

use crate::cpu::row::ranks::{RankResults, Standing};
use crate::cpu::row::tile::lane::{Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::{Tile, column};
use crate::cpu::row::tile::walk::{Along, Beside, Folds, Walk, each_walk, load};
use crate::cpu::simd::{Kernel, Simd};

impl Tile<'_> {
    /// Writes argmax and rank of each row where they are asked for, before anything is made of the logits.
    ///
    /// # Safety
    /// What is asked for has an element for each of these `lines` rows from `first` on, which nobody else
    /// writes.
    pub(crate) unsafe fn put_ranks(
        &self,
        results: &RankResults,
        class: &Lane<f32>,
        (first, lines): (usize, usize),
    ) {
        if !results.wanted() {
            return;
        }
        for (row, standing) in self.standings(class).iter().enumerate().take(lines) {
            let standing = (class.0[row] >= 0.0).then_some(standing);
            // SAFETY: the caller's promise.
            unsafe { results.put(first + row, standing) };
        }
    }

    /// The standing of each row's class; of a row without one it means nothing.
    fn standings(&self, class: &Lane<f32>) -> [Standing; ROWS] {
        let mut keys = Lane::of(0.0);
        for (row, (key, &class)) in keys.0.iter_mut().zip(&class.0).enumerate() {
            if class >= 0.0 {
                *key = self.get(row, column(class));
            }
        }
        let mut counts = Counts::EMPTY;
        each_walk!(self.lie, walk => {
            self.level.run(Count { tile: self, walk, class, keys: &keys, counts: &mut counts });
        });
        std::array::from_fn(|row| match counts.nans.0[row] {
            0.0 => Standing {
                beats: counts.beats.0[row] as u64,
                best: counts.best.0[row],
                column: counts.column.0[row] as usize,
            },
            _ => self.standing_with_nan(row, class.0[row], keys.0[row]),
        })
    }

    /// Of a row with NaN, which is larger than every number.
    fn standing_with_nan(&self, row: usize, class: f32, key: f32) -> Standing {
        let beats = |c: usize| {
            let v = self.get(row, c);
            let above = v > key || (v.is_nan() && !key.is_nan());
            let equal = v == key || (v.is_nan() && key.is_nan());
            above || (equal && (c as f32) < class)
        };
        let nan = (0..self.len).find(|&c| self.get(row, c).is_nan());
        Standing {
            beats: (0..self.len).filter(|&c| beats(c)).count() as u64,
            best: f32::NAN,
            column: nan.unwrap_or_default(),
        }
    }
}

/// What rows without NaN are told by.
struct Counts {
    beats: Lane<f32>,
    nans: Lane<f32>,
    best: Lane<f32>,
    /// The first that is the best.
    column: Lane<f32>,
}

impl Counts {
    const EMPTY: Counts = Counts {
        beats: Lane::of(0.0),
        nans: Lane::of(0.0),
        best: Lane::of(0.0),
        column: Lane::of(0.0),
    };
}

struct Count<'k, 't, W> {
    tile: &'k Tile<'t>,
    walk: W,
    class: &'k Lane<f32>,
    /// The classes' logits.
    keys: &'k Lane<f32>,
    counts: &'k mut Counts,
}

impl<W: Walk> Kernel for Count<'_, '_, W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Count { tile, walk, class, keys, counts } = self;
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let further = s.splat(if W::ALONG { S::LANES as f32 } else { 1.0 });
        let [mut beats, mut nans, mut best] = [Folds::new(), Folds::new(), Folds::new()];
        let mut places = Folds::new();
        for strip in 0..walk.strips::<S>() {
            let key = walk.number(s, strip, keys);
            let class = walk.number(s, strip, class);
            // Columns are whole floats: counting them costs less than making floats of integers.
            let mut column = walk.first_columns(s);
            let (mut above, mut broken) = (zero, zero);
            let (mut top, mut at) = (s.splat(f32::NEG_INFINITY), zero);
            for step in 0..walk.steps::<S>(tile.len) {
                // What fills up is −∞, and right of every class.
                let v = load(s, tile.x, walk.place::<S>(tile.len, strip, step));
                let left = s.select_lt(column, class, one, zero);
                let equal = s.select_eq(v, key, left, zero);
                above = s.add(above, s.select_lt(key, v, one, equal));
                broken = s.add(broken, s.select_eq(v, v, zero, one));
                at = s.select_lt(top, v, column, at);
                top = s.select_lt(top, v, v, top);
                column = s.add(column, further);
            }
            beats.put(s, strip, above);
            nans.put(s, strip, broken);
            best.put(s, strip, top);
            places.put(s, strip, at);
        }
        beats.rows(s, walk, false, &mut counts.beats);
        nans.rows(s, walk, false, &mut counts.nans);
        best.rows(s, walk, true, &mut counts.best);
        // Of the lanes that have seen the best, the one that saw it first.
        let mut firsts = Folds::new();
        for strip in 0..walk.strips::<S>() {
            let of_row = walk.number(s, strip, &counts.best);
            let negative = s.sub(zero, places.get(s, strip));
            let none = s.splat(f32::NEG_INFINITY);
            firsts.put(s, strip, s.select_eq(best.get(s, strip), of_row, negative, none));
        }
        firsts.rows(s, walk, true, &mut counts.column);
        for column in &mut counts.column.0 {
            *column = -*column;
        }
    }
}
