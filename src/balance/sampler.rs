//! The balanced sampler: which sample stands where in the stream, and batches cut from it.
//!
//! Position j of an epoch belongs to class j mod C in round r = j div C, of R·C positions with R
//! the samples of the largest class. The class's ring of n_c samples is gone round from its
//! beginning every epoch (shuffled: a new order each lap) or runs on from epoch to epoch
//! (unshuffled). Everything is computed from the position: nothing is kept but the position.

use super::permutation::Permutation;
use super::rings::Rings;
use super::state::{Phase, SamplerState, wrong};
use crate::base::error::{Error, Result};
use crate::base::random::extend;
use crate::base::tensor::TensorRef;
use std::ops::Range;
use std::sync::Arc;

/// How a [`BalancedSampler`] goes through the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplerOptions {
    batch_size: usize,
    seed: u64,
    shuffle: bool,
    classes: Option<usize>,
    epochs: Option<u64>,
    closing_epochs: u64,
}

impl SamplerOptions {
    /// Batches of `batch_size` samples, B, the last one of an epoch shorter.
    pub fn new(batch_size: usize) -> SamplerOptions {
        SamplerOptions {
            batch_size,
            seed: 0,
            shuffle: true,
            classes: None,
            epochs: None,
            closing_epochs: 0,
        }
    }

    /// The seed of every order. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether a class's samples come in a new order each lap, or in that of the data set. Natural
    /// epochs are permutations either way. Default: shuffled.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Labels must be less than this. Default: any label from 0 is legal.
    pub fn classes(mut self, classes: usize) -> Self {
        self.classes = Some(classes);
        self
    }

    /// Balanced epochs, after which the closing phase begins. Default: no end.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = Some(epochs);
        self
    }

    /// Natural epochs after the balanced ones. Default 0.
    pub fn closing_epochs(mut self, epochs: u64) -> Self {
        self.closing_epochs = epochs;
        self
    }
}

/// Minibatches in which every class is as frequent as any other, and nothing is dropped.
///
/// Each class's samples form a ring; a batch takes the same number from every ring (to within one
/// where the classes do not divide the batch), and a ring that runs out starts over. An epoch ends
/// when every sample of the largest class has been given: then each of the C classes has been given
/// R times, R the samples of the largest, and each sample of a class of n_c either ⌊R/n_c⌋ or
/// ⌈R/n_c⌉ times. Classes without samples are left out.
///
/// After the balanced epochs, a *closing phase* of natural epochs gives every sample of the data
/// set once each, so that a model ends on the true frequencies.
///
/// | | shape | dtype |
/// |---|---|---|
/// | labels | `[n]`, stride free | i64, i32, u32, u8 |
///
/// An iterator over batches of indices into the data set; [`BalancedSampler::next_into`] is the
/// same without allocation. Which samples come is a pure function of labels, options and position,
/// the same on every machine: orders are not stored but computed, from (seed, epoch, class, lap)
/// or (seed, natural epoch). Memory is 4 bytes a sample and 4 a class (8 from 2³² samples on);
/// a draw takes the same time whatever their number. Clones share that memory.
///
/// ```
/// use warploss::{TensorRef, balance::{BalancedSampler, SamplerOptions}};
/// let labels = [0u8, 0, 0, 0, 0, 0, 1, 1, 2];
/// let options = SamplerOptions::new(3).seed(7).epochs(1).closing_epochs(1);
/// let sampler = BalancedSampler::new(TensorRef::new(&labels, &[9])?, &options)?;
/// let batches: Vec<Vec<usize>> = sampler.collect();
/// assert_eq!(batches.len(), 6 + 3); // 6 rounds of 3 classes, then 9 samples, by 3
/// for batch in &batches[..6] {
///     assert_eq!(batch.iter().map(|&i| labels[i]).collect::<Vec<_>>(), [0, 1, 2]);
/// }
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct BalancedSampler {
    rings: Arc<Rings>,
    options: SamplerOptions,
    phase: Phase,
    epoch: u64,
    position: u64,
}

