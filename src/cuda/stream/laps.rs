//! How long the kernels that go through rows take, apart from what a call launches besides.

use crate::base::error::Result;
use crate::cuda::driver::Driver;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Moments before and after such launches, while somebody measures them.
#[derive(Debug, Default)]
pub(crate) struct Laps(Mutex<Option<Vec<[u64; 2]>>>);

impl Laps {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<[u64; 2]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Launches, between two moments where they are measured.
    pub(crate) fn around(
        &self,
        driver: &dyn Driver,
        launches: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.lock().is_none() {
            return launches();
        }
        let from = driver.moment()?;
        let done = launches();
        let to = driver.moment()?;
        if let Some(laps) = &mut *self.lock() {
            laps.push([from, to]);
        }
        done
    }

    /// Seconds of such launches in `work`; `None` where there were none.
    #[cfg(feature = "cli")]
    pub(crate) fn of(
        &self,
        driver: &dyn Driver,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Option<f64>> {
        *self.lock() = Some(Vec::new());
        let done = work();
        let laps = self.lock().take().unwrap_or_default();
        let mut sum = None;
        for lap in laps {
            *sum.get_or_insert(0.0) += driver.seconds(lap)?;
        }
        done.map(|()| sum)
    }
}
