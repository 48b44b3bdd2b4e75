//! Factors brought into the order in which the instructions take them.
//!
//! A step of a left panel is 16 lines, one a row, of 32 terms each; a step of a right panel 16 lines, one
//! a pair of terms, of 16 columns each with two terms next to one another. As words of two terms either is the
//! other transposed, so that whatever order the matrix lies in, vectors are loaded along it, and turned
//! only where that is not the panel's.

use crate::cpu::matrix::bf16::form::{Factor, Parts, SIDE, STEP, WORDS};
use crate::cpu::matrix::bf16::transpose::transpose;
use half::bf16;
use std::arch::x86_64::*;

/// Sixteen elements as parts of bf16.
trait Element: Copy {
    /// The first `len` elements at `at`, then zeros: rounded, and what the rounding left, rounded.
    ///
    /// # Safety
    /// There are as many, and the processor has AVX512-BF16.
    unsafe fn load<const PARTS: usize>(at: *const Self, len: usize) -> [__m256i; PARTS];
}

/// A bit for each of the first `len` of sixteen.
fn first(len: usize) -> u16 {
    (1u32.wrapping_shl(len.min(16) as u32)).wrapping_sub(1) as u16
}

impl Element for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load<const PARTS: usize>(at: *const bf16, len: usize) -> [__m256i; PARTS] {
        let mut parts = [_mm256_setzero_si256(); PARTS];
        // SAFETY: lanes beyond the `len` elements are not loaded.
        parts[0] = unsafe { _mm256_maskz_loadu_epi16(first(len), at.cast()) };
        parts
    }
}

impl Element for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn load<const PARTS: usize>(at: *const f32, len: usize) -> [__m256i; PARTS] {
        // SAFETY: lanes beyond the `len` elements are not loaded.
        let x = unsafe { _mm512_maskz_loadu_ps(first(len), at) };
        let mut parts = [_mm256_setzero_si256(); PARTS];
        let near = rounded(x);
        parts[0] = near;
        if PARTS == 2 {
            // 0x99: NaN of both kinds and infinities. They have no rest. A finite number whose nearest
            // one is infinite is cut off, and so is its rest.
            let endless = _mm512_fpclass_ps_mask::<0x99>(x);
            let over = _mm512_fpclass_ps_mask::<0x18>(widened(near)) & !endless;
            parts[0] = _mm256_mask_blend_epi16(over, near, cut(x));
            let rest = _mm512_maskz_sub_ps(!endless, x, widened(parts[0]));
            parts[1] = _mm256_mask_blend_epi16(over, rounded(rest), cut(rest));
        }
        parts
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
fn rounded(x: __m512) -> __m256i {
    // SAFETY: both types are 32 bytes of which any bits are a value.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn cut(x: __m512) -> __m256i {
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(x)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widened(x: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// Packs `side` rows of k elements; as columns of a right factor unless `left`.
///
/// # Safety
/// `x` has those elements, `out` as many words as they take (`packed_len`), and the processor has
/// AVX512-BF16, F, BW, VL and DQ.
pub(super) unsafe fn panels(out: *mut u32, x: Factor, sizes: [usize; 2], left: bool) {
    // SAFETY: memory and instructions are the caller's promise.
    unsafe {
        match x {
            Factor::Bf16(x) => all::<bf16, 1>(out, (x.data.get(), x.rows, x.columns), sizes, left),
            Factor::F32(x, Parts::One) => {
                all::<f32, 1>(out, (x.data.get(), x.rows, x.columns), sizes, left);
            }
            Factor::F32(x, Parts::Two) => {
                all::<f32, 2>(out, (x.data.get(), x.rows, x.columns), sizes, left);
            }
        }
    }
}

/// # Safety
/// As for [`panels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn all<T: Element, const PARTS: usize>(
    mut out: *mut u32,
    (x, rows, columns): (*const T, usize, usize),
    [side, k]: [usize; 2],
    left: bool,
) {
    assert!(rows == 1 || columns == 1, "a factor's rows or columns lie next to one another");
    for row in (0..side).step_by(SIDE) {
        for term in (0..k).step_by(STEP) {
            let lens = [(side - row).min(SIDE), (k - term).min(STEP)];
            // SAFETY: rows and terms of `x`; steps of the panels come one after another in `out`.
            unsafe {
                let at = x.add(row * rows + term * columns);
                let mut parts: [_; PARTS] = match columns {
                    1 => lines::<T, PARTS>(at, rows, lens),
                    _ => pairs::<T, PARTS>(at, columns, lens),
                };
                for part in &mut parts {
                    if left != (columns == 1) {
                        transpose(part);
                    }
                    for (line, words) in part.iter().enumerate() {
                        _mm512_storeu_si512(out.add(line * SIDE).cast(), *words);
                    }
                    out = out.add(WORDS);
                }
            }
        }
    }
}

/// A vector a row, of terms that lie next to one another.
///
/// # Safety
/// As for [`panels`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn lines<T: Element, const PARTS: usize>(
    x: *const T,
    stride: usize,
    [rows, terms]: [usize; 2],
) -> [[__m512i; 16]; PARTS] {
    let mut out = [[_mm512_setzero_si512(); 16]; PARTS];
    for row in 0..rows {
        // SAFETY: a row's terms: the first sixteen of them, and the rest.
        let (low, high) = unsafe {
            let at = x.add(row * stride);
            let after = at.add(terms.min(16));
            (T::load::<PARTS>(at, terms), T::load::<PARTS>(after, terms.saturating_sub(16)))
        };
        for (part, out) in out.iter_mut().enumerate() {
            let low = _mm512_castsi256_si512(low[part]);
            out[row] = _mm512_inserti64x4::<1>(low, high[part]);
        }
    }
    out
}

/// A vector a pair of terms, of rows that lie next to one another.
///
/// # Safety
/// As for [`panels`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pairs<T: Element, const PARTS: usize>(
    x: *const T,
    stride: usize,
    [rows, terms]: [usize; 2],
) -> [[__m512i; 16]; PARTS] {
    let mut out = [[_mm512_setzero_si512(); 16]; PARTS];
    for pair in 0..terms.div_ceil(2) {
        // SAFETY: the elements of a term, and of the next one if there is one.
        let (even, odd) = unsafe {
            let at = x.add(2 * pair * stride);
            let odd = match 2 * pair + 1 < terms {
                true => T::load::<PARTS>(at.add(stride), rows),
                false => [_mm256_setzero_si256(); PARTS],
            };
            (T::load::<PARTS>(at, rows), odd)
        };
        for (part, out) in out.iter_mut().enumerate() {
            let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd[part]));
            out[pair] = _mm512_or_si512(high, _mm512_cvtepu16_epi32(even[part]));
        }
    }
    out
}
