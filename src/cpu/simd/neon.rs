//! NEON: four lanes. Half precision is widened and rounded by integer arithmetic on bf16 and
//! lane by lane on f16, whose vector conversions Rust does not offer on stable yet.

use crate::base::host::Float;
use crate::cpu::simd::vector::{HALF_ROOT, Kernel, Simd};
use half::{bf16, f16};
use std::arch::aarch64::*;

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
        // SAFETY: four f16 are readable by the caller's contract.
        let halves = unsafe { p.cast::<[f16; 4]>().read_unaligned() };
        let wide = halves.map(Float::to_f32);
        // SAFETY: `wide` holds four f32.
        unsafe { vld1q_f32(wide.as_ptr()) }
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
        let mut wide = [0f32; 4];
        // SAFETY: `wide` holds four f32; four f16 are writable by the caller's contract.
        unsafe {
            vst1q_f32(wide.as_mut_ptr(), v);
            p.cast::<[f16; 4]>().write_unaligned(wide.map(f16::from_f32));
        }
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
    #[inline(always)]
    fn reduce_add(self, a: float32x4_t) -> f32 {
        lanewise!(vaddvq_f32(a))
    }
    #[inline(always)]
    fn reduce_max(self, a: float32x4_t) -> f32 {
        lanewise!(vmaxvq_f32(a))
    }
}
