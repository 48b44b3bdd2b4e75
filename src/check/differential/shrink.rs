//! Smaller calls that still differ.

use crate::check::call::{Call, Given, Role};
use std::ops::Range;

/// Tries what makes the call simpler, one thing after another, and keeps what still differs;
/// `complete` computes what a call reads of a call before it.
pub(super) fn shrink(call: &Call, complete: fn(&mut Call), mut differs: impl FnMut(&Call) -> bool) {
    let mut smallest = call.clone();
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        let mut changed = false;
        for simpler in simplifications(&smallest) {
            let mut candidate = smallest.clone();
            if attempts < ATTEMPTS && simpler(&mut candidate) {
                attempts += 1;
                complete(&mut candidate);
                if differs(&candidate) {
                    (smallest, changed) = (candidate, true);
                }
            }
        }
        if !changed {
            return;
        }
    }
}

/// Calls that are tried.
const ATTEMPTS: u32 = 200;

type Simplification = Box<dyn Fn(&mut Call) -> bool>;

/// Letters of sizes that tensors share.
const LETTERS: [char; 8] = ['N', 'X', 'Y', 'C', '1', '2', '3', '4'];

/// What is kept of a size: nothing, one half or the other, all but the last or the first.
const KEPT: [fn(usize) -> Range<usize>; 5] =
    [|_| 0..0, |n| 0..n / 2, |n| n / 2..n, |n| 0..n - n.min(1), |n| n.min(1)..n];

/// Each changes a call, and says whether it did.
fn simplifications(call: &Call) -> Vec<Simplification> {
    let mut all: Vec<Simplification> = vec![Box::new(|call| std::mem::take(&mut call.resident))];
    for letter in LETTERS {
        for keep in KEPT {
            all.push(Box::new(move |call| cut(call, letter, keep)));
        }
    }
    for i in 0..call.settings.len() {
        all.push(Box::new(move |call| {
            let setting = &mut call.settings[i];
            let changed = setting.value != setting.default;
            setting.value = setting.default.clone();
            changed
        }));
    }
    for i in 0..call.tensors.len() {
        all.push(Box::new(move |call| {
            let given = &mut call.tensors[i];
            given.optional && std::mem::take(&mut given.present)
        }));
        all.push(Box::new(move |call| std::mem::take(&mut call.tensors[i].padding) > 0));
        all.push(Box::new(move |call| plain(&mut call.tensors[i])));
    }
    all
}

/// Numbers of few digits in the place of those that were drawn.
fn plain(given: &mut Given) -> bool {
    if given.dtype.is_index() || given.role == Role::Written {
        return false;
    }
    let plain = |x: f64| if x.is_finite() && x.abs() < 1e4 { (x * 4.0).round() / 4.0 } else { x };
    let before = given.values.clone();
    given.values.iter_mut().for_each(|x| *x = plain(*x));
    before.iter().zip(&given.values).any(|(a, b)| a.to_bits() != b.to_bits())
}

/// Leaves out some of what a letter numbers, in every tensor that has it.
fn cut(call: &mut Call, letter: char, keep: fn(usize) -> Range<usize>) -> bool {
    let mut changed = false;
    for given in &mut call.tensors {
        let Some(at) = given.letters.iter().position(|l| *l == letter) else { continue };
        let (size, kept) = (given.shape[at], keep(given.shape[at]));
        if kept.len() >= size {
            continue;
        }
        let elements: usize = given.shape.iter().product();
        if !given.values.is_empty() {
            let inner: usize = given.shape[at + 1..].iter().product();
            let all = given.values.iter().cycle().take(elements).enumerate();
            let of = |i: usize| i / inner.max(1) % size;
            given.values = all.filter(|(i, _)| kept.contains(&of(*i))).map(|(_, v)| *v).collect();
        }
        given.shape[at] = kept.len();
        changed = true;
    }
    changed
}
