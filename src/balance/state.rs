//! Where a sampler stands, to be kept with a model's checkpoint.

use crate::base::error::{Count, Error, Result};

/// Which part of the schedule a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Every class as often as any other.
    Balanced,
    /// Every sample once an epoch, hence classes as frequent as they are.
    Natural,
}

/// Where a sampler stands, and what tells its data and its options from others.
///
/// A plain value: write its fields, or [`SamplerState::to_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerState {
    /// [`SamplerState::VERSION`] of the code that made it.
    pub version: u64,
    /// The seed.
    pub seed: u64,
    /// Samples in a batch, B.
    pub batch_size: u64,
    /// Samples in the data set, n.
    pub samples: u64,
    /// Classes that have samples, C.
    pub classes: u64,
    /// A digest of all labels in their order.
    pub digest: u64,
    /// Whether laps of the balanced phase are shuffled.
    pub shuffle: bool,
    /// The phase of the next batch.
    pub phase: Phase,
    /// The epoch of the next batch, from 0 in each phase.
    pub epoch: u64,
    /// Samples of that epoch that were given, j.
    pub position: u64,
}

const MAGIC: u64 = u64::from_le_bytes(*b"wlsample");
const WORDS: usize = 11;

impl SamplerState {
    /// Changes whenever the same state would be followed by other samples than before.
    pub const VERSION: u64 = 1;

    /// Bytes of [`SamplerState::to_bytes`].
    pub const BYTES: usize = 8 * WORDS;

    /// The fields in the order of their declaration, 8 bytes each, least significant first, after
    /// the 8 bytes `wlsample`.
    pub fn to_bytes(&self) -> [u8; SamplerState::BYTES] {
        let words: [u64; WORDS] = [
            MAGIC,
            self.version,
            self.seed,
            self.batch_size,
            self.samples,
            self.classes,
            self.digest,
            self.shuffle.into(),
            match self.phase {
                Phase::Balanced => 0,
                Phase::Natural => 1,
            },
            self.epoch,
            self.position,
        ];
        let mut bytes = [0; SamplerState::BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The state that [`SamplerState::to_bytes`] wrote.
    ///
    /// ```
    /// # use warploss::{TensorRef, balance::{BalancedSampler, SamplerOptions, SamplerState}};
    /// let labels = TensorRef::new(&[0u8, 1, 0], &[3])?;
    /// let sampler = BalancedSampler::new(labels, &SamplerOptions::new(2))?;
    /// let bytes = sampler.state().to_bytes();
    /// assert_eq!(SamplerState::from_bytes(&bytes)?, sampler.state());
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// Bytes that are none, or from another version: named are the length, the first bytes, the
    /// version, or the field that holds what it cannot.
    pub fn from_bytes(bytes: &[u8]) -> Result<SamplerState> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        let words: [u64; WORDS] = match <&[[u8; 8]; WORDS]>::try_from(chunks) {
            Ok(chunks) if rest.is_empty() => chunks.map(u64::from_le_bytes),
            _ => {
                let got = Count(bytes.len(), "byte").to_string();
                return Err(wrong("state", format!("{} bytes", SamplerState::BYTES), got));
            }
        };
        let [magic, version, seed, batch_size, samples, classes, digest, shuffle, phase, ..] =
            words;
        expect("state", magic, MAGIC, "its first 8 bytes, wlsample")?;
        expect("version", version, SamplerState::VERSION, "this library's")?;
        let shuffle = match shuffle {
            0 => false,
            1 => true,
            got => return Err(wrong("shuffle", "0 or 1".into(), got.to_string())),
        };
        let phase = match phase {
            0 => Phase::Balanced,
            1 => Phase::Natural,
            got => return Err(wrong("phase", "0 or 1".into(), got.to_string())),
        };
        let [.., epoch, position] = words;
        Ok(SamplerState {
            version,
            seed,
            batch_size,
            samples,
            classes,
            digest,
            shuffle,
            phase,
            epoch,
            position,
        })
    }

    /// That `other` belongs to the same data, options and version; an error naming the first field
    /// that says it does not.
    pub(super) fn expect_same_sampler(&self, other: &SamplerState) -> Result<()> {
        expect("version", other.version, self.version, "this library's")?;
        expect("samples", other.samples, self.samples, "the labels given")?;
        expect("classes", other.classes, self.classes, "those among the labels given")?;
        expect("digest", other.digest, self.digest, "of the labels given")?;
        expect("batch_size", other.batch_size, self.batch_size, "this sampler's")?;
        expect("seed", other.seed, self.seed, "this sampler's")?;
        expect("shuffle", other.shuffle, self.shuffle, "this sampler's")
    }
}

fn expect<T: PartialEq + ToString>(
    argument: &'static str,
    got: T,
    expected: T,
    whose: &str,
) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(wrong(argument, format!("{} ({whose})", expected.to_string()), got.to_string()))
}

/// A field that holds what it cannot.
pub(super) fn wrong(argument: &'static str, expected: String, got: String) -> Error {
    Error::Value { argument, expected, got }
}
