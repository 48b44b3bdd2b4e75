//! The CUDA device: one file a loss, same names as in `loss/`; below them `rows.rs` turns a plan
//! into launches, `plan.rs` makes it, and a [`Driver`] carries it out, on a GPU or in the
//! emulator.

mod args;
mod batch;
#[cfg(feature = "cuda")]
mod cache;
#[cfg(feature = "cuda")]
mod compile;
mod cross_entropy;
pub(crate) mod driver;
#[cfg(feature = "emulator")]
pub(crate) mod emulated;
mod lines;
mod log_softmax;
mod logsumexp;
mod memory;
#[cfg(feature = "cuda")]
mod nvrtc;
pub(crate) mod plan;
mod pool;
#[cfg(feature = "cuda")]
pub(crate) mod real;
mod rows;
mod status;
pub(crate) mod variants;

use crate::Result;
use driver::Driver;
use plan::Plan;
use pool::Pool;
use rows::Work;
use status::StatusWord;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use variants::{Data, Loss};

/// A CUDA device and one of its streams.
#[derive(Debug)]
pub(crate) struct Cuda {
    // Fields are dropped in this order: memory goes back before its driver does.
    pool: Pool,
    status: StatusWord,
    driver: Arc<dyn Driver>,
    /// Held during a call, so that a call's error is its own and launches do not interleave.
    turn: Mutex<()>,
    /// Which plans were carried out, as `loss dtype work: schedule`.
    notes: Mutex<BTreeSet<String>>,
}

impl Cuda {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<Cuda> {
        Ok(Cuda {
            pool: Pool::new(driver.clone()),
            status: StatusWord::new(driver.clone())?,
            driver,
            turn: Mutex::new(()),
            notes: Mutex::new(BTreeSet::new()),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.driver.name()
    }

    /// The card in words.
    pub(crate) fn description(&self) -> String {
        let card = self.driver.card();
        format!("{}, sm_{}, {} multiprocessors", card.name, card.arch, card.multiprocessors)
    }

    /// Waits for the stream.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    /// Bytes of global memory that kernels have read and written, where they are counted.
    pub(crate) fn traffic(&self) -> Option<(u64, u64)> {
        self.driver.traffic()
    }

    /// Waits for the stream; the first error that a kernel found since the last check.
    pub(crate) fn check(&self) -> Result<()> {
        let _turn = self.turn();
        self.status.check()
    }

    /// Gives unused workspace back to the device; returns its bytes.
    pub(crate) fn trim(&self) -> usize {
        self.pool.trim()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, loss: Loss, data: Data, work: Work, plan: Plan) {
        let note = format!("{loss:?} {} {work:?}: {}", data.name(), plan.schedule);
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(note);
    }

    /// Which combinations of loss, dtype, work and schedule this device has run.
    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().cloned().collect()
    }
}
