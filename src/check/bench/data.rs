//! What a benchmark works on: logits like a trained model's, or what else an op takes, made by a small
//! seeded generator. All
//! of it lies on the device that is measured, so that no time goes into staging, and serves every
//! line of its dtype there.

use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::host::{Element, Float, HostMut};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut};
use crate::check::random::Random;
use crate::device::Device;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements made, or copied, by one thread at a time.
const CHUNK: usize = 64 * 1024;
/// Elements that the host makes for a device at the most; larger tensors there repeat them. A prime
/// number just below 2^26, so that rows of any common length begin elsewhere each time.
const MADE: usize = 67_108_859;

/// Buffers of one dtype. On the CPU they serve every line of their shape, on a device every line
/// that they have room for.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    pub(crate) dtype: DType,
    /// Elements that each of the large tensors has room for.
    room: usize,
    /// What the logits hold.
    input: Large,
    /// The logits, or what stands in their place; nobody writes to them.
    pub(crate) logits: Tensor,
    /// As large as the logits: takes gradients and outputs, or a copy to be consumed.
    pub(crate) work: Tensor,
    /// As large as the logits, for ops that take an upstream gradient or a target of that size.
    pub(crate) upstream: Option<Tensor>,
    /// What it holds.
    large: Option<Large>,
    /// One class per row, on the host and on the device.
    pub(crate) target: Vec<i64>,
    pub(crate) targets: Tensor,
    /// One f32 per row: losses.
    pub(crate) loss: Tensor,
    /// One f32 per row: log-sum-exps.
    pub(crate) lse: Tensor,
    /// One f32 per row: the second result of an op that has two.
    pub(crate) second: Tensor,
}

impl Data {
    /// For `rows` × `classes`, with room for `room` elements where a device keeps them.
    pub(crate) fn new(
        device: &Device,
        (rows, classes): (usize, usize),
        (dtype, input): (DType, Large),
        room: usize,
    ) -> Result<Data, Error> {
        let room = if device.name() == "cpu" { 0 } else { room }.max(rows * classes);
        let all = Shape::new(&[room]).unwrap_or(Shape::SCALAR);
        let logits = make(device, ("logits", dtype, all, room), 0x5eed, |r| input.number(r))?;
        let mut work = device.zeros("gradient", dtype, all, &logits.view())?;
        // A device's memory holds nothing yet, and checks read it.
        work.copy_on_device(&logits)?;
        let numbers = || Tensor::zeros_for("loss", DType::F32, Shape::SCALAR);
        let mut data = Data {
            rows,
            classes,
            dtype,
            room,
            input,
            work,
            logits,
            upstream: None,
            large: None,
            targets: numbers()?,
            target: Vec::new(),
            loss: numbers()?,
            lse: numbers()?,
            second: numbers()?,
        };
        data.shape(device, rows, classes)?;
        Ok(data)
    }

    /// Whether these buffers do for such a line.
    pub(crate) fn serve(
        &self,
        device: &Device,
        shape: (usize, usize),
        (dtype, input): (DType, Large),
    ) -> bool {
        let same = (self.rows, self.classes) == shape;
        let room = device.name() != "cpu" && shape.0.saturating_mul(shape.1) <= self.room;
        (self.dtype, self.input) == (dtype, input) && (same || room)
    }

    /// Takes the beginning of the large tensors as rows of so many classes, and makes what is a
    /// number a row.
    pub(crate) fn shape(
        &mut self,
        device: &Device,
        rows: usize,
        classes: usize,
    ) -> Result<(), Error> {
        let shape = Shape::new(&[rows, classes]).unwrap_or(Shape::SCALAR);
        let large = [Some(&mut self.logits), Some(&mut self.work), self.upstream.as_mut()];
        large.into_iter().flatten().for_each(|tensor| {
            tensor.reshape(shape);
        });
        let mut random = Random::new(0x7a67);
        self.target = (0..rows).map(|_| random.below(classes) as i64).collect();
        self.targets = device.hold(Tensor::from_vec(self.target.clone(), &[rows])?)?;
        let numbers = || device.hold(Tensor::from_vec(vec![0f32; rows], &[rows])?);
        (self.loss, self.lse, self.second) = (numbers()?, numbers()?, numbers()?);
        (self.rows, self.classes) = (rows, classes);
        Ok(())
    }

    /// Makes all losses `value`: an upstream gradient.
    pub(crate) fn set_loss(&mut self, device: &Device, value: f32) -> Result<(), Error> {
        self.loss = device.hold(Tensor::from_vec(vec![value; self.rows], &[self.rows])?)?;
        Ok(())
    }

    /// Makes the tensor as large as the logits, where it is not there yet.
    pub(crate) fn need(&mut self, device: &Device, large: Large) -> Result<(), Error> {
        if self.large != Some(large) {
            self.upstream = None;
            let what = ("grad_output", self.dtype, self.logits.shape(), self.room);
            let tensor = make(device, what, 0x9a4d, |random| large.number(random))?;
            (self.upstream, self.large) = (Some(tensor), Some(large));
        }
        Ok(())
    }

