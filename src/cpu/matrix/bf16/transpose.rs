//! Sixteen vectors of sixteen words as a matrix, turned.

use std::arch::x86_64::*;

/// Word j of vector i becomes word i of vector j.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(x: &mut [__m512i; 16]) {
    // Words, then pairs of them, change places within quarters of 4 × 4.
    let mut y = *x;
    for i in (0..16).step_by(4) {
        let [a, b, c, d] = [x[i], x[i + 1], x[i + 2], x[i + 3]];
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        y[i] = _mm512_unpacklo_epi64(ab, cd);
        y[i + 1] = _mm512_unpackhi_epi64(ab, cd);
        y[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        y[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    // Quarter q of y[4·r + j] now holds column 4·q + j of rows 4·r and the next three.
    for j in 0..4 {
        let [a, b, c, d] = [y[j], y[j + 4], y[j + 8], y[j + 12]];
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        let (ab_odd, cd_odd) =
            (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        x[j] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        x[j + 8] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        x[j + 4] = _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd);
        x[j + 12] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd);
    }
}

#[cfg(test)]
mod tests {
    use super::transpose;
    use std::arch::x86_64::*;

    #[test]
    fn rows_become_columns() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        let rows: [[i32; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| (16 * i + j) as i32));
        let mut columns = [[0i32; 16]; 16];
        // SAFETY: the processor has AVX-512, as was just asked; vectors are sixteen words of memory.
        unsafe {
            let mut x = rows.map(|row| _mm512_loadu_si512(row.as_ptr().cast()));
            transpose(&mut x);
            for (to, x) in columns.iter_mut().zip(x) {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
            }
        }
        for (i, row) in rows.iter().enumerate() {
            for (j, word) in row.iter().enumerate() {
                assert_eq!(columns[j][i], *word);
            }
        }
    }
}
