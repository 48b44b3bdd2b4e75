//! The state of a row as numbers, which another call, or another device of the kind, goes on with.

use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::row::partial::Partial;
use crate::cpu::row::ranks::Standing;
use crate::cpu::row::softmax::Deviation;
use crate::cpu::row::state::Part;
use crate::cpu::threads::Spread;
use crate::spec::row_state::Record;

/// Numbers of one part: maximum, sum, and of what is smoothed its reference, sum and weight.
fn write(part: &Part, numbers: &mut [f32]) {
    let Part { exponentials: e, deviation: d, .. } = part;
    let all = [e.max, e.sum, d.reference, d.sum, d.weight];
    numbers.copy_from_slice(&all[..numbers.len()]);
}

fn read(numbers: &[f32]) -> Part {
    let exponentials = Partial { max: numbers[0], sum: numbers[1], ..Partial::EMPTY };
    let deviation = match *numbers {
        [_, _, reference, sum, weight] => Deviation { reference, sum, weight },
        _ => Deviation::NONE,
    };
    Part { exponentials, deviation, standing: Standing::NONE }
}

/// Writes the parts of a shard's segments, and the target's logit where its column is a hole in them.
pub(crate) fn keep(
    record: &Record,
    segments: &Segments,
    (parts, logit): (&[Part], Option<f32>),
    numbers: &mut [f32],
) {
    let (blocks, target) = numbers.split_at_mut(record.target());
    target.fill(0.0);
    let after = segments.after_hole();
    if let (Some(after), Some(logit)) = (after, logit) {
        target[..2].copy_from_slice(&[1.0, logit]);
        write(&parts[after], &mut target[2..]);
    }
    let of_blocks = parts.iter().enumerate().filter(|&(i, _)| Some(i) != after);
    for ((_, part), numbers) in of_blocks.zip(blocks.chunks_exact_mut(record.fields)) {
        write(part, numbers);
    }
}

/// The target's logit; `None` where it is in none of the columns.
pub(crate) fn logit(record: &Record, numbers: &[f32]) -> Option<f32> {
    let target = &numbers[record.target()..];
    (target[0] == 1.0).then_some(target[1])
}

/// The parts again, of the segments that have the target's column as their hole.
pub(crate) fn parts<'p>(
    record: &Record,
    segments: &Segments,
    numbers: &[f32],
    parts: &'p mut Slots<Part>,
) -> &'p [Part] {
    let after = segments.after_hole().unwrap_or(usize::MAX);
    parts.fill(segments, Spread::Alone, |i, _| {
        let at = match i.cmp(&after) {
            std::cmp::Ordering::Less => i * record.fields,
            std::cmp::Ordering::Equal => record.target() + 2,
            std::cmp::Ordering::Greater => (i - 1) * record.fields,
        };
        read(&numbers[at..at + record.fields])
    })
}
