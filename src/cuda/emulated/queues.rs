//! What an imitated card was given and has not done: a stream, and copies each way.

use crate::base::error::{Error, Result};
use crate::cuda::driver::Pinned;
use crate::cuda::driver::product::Product;
use crate::cuda::emulated::driver::{Emulated, fault, lock};
use crate::emulator;
use crate::emulator::Fault;
use std::collections::{HashMap, VecDeque};

/// What the stream has still to do.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    steps: VecDeque<Step>,
    /// Why nothing on it is done any more, as on a GPU after a fault.
    broken: Option<String>,
}

/// Copies that nothing has waited for yet.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// To the device, and from it.
    queues: [VecDeque<(u64, Copy)>; 2],
    /// Number of the copy put in last, and of the last one that each event stands for.
    last: u64,
    events: HashMap<u64, (Way, u64)>,
    next_event: u64,
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
    Launch { kernel: String, shape: [u32; 4], args: Vec<u8> },
    Clear { address: u64, bytes: usize },
    Forget { address: u64, bytes: usize },
    Product(Product),
}

impl Emulated {
    /// Puts a step on the stream.
    pub(super) fn put(&self, step: Step) -> Result<()> {
        if let Some(graph) = &mut *lock(&self.captured) {
            graph.push(step);
            return Ok(());
        }
        lock(&self.stream).steps.push_back(step);
        self.get_on()
    }

    /// Does all that the stream was given.
    pub(super) fn finish(&self) -> Result<()> {
        // Held meanwhile: whoever comes next finds the steps done.
        let mut stream = lock(&self.stream);
        while stream.broken.is_none()
            && let Some(step) = stream.steps.pop_front()
        {
            stream.broken = self.run(step).err().map(|fault| fault.to_string());
        }
        match &stream.broken {
            Some(reason) => Err(Error::Device { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn run(&self, step: Step) -> std::result::Result<(), Fault> {
        match step {
            Step::Forget { address, bytes } => self.emulator().forget(address, bytes as u64),
            Step::Product(product) => {
                crate::cuda::emulated::product::run(self.emulator(), &product)
            }
            Step::Clear { address, bytes } => self.emulator().set(address, 0, bytes as u64),
            Step::Launch { kernel, shape: [blocks, threads, cluster, shared], args } => {
                let (kernel, grid, args) = (&kernel[..], [blocks, 1], &args[..]);
                let launch = emulator::Launch { kernel, grid, threads, cluster, shared, args };
                let stats = self.emulator().launch(&launch)?;
                let mut traffic = lock(&self.traffic);
                traffic.bytes_read += stats.bytes_read;
                traffic.bytes_written += stats.bytes_written;
                Ok(())
            }
        }
    }

    /// A number below `n`, drawn.
    pub(super) fn draw(&self, n: u64) -> u64 {
        let mut state = lock(&self.draws);
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 32) % n
    }

    /// One of the queues, or none, gets done what it was given: it is on nobody's word.
    fn get_on(&self) -> Result<()> {
        match self.draw(6) {
            0 => self.finish(),
            1 => self.copy_up_to(Way::ToDevice, u64::MAX),
            2 => self.copy_up_to(Way::FromDevice, u64::MAX),
            _ => Ok(()),
        }
    }

    /// Does all that the three queues were given, in any order: nothing said which comes first.
    pub(super) fn finish_all(&self) -> Result<()> {
        let first = self.draw(3);
        (first..first + 3).try_for_each(|queue| match queue % 3 {
            0 => self.finish(),
            1 => self.copy_up_to(Way::ToDevice, u64::MAX),
            _ => self.copy_up_to(Way::FromDevice, u64::MAX),
        })
    }

    pub(super) fn enqueue(&self, buffer: &Pinned, copy: Copy) -> Result<()> {
        self.count(|calls| calls.copies += 1);
        if copy.bytes > buffer.bytes {
            let reason = format!("a copy of {} bytes by a buffer of {}", copy.bytes, buffer.bytes);
            return Err(Error::Device { reason });
        }
        let mut copies = lock(&self.copies);
        copies.last += 1;
        let number = copies.last;
        copies.queues[copy.way as usize].push_back((number, copy));
        copies.events.insert(buffer.event, (copy.way, number));
        drop(copies);
        self.get_on()
    }

    /// Does the copies that go one way, up to number `last`.
    pub(super) fn copy_up_to(&self, way: Way, last: u64) -> Result<()> {
        let mut copies = lock(&self.copies);
        let queue = &mut copies.queues[way as usize];
        while queue.front().is_some_and(|(number, _)| *number <= last) {
            let Some((_, Copy { host, device, bytes, .. })) = queue.pop_front() else { break };
            // SAFETY: the buffer has that many bytes (`enqueue`), is freed after its last copy
            // (`free_pinned`), and is not used by the host meanwhile (`upload`, `download`).
            unsafe {
                match way {
                    Way::ToDevice => {
                        let from = std::slice::from_raw_parts(host as *const u8, bytes);
                        self.emulator().copy_to_device(device, from).map_err(fault)?;
                    }
                    Way::FromDevice => {
                        let to = std::slice::from_raw_parts_mut(host as *mut u8, bytes);
                        self.copy_written(to, device)?;
                    }
                }
            }
        }
        Ok(())
    }
}
