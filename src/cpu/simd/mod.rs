//! Vectors of f32 on whatever instruction set the machine has.
//!
//! [`Simd`] is the narrow set of operations that the losses need; one implementation an
//! instruction set, one body a loop, written against the trait. What the machine has is found out
//! once, when a device is made, and kept as a [`Level`]; [`Level::run`] enters a loop over a
//! segment of a row, and nothing inside the loop asks again. All that surrounds the loops
//! (threads, segments, losses) is compiled once and not once an instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod level;
mod logarithm;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pieces;
mod power;
mod scalar;
#[cfg(test)]
mod tests;
mod vector;

pub(crate) use level::{Level, ask_for, settle};
pub(crate) use logarithm::{ln_1p, ln_1p_of_unit, ln_plus, minus_ln_1m_half};
pub(crate) use math::{EXP_M1_NEAR, ScaledExp, exp, exp_m1, exp_m1_beyond_linear, exp_nonpositive};
pub(crate) use math::{exp_to_the_end, one_minus_exp, soft_cap};
pub(crate) use pieces::Pieces;
pub(crate) use power::{Powers, Unit, power_of_two};
pub(crate) use vector::{Kernel, Lanes, MAX_LANES, Simd, load_lanes, store_lanes};