    /// Copies the logits to `work`.
    pub(crate) fn restore(&mut self) -> Result<(), Error> {
        if self.work.copy_on_device(&self.logits)? {
            return Ok(());
        }
        fn copy<T: Element>(from: &Tensor, to: &mut [T]) {
            if let Some(from) = from.as_slice::<T>() {
                let pairs = to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK));
                pairs.for_each(|(to, from)| to.copy_from_slice(from));
            }
        }
        match self.work.view_mut().into_host_data() {
            Some(HostMut::F32(work)) => copy(&self.logits, work),
            Some(HostMut::F16(work)) => copy(&self.logits, work),
            Some(HostMut::BF16(work)) => copy(&self.logits, work),
            // The command line takes floats only.
            Some(HostMut::I64(_) | HostMut::I32(_) | HostMut::U32(_) | HostMut::U8(_)) | None => {}
        }
        Ok(())
    }

    /// Rows whose answers are checked: the first, one in the middle, the last.
    pub(crate) fn samples(&self) -> Vec<usize> {
        let mut rows = vec![0, self.rows / 2, self.rows - 1];
        rows.dedup();
        rows
    }

    /// Numbers of one of the tensors above, widened.
    pub(crate) fn numbers(&self, tensor: &Tensor) -> Result<Vec<f64>, Error> {
        tensor.view().to_f64()
    }

    /// A row of one of the tensors above, widened.
    pub(crate) fn row(&self, tensor: &Tensor, row: usize) -> Result<Vec<f64>, Error> {
        part(tensor, row * self.classes..(row + 1) * self.classes)
    }
}

/// Some of a tensor's elements, widened; of a device's memory nothing else is copied.
pub(crate) fn part(tensor: &Tensor, part: std::ops::Range<usize>) -> Result<Vec<f64>, Error> {
    if !tensor.is_on_device() {
        return Ok(Host(Cow::Borrowed(tensor)).part(part));
    }
    let elements = 0..part.len();
    Ok(Host(Cow::Owned(tensor.part(part)?)).part(elements))
}

/// A tensor, on the host.
pub(crate) fn host(tensor: &Tensor) -> Result<Host<'_>, Error> {
    match tensor.is_on_device() {
        true => Ok(Host(Cow::Owned(tensor.to_host()?))),
        false => Ok(Host(Cow::Borrowed(tensor))),
    }
}

/// A tensor in host memory.
#[derive(Debug)]
pub(crate) struct Host<'a>(Cow<'a, Tensor>);

impl Host<'_> {
    /// Some of its elements, widened.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Vec<f64> {
        widen::<f32>(&self.0, range.clone())
            .or_else(|| widen::<f16>(&self.0, range.clone()))
            .or_else(|| widen::<bf16>(&self.0, range))
            .unwrap_or_default()
    }
}

/// What a tensor as large as the logits holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Large {
    /// Normal numbers of deviation 2.5.
    Logits,
    /// Normal numbers of deviation 1: an upstream gradient, or a target of any numbers.
    Normal,
    /// Uniform numbers in [0, 1).
    Probabilities,
    /// −1 and 1.
    Signs,
    /// 0 to 11.
    Counts,
}

impl Large {
    fn number(self, random: &mut Random) -> f32 {
        match self {
            Large::Logits => 2.5 * random.normal(),
            Large::Normal => random.normal(),
            Large::Probabilities => (random.next() >> 40) as f32 / (1 << 24) as f32,
            Large::Signs => random.pick(&[-1.0, 1.0]),
            Large::Counts => random.below(12) as f32,
        }
    }
}

fn widen<T: Float>(tensor: &Tensor, range: std::ops::Range<usize>) -> Option<Vec<f64>> {
    Some(tensor.as_slice::<T>()?.get(range)?.iter().map(|x| x.to_f32().into()).collect())
}

/// A view of one f32 per row, or of the single number that a reduction leaves.
pub(crate) fn per_row<'a>(values: &'a mut Tensor, shape: &[usize]) -> Result<TensorMut<'a>, Error> {
    values.view_as_mut(shape, 1)
}

/// A tensor of such numbers, with room for more where a device keeps it.
fn make(
    device: &Device,
    (name, dtype, shape, room): (&'static str, DType, Shape, usize),
    seed: u64,
    number: impl Fn(&mut Random) -> f32 + Sync,
) -> Result<Tensor, Error> {
    let made = match device.name() {
        "cpu" => shape,
        _ => Shape::new(&[room.min(MADE)]).unwrap_or(Shape::SCALAR),
    };
    let mut tensor = Tensor::zeros_for(name, dtype, made)?;
    fill(&mut tensor, seed, number);
    let mut tensor = device.hold_repeated(tensor, room)?;
    tensor.reshape(shape);
    Ok(tensor)
}

fn fill(tensor: &mut Tensor, seed: u64, number: impl Fn(&mut Random) -> f32 + Sync) {
    fn numbers<T: Float>(data: &mut [T], seed: u64, number: impl Fn(&mut Random) -> f32 + Sync) {
        data.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
            let mut random = Random::new(seed.wrapping_add((i as u64) << 32));
            chunk.iter_mut().for_each(|x| *x = T::from_f32(number(&mut random)));
        });
    }
    match tensor.view_mut().into_host_data() {
        Some(HostMut::F32(s)) => numbers(s, seed, number),
        Some(HostMut::F16(s)) => numbers(s, seed, number),
        Some(HostMut::BF16(s)) => numbers(s, seed, number),
        // The command line takes floats only.
        Some(HostMut::I64(_) | HostMut::I32(_) | HostMut::U32(_) | HostMut::U8(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_look_normal_and_repeat() {
        let data = Data::new(&Device::cpu(), (64, 1024), (DType::F32, Large::Logits), 0).unwrap();
        let x = data.logits.as_slice::<f32>().unwrap();
        let n = x.len() as f32;
        let mean = x.iter().sum::<f32>() / n;
        let deviation = (x.iter().map(|x| x * x).sum::<f32>() / n).sqrt();
        assert!(mean.abs() < 0.1 && (deviation - 2.5).abs() < 0.1, "{mean} {deviation}");
        let again = Data::new(&Device::cpu(), (64, 1024), (DType::F32, Large::Logits), 0).unwrap();
        assert_eq!(data.logits, again.logits);
    }
}
