//! AVX2 with FMA and F16C: eight lanes.

use crate::cpu::simd::vector::{HALF_ROOT, Kernel, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// Exists only where the processor has AVX2, FMA and F16C: made by [`Avx2::detect`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }
}

/// Wraps an intrinsic (or a few) that need AVX2, FMA or F16C and touch no memory.
macro_rules! lanewise {
    ($body:expr) => {
        // SAFETY: a value of `Avx2` exists only where these instructions do.
        unsafe { $body }
    };
}

/// The bits of `v` with the upper halves rounded to nearest even: 0x7fff is added, and the bit
/// that will be the last one kept.
#[inline]
#[target_feature(enable = "avx2")]
fn round_to_bf16(v: __m256) -> __m256i {
    let bits = _mm256_castps_si256(v);
    let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)))
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;

    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: Kernel>(simd: Avx2, kernel: K) -> K::Out {
            kernel.run(simd)
        }
        // SAFETY: a value of `Avx2` exists only where these instructions do.
        unsafe { inner(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        lanewise!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: eight f32 are readable by the caller's contract.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m256 {
        // SAFETY: eight f16 (16 bytes) are readable by the caller's contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m256 {
        // SAFETY: eight bf16 (16 bytes) are readable by the caller's contract.
        let bits = unsafe { _mm_loadu_si128(p.cast()) };
        lanewise!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: eight f32 are writable by the caller's contract.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m256) {
        // SAFETY: eight f16 (16 bytes) are writable by the caller's contract.
        unsafe {
            let half = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm_storeu_si128(p.cast(), half);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: __m256) {
        lanewise!({
            // Round to nearest even: add 0x7fff and the bit that will be the last one kept.
            let bits = _mm256_castps_si256(v);
            let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let kept = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let packed =
                _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256::<1>(kept));
            // The store's 16 bytes are writable by the caller's contract.
            _mm_storeu_si128(p.cast(), packed);
        })
    }
    /// Even elements, then odd ones: a dword's two halves.
    #[inline(always)]
    unsafe fn load2_bf16(self, p: *const bf16) -> [__m256; 2] {
        // SAFETY: sixteen bf16 (32 bytes) are readable by the caller's contract.
        let bits = unsafe { _mm256_loadu_si256(p.cast()) };
        lanewise!([
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)),
            _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-0x1_0000))),
        ])
    }
    #[inline(always)]
    unsafe fn store2_bf16(self, p: *mut bf16, [even, odd]: [__m256; 2]) {
        // SAFETY: sixteen bf16 (32 bytes) are writable by the caller's contract.
        unsafe {
            let even = _mm256_srli_epi32::<16>(round_to_bf16(even));
            let both = _mm256_blend_epi16::<0b1010_1010>(even, round_to_bf16(odd));
            _mm256_storeu_si256(p.cast(), both);
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        lanewise!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }
    #[inline(always)]
    fn prefetch_second<T>(self, p: *const T) {
        lanewise!(_mm_prefetch::<_MM_HINT_T1>(p.cast()))
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::V) {
        // SAFETY: eight f32 are writable, and aligned to a vector, by the caller's contract.
        unsafe { _mm256_stream_ps(p, v) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        lanewise!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        lanewise!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        lanewise!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        lanewise!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        lanewise!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        lanewise!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        lanewise!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        lanewise!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn select_eq(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        lanewise!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)))
    }
    #[inline(always)]
    fn select_lt(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        lanewise!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn low_bits_to_exponent(self, a: __m256) -> __m256 {
        lanewise!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a))))
    }
    #[inline(always)]
    fn split(self, a: __m256) -> (__m256, __m256) {
        lanewise!({
            let bits = _mm256_castps_si256(a);
            let n = _mm256_srai_epi32::<23>(_mm256_sub_epi32(bits, _mm256_set1_epi32(HALF_ROOT)));
            let m = _mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(n));
            (_mm256_cvtepi32_ps(n), _mm256_castsi256_ps(m))
        })
    }
    /// By pairs, by halves of a register, and by the halves of two.
    #[inline(always)]
    fn transpose(self, m: &mut [__m256; 16]) {
        lanewise!({
            let mut t = *m;
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(m[2 * i], m[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(m[2 * i], m[2 * i + 1]);
            }
            // u[4i + j]: of columns j and 4 + j, the rows from 4i on.
            let mut u = *m;
            for i in 0..2 {
                let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
                u[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
                u[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
                u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
                u[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
            }
            for j in 0..4 {
                m[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
                m[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
            }
        });
    }
    #[inline(always)]
    fn reduce_add(self, a: __m256) -> f32 {
        lanewise!({
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        lanewise!({
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        })
    }
}
