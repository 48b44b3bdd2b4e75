//! The kernels as the host knows them: the one table of them, what they are given, which schedule a
//! shape is gone through by, and how their code is had. The build script uses some of it as well.

pub(crate) mod args;
#[cfg(feature = "cuda")]
pub(crate) mod cache;
pub(crate) mod card;
#[cfg(feature = "cuda")]
pub(crate) mod choice;
#[cfg(feature = "cuda")]
pub(crate) mod compile;
pub(crate) mod element_plan;
#[cfg(feature = "cuda")]
pub(crate) mod libraries;
#[cfg(feature = "cuda")]
pub(crate) mod nvrtc;
pub(crate) mod plan;
// Its source text is for compilation, its whole table for the emulator: one may be without the other.
#[cfg_attr(not(all(feature = "cuda", feature = "emulator")), allow(dead_code))]
pub(crate) mod variants;
