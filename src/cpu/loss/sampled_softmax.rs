//! Sampled softmax on the CPU: the drawn classes' weights are gathered once; logits are made a block
//! of rows at a time, with the target's behind those of the negatives. Over all classes it is the
//! softmax over products that an adaptive softmax's head is.

use crate::base::error::{Error, Result};
use crate::base::tensor::TensorMut;
use crate::cpu::batch::numbers::Upstream;
use crate::cpu::batch::valid::KeptRows;
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::linear_softmax::operands::{Backward, Softmax};
use crate::cpu::matrix::linear_softmax::stored::{block, softmax_row};
use crate::cpu::matrix::product::{Matrix, PIECE, Panel, product};
use crate::cpu::matrix::scratch::{with_scratch, zeros};
use crate::cpu::processor::{Cpu, host_f32};
use crate::cpu::threads::SyncPtr;
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut, bad_target};
use crate::spec::sampled_softmax::{CheckedSampled, Negatives, SampledParameters};
use std::borrow::Cow;

/// Logits that are there at once, beyond one block's.
const STORED: usize = 4 << 20;
/// Negatives whose weights' gradient one task makes.
const TILE: usize = 128;

/// A batch with what its results are made of.
struct Batch<'a> {
    cpu: &'a Cpu,
    kept: KeptRows,
    /// The class of each kept row.
    targets: Vec<usize>,
    /// The kept rows of the input.
    x: Cow<'a, [f32]>,
    features: usize,
    weight: Matrix<'a>,
    bias: Option<Vec<f32>>,
}

/// Where gradients go.
struct Gradients<'a> {
    weight: Gradient<'a>,
    bias: Option<Gradient<'a>>,
}

impl<'a> Batch<'a> {
    /// # Errors
    /// The first kept target that names no class.
    fn new(cpu: &'a Cpu, checked: &CheckedSampled<'a>) -> Result<Batch<'a>> {
        let (options, given) = (checked.options, checked.target.on_host()?);
        let (mut kept, mut targets) = (KeptRows::with_capacity(checked.rows.len), Vec::new());
        for row in 0..checked.rows.len {
            let target = given.get(row);
            if Some(target) == options.ignore_index {
                continue;
            }
            let class = usize::try_from(target).ok().filter(|&class| class < options.classes());
            let of = (options.classes(), options.ignore_index);
            targets.push(class.ok_or_else(|| bad_target(of, (row, target)))?);
            kept.push(row, 1.0);
        }
        let input = Matrix::new(cpu, "input", &checked.input)?;
        let bias = match &checked.parameters.bias {
            Some(bias) => {
                let mut wide = zeros("bias in f32", bias.elements())?;
                Matrix::new(cpu, "parameters", bias)?.widen(0, &mut wide);
                Some(wide)
            }
            None => None,
        };
        let weight = Matrix::new(cpu, "parameters", &checked.parameters.weight)?;
        let x = input.gather_kept(cpu, &kept.rows)?;
        Ok(Batch { cpu, kept, targets, x, features: input.columns, weight, bias })
    }

    /// Log-probability of each kept row's target, and the gradients if there are factors.
    fn run(
        &self,
        checked: &CheckedSampled<'_>,
        factors: Option<&[f64]>,
        d_x: Option<&mut [f32]>,
        grads: Option<&Gradients<'_>>,
    ) -> Result<Vec<f64>> {
        if checked.options.sampler.is_all() {
            return self.full(factors, d_x, grads);
        }
        let negatives = checked.options.draw()?;
        let sampled = Sampled::new(self, checked, &negatives)?;
        sampled.run(factors, d_x, grads)
    }

    fn full(
        &self,
        factors: Option<&[f64]>,
        d_x: Option<&mut [f32]>,
        grads: Option<&Gradients<'_>>,
    ) -> Result<Vec<f64>> {
        let mut output = vec![0.0; self.kept.len()];
        let of_bias = grads.and_then(|g| g.bias.as_ref());
        let mut bias = zeros("bias gradient", of_bias.map_or(0, |bias| bias.columns))?;
        let softmax = Softmax {
            cpu: self.cpu,
            hidden: &self.x,
            stride: self.features,
            weight: self.weight,
            bias: self.bias.as_deref(),
            targets: &self.targets,
        };
        let backward = factors.map(|factors| Backward {
            factors,
            hidden: d_x,
            weight: grads.map(|g| &g.weight),
            bias: of_bias.map(|_| &mut bias[..]),
        });
        softmax.run(&mut output, backward)?;
        if let (Some(grads), true) = (grads, output.is_empty()) {
            grads.weight.clear(self.cpu);
        }
        if let Some(of_bias) = of_bias {
            of_bias.write_row(&bias);
        }
        Ok(output)
    }
}

