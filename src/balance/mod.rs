//! Data in which some classes are rare: class weights from counts, and minibatches in which every
//! class is as frequent as any other. On the host; nothing here knows a device.
//!
//! A weight makes a rare class's samples count for more, a sampler makes them come more often. The
//! weights of [`weights_from_counts`] are what the losses take as class weights;
//! [`BalancedSampler`] gives indices into a data set, batch by batch.

mod permutation;
mod rings;
mod sampler;
mod state;
mod weights;

pub use sampler::{BalancedSampler, EpochBatches, SamplerOptions};
pub use state::{Phase, SamplerState};
pub use weights::{ClassWeights, Normalization, weights_from_counts};
