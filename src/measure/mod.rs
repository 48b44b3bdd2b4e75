//! How speed is measured here: warm-up, repetition, byte models and the machine's own bandwidths.
//!
//! A figure means nothing alone. Every timing comes with the number of bytes that a perfect run
//! would move ([`Traffic`]) and is said as a share of what the same machine reaches in the same
//! run when it only copies, scales in place or reads ([`Bandwidth`]).
//!
//! ```
//! use warploss::measure::{Budget, time};
//!
//! let mut data = vec![1.0f32; 1000];
//! let budget = Budget { seconds: 0.01, ..Budget::default() };
//! let timing = time(&budget, &mut data, |data| data.fill(1.0), |data| {
//!     data.iter_mut().for_each(|x| *x *= 2.0);
//!     Ok::<(), std::convert::Infallible>(())
//! });
//! assert!(timing.unwrap().runs >= 3);
//! ```

mod bandwidth;
mod traffic;

pub use bandwidth::Bandwidth;
pub use traffic::{Pass, Traffic};

use std::time::Instant;

/// How long and how often to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Runs before the first that counts: they map memory, wake threads and fill caches.
    pub warm_up: usize,
    /// Runs that count, at least.
    pub min_runs: usize,
    /// No further run begins once this time is spent, preparation included.
    pub seconds: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { warm_up: 1, min_runs: 3, seconds: 1.0 }
    }
}

/// The times of the runs that counted, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Half of the runs took no longer.
    pub median: f64,
    /// The fastest run.
    pub min: f64,
    /// The slowest run.
    pub max: f64,
    /// How many runs counted.
    pub runs: usize,
}

impl Timing {
    /// Sums up the times of single runs; all zero where there are none.
    pub fn of(mut seconds: Vec<f64>) -> Timing {
        seconds.sort_unstable_by(f64::total_cmp);
        let runs = seconds.len();
        let at = |i: usize| seconds.get(i).copied().unwrap_or(0.0);
        let median = match runs % 2 {
            0 => (at((runs / 2).wrapping_sub(1)) + at(runs / 2)) / 2.0,
            _ => at(runs / 2),
        };
        Timing { median, min: at(0), max: at(runs.wrapping_sub(1)), runs }
    }

    /// 10⁹ bytes a second in the median run.
    pub fn gb_per_s(&self, bytes: u64) -> f64 {
        bytes as f64 / self.median / 1e9
    }
}

/// Times `run` on `state`; `prepare` comes before each run and is not timed, so that a call that
/// consumes its input can be measured.
///
/// # Errors
/// The first error that `run` returns.
pub fn time<S: ?Sized, E>(
    budget: &Budget,
    state: &mut S,
    mut prepare: impl FnMut(&mut S),
    mut run: impl FnMut(&mut S) -> Result<(), E>,
) -> Result<Timing, E> {
    let prepare = |state: &mut S| {
        prepare(state);
        Ok(())
    };
    time_by(budget, state, prepare, |state| {
        let begin = Instant::now();
        run(state)?;
        Ok(begin.elapsed().as_secs_f64())
    })
}

/// As [`time`], where `run` says itself how many seconds it took and `prepare` may fail: for
/// devices that have clocks of their own.
///
/// # Errors
/// The first error that either returns.
pub fn time_by<S: ?Sized, E>(
    budget: &Budget,
    state: &mut S,
    mut prepare: impl FnMut(&mut S) -> Result<(), E>,
    mut run: impl FnMut(&mut S) -> Result<f64, E>,
) -> Result<Timing, E> {
    for _ in 0..budget.warm_up {
        prepare(state)?;
        run(state)?;
    }
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < budget.min_runs || start.elapsed().as_secs_f64() < budget.seconds {
        prepare(state)?;
        seconds.push(run(state)?);
    }
    Ok(Timing::of(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let odd = Timing::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max, odd.runs), (1.0, 2.0, 3.0, 3));
        assert_eq!(Timing::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Timing::of(vec![]).runs, 0);
    }

    #[test]
    fn each_run_is_prepared_and_warm_up_does_not_count() {
        let budget = Budget { warm_up: 2, min_runs: 5, seconds: 0.0 };
        let mut counts = (0, 0);
        let timing = time(
            &budget,
            &mut counts,
            |c| c.0 += 1,
            |c| {
                c.1 += 1;
                if c.0 == c.1 { Ok(()) } else { Err("not prepared") }
            },
        );
        assert_eq!((timing.unwrap().runs, counts), (5, (7, 7)));
    }

    #[test]
    fn an_error_ends_the_measurement() {
        let budget = Budget::default();
        assert_eq!(time(&budget, &mut (), |()| (), |()| Err("no")), Err("no"));
    }
}
