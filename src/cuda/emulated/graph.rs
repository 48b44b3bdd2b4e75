//! A CUDA graph on an imitated card.

use crate::base::error::{Error, Result};
use crate::cuda::driver::Driver;
use crate::cuda::emulated::driver::Emulated;
use crate::cuda::emulated::steps::Step;
use std::any::Any;
use std::sync::Arc;

/// What was captured from a stream: launches and memsets with the arguments that they had.
#[derive(Debug)]
pub struct Graph {
    driver: Arc<dyn Driver>,
    /// Keeps the workspace that the launches name.
    _owner: Arc<dyn Any + Send + Sync>,
    steps: Vec<Step>,
}

impl Graph {
    /// What `work` puts on the stream, kept instead of done.
    pub(crate) fn of(
        driver: &Arc<dyn Driver>,
        owner: Arc<dyn Any + Send + Sync>,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Graph> {
        let emulated = emulated(driver)?;
        emulated.begin_capture();
        let done = work();
        let steps = emulated.end_capture();
        done?;
        Ok(Graph { driver: driver.clone(), _owner: owner, steps })
    }

    /// Steps of the graph.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Does it all again, on the stream that it was captured from.
    ///
    /// # Errors
    /// What a kernel did that it may not do.
    pub fn replay(&self) -> Result<()> {
        emulated(&self.driver)?.replay(&self.steps)
    }
}

fn emulated(driver: &Arc<dyn Driver>) -> Result<&Emulated> {
    let driver = driver.as_any().downcast_ref();
    driver.ok_or_else(|| Error::Device { reason: "only an emulated device is captured so".into() })
}
