//! Which instruction set: found out once, and entered for each loop.

#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::avx2;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::avx512;
#[cfg(target_arch = "aarch64")]
use crate::cpu::simd::neon;
use crate::cpu::simd::scalar;
use crate::cpu::simd::vector::{Kernel, Simd};

/// The instruction set that this machine runs, found out once: each variant holds the proof.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Scalar(scalar::Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Level {
    /// The best level of this machine.
    pub(crate) fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = avx512::Avx512::detect() {
                return Level::Avx512(simd);
            }
            if let Some(simd) = avx2::Avx2::detect() {
                return Level::Avx2(simd);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(simd) = neon::Neon::detect() {
            return Level::Neon(simd);
        }
        Level::Scalar(scalar::Scalar)
    }

    /// The levels that this machine can run.
    pub(crate) fn available() -> Vec<Level> {
        let mut levels = vec![Level::Scalar(scalar::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(avx2::Avx2::detect().map(Level::Avx2));
            levels.extend(avx512::Avx512::detect().map(Level::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        levels.extend(neon::Neon::detect().map(Level::Neon));
        levels
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "AVX2+FMA+F16C",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => "NEON",
        }
    }

    /// Runs a loop on this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match self {
            Level::Scalar(simd) => simd.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(simd) => simd.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(simd) => simd.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Level::Neon(simd) => simd.enter(kernel),
        }
    }
}

/// Brings what [`Simd::stream`] has stored to everybody's sight.
pub(crate) fn settle() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Asks for the cache line at `p`, which need not exist: outside of the vector loops.
pub(crate) fn ask_for<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}