/// A batch with the negatives of its call.
struct Sampled<'a> {
    batch: &'a Batch<'a>,
    drawn: &'a [usize],
    /// `[S, D]`, the negatives' weights.
    weights: Vec<f32>,
    /// b − ln E of each negative.
    offsets: Vec<f32>,
    /// The same of each row's target.
    target_offsets: Vec<f32>,
    /// Negatives and their places by class, where accidental hits are removed.
    hits: Vec<(usize, usize)>,
}

impl<'a> Sampled<'a> {
    /// # Errors
    /// The first target that is never drawn.
    fn new(
        batch: &'a Batch<'a>,
        checked: &CheckedSampled<'_>,
        negatives: &'a Negatives,
    ) -> Result<Sampled<'a>> {
        let (sampler, drawn) = (&checked.options.sampler, &negatives.classes);
        let bias = |class: usize| batch.bias.as_ref().map_or(0.0, |bias| f64::from(bias[class]));
        let offset = |class: usize, log_expected: f64| (bias(class) - log_expected) as f32;
        let offsets = drawn.iter().zip(&negatives.log_expected).map(|(&c, &e)| offset(c, e));
        let target_offsets = batch.targets.iter().zip(&batch.kept.rows).map(|(&class, row)| {
            let log_expected = sampler.log_expected(class, negatives);
            if log_expected > f64::NEG_INFINITY {
                return Ok(offset(class, log_expected));
            }
            Err(Error::Value {
                argument: "target",
                expected: "a class that the sampler can draw".into(),
                got: format!("{class}, of count 0, at row {row}"),
            })
        });
        let target_offsets = target_offsets.collect::<Result<_>>()?;
        let mut hits: Vec<_> = match checked.options.remove_accidental_hits {
            true => drawn.iter().copied().zip(0..).collect(),
            false => Vec::new(),
        };
        hits.sort_unstable();
        Ok(Sampled {
            batch,
            drawn,
            weights: batch.weight.gather(batch.cpu, drawn)?,
            offsets: offsets.collect(),
            target_offsets,
            hits,
        })
    }

    fn run(
        &self,
        factors: Option<&[f64]>,
        d_x: Option<&mut [f32]>,
        grads: Option<&Gradients<'_>>,
    ) -> Result<Vec<f64>> {
        let (rows, features) = (self.batch.kept.len(), self.batch.features);
        let (samples, columns) = (self.drawn.len(), self.drawn.len() + 1);
        let mut output = vec![0.0; rows];
        let chunk = (STORED / columns).max(1).next_multiple_of(block(rows)).min(rows.max(1));
        let mut logits = zeros("logits", chunk * columns)?;
        let wanted = if grads.is_some() { samples } else { 0 };
        // Of the negatives' weights and offsets, and of the targets' offsets.
        let mut d_weights = zeros("sampled gradients", wanted * features)?;
        let mut d_offsets = zeros("sampled gradients", wanted)?;
        let mut d_targets = zeros("sampled gradients", if grads.is_some() { rows } else { 0 })?;
        let d_x = d_x.map(|d_x| Panel::of_mut(d_x, features));
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let part = Part { sampled: self, from, rows: n };
            part.logits(&mut logits, &mut output[from..from + n], factors, d_x);
            if grads.is_some() {
                part.weights(&logits, &mut d_weights, &mut d_offsets);
                let of_targets = logits.chunks_exact(columns).map(|z| z[samples]);
                d_targets[from..from + n].iter_mut().zip(of_targets).for_each(|(d, z)| *d = z);
            }
        }
        if let Some(grads) = grads {
            self.write(grads, [&d_weights, &d_offsets, &d_targets]);
        }
        Ok(output)
    }

    /// Adds up what each class has as a negative, once or more, and as a target.
    fn write(&self, grads: &Gradients<'_>, [weights, offsets, targets]: [&[f32]; 3]) {
        let Batch { cpu, features, .. } = *self.batch;
        let samples = self.drawn.len();
        // What a class is made of: negatives, then rows, in order whatever the threads.
        let mut parts: Vec<(usize, usize)> = self.drawn.iter().copied().zip(0..).collect();
        parts.extend(self.batch.targets.iter().copied().zip(samples..));
        parts.sort_unstable();
        let classes: Vec<&[(usize, usize)]> = parts.chunk_by(|a, b| a.0 == b.0).collect();
        grads.weight.clear(cpu);
        let each = PIECE.div_ceil(features);
        cpu.share(classes.len().div_ceil(each), 1, &|task| {
            with_scratch([grads.weight.scratch(1)], |[scratch]| {
                for parts in classes.iter().skip(task * each).take(each) {
                    let class = parts[0].0;
                    // SAFETY: each class comes once.
                    unsafe {
                        grads.weight.rows(class..class + 1, scratch, |out, add| {
                            let out = out.row(0, features);
                            if !add {
                                out.fill(0.0);
                            }
                            for &(_, part) in *parts {
                                let (factor, row) = match part.checked_sub(samples) {
                                    None => (1.0, &weights[part * features..][..features]),
                                    Some(row) => {
                                        (targets[row], &self.batch.x[row * features..][..features])
                                    }
                                };
                                out.iter_mut().zip(row).for_each(|(out, x)| *out += factor * x);
                            }
                        });
                    }
                }
            });
        });
        if let Some(bias) = &grads.bias {
            bias.clear(cpu);
            let of = |part: usize| match part.checked_sub(samples) {
                None => offsets[part],
                Some(row) => targets[row],
            };
            let sums = classes.iter().map(|parts| parts.iter().map(|&(_, part)| of(part)).sum());
            let sums: Vec<f32> = sums.collect();
            bias.add_at(classes.iter().map(|parts| parts[0].0).zip(sums));
        }
    }
}

