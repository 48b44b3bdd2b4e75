//! Where losses are computed: devices, their memory, their order, and the emulator that stands in for
//! one. `gpu` is what a visit to a card runs (`docs/gpu-day-one.md`).

mod allocations;
#[cfg(feature = "emulator")]
mod banks;
#[cfg(feature = "emulator")]
mod emulator;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "emulator")]
mod launches;
mod linear_memory;
#[cfg(feature = "emulator")]
mod residency;
#[cfg(feature = "emulator")]
mod sparse;
