//! What an imitated card is asked to do later, and the queues that hold it.

use crate::cuda::driver::product::Product;
use crate::cuda::driver::{Pinned, Turn};
use std::collections::{HashMap, VecDeque};

/// What the stream has still to do.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(super) steps: VecDeque<Step>,
    /// Whether a launch that leads was put on it last.
    pub(super) led: bool,
    /// Why nothing on it is done any more, as on a GPU after a fault.
    pub(super) broken: Option<String>,
}

/// Copies that nothing has waited for yet.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// To the device, and from it.
    pub(super) queues: [VecDeque<(u64, Copy)>; 2],
    /// Number of the copy put in last, and of the last one that each event stands for.
    pub(super) last: u64,
    pub(super) events: HashMap<u64, (Way, u64)>,
    pub(super) next_event: u64,
}

impl Copies {
    /// A number that stands for the last copy by a buffer.
    pub(super) fn event(&mut self) -> u64 {
        self.next_event += 1;
        self.next_event
    }

    pub(super) fn forget(&mut self, buffer: &Pinned) {
        self.events.remove(&buffer.event);
    }

    /// The buffer's last copy, if it ever had one: its way and its number.
    pub(super) fn last(&self, buffer: &Pinned) -> Option<(Way, u64)> {
        self.events.get(&buffer.event).copied()
    }

    pub(super) fn done(&self, buffer: &Pinned) -> bool {
        self.last(buffer).is_none_or(|(way, last)| {
            self.queues[way as usize].front().is_none_or(|(number, _)| *number > last)
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub(super) host: usize,
    pub(super) device: u64,
    pub(super) bytes: usize,
    pub(super) way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToDevice,
    FromDevice,
}

/// A launch, a product or a memset, to be done later, or again; or that memory is undefined from here on.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Launch { kernel: String, shape: [u32; 4], turn: Turn, args: Vec<u8> },
    Clear { address: u64, bytes: usize },
    Forget { address: u64, bytes: usize },
    Product(Product),
}
