//! AVX-512 (F, BW, VL, DQ): sixteen lanes.

use crate::cpu::simd::vector::{HALF_ROOT, Kernel, Lanes, MAX_LANES, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// Exists only where the processor has AVX-512 F, BW, VL and DQ: made by [`Avx512::detect`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        found.then_some(Avx512(()))
    }
}

/// Wraps an intrinsic (or a few) that need AVX-512 and touch no memory.
macro_rules! lanewise {
    ($body:expr) => {
        // SAFETY: a value of `Avx512` exists only where these instructions do.
        unsafe { $body }
    };
}

/// The bits of `v` with the upper halves rounded to nearest even: 0x7fff is added, and the bit
/// that will be the last one kept.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_to_bf16(v: __m512) -> __m512i {
    let bits = _mm512_castps_si512(v);
    let last = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)))
}

/// The bits of 2^(j/32), less j·2^18: what j itself adds to them where it stands before an exponent.
#[repr(align(64))]
struct Roots([u32; 32]);
#[rustfmt::skip]
static ROOTS: Roots = Roots([
    0x3f80_0000, 0x3f7e_cd87, 0x3f7d_aac3, 0x3f7c_980f, 0x3f7b_95c2, 0x3f7a_a43a, 0x3f79_c3d3, 0x3f78_f4f0,
    0x3f78_37f0, 0x3f77_8d3a, 0x3f76_f532, 0x3f76_7043, 0x3f75_fed7, 0x3f75_a15b, 0x3f75_583f, 0x3f75_23f6,
    0x3f75_04f3, 0x3f74_fbaf, 0x3f75_08a4, 0x3f75_2c4d, 0x3f75_672a, 0x3f75_b9be, 0x3f76_248c, 0x3f76_a81e,
    0x3f77_44fd, 0x3f77_fbb8, 0x3f78_ccdf, 0x3f79_b907, 0x3f7a_c0c7, 0x3f7b_e4ba, 0x3f7d_257d, 0x3f7e_83b3,
]);

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const TAILS: bool = true;
    const STEPS: f32 = 32.0;
    const ROUND: f32 = 393_216.0;

    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn inner<K: Kernel>(simd: Avx512, kernel: K) -> K::Out {
            kernel.run(simd)
        }
        // SAFETY: a value of `Avx512` exists only where these instructions do.
        unsafe { inner(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        lanewise!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: sixteen f32 are readable by the caller's contract.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m512 {
        // SAFETY: sixteen f16 (32 bytes) are readable by the caller's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m512 {
        // SAFETY: sixteen bf16 (32 bytes) are readable by the caller's contract.
        let bits = unsafe { _mm256_loadu_si256(p.cast()) };
        lanewise!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: sixteen f32 are writable by the caller's contract.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m512) {
        // SAFETY: sixteen f16 (32 bytes) are writable by the caller's contract.
        unsafe {
            let half = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
            _mm256_storeu_si256(p.cast(), half);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: __m512) {
        lanewise!({
            // Round to nearest even: add 0x7fff and the bit that will be the last one kept.
            let bits = _mm512_castps_si512(v);
            let last = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let kept = _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet));
            // The store's 32 bytes are writable by the caller's contract.
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(kept));
        })
    }
    /// Even elements, then odd ones: a dword's two halves.
    #[inline(always)]
    unsafe fn load2_bf16(self, p: *const bf16) -> [__m512; 2] {
        // SAFETY: 32 bf16 (64 bytes) are readable by the caller's contract.
        let bits = unsafe { _mm512_loadu_si512(p.cast()) };
        lanewise!([
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)),
            _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-0x1_0000))),
        ])
    }
    #[inline(always)]
    unsafe fn store2_bf16(self, p: *mut bf16, [even, odd]: [__m512; 2]) {
        // SAFETY: 32 bf16 (64 bytes) are writable by the caller's contract.
        unsafe {
            let even = _mm512_srli_epi32::<16>(round_to_bf16(even));
            let both = _mm512_mask_blend_epi16(0xaaaa_aaaa, even, round_to_bf16(odd));
            _mm512_storeu_si512(p.cast(), both);
        }
    }
    #[inline(always)]
    unsafe fn load_tail<T: Lanes>(self, p: *const T, n: usize, pad: f32) -> __m512 {
        let mut lanes = [T::from_f32(pad); MAX_LANES];
        let (at, mask) = (lanes.as_mut_ptr(), (1u16 << n) - 1);
        // SAFETY: the mask names the n elements that are readable by the caller's contract, and `lanes`
        // holds sixteen of 4 or of 2 bytes, as the type has.
        unsafe {
            if size_of::<T>() == 4 {
                let v = _mm512_mask_loadu_epi32(_mm512_loadu_epi32(at.cast()), mask, p.cast());
                _mm512_storeu_epi32(at.cast(), v);
            } else {
                let v = _mm256_mask_loadu_epi16(_mm256_loadu_epi16(at.cast()), mask, p.cast());
                _mm256_storeu_epi16(at.cast(), v);
            }
            T::load(self, at)
        }
    }
    #[inline(always)]
    unsafe fn store_tail<T: Lanes>(self, p: *mut T, n: usize, v: __m512) {
        let mut lanes = [T::default(); MAX_LANES];
        let (at, mask) = (lanes.as_mut_ptr(), (1u16 << n) - 1);
        // SAFETY: as in `load_tail`; the n elements are writable by the caller's contract.
        unsafe {
            T::store(self, at, v);
            if size_of::<T>() == 4 {
                _mm512_mask_storeu_epi32(p.cast(), mask, _mm512_loadu_epi32(at.cast()));
            } else {
                _mm256_mask_storeu_epi16(p.cast(), mask, _mm256_loadu_epi16(at.cast()));
            }
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
        // SAFETY: sixteen f32 are writable, and aligned to a vector, by the caller's contract.
        unsafe { _mm512_stream_ps(p, v) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        lanewise!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        lanewise!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        lanewise!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        lanewise!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        lanewise!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        lanewise!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        lanewise!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        lanewise!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn select_eq(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        lanewise!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), no, yes))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        lanewise!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes))
    }
    #[inline(always)]
    fn low_bits_to_exponent(self, a: __m512) -> __m512 {
        lanewise!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a))))
    }
    /// The last five bits choose a root of two, those before them are its exponent.
    #[inline(always)]
    fn power(self, a: __m512) -> __m512 {
        lanewise!({
            let bits = _mm512_castps_si512(a);
            let [low, high] = [ROOTS.0.as_ptr(), ROOTS.0.as_ptr().add(16)];
            let (low, high) = (_mm512_loadu_si512(low.cast()), _mm512_loadu_si512(high.cast()));
            let root = _mm512_permutex2var_epi32(low, bits, high);
            _mm512_castsi512_ps(_mm512_add_epi32(root, _mm512_slli_epi32::<18>(bits)))
        })
    }
    #[inline(always)]
    fn split(self, a: __m512) -> (__m512, __m512) {
        lanewise!({
            let bits = _mm512_castps_si512(a);
            let n = _mm512_srai_epi32::<23>(_mm512_sub_epi32(bits, _mm512_set1_epi32(HALF_ROOT)));
            let m = _mm512_sub_epi32(bits, _mm512_slli_epi32::<23>(n));
            (_mm512_cvtepi32_ps(n), _mm512_castsi512_ps(m))
        })
    }
    /// By pairs, by quarters of a register, and by the quarters of four.
    #[inline(always)]
    fn transpose(self, m: &mut [__m512; 16]) {
        lanewise!({
            let mut t = *m;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(m[2 * i], m[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(m[2 * i], m[2 * i + 1]);
            }
            // u[4i + j]: of columns j, 4 + j, 8 + j and 12 + j, the rows from 4i on.
            let mut u = *m;
            for i in 0..4 {
                let (a, b) = (_mm512_castps_pd(t[4 * i]), _mm512_castps_pd(t[4 * i + 1]));
                let (c, d) = (_mm512_castps_pd(t[4 * i + 2]), _mm512_castps_pd(t[4 * i + 3]));
                u[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                u[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                u[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
                u[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
            }
            for j in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(u[j], u[4 + j]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(u[j], u[4 + j]);
                let even_below = _mm512_shuffle_f32x4::<0x88>(u[8 + j], u[12 + j]);
                let odd_below = _mm512_shuffle_f32x4::<0xdd>(u[8 + j], u[12 + j]);
                m[j] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
                m[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
                m[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
                m[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
            }
        });
    }
    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        lanewise!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        lanewise!(_mm512_reduce_max_ps(a))
    }
}