impl BalancedSampler {
    /// At the beginning of the first balanced epoch.
    ///
    /// # Errors
    /// No labels, labels that are negative or not below [`SamplerOptions::classes`] (the first is
    /// named), their dtype, rank or place; a batch size of 0; out of memory.
    pub fn new(labels: TensorRef<'_>, options: &SamplerOptions) -> Result<BalancedSampler> {
        if options.batch_size == 0 {
            return Err(wrong("batch_size", "at least 1".into(), "0".into()));
        }
        let rings = Arc::new(Rings::new(&labels, options.classes)?);
        let length = (rings.largest() as u64).checked_mul(rings.classes() as u64);
        let length = length.ok_or_else(|| {
            let got = format!("{} classes, the largest of {}", rings.classes(), rings.largest());
            wrong("labels", "an epoch of fewer than 2^64 samples".into(), got)
        })?;
        // A batch that memory cannot hold is an error here, where there can be one.
        let batch = (options.batch_size as u64).min(length.max(rings.samples() as u64));
        let bytes = batch.saturating_mul(size_of::<usize>() as u64);
        let fits = usize::try_from(batch).is_ok_and(|n| Vec::<usize>::new().try_reserve(n).is_ok());
        if !fits {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            return Err(Error::no_memory("batch_size", bytes));
        }
        let options = options.clone();
        Ok(BalancedSampler { rings, options, phase: Phase::Balanced, epoch: 0, position: 0 })
    }

    /// Puts the next batch into `batch`, in place of what it held; false at the end of the
    /// schedule, with `batch` empty. Allocates only where `batch` has too little room.
    pub fn next_into(&mut self, batch: &mut Vec<usize>) -> bool {
        batch.clear();
        self.settle();
        if self.finished() {
            return false;
        }
        let length = self.epoch_len(self.phase);
        let end = length.min(self.position.saturating_add(self.options.batch_size as u64));
        let positions = self.position..end;
        match self.phase {
            Phase::Balanced => self.draw_balanced(positions, batch),
            Phase::Natural => self.draw_natural(positions, batch),
        }
        self.position = end;
        if end == length {
            self.position = 0;
            self.epoch = self.epoch.wrapping_add(1);
        }
        true
    }

