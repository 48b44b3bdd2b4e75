//! What is asked of all classes: log-probabilities, the best, one drawn by chance.

use crate::base::error::{Error, Result};
use crate::base::random::unit;
use crate::base::tensor::TensorMut;
use crate::cpu::loss::adaptive_log_softmax::best::Best;
use crate::cpu::loss::adaptive_log_softmax::{Matrices, project};
use crate::cpu::matrix::linear_softmax::tiles::logits;
use crate::cpu::matrix::product::{Matrix, Panel, product};
use crate::cpu::matrix::scratch::{with_large, with_scratch, zeros};
use crate::cpu::processor::{Cpu, host_f32};
use crate::cpu::row::logit::Transform;
use crate::cpu::row::softmax::accumulate;
use crate::cpu::row::state::Running;
use crate::cpu::row::work::Row;
use crate::cpu::simd::{Kernel, Level, Simd};
use crate::cpu::threads::{Spread, SyncPtr};
use crate::spec::adaptive_log_softmax::{AdaptiveTail, CheckedAdaptive};
use std::borrow::Cow;
use std::ops::Range;

/// Classes of a tile.
const CLASSES: usize = 1024;
/// Rows whose logits are worked on at once.
const ROWS: usize = 64;

/// All rows with what their distributions are made of.
struct Batch<'a> {
    cpu: &'a Cpu,
    checked: &'a CheckedAdaptive<'a>,
    matrices: Matrices<'a>,
    x: Cow<'a, [f32]>,
}

/// Logits of some rows and classes of a cluster, on this thread.
///
/// # Safety
/// `out` has as many rows and columns, which nobody else touches, and `hidden` as many rows.
unsafe fn some_logits(
    weight: &Matrix<'_>,
    hidden: Panel,
    rows: usize,
    classes: Range<usize>,
    out: Panel,
) {
    with_scratch([weight.scratch(classes.len())], |[wide]| {
        let weights = weight.panel(classes.clone(), wide).transposed();
        // SAFETY: `out` has `rows` rows and a column a class, which nobody else touches (the
        // caller's promise); the weights' panel is of these classes.
        unsafe { product(false, out, [hidden, weights], [rows, classes.len(), weight.columns]) };
    });
}

/// What makes log-probabilities of a row's logits: the largest and ln Σ e^(z − max) apart, as a sum of the
/// two would lose the lesser one.
#[derive(Clone, Copy)]
struct Norm {
    max: f64,
    log_sum: f64,
}

impl Norm {
    /// Of a row; it does not depend on who works on it.
    fn of(level: Level, z: &[f32], spread: Spread) -> Norm {
        // SAFETY: the row is `z`.
        let sum = unsafe { Row::plain(level, spread, z).sum(None) };
        match sum.undefined() {
            true => Norm { max: 0.0, log_sum: f64::NAN },
            false => Norm { max: sum.reference().into(), log_sum: sum.log_sum },
        }
    }

    /// Of what its tiles summed to.
    fn of_tiles(sum: &Running) -> Norm {
        match sum.max.is_finite() {
            true => Norm { max: sum.max.into(), log_sum: sum.sum.ln() },
            false => Norm { max: 0.0, log_sum: f64::NAN },
        }
    }

    /// ln p of a logit, and what is added to it.
    #[inline(always)]
    fn log_prob(self, z: f32, shift: f64) -> f32 {
        ((f64::from(z) - self.max) - self.log_sum + shift) as f32
    }

    /// No logit is a share: +∞ or NaN among them, or nothing but −∞.
    fn undefined(self) -> bool {
        self.log_sum.is_nan()
    }
}

/// A row of logits becomes log-probabilities.
struct LogProbs<'a> {
    z: &'a mut [f32],
    norm: Norm,
    shift: f64,
}

impl Kernel for LogProbs<'_> {
    type Out = ();

    /// In f64, which the compiler makes vectors of.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for z in self.z {
            *z = self.norm.log_prob(*z, self.shift);
        }
    }
}

