//! The CUDA device. `driver/`: what is needed of one, on a GPU (`real/`) or in the emulator
//! (`emulated/`); `stream/`: memory and order; `schedule/`: from a plan to launches; `matrix/`:
//! products and what goes between them; `loss/`: one file a loss, its launches.

mod backend;
pub(crate) mod driver;
#[cfg(feature = "emulator")]
pub(crate) mod emulated;
mod loss;
mod matrix;
mod open;
#[cfg(feature = "cuda")]
pub(crate) mod real;
mod schedule;
pub(crate) mod stream;
