//! The seconds of a call, run over and over.

use std::time::{Duration, Instant};
use warploss::Result;

/// How often a call is repeated between two looks at the clock: a short one is not timed by itself.
const TIMED: Duration = Duration::from_micros(50);

/// Seconds of a run, after one that is not counted.
pub fn timed(seconds: Duration, mut step: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    step()?;
    let begin = Instant::now();
    step()?;
    let first = begin.elapsed().max(Duration::from_nanos(1));
    let repeats = (TIMED.as_nanos() / first.as_nanos() + 1) as u32;
    let (mut times, begin) = (Vec::new(), Instant::now());
    while times.len() < 3 || begin.elapsed() < seconds {
        let run = Instant::now();
        for _ in 0..repeats {
            step()?;
        }
        times.push((run.elapsed() / repeats).as_secs_f64());
    }
    Ok(times)
}
