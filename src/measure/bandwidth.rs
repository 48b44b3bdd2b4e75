//! What the machine's memory can do, measured with the threads that the losses use.

#[cfg(feature = "cli")]
use super::time_by;
use super::{Budget, time};
use crate::base::error::{Error, Result};
#[cfg(feature = "cli")]
use crate::base::tensor::Tensor;
#[cfg(feature = "cli")]
use crate::device::Device;
use rayon::prelude::*;
use std::convert::Infallible;
use std::hint::black_box;

/// Elements that one thread works on at a time: 1 MiB, many for each thread, long for a prefetcher.
const CHUNK: usize = 256 * 1024;

/// Bytes that the host makes of a device's buffer, which repeats them.
#[cfg(feature = "cli")]
const MADE: usize = 64 << 20;
/// Bytes of a device's buffer at the least.
#[cfg(feature = "cli")]
const LEAST: usize = 1 << 20;

/// Bytes moved a second, in 10⁹, by the three plainest uses of memory; the median run of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// One buffer copied to another; bytes read and bytes written both count.
    pub copy: f64,
    /// One buffer multiplied in place; bytes read and bytes written both count. On the CPU alone.
    pub scale: Option<f64>,
    /// One buffer summed. On the CPU alone.
    pub read: Option<f64>,
    /// Bytes of each buffer.
    pub bytes: usize,
}

impl Bandwidth {
    /// Bytes of each of the two buffers: several times the last-level cache of common machines.
    pub const BYTES: usize = 256 << 20;

    /// The same on a GPU: dozens of times its cache.
    pub const DEVICE_BYTES: usize = 2 << 30;

    /// Measures with two buffers of `bytes` each on rayon's threads; `budget` goes to each of the
    /// three.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the buffers cannot be had.
    pub fn measure(bytes: usize, budget: &Budget) -> Result<Bandwidth> {
        let n = (bytes / size_of::<f32>()).max(1);
        let mut buffers = (buffer(n)?, buffer(n)?);
        let moved = (n * size_of::<f32>()) as u64;
        let mut measure = |work: fn(&mut [f32], &mut [f32])| {
            let run = |(a, b): &mut (Vec<f32>, Vec<f32>)| {
                work(a, b);
                Ok::<(), Infallible>(())
            };
            match time(budget, &mut buffers, |_| (), run) {
                Ok(timing) => timing,
                Err(never) => match never {},
            }
        };
        Ok(Bandwidth {
            copy: measure(copy).gb_per_s(2 * moved),
            scale: Some(measure(scale).gb_per_s(2 * moved)),
            read: Some(measure(read).gb_per_s(moved)),
            bytes: moved as usize,
        })
    }

    /// What a device's own memory can do: the machine's by [`Bandwidth::measure`], a GPU's by
    /// copying from one buffer of its memory to another. Where a GPU has no room for two of so many
    /// bytes, they are halved until it has.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the buffers cannot be had; what the driver reports.
    #[cfg(feature = "cli")]
    pub fn of_device(device: &Device, bytes: usize, budget: &Budget) -> Result<Bandwidth> {
        if device.name() == "cpu" {
            return Bandwidth::measure(bytes, budget);
        }
        let mut bytes = bytes.max(LEAST);
        let mut buffers = loop {
            match buffers(device, bytes) {
                Err(Error::OutOfMemory { .. }) if bytes > LEAST => bytes /= 2,
                other => break other?,
            }
        };
        let timing = time_by(
            budget,
            &mut buffers,
            |_| Ok(()),
            |(a, b)| device.time(|| b.copy_on_device(a).map(|_| ())),
        )?;
        Ok(Bandwidth { copy: timing.gb_per_s(2 * bytes as u64), scale: None, read: None, bytes })
    }
}

/// Two buffers of a device, of random bits: a copy of zeros may be faster.
#[cfg(feature = "cli")]
fn buffers(device: &Device, bytes: usize) -> Result<(Tensor, Tensor)> {
    let mut bits = buffer(bytes.min(MADE) / size_of::<f32>())?;
    let number = |i: usize| f32::from_bits(crate::base::random::mix(i as u64) as u32);
    bits.par_iter_mut().enumerate().for_each(|(i, x)| *x = number(i));
    let shape = [bits.len()];
    let host = Tensor::from_vec(bits, &shape)?;
    let room = bytes / size_of::<f32>();
    Ok((device.hold_repeated(host.clone(), room)?, device.hold_repeated(host, room)?))
}

fn buffer(n: usize) -> Result<Vec<f32>> {
    let mut data = Vec::new();
    data.try_reserve_exact(n).map_err(|_| Error::no_memory("bandwidth buffers", n * 4))?;
    data.resize(n, 1.0);
    Ok(data)
}

fn copy(a: &mut [f32], b: &mut [f32]) {
    b.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).for_each(|(b, a)| b.copy_from_slice(a));
}

fn scale(a: &mut [f32], _: &mut [f32]) {
    // A factor that the compiler cannot know, and that keeps the values as they are.
    let factor = black_box(1.0f32);
    a.par_chunks_mut(CHUNK).for_each(|a| a.iter_mut().for_each(|x| *x *= factor));
}

fn read(a: &mut [f32], _: &mut [f32]) {
    a.par_chunks(CHUNK).for_each(|a| {
        // Enough independent sums to hide the latency of an addition.
        let mut sums = [0.0f32; 32];
        for block in a.chunks_exact(32) {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += x;
            }
        }
        black_box(sums);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_are_measured() {
        let budget = Budget { warm_up: 0, min_runs: 1, seconds: 0.0 };
        let bandwidth = Bandwidth::measure(1 << 20, &budget).unwrap();
        for gb_per_s in [Some(bandwidth.copy), bandwidth.scale, bandwidth.read] {
            assert!(gb_per_s.is_some_and(|rate| rate > 0.0 && rate.is_finite()));
        }
    }
}
