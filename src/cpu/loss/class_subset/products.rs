//! Logits of listed classes, and what their gradient is multiplied out to: rows of the classifier that nobody
//! lists are not touched.

use crate::base::error::{Error, Result};
use crate::cpu::loss::class_subset::lists::{Lists, filled};
use crate::cpu::loss::linear_cross_entropy::rows::Rows;
use crate::cpu::matrix::chunks::clear_rows;
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::matrix::scratch::with_scratch;
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;
use crate::spec::linear_cross_entropy::{CheckedLinear, LinearGradOut, REST};
use rayon::prelude::*;

/// Hidden rows and a classifier, or logits that are given, and the lists of their classes.
pub(super) struct Listed<'a> {
    cpu: &'a Cpu,
    input: Matrix<'a>,
    /// `[V, D]`; `None`: logits are given.
    weight: Option<Matrix<'a>>,
    bias: Option<Matrix<'a>>,
    pub(super) lists: &'a Lists,
    pub(super) rows: &'a Rows,
    /// Elements between rows of logits.
    pub(super) stride: usize,
}

/// Parts of a class that are added up before they are added to others.
const PARTS: usize = 64;
/// Parts that one task adds up at least.
const TASK: usize = 256;

impl<'a> Listed<'a> {
    pub(super) fn new(
        cpu: &'a Cpu,
        checked: &CheckedLinear<'a>,
        (lists, rows): (&'a Lists, &'a Rows),
        stride: usize,
    ) -> Result<Listed<'a>> {
        let of = &checked.input;
        let given = checked.subset.is_some_and(|subset| subset.given);
        let weight = match given {
            true => None,
            false => Some(Matrix::new(cpu, "linear_weight", &of.linear_weight)?),
        };
        let bias = of.linear_bias.as_ref().map(|bias| Matrix::new(cpu, "linear_bias", bias));
        let input = Matrix::new(cpu, "input", &of.input)?;
        Ok(Listed { cpu, input, weight, bias: bias.transpose()?, lists, rows, stride })
    }

    /// Logits of the kept rows, −∞ where a list has no class.
    pub(super) fn logits(&self, to: &mut [f32]) {
        let (to, stride, columns) = (SyncPtr(to.as_mut_ptr()), self.stride, self.lists.columns);
        let scales = self.rows.scales.as_deref();
        self.cpu.share(self.rows.kept.len(), 1, &|i| {
            // SAFETY: a row of this task alone, of which there are as many as rows are kept.
            let z = unsafe { std::slice::from_raw_parts_mut(to.get().add(i * stride), columns) };
            self.row(self.rows.kept[i], z);
            if let Some(scales) = scales {
                z.iter_mut().for_each(|z| *z *= scales[i]);
            }
        });
    }

    fn row(&self, row: usize, z: &mut [f32]) {
        let list = self.lists.of(row);
        z[list.len()..].fill(f32::NEG_INFINITY);
        let Some(weight) = &self.weight else {
            z.iter_mut().zip(list).for_each(|(z, &id)| *z = self.input.element(row, id as usize));
            return;
        };
        with_scratch([self.input.columns], |[x]| {
            self.input.widen(row, x);
            for (j, (z, &id)) in z.iter_mut().zip(list).enumerate() {
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias.element(0, id as usize));
                let next = list.get(j + 1).map(|&id| id as usize);
                *z = weight.dot(id as usize, x, next) + bias;
            }
        });
    }

    /// Multiplies the logits' gradient out.
    pub(super) fn gradients(&self, from: &[f32], to: LinearGradOut<'_>) -> Result<()> {
        let LinearGradOut { accumulate, accumulate_input, .. } = to;
        let named = |name, tensor: Option<_>, add| {
            tensor.map(|tensor| Gradient::new(self.cpu, name, tensor, add)).transpose()
        };
        if let Some(input) = named("grad_input", to.input, accumulate_input)? {
            self.of_input(from, &input);
            clear_rows(self.cpu, &input, &self.rows.ignored);
        }
        let weight = named("grad_linear_weight", to.linear_weight, accumulate)?;
        let weight =
            weight.map(|weight| weight.keeping(REST, to.linear_weight_rest)).transpose()?;
        let bias = named("grad_linear_bias", to.linear_bias, accumulate)?;
        if weight.is_none() && bias.is_none() {
            return Ok(());
        }
        let parts = self.parts()?;
        if let Some(weight) = &weight {
            weight.clear(self.cpu);
            self.of_weight(from, &parts, weight);
        }
        if let Some(bias) = &bias {
            bias.clear(self.cpu);
            let sums = parts.chunk_by(|a, b| a >> 32 == b >> 32).map(|parts| {
                let sum: f64 = parts.iter().map(|&part| f64::from(self.factor(from, part))).sum();
                ((parts[0] >> 32) as usize, sum as f32)
            });
            bias.add_at(sums);
        }
        Ok(())
    }

    fn of_input(&self, from: &[f32], input: &Gradient<'_>) {
        let columns = input.columns;
        self.cpu.share(self.rows.kept.len(), 1, &|i| {
            let row = self.rows.kept[i];
            let listed = || self.lists.of(row).iter().zip(&from[i * self.stride..]);
            with_scratch([input.scratch(1), columns], |[scratch, sum]| {
                // SAFETY: a row of this task alone.
                unsafe {
                    input.rows(row..row + 1, scratch, |out, add| {
                        let out = out.row(0, columns);
                        if !add {
                            out.fill(0.0);
                        }
                        let Some(weight) = &self.weight else {
                            listed().for_each(|(&id, g)| out[id as usize] += g);
                            return;
                        };
                        sum.fill(0.0);
                        let list = self.lists.of(row);
                        listed().enumerate().for_each(|(j, (&id, &g))| {
                            let next = list.get(j + 1).map(|&id| id as usize);
                            weight.add_multiple(id as usize, g, sum, next);
                        });
                        out.iter_mut().zip(&*sum).for_each(|(out, sum)| *out += sum);
                    });
                }
            });
        });
    }

    /// What each class has of each row, by class and then by row: the class, and before it in 32 bits the part's
    /// number, `columns` of a kept row.
    fn parts(&self) -> Result<Vec<u64>> {
        let (kept, columns) = (&self.rows.kept, self.lists.columns);
        let most = kept.len().saturating_mul(columns);
        if u32::try_from(most).is_err() {
            let (argument, expected) = ("ids", "at most 2^32 ids of all rows together".into());
            return Err(Error::Value { argument, expected, got: most.to_string() });
        }
        let listed = kept.iter().map(|&row| self.lists.of(row).len()).sum();
        let mut parts = filled(listed, 0u64)?;
        let mut to = parts.iter_mut();
        for (i, &row) in kept.iter().enumerate() {
            for (j, (&id, to)) in self.lists.of(row).iter().zip(to.by_ref()).enumerate() {
                *to = u64::from(id) << 32 | (i * columns + j) as u64;
            }
        }
        // No two are equal: the order is one whatever the threads.
        self.cpu.install(&mut || parts.par_sort_unstable());
        Ok(parts)
    }

    /// The gradient of a part's logit.
    fn factor(&self, from: &[f32], part: u64) -> f32 {
        let (part, columns) = ((part & u64::from(u32::MAX)) as usize, self.lists.columns);
        from[part / columns * self.stride + part % columns]
    }

    fn of_weight(&self, from: &[f32], parts: &[u64], weight: &Gradient<'_>) {
        let class = |part: u64| (part >> 32) as usize;
        self.cpu.share(parts.len().div_ceil(TASK), 1, &|task| {
            let mut at = task * TASK;
            let end = (at + TASK).min(parts.len());
            // A class is the work of where it begins.
            while at > 0 && at < end && class(parts[at]) == class(parts[at - 1]) {
                at += 1;
            }
            with_scratch([weight.scratch(1), weight.columns], |[scratch, sum]| {
                while at < end {
                    let of = class(parts[at]);
                    let len = parts[at..].partition_point(|&part| class(part) == of);
                    let own = &parts[at..at + len];
                    // SAFETY: each class is one task's, and comes once.
                    unsafe {
                        weight.rows(of..of + 1, scratch, |out, add| {
                            let out = out.row(0, weight.columns);
                            if !add {
                                out.fill(0.0);
                            }
                            self.class_sum(from, own, (out, sum));
                        });
                    }
                    at += len;
                }
            });
        });
    }

    /// Adds the hidden rows of a class's parts, times the gradient of its logits.
    fn class_sum(&self, from: &[f32], parts: &[u64], (out, sum): (&mut [f32], &mut [f32])) {
        for parts in parts.chunks(PARTS) {
            sum.fill(0.0);
            let row = |part: u64| {
                self.rows.kept[(part & u64::from(u32::MAX)) as usize / self.lists.columns]
            };
            for (i, &part) in parts.iter().enumerate() {
                let next = parts.get(i + 1).map(|&part| row(part));
                self.input.add_multiple(row(part), self.factor(from, part), sum, next);
            }
            out.iter_mut().zip(&*sum).for_each(|(out, sum)| *out += sum);
        }
    }
}
