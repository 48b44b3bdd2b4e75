//! `warploss check --differential`: random calls, right and wrong, on two devices.

use super::device::DeviceChoice;
use super::failure::{self, Failure};
use crate::base::error::Error;
use crate::check::catalogue::Op;
use crate::check::differential::{Differential, Finding};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    /// So many calls of each op.
    Cases(u64),
    /// So many seconds.
    Seconds(u64),
}

/// Differences that are printed; the rest are counted.
const PRINTED: u64 = 40;

#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    refused: u64,
    differences: u64,
}

impl Tally {
    fn summary(&self, names: &[String; 2]) -> String {
        let Tally { calls, refused, differences } = self;
        let [a, b] = names;
        format!("{calls} calls on {a} and {b}, {refused} errors on both, {differences} differences")
    }
}

/// Goes through the ops, a call each, as often as the budget allows.
pub(super) fn run(
    ops: &[Op],
    devices: [DeviceChoice; 2],
    seed: u64,
    budget: Budget,
) -> Result<(), Failure> {
    for device in devices {
        device.open()?;
    }
    // A panic is a finding here, and is printed as one.
    std::panic::set_hook(Box::new(|_| {}));
    let open = move |i: usize| {
        devices[i].open().map_err(|failure| Error::Device { reason: failure.message })
    };
    let names = devices.map(|device| device.to_string());
    let mut differential = Differential::new(names.clone(), Box::new(open))?;
    let (mut tally, start) = (Tally::default(), Instant::now());
    let over = |calls: u64| match budget {
        Budget::Cases(cases) => calls >= cases.saturating_mul(ops.len() as u64),
        Budget::Seconds(seconds) => start.elapsed() >= Duration::from_secs(seconds),
    };
    'all: for case in 0.. {
        for &op in ops {
            if over(tally.calls) {
                break 'all;
            }
            let seed = seed.wrapping_add(case);
            tally.calls += 1;
            match differential.check(op, seed, tally.differences < PRINTED)? {
                Finding::Agreed => {}
                Finding::Refused => tally.refused += 1,
                Finding::Differed(difference) => {
                    tally.differences += 1;
                    if tally.differences <= PRINTED {
                        let again = format!(
                            "warploss check {} --differential --device {} --seed {seed} --cases 1",
                            op.name(),
                            names.join(",")
                        );
                        failure::print(&format!("{difference}; repeat with: {again}"));
                    }
                }
            }
        }
    }
    let summary = tally.summary(&names);
    if tally.differences > 0 {
        return Err(Failure::failed(summary));
    }
    std::io::stdout()
        .write_all(format!("{summary}\n").as_bytes())
        .map_err(|e| Failure::failed(format!("standard output: {e}")))
}
