//! `warploss sample`: labels from a file, batches of indices to a file.

use super::failure::Failure;
use super::file::InputFile;
use super::output::OutputFile;
use super::{memory, number, output};
use crate::balance::{BalancedSampler, Phase, SamplerOptions};
use crate::base::tensor::Tensor;
use clap::Args;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Instant;

/// The command.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = false,
    after_help = "\
Reads the tensor `labels` [n], one class index a sample (i64, i32, u32 or u8). Writes `indices`
(i64), the samples of all batches one after the other, and `batch_offsets` (i64): batch i is
indices[batch_offsets[i] .. batch_offsets[i + 1]].

In a balanced epoch every class comes as often as the largest has samples, the same number in each
batch (to within one); in a closing epoch every sample comes once. Prints one JSON object on one
line: samples, classes (those with samples), largest (samples of the largest), batch, epochs,
closing_epochs, seed, batches, indices, seconds (of drawing). Computes on the host, on one thread.

Example:
  warploss sample --labels in.safetensors --batch 256 --output out.safetensors"
)]
pub(super) struct Sample {
    /// Safetensors file with the tensor `labels`; memory-mapped
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,

    /// Samples in a batch; the last one of an epoch is shorter
    #[arg(long, value_name = "B", allow_hyphen_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,

    /// Balanced epochs
    #[arg(long, value_name = "E", default_value_t = 1, allow_hyphen_values = true)]
    epochs: u64,

    /// Epochs of the true frequencies, after the balanced ones
    #[arg(long, value_name = "K", default_value_t = 0, allow_hyphen_values = true)]
    closing_epochs: u64,

    /// Seed of every order
    #[arg(long, value_name = "S", default_value_t = 0, allow_hyphen_values = true)]
    seed: u64,

    /// Write the batches to this safetensors file
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

impl Sample {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let output = OutputFile::new("--output", &self.output)?;
        let file = InputFile::open("--labels", &self.labels)?;
        output.is_not(&file)?;
        let labels = file.inputs("")?.indices("labels")?;
        let options = SamplerOptions::new(usize::try_from(self.batch).unwrap_or(usize::MAX))
            .seed(self.seed)
            .epochs(self.epochs)
            .closing_epochs(self.closing_epochs);
        let start = Instant::now();
        let sampler = BalancedSampler::new(labels.view()?, &options)
            .map_err(|e| Failure::renamed(&e, &[("batch_size", "--batch".into())]))?;
        let mut object = self.describe(&sampler);
        let [indices, offsets] = self.draw(sampler)?;
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("batches", (offsets.len() - 1).into());
        put("indices", indices.len().into());
        put("seconds", number::f64(start.elapsed().as_secs_f64()));
        let tensor = |name: &str, data: Vec<i64>| -> Result<_, Failure> {
            let shape = [data.len()];
            Ok((name.to_owned(), Tensor::from_vec(data, &shape)?))
        };
        output.write(&[tensor("indices", indices)?, tensor("batch_offsets", offsets)?])?;
        output::print(&Value::Object(object), Some(&output))
    }

    fn describe(&self, sampler: &BalancedSampler) -> Map<String, Value> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("samples", sampler.samples().into());
        put("classes", sampler.classes().into());
        put("largest", sampler.largest_class().into());
        put("batch", self.batch.into());
        put("epochs", self.epochs.into());
        put("closing_epochs", self.closing_epochs.into());
        put("seed", self.seed.into());
        object
    }

    /// The indices of all batches, and where each batch begins and the last one ends.
    fn draw(&self, mut sampler: BalancedSampler) -> Result<[Vec<i64>; 2], Failure> {
        let epochs = [(Phase::Balanced, self.epochs), (Phase::Natural, self.closing_epochs)];
        let sum = |of: &dyn Fn(Phase) -> u64| {
            let products = epochs.map(|(phase, n)| u128::from(of(phase)) * u128::from(n));
            products[0].saturating_add(products[1])
        };
        let indices = sum(&|phase| sampler.epoch_len(phase));
        let offsets = sum(&|phase| sampler.epoch_batch_count(phase)).saturating_add(1);
        let batch = indices.min(self.batch.into());
        let words = indices.saturating_add(offsets).saturating_add(batch);
        memory::require(words.saturating_mul(8), "the batches")?;
        let mut indices = reserved(indices)?;
        let mut offsets = reserved(offsets)?;
        offsets.push(0);
        let mut batch = Vec::new();
        while sampler.next_into(&mut batch) {
            // Indices of what fits in memory, and their count, fit an i64.
            indices.extend(batch.iter().map(|&i| i as i64));
            offsets.push(indices.len() as i64);
        }
        Ok([indices, offsets])
    }
}

/// An empty vector with room for `len`; memory that cannot be had is an error, not an abort.
fn reserved(len: u128) -> Result<Vec<i64>, Failure> {
    let mut data = Vec::new();
    match usize::try_from(len).map(|n| data.try_reserve_exact(n)) {
        Ok(Ok(())) => Ok(data),
        _ => Err(Failure::failed(format!(
            "--output: could not allocate {} for the batches",
            memory::in_words(len.saturating_mul(8))
        ))),
    }
}