    /// The rest of the current epoch; at its end, all of the next.
    ///
    /// ```
    /// # use warploss::{TensorRef, balance::{BalancedSampler, SamplerOptions}};
    /// let labels = TensorRef::new(&[0u8, 1, 0], &[3])?;
    /// let mut sampler = BalancedSampler::new(labels, &SamplerOptions::new(2))?;
    /// for epoch in 0..3 {
    ///     assert_eq!(sampler.epoch(), epoch);
    ///     assert_eq!(sampler.epoch_batches().count(), 2);
    /// }
    /// # Ok::<(), warploss::Error>(())
    /// ```
    pub fn epoch_batches(&mut self) -> EpochBatches<'_> {
        self.settle();
        EpochBatches { epoch: (self.phase, self.epoch), sampler: self }
    }

    /// Begins the closing phase with the next batch, wherever the balanced phase stands.
    pub fn begin_closing(&mut self) {
        (self.phase, self.epoch, self.position) = (Phase::Natural, 0, 0);
    }

    /// Where the sampler stands: what [`BalancedSampler::restore`] takes.
    pub fn state(&self) -> SamplerState {
        SamplerState {
            version: SamplerState::VERSION,
            seed: self.options.seed,
            batch_size: self.options.batch_size as u64,
            samples: self.rings.samples() as u64,
            classes: self.rings.classes() as u64,
            digest: self.rings.digest(),
            shuffle: self.options.shuffle,
            phase: self.phase,
            epoch: self.epoch,
            position: self.position,
        }
    }

    /// Continues where `state` was taken, with the sample after the last one given. The numbers of
    /// epochs may have changed since.
    ///
    /// # Errors
    /// [`Error::Value`], naming the first field that belongs to other labels, options or another
    /// version; the sampler stays where it was.
    pub fn restore(&mut self, state: &SamplerState) -> Result<()> {
        self.state().expect_same_sampler(state)?;
        let (length, batch) = (self.epoch_len(state.phase), self.options.batch_size);
        if state.position >= length || !state.position.is_multiple_of(batch as u64) {
            let expected = format!("a multiple of the batch size {batch}, less than {length}");
            return Err(wrong("position", expected, state.position.to_string()));
        }
        (self.phase, self.epoch, self.position) = (state.phase, state.epoch, state.position);
        Ok(())
    }

    /// The phase of the next batch.
    pub fn phase(&self) -> Phase {
        if self.balanced_done() { Phase::Natural } else { self.phase }
    }

    /// The epoch of the next batch, from 0 in each phase.
    pub fn epoch(&self) -> u64 {
        if self.balanced_done() { 0 } else { self.epoch }
    }

    /// Samples in an epoch: R·C of a balanced one, n of a natural one.
    pub fn epoch_len(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Balanced => self.rings.largest() as u64 * self.rings.classes() as u64,
            Phase::Natural => self.rings.samples() as u64,
        }
    }

    /// Batches in an epoch.
    pub fn epoch_batch_count(&self, phase: Phase) -> u64 {
        self.epoch_len(phase).div_ceil(self.options.batch_size as u64)
    }

    /// Samples in the data set, n.
    pub fn samples(&self) -> usize {
        self.rings.samples()
    }

    /// Classes that have samples, C.
    pub fn classes(&self) -> usize {
        self.rings.classes()
    }

    /// Samples of the largest class, R.
    pub fn largest_class(&self) -> usize {
        self.rings.largest()
    }

    /// Bytes that the sampler and all its clones keep together.
    pub fn bytes(&self) -> usize {
        self.rings.bytes()
    }

    fn balanced_done(&self) -> bool {
        let done = |epochs| self.epoch >= epochs;
        self.phase == Phase::Balanced && self.options.epochs.is_some_and(done)
    }

    /// Leaves the balanced phase where its epochs are done. Asked before a batch and not after, so
    /// that a state taken there can be followed by more epochs.
    fn settle(&mut self) {
        if self.balanced_done() {
            self.begin_closing();
        }
    }

    fn finished(&self) -> bool {
        // A closing phase that was begun by hand, in a schedule without an end, has none either.
        let endless = self.options.epochs.is_none() && self.options.closing_epochs == 0;
        self.phase == Phase::Natural && !endless && self.epoch >= self.options.closing_epochs
    }

    fn draw_balanced(&self, positions: Range<u64>, batch: &mut Vec<usize>) {
        let classes = self.rings.classes();
        let key = extend(extend(self.options.seed, BALANCED), self.epoch);
        let mut round = positions.start / classes as u64;
        let mut class = (positions.start % classes as u64) as usize; // less than `classes`
        // Unshuffled rings run on: rounds are counted from the first epoch.
        let before = u128::from(self.epoch) * self.rings.largest() as u128;
        batch.extend(positions.map(|_| {
            let (start, n) = self.rings.ring(class);
            let n = n as u64;
            let place = if self.options.shuffle {
                let lap = extend(extend(key, class as u64), round / n);
                Permutation::new(lap, n).at(round % n)
            } else {
                ((before + u128::from(round)) % u128::from(n)) as u64 // less than `n`
            };
            class += 1;
            if class == classes {
                class = 0;
                round += 1;
            }
            self.rings.sample(start + place as usize) // less than the count of samples
        }));
    }

    fn draw_natural(&self, positions: Range<u64>, batch: &mut Vec<usize>) {
        let key = extend(extend(self.options.seed, NATURAL), self.epoch);
        let order = Permutation::new(key, self.rings.samples() as u64);
        batch.extend(positions.map(|j| order.at(j) as usize)); // less than the count of samples
    }
}

/// Words that keep the orders of the two phases apart.
const BALANCED: u64 = u64::from_le_bytes(*b"balanced");
const NATURAL: u64 = u64::from_le_bytes(*b"natural ");

impl Iterator for BalancedSampler {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let mut batch = Vec::new();
        self.next_into(&mut batch).then_some(batch)
    }
}

/// The batches of one epoch; made by [`BalancedSampler::epoch_batches`].
#[derive(Debug)]
pub struct EpochBatches<'a> {
    sampler: &'a mut BalancedSampler,
    epoch: (Phase, u64),
}

impl EpochBatches<'_> {
    /// As [`BalancedSampler::next_into`]; false at the end of the epoch.
    pub fn next_into(&mut self, batch: &mut Vec<usize>) -> bool {
        batch.clear();
        (self.sampler.phase, self.sampler.epoch) == self.epoch && self.sampler.next_into(batch)
    }
}

impl Iterator for EpochBatches<'_> {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let mut batch = Vec::new();
        self.next_into(&mut batch).then_some(batch)
    }
}
