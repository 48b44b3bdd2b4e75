//! NEON: four lanes. bf16 is widened and rounded by integer arithmetic, f16 by instructions that every
//! aarch64 has, named in assembly: their intrinsics are younger than the oldest compiler that is promised.

use crate::cpu::simd::vector::{HALF_ROOT, Kernel, Simd};
use half::{bf16, f16};
use std::arch::aarch64::*;
use std::arch::asm;

/// Exists only where the processor has NEON: made by [`Neon::detect`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// Wraps an intrinsic (or a few) that need NEON and touch no memory.
macro_rules! lanewise {
    ($body:expr) => {
        // SAFETY: a value of `Neon` exists only where these instructions do.
        unsafe { $body }
    };
}

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;

    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "neon")]
        fn inner<K: Kernel>(simd: Neon, kernel: K) -> K::Out {
            kernel.run(simd)
        }
        // SAFETY: a value of `Neon` exists only where these instructions do.
        unsafe { inner(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        lanewise!(vdupq_n_f32(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: four f32 are readable by the caller's contract.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> float32x4_t {
        // SAFETY: four f16 (8 bytes) are readable by the caller's contract.
        let halves = unsafe { vld1_u16(p.cast()) };
        let wide: float32x4_t;
        lanewise!(asm!(
            "fcvtl {wide:v}.4s, {halves:v}.4h",
            wide = lateout(vreg) wide,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags),
        ));
        wide
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> float32x4_t {
        // SAFETY: four bf16 (8 bytes) are readable by the caller's contract.
        let bits = unsafe { vld1_u16(p.cast()) };
        lanewise!(vreinterpretq_f32_u32(vshll_n_u16::<16>(bits)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: four f32 are writable by the caller's contract.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: float32x4_t) {
        let halves: uint16x4_t;
        lanewise!(asm!(
            "fcvtn {halves:v}.4h, {v:v}.4s",
            halves = lateout(vreg) halves,
            v = in(vreg) v,
            options(pure, nomem, nostack, preserves_flags),
        ));
        // SAFETY: four f16 (8 bytes) are writable by the caller's contract.
        unsafe { vst1_u16(p.cast(), halves) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: float32x4_t) {
        lanewise!({
            // Round to nearest even: add 0x7fff and the bit that will be the last one kept.
            let bits = vreinterpretq_u32_f32(v);
            let last = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(last, vdupq_n_u32(0x7fff)));
            let number = vceqq_f32(v, v);
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            // The store's 8 bytes are writable by the caller's contract.
            vst1_u16(p.cast(), vshrn_n_u32::<16>(vbslq_u32(number, rounded, quiet)));
        })
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        lanewise!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        lanewise!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        lanewise!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        lanewise!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        lanewise!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        lanewise!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        lanewise!(vbslq_f32(vcltq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        lanewise!(vabsq_f32(a))
    }
    #[inline(always)]
    fn select_eq(
        self,
        a: float32x4_t,
        b: float32x4_t,
        yes: float32x4_t,
        no: float32x4_t,
    ) -> float32x4_t {
        lanewise!(vbslq_f32(vceqq_f32(a, b), yes, no))
    }
    #[inline(always)]
    fn select_lt(
        self,
        a: float32x4_t,
        b: float32x4_t,
        yes: float32x4_t,
        no: float32x4_t,
    ) -> float32x4_t {
        lanewise!(vbslq_f32(vcltq_f32(a, b), yes, no))
    }
    #[inline(always)]
    fn low_bits_to_exponent(self, a: float32x4_t) -> float32x4_t {
        lanewise!(vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a))))
    }
    #[inline(always)]
    fn split(self, a: float32x4_t) -> (float32x4_t, float32x4_t) {
        lanewise!({
            let bits = vreinterpretq_s32_f32(a);
            let n = vshrq_n_s32::<23>(vsubq_s32(bits, vdupq_n_s32(HALF_ROOT)));
            let m = vsubq_s32(bits, vshlq_n_s32::<23>(n));
            (vcvtq_f32_s32(n), vreinterpretq_f32_s32(m))
        })
    }
    /// By pairs, and by pairs of pairs.
    #[inline(always)]
    fn transpose(self, m: &mut [float32x4_t; 16]) {
        lanewise!({
            let even = vreinterpretq_f64_f32(vtrn1q_f32(m[0], m[1]));
            let odd = vreinterpretq_f64_f32(vtrn2q_f32(m[0], m[1]));
            let even_below = vreinterpretq_f64_f32(vtrn1q_f32(m[2], m[3]));
            let odd_below = vreinterpretq_f64_f32(vtrn2q_f32(m[2], m[3]));
            m[0] = vreinterpretq_f32_f64(vtrn1q_f64(even, even_below));
            m[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd, odd_below));
            m[2] = vreinterpretq_f32_f64(vtrn2q_f64(even, even_below));
            m[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd, odd_below));
        });
    }
    #[inline(always)]
    fn reduce_add(self, a: float32x4_t) -> f32 {
        lanewise!(vaddvq_f32(a))
    }
    #[inline(always)]
    fn reduce_max(self, a: float32x4_t) -> f32 {
        lanewise!(vmaxvq_f32(a))
    }
}
