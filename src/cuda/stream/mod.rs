//! A device and one of its streams, and one call on it: what the losses' launches are methods of.

pub(crate) mod indices;
pub(crate) mod laps;
pub(crate) mod memory;
pub(crate) mod pool;
pub(crate) mod resident;
#[cfg(feature = "cli")]
pub(crate) mod resources;
pub(crate) mod staging;
pub(crate) mod status;

use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::code::plan::{Forced, Plan, Schedule};
use crate::code::variants::{Data, Loss};
use crate::cuda::driver::Driver;
use crate::spec::adaptive_log_softmax::ClassOrder;
use laps::Laps;
use pool::{Pool, Span};
use staging::Staging;
use status::StatusWord;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A loss, its element type, what was done, and by which schedule.
type Note = (Loss, Data, &'static str, Schedule);

/// Whose numbers are on the device.
type Owner = Weak<dyn Send + Sync>;

/// A CUDA device and one of its streams, with all that calls on it share.
///
/// Nothing is locked during a call. Each call takes its workspace for itself, and a block that is
/// given back is taken only by what comes later on the same stream (`pool.rs`); pinned buffers
/// carry an event of their own (`staging.rs`); an error is noted in a word of the call's own where
/// the call waits for its results.
#[derive(Debug)]
pub(crate) struct Stream {
    // Fields are dropped in this order: memory goes back before its driver does.
    pub(crate) staging: Staging,
    pub(crate) pool: Pool,
    /// Errors of calls whose results stay on the device.
    noted: StatusWord,
    pub(crate) driver: Arc<dyn Driver>,
    /// What objects that calls named have on the device.
    constants: Mutex<Vec<(Owner, Span)>>,
    /// Which plans were carried out.
    notes: Mutex<Vec<Note>>,
    pub(crate) laps: Laps,
    /// What rows are gone through by, where a plan for them can be made of it.
    pub(crate) forced: OnceLock<Forced>,
}

impl Stream {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<Stream> {
        Ok(Stream {
            staging: Staging::new(driver.clone()),
            pool: Pool::new(driver.clone()),
            noted: StatusWord::new(driver.clone())?,
            driver,
            constants: Mutex::default(),
            notes: Mutex::default(),
            laps: Laps::default(),
            forced: OnceLock::new(),
        })
    }

    /// The card in words.
    pub(crate) fn description(&self) -> String {
        let card = self.driver.card();
        format!("{}, sm_{}, {} multiprocessors", card.name, card.arch, card.multiprocessors)
    }

    /// Waits for the stream; the first error that a kernel noted for a call whose results stay on
    /// the device, since the last check.
    pub(crate) fn check(&self) -> Result<()> {
        self.noted.check()
    }

    /// Addresses of an order's places by class and classes by place (u32).
    pub(crate) fn order(&self, order: &Arc<ClassOrder>) -> Result<[u64; 2]> {
        let address = self.constant("class_order", order, || {
            let both = order.places().iter().chain(order.classes());
            both.flat_map(|number| number.to_ne_bytes()).collect()
        })?;
        Ok([address, address + (order.len() * size_of::<u32>()) as u64])
    }

    /// Address of what is made of an object that does not change: sent when it is first named, and
    /// there as long as the object is.
    pub(crate) fn constant<T: Send + Sync + 'static>(
        &self,
        argument: &'static str,
        owner: &Arc<T>,
        bytes: impl FnOnce() -> Vec<u8>,
    ) -> Result<u64> {
        let mut constants = self.constants.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, gone) = std::mem::take(&mut *constants)
            .into_iter()
            .partition(|(owner, _)| owner.strong_count() > 0);
        *constants = known;
        gone.into_iter().for_each(|(_, span): (_, Span)| self.pool.give(span));
        let same = |known: &Owner| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(owner));
        if let Some((_, span)) = constants.iter().find(|(known, _)| same(known)) {
            return Ok(span.address);
        }
        let bytes = bytes();
        let span = self.pool.span(argument, bytes.len())?;
        let shape = Shape::new(&[bytes.len()]).unwrap_or(Shape::SCALAR);
        let rows = staging::HostRows::new(&shape, 1, 1);
        // SAFETY: the memory is as long.
        let sent = unsafe { self.staging.send(span.address, &bytes, rows) };
        let (address, object): (_, Arc<dyn Send + Sync>) = (span.address, owner.clone());
        match sent {
            Ok(()) => constants.push((Arc::downgrade(&object), span)),
            Err(_) => self.pool.give(span),
        }
        sent.map(|()| address)
    }

    /// Every call comes here: words are made of it when somebody asks.
    pub(crate) fn note(&self, loss: Loss, data: Data, work: &'static str, plan: Plan) {
        let note = (loss, data, work, plan.schedule);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Which combinations of loss, dtype, work and schedule this device has run, as
    /// `loss dtype work: schedule`.
    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |(loss, data, work, schedule): &Note| {
            format!("{loss:?} {} {work}: {schedule}", data.name())
        };
        notes.iter().map(text).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let constants = self.constants.get_mut().unwrap_or_else(PoisonError::into_inner);
        constants.drain(..).for_each(|(_, span)| self.pool.give(span));
    }
}

/// One call on a stream: what the losses' launches are methods of.
#[derive(Debug)]
pub(crate) struct Cuda {
    stream: Arc<Stream>,
    /// Whether a result goes to the host, so that the call waits at its end.
    pub(crate) to_host: Cell<bool>,
    /// The call's own status word, once it has one.
    status: RefCell<Option<Span>>,
}

impl Cuda {
    pub(crate) fn new(stream: &Arc<Stream>) -> Cuda {
        Cuda { stream: stream.clone(), to_host: Cell::new(false), status: RefCell::new(None) }
    }

    /// Address of the word that this call's kernels note errors in. Comes after the call's
    /// outputs: if one goes to the host, the word is the call's own, and its error nobody else's.
    pub(crate) fn status(&self) -> Result<u64> {
        if !self.to_host.get() {
            return self.noted.address();
        }
        let mut status = self.status.borrow_mut();
        if let Some(span) = &*status {
            return Ok(span.address);
        }
        let span = self.pool.span("status", status::BYTES)?;
        let address = span.address;
        *status = Some(span);
        // SAFETY: the block is this call's.
        unsafe { self.driver.clear(address, status::BYTES)? };
        Ok(address)
    }

    /// Waits for the stream; the error that this call's kernels noted.
    pub(crate) fn check_call(&self) -> Result<()> {
        match &*self.status.borrow() {
            // SAFETY: `status` has zeroed the word.
            Some(span) => unsafe { status::read(&*self.driver, span.address) },
            None => Ok(()),
        }
    }
}

impl std::ops::Deref for Cuda {
    type Target = Arc<Stream>;

    fn deref(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if let Some(span) = self.status.take() {
            self.pool.give(span);
        }
    }
}
