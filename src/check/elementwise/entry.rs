//! A described loss's entry in the catalogue.

use super::{Description, Weights, calls, case};
use crate::check::bench::elementwise::ElementwiseBench;
use crate::check::bench::{Kind, Measured};
use crate::check::case::Draw;
use crate::check::entry::{Calls, Entry, Evaluated, Read, Traits};

const INPUT: Read = Read { name: "input", indices: false, optional: false };
const TARGET: Read = Read { name: "target", indices: false, optional: false };
const WEIGHT: Read = Read { name: "weight", indices: false, optional: true };

/// What `eval` reads of a loss, in this order.
const fn reads(loss: &Description) -> [Read; 4] {
    let third = match loss.third {
        Some(third) => Read { name: third.name, indices: false, optional: true },
        None => WEIGHT,
    };
    match loss.weights {
        Weights::None => [INPUT, TARGET, third, WEIGHT],
        _ => [INPUT, TARGET, WEIGHT, third],
    }
}

/// A type for each loss, which its entry's functions are made of.
pub(in crate::check) trait Described {
    /// The loss.
    const LOSS: &'static Description;
    /// What `eval` reads.
    const READS: &'static [Read] = {
        let all = const { &reads(Self::LOSS) };
        match (Self::LOSS.weights, Self::LOSS.third) {
            (Weights::None, None) => all.split_at(2).0,
            (Weights::None, Some(_)) | (_, None) => all.split_at(3).0,
            (_, Some(_)) => all,
        }
    };
    /// What of it can be measured.
    const MEASURED: &'static [Measured] = &[Measured {
        name: Self::LOSS.name,
        help: Self::LOSS.measured,
        kind: Kind::Elements(&ElementwiseBench(Self::LOSS)),
    }];
}

/// The entry of a loss.
pub(in crate::check) const fn entry<T: Described>() -> Entry {
    Entry {
        name: T::LOSS.name,
        cases: Draw {
            shape: case::shape,
            rest: |random, first| case::draw(random, first, T::LOSS),
        },
        calls: Calls {
            draw: |d| calls::draw(d, T::LOSS),
            run: |b| calls::run(b, T::LOSS),
            expect: |b| calls::expect(b, T::LOSS),
            saved: None,
        },
        evaluated: match T::LOSS.evaluated {
            None => None,
            Some((about, more)) => Some(Evaluated {
                about,
                more,
                reads: T::READS,
                options: T::LOSS.options,
                forms: [&["forward"], &["forward_backward"]],
            }),
        },
        measured: T::MEASURED,
        traits: Traits { elementwise: Some(T::LOSS), ..Traits::PLAIN },
    }
}
