//! A described loss's entry in the catalogue.

use super::{Description, calls, case};
use crate::check::bench::elementwise::ElementwiseBench;
use crate::check::bench::{Kind, Measured};
use crate::check::case::Draw;
use crate::check::entry::{Calls, Entry, Traits};

/// A type for each loss, which its entry's functions are made of.
pub(in crate::check) trait Described {
    /// The loss.
    const LOSS: &'static Description;
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
        measured: T::MEASURED,
        traits: Traits { elementwise: Some(T::LOSS), ..Traits::PLAIN },
    }
}