impl<'a> Batch<'a> {
    fn new(cpu: &'a Cpu, checked: &'a CheckedAdaptive<'a>) -> Result<Batch<'a>> {
        let input = Matrix::new(cpu, "input", &checked.input)?;
        let matrices = Matrices::new(cpu, checked.parameters)?;
        let rows: Vec<usize> = (0..checked.rows.len).collect();
        let x = input.gather_kept(cpu, &rows)?;
        Ok(Batch { cpu, checked, matrices, x })
    }

    fn features(&self) -> usize {
        self.matrices.head.columns
    }

    /// The caller's name of a place in the order of frequency.
    fn class(&self, place: usize) -> usize {
        let order = self.checked.options.class_order.as_ref();
        order.and_then(|order| order.class(place)).unwrap_or(place)
    }

    /// Log-probabilities of the head's columns.
    fn head_log_prob(&self) -> Result<Vec<f32>> {
        let Matrices { head: weight, ref bias, .. } = self.matrices;
        let (rows, columns) = (self.checked.rows.len, weight.rows);
        let mut head = zeros("head logits", rows * columns)?;
        let out = Panel::of_mut(&mut head, columns);
        let x = Panel::of(&self.x, self.features());
        with_large("head weights in f32", weight.scratch(columns), |wide| {
            let sizes = [rows, columns, weight.columns];
            let of = [x, weight.all(self.cpu, wide)];
            // SAFETY: rows of the buffer, which is borrowed exclusively.
            unsafe { logits(self.cpu, of, bias.as_deref(), out, sizes) };
        })?;
        self.normalize(out, columns, |_| 0.0);
        Ok(head)
    }

    /// Logits become log-probabilities, to which a row's shift is added.
    fn normalize(&self, out: Panel, columns: usize, shift: impl Fn(usize) -> f64 + Sync) {
        let rows = self.checked.rows.len;
        let spread = if rows < 16 { Spread::Shared } else { Spread::Alone };
        let normalize = |row: usize| {
            // SAFETY: a row of the panel, for this call alone.
            let z = unsafe { out.row(row, columns) };
            let (norm, shift) = (Norm::of(self.cpu.level, z, spread), shift(row));
            self.cpu.level.run(LogProbs { z, norm, shift });
        };
        match spread {
            Spread::Shared => self.cpu.install(&mut || (0..rows).for_each(normalize)),
            Spread::Alone => self.cpu.share(rows, 1, &normalize),
        }
    }

    fn log_prob(&self, out: Panel) -> Result<()> {
        let (options, rows) = (self.checked.options, self.checked.rows.len);
        let (shortlist, columns) = (options.shortlist(), options.head_size());
        if rows == 0 {
            return Ok(());
        }
        let head = self.head_log_prob()?;
        for (row, head) in head.chunks_exact(columns).enumerate() {
            // SAFETY: a row of the result, which is borrowed exclusively, one at a time.
            unsafe { out.row(row, shortlist) }.copy_from_slice(&head[..shortlist]);
        }
        for i in 0..options.clusters() {
            let AdaptiveTail { projection, weight } = &self.matrices.tails[i];
            let (classes, width) = (options.cluster(i), projection.rows);
            let hidden = project(self.cpu, &self.x, None, projection)?;
            with_large("cluster weights in f32", weight.scratch(classes.len()), |wide| {
                let of = [Panel::of(&hidden, width), weight.all(self.cpu, wide)];
                // SAFETY: the cluster's classes of the result, which is borrowed exclusively.
                unsafe {
                    let out = out.at(0, classes.start);
                    logits(self.cpu, of, None, out, [rows, classes.len(), width]);
                }
            })?;
            // SAFETY: the cluster's first class is one of the result's, which has a row.
            let out = unsafe { out.at(0, classes.start) };
            self.normalize(out, classes.len(), |row| head[row * columns + shortlist + i].into());
        }
        self.rename(out)
    }

    /// From the order of frequency to the caller's.
    fn rename(&self, out: Panel) -> Result<()> {
        let Some(order) = &self.checked.options.class_order else {
            return Ok(());
        };
        let classes = order.len();
        let mut memory = zeros("a row of log-probabilities", classes)?;
        for row in 0..self.checked.rows.len {
            // SAFETY: a row of the result, which is borrowed exclusively, one at a time.
            let out = unsafe { out.row(row, classes) };
            memory.copy_from_slice(out);
            for (place, &value) in memory.iter().enumerate() {
                out[self.class(place)] = value;
            }
        }
        Ok(())
    }

    /// The k best of each row, written from best to worst.
    fn top_k(&self, k: usize, values: Option<SyncPtr<f32>>, out: SyncPtr<i64>) -> Result<()> {
        let (options, rows) = (self.checked.options, self.checked.rows.len);
        let (shortlist, columns) = (options.shortlist(), options.head_size());
        let head = self.head_log_prob()?;
        let tasks = rows.div_ceil(ROWS);
        let failed = std::sync::Mutex::new(None);
        self.cpu.share(tasks, 1, &|task| {
            let block = task * ROWS..((task + 1) * ROWS).min(rows);
            let mut best: Vec<Best> = block.clone().map(|_| Best::new(k)).collect();
            for (row, best) in block.clone().zip(&mut best) {
                let logp = &head[row * columns..][..shortlist];
                best.offer_all(self.cpu.level, logp, |column| self.class(column));
            }
            for i in 0..options.clusters() {
                if let Err(error) = self.offer_cluster(i, &block, &head, &mut best) {
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                    return;
                }
            }
            for (row, best) in block.zip(best) {
                for (at, (value, class)) in best.sorted().into_iter().enumerate() {
                    // SAFETY: a row of this task alone, with k places.
                    unsafe {
                        out.get().add(row * k + at).write(class as i64);
                        if let Some(values) = values {
                            values.get().add(row * k + at).write(value);
                        }
                    }
                }
            }
        });
        failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
    }

    /// Offers a cluster's classes to those rows where one of them can be among the best: none is
    /// likelier than the cluster's column of the head.
    fn offer_cluster(
        &self,
        i: usize,
        block: &Range<usize>,
        head: &[f32],
        best: &mut [Best],
    ) -> Result<()> {
        let options = self.checked.options;
        let of_head = |row: usize| head[row * options.head_size() + options.shortlist() + i];
        let rows: Vec<usize> =
            block.clone().filter(|&row| best[row - block.start].admits(of_head(row))).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let AdaptiveTail { projection, weight } = &self.matrices.tails[i];
        let (classes, width, features) = (options.cluster(i), projection.rows, self.features());
        let mut hidden = zeros("hidden rows", rows.len() * width)?;
        with_scratch([rows.len() * features, projection.scratch(width)], |[x, wide]| {
            let x = crate::cpu::loss::adaptive_log_softmax::pick(&self.x, features, &rows, x);
            let projection = projection.panel(0..width, wide).transposed();
            let out = Panel::of_mut(&mut hidden, width);
            // SAFETY: as many rows, columns and features.
            unsafe { product(false, out, [x, projection], [rows.len(), width, features]) };
        });
        let mut own: Vec<Best> = rows.iter().map(|_| Best::new(best[0].k)).collect();
        let mut sums = vec![Running::EMPTY; rows.len()];
        let mut memory = zeros("logits", rows.len() * CLASSES)?;
        for at in (0..classes.len()).step_by(CLASSES) {
            let tile = at..(at + CLASSES).min(classes.len());
            let out = Panel::of_mut(&mut memory, tile.len());
            // SAFETY: rows and classes of the buffer.
            unsafe {
                let hidden = Panel::of(&hidden, width);
                some_logits(weight, hidden, rows.len(), tile.clone(), out);
                for (n, (own, sum)) in own.iter_mut().zip(&mut sums).enumerate() {
                    let z = out.row(n, tile.len());
                    let level = self.cpu.level;
                    let part = accumulate(level, Transform::IDENTITY, z.as_ptr(), z.len());
                    sum.push(Running { max: part.max, sum: part.sum.into() });
                    own.offer_all(level, z, |column| self.class(classes.start + at + column));
                }
            }
        }
        for ((&row, mut own), sum) in rows.iter().zip(own).zip(&sums) {
            let (norm, shift) = (Norm::of_tiles(sum), f64::from(of_head(row)));
            if norm.undefined() || shift.is_nan() {
                // No class is likelier than another, whatever its logit.
                own = Best::new(own.k);
                let names = classes.clone().map(|place| self.class(place));
                names.for_each(|class| own.offer(f32::NAN, class));
            }
            for (z, class) in own.sorted() {
                best[row - block.start].offer(norm.log_prob(z, shift), class);
            }
        }
        Ok(())
    }

    fn sample(&self, seed: u64, out: SyncPtr<i64>) -> Result<()> {
        let (options, rows) = (self.checked.options, self.checked.rows.len);
        let (shortlist, columns) = (options.shortlist(), options.head_size());
        let head = self.head_log_prob()?;
        let mut drawn: Vec<usize> = (0..rows)
            .map(|row| draw(&head[row * columns..][..columns], unit(seed, 2 * row as u64)))
            .collect();
        for i in 0..options.clusters() {
            let of: Vec<usize> = (0..rows).filter(|&row| drawn[row] == shortlist + i).collect();
            let AdaptiveTail { projection, weight } = &self.matrices.tails[i];
            let (classes, width) = (options.cluster(i), projection.rows);
            let hidden = project(self.cpu, &self.x, Some(&of), projection)?;
            // A few rows' logits at once: the weights are read that much less often.
            let each = (ROWS * CLASSES * 16 / classes.len().max(1)).clamp(1, ROWS);
            let mut logits = zeros("logits", each.min(of.len()) * classes.len())?;
            for (from, of) in (0..).step_by(each).zip(of.chunks(each)) {
                let out = Panel::of_mut(&mut logits, classes.len());
                let tiles = classes.len().div_ceil(CLASSES);
                let hidden = Panel::of(hidden.get(from * width..).unwrap_or(&[]), width);
                self.cpu.share(tiles, 1, &|tile| {
                    let tile = tile * CLASSES..((tile + 1) * CLASSES).min(classes.len());
                    // SAFETY: classes of this task alone.
                    unsafe {
                        let out = out.at(0, tile.start);
                        some_logits(weight, hidden, of.len(), tile, out);
                    }
                });
                for (n, &row) in of.iter().enumerate() {
                    // SAFETY: nobody writes any more.
                    let z = unsafe { out.row(n, classes.len()) };
                    let norm = Norm::of(self.cpu.level, z, Spread::Alone);
                    z.iter_mut().for_each(|z| *z = norm.log_prob(*z, 0.0));
                    drawn[row] = classes.start + draw(z, unit(seed, 2 * row as u64 + 1));
                }
            }
            // What was drawn of this cluster is no longer taken for a column of the head.
            of.iter().for_each(|&row| drawn[row] += columns);
        }
        for (row, place) in drawn.into_iter().enumerate() {
            let place = if place >= columns { place - columns } else { place };
            // SAFETY: the result has a place a row.
            unsafe { out.get().add(row).write(self.class(place) as i64) };
        }
        Ok(())
    }
}

/// The column where the probabilities, added up in order, pass `at`; the last likely one if
/// rounding keeps them below. NaN is drawn first.
fn draw(log_prob: &[f32], at: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (column, &logp) in log_prob.iter().enumerate() {
        let p = f64::from(logp).exp();
        if p > 0.0 || p.is_nan() {
            last = column;
        }
        sum += p;
        if sum > at || sum.is_nan() {
            break;
        }
    }
    last
}

fn host_classes<'a>(classes: TensorMut<'a>) -> Result<&'a mut [i64]> {
    let (argument, expected, got) = ("classes", "host", "device");
    classes.into_host().ok_or(Error::Place { argument, expected, got })
}

