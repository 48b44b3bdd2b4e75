//! A CUDA graph on an imitated card.

use crate::base::error::{Error, Result};
use crate::cuda::emulated::driver::Emulated;
use crate::cuda::emulated::queues::Step;
use crate::cuda::stream::Stream;
use std::sync::Arc;

/// What was captured from a stream: launches and memsets with the arguments that they had.
#[derive(Debug)]
pub struct Graph {
    /// Keeps the workspace that the launches name.
    stream: Arc<Stream>,
    steps: Vec<Step>,
}

impl Graph {
    /// What `work` puts on the stream, kept instead of done.
    pub(crate) fn of(stream: &Arc<Stream>, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let graph = Graph { stream: stream.clone(), steps: Vec::new() };
        let driver = graph.driver()?;
        driver.begin_capture();
        let done = work();
        let steps = driver.end_capture();
        done?;
        Ok(Graph { steps, ..graph })
    }

    fn driver(&self) -> Result<&Emulated> {
        let driver = self.stream.driver.as_any().downcast_ref();
        driver.ok_or_else(|| Error::Device { reason: "not an emulated device".into() })
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
        self.driver()?.replay(&self.steps)
    }
}
