//! An imitated card gets on: steps of its stream, and copies each way.

use crate::base::error::{Error, Result};
use crate::cuda::driver::{Driver as _, Pinned, Turn};
use crate::cuda::emulated::driver::{Emulated, fault, lock};
use crate::cuda::emulated::steps::{Copy, Step, Way};
use crate::emulator;
use crate::emulator::Fault;

impl Emulated {
    /// Puts a step on the stream.
    pub(super) fn put(&self, mut step: Step) -> Result<()> {
        let graph = &mut *lock(&self.captured);
        let mut stream = lock(&self.stream);
        let led = stream.led && Turn::on(self.card().arch) && graph.is_none();
        // That memory is undefined is nothing that a stream does.
        stream.led &= matches!(step, Step::Forget { .. });
        if let Step::Launch { turn, .. } = &mut step {
            stream.led = *turn == Turn::Leads;
            if *turn == Turn::Follows && !led {
                *turn = Turn::Alone;
            }
            let early = *turn == Turn::Follows;
            self.count(|calls| calls.early += u64::from(early));
        }
        if let Some(graph) = graph {
            graph.push(step);
            return Ok(());
        }
        stream.steps.push_back(step);
        drop(stream);
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
            Step::Launch { kernel, shape: [blocks, threads, cluster, shared], turn, args } => {
                let (kernel, grid, args) = (&kernel[..], [blocks, 1], &args[..]);
                let (leads, early) = (turn == Turn::Leads, turn == Turn::Follows);
                let launch =
                    emulator::Launch { kernel, grid, threads, cluster, shared, leads, early, args };
                let stats = self.emulator().launch(&launch)?;
                let mut traffic = lock(&self.traffic);
                traffic.bytes_read += stats.bytes_read;
                traffic.bytes_written += stats.bytes_written;
                self.count(|calls| calls.bank_conflicts += stats.bank_conflicts);
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