impl Cpu {
    pub(crate) fn adaptive_log_softmax_log_prob(
        &self,
        checked: &CheckedAdaptive<'_>,
        out: TensorMut<'_>,
    ) -> Result<()> {
        let stride = match out.rank() {
            1 => checked.options.classes,
            _ => out.row_stride(),
        };
        let out = host_f32(out, "log_prob")?;
        Batch::new(self, checked)?.log_prob(Panel::of_mut(out, stride))
    }

    pub(crate) fn adaptive_log_softmax_top_k(
        &self,
        checked: &CheckedAdaptive<'_>,
        k: usize,
        classes: TensorMut<'_>,
        log_prob: Option<TensorMut<'_>>,
    ) -> Result<()> {
        let classes = SyncPtr(host_classes(classes)?.as_mut_ptr());
        let values = log_prob.map(|values| host_f32(values, "log_prob")).transpose()?;
        let values = values.map(|values| SyncPtr(values.as_mut_ptr()));
        Batch::new(self, checked)?.top_k(k, values, classes)
    }

    pub(crate) fn adaptive_log_softmax_sample(
        &self,
        checked: &CheckedAdaptive<'_>,
        seed: u64,
        classes: TensorMut<'_>,
    ) -> Result<()> {
        let classes = SyncPtr(host_classes(classes)?.as_mut_ptr());
        Batch::new(self, checked)?.sample(seed, classes)
    }
}