/// Some rows, whose logits are there at once.
struct Part<'a> {
    sampled: &'a Sampled<'a>,
    from: usize,
    rows: usize,
}

impl Part<'_> {
    /// Makes the logits, and of them the outputs; with factors, of them their gradient and that of
    /// the input.
    fn logits(
        &self,
        logits: &mut [f32],
        output: &mut [f64],
        factors: Option<&[f64]>,
        d_x: Option<Panel>,
    ) {
        let batch = self.sampled.batch;
        let (features, samples) = (batch.features, self.sampled.drawn.len());
        let block = block(batch.kept.len());
        let all = Panel::of_mut(logits, samples + 1);
        let weights = Panel::of(&self.sampled.weights, features);
        let output = SyncPtr(output.as_mut_ptr());
        batch.cpu.share(self.rows.div_ceil(block), 1, &|task| {
            let at = task * block;
            let n = block.min(self.rows - at);
            let x = &batch.x[(self.from + at) * features..];
            // The weights of one target after another, where they are not f32 themselves.
            with_scratch([features], |[target]| {
                // SAFETY: rows of this task alone, in buffers with a row each.
                unsafe {
                    let tile = all.at(at, 0);
                    let of = [Panel::of(x, features), weights.transposed()];
                    product(false, tile, of, [n, samples, features]);
                    for i in 0..n {
                        let (row, z) = (self.from + at + i, tile.row(i, samples + 1));
                        batch.weight.widen(batch.targets[row], target);
                        z[samples] = dot(target, &x[i * features..][..features]);
                        let factor = factors.map(|factors| factors[row]);
                        output.get().add(at + i).write(self.row(row, z, factor));
                    }
                    if let Some(d_x) = d_x {
                        let out = d_x.at(self.from + at, 0);
                        product(false, out, [tile, weights], [n, features, samples]);
                        for i in 0..n {
                            let row = self.from + at + i;
                            batch.weight.widen(batch.targets[row], target);
                            let of_target = tile.row(i, samples + 1)[samples];
                            let out = out.row(i, features).iter_mut();
                            out.zip(target.iter()).for_each(|(out, w)| *out += of_target * w);
                        }
                    }
                }
            });
        });
    }

    /// The output of a row of products; with a factor the row becomes its gradient.
    fn row(&self, row: usize, z: &mut [f32], factor: Option<f64>) -> f64 {
        let (sampled, samples) = (self.sampled, self.sampled.drawn.len());
        z.iter_mut().zip(&sampled.offsets).for_each(|(z, offset)| *z += offset);
        z[samples] += sampled.target_offsets[row];
        let target = sampled.batch.targets[row];
        let from = sampled.hits.partition_point(|&(class, _)| class < target);
        for &(_, place) in sampled.hits[from..].iter().take_while(|&&(class, _)| class == target) {
            z[place] = f32::NEG_INFINITY;
        }
        softmax_row(sampled.batch.cpu, z, samples, factor)
    }

    /// Adds to the gradients of the negatives' weights and offsets.
    fn weights(&self, logits: &[f32], d_weights: &mut [f32], d_offsets: &mut [f32]) {
        let batch = self.sampled.batch;
        let (features, samples) = (batch.features, self.sampled.drawn.len());
        let all = Panel::of(logits, samples + 1);
        let x = Panel::of(&batch.x[self.from * features..], features);
        let d_weights = Panel::of_mut(d_weights, features);
        let d_offsets = SyncPtr(d_offsets.as_mut_ptr());
        batch.cpu.share(samples.div_ceil(TILE), 1, &|task| {
            let (at, n) = (task * TILE, TILE.min(samples - task * TILE));
            // SAFETY: negatives of this task alone; the logits' gradient is only read.
            unsafe {
                let grad = all.at(0, at).transposed();
                product(true, d_weights.at(at, 0), [grad, x], [n, features, self.rows]);
                let sums = std::slice::from_raw_parts_mut(d_offsets.get().add(at), n);
                for row in 0..self.rows {
                    let grad = all.at(row, at).row(0, n);
                    sums.iter_mut().zip(grad).for_each(|(sum, g)| *sum += *g);
                }
            }
        });
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

impl Cpu {
    pub(crate) fn sampled_softmax_forward(
        &self,
        checked: &CheckedSampled<'_>,
        out: LayerOut<'_>,
    ) -> Result<()> {
        let [output, loss] = [host_f32(out.output, "output")?, host_f32(out.loss, "loss")?];
        let batch = Batch::new(self, checked)?;
        let outputs = batch.run(checked, None, None, None)?;
        let of = (checked.options.reduction, checked.rows.len);
        batch.kept.write(of, &outputs, [output, loss]);
        Ok(())
    }

    pub(crate) fn sampled_softmax_forward_backward(
        &self,
        checked: &CheckedSampled<'_>,
        grad_output: GradOutput<'_>,
        out: LayerOut<'_>,
        gradients: LayerGradOut<'_, SampledParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let [output, loss] = [host_f32(out.output, "output")?, host_f32(out.loss, "loss")?];
        let upstream = Upstream::new(&grad_output)?;
        let new = |grad| Gradient::new(self, "grad_parameters", grad, gradients.accumulate);
        let grads = match gradients.parameters {
            Some(grads) => {
                let bias = grads.bias.map(new).transpose()?;
                Some(Gradients { weight: new(grads.weight)?, bias })
            }
            None => None,
        };
        let grad_input = gradients.input.map(|grad| Gradient::new(self, "grad_input", grad, false));
        let grad_input = grad_input.transpose()?;
        let batch = Batch::new(self, checked)?;
        let factors = batch.kept.factors(checked.options.reduction, &upstream);
        let wanted = if grad_input.is_some() { batch.x.len() } else { 0 };
        let mut d_x = zeros("input gradient", wanted)?;
        let d_x_out = grad_input.is_some().then_some(&mut d_x[..]);
        let outputs = batch.run(checked, Some(&factors), d_x_out, grads.as_ref())?;
        if let Some(grad) = &grad_input {
            grad.scatter(self, &batch.kept.rows, &d_x);
        }
        let of = (checked.options.reduction, checked.rows.len);
        batch.kept.write(of, &outputs, [output, loss]);
        Ok(())
    }
}
