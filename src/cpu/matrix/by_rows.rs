//! Products whose rows and columns do not know of one another: an element of `c` has the same bits however many
//! rows and columns there are, and wherever it stands among them.
//!
//! The `gemm` crate takes other ways where a product is small: along rows of both factors where `c` has few
//! elements, a matrix by a vector where it has one row or column, and longer or shorter pieces of `k`, by the
//! rows that there are. Here `k` is cut into pieces of one length, each of which the crate takes as a whole,
//! and small products are made among rows and columns of zeros.

use crate::cpu::matrix::product::{Panel, whole};
use crate::cpu::matrix::scratch::with_scratch;

/// Terms that are added up in one piece.
const PIECE: usize = 512;
/// Elements of `c` that are enough for the crate's general way, and columns.
const ELEMENTS: usize = 256;
const COLUMNS: usize = 8;

/// As [`product`](crate::cpu::matrix::product::product); the bits of an element of `c` follow from `k`, its row of `a` and its column of `b` (and
/// itself), and from which way the factors lie.
///
/// # Safety
/// As for [`whole`].
pub(crate) unsafe fn product_by_rows(
    add: bool,
    c: Panel,
    [a, b]: [Panel; 2],
    [m, n, k]: [usize; 3],
) {
    if m == 0 || n == 0 {
        return;
    }
    let columns = n.max(COLUMNS);
    let rows = m.max(ELEMENTS / columns + 1).max(2);
    if (rows, columns) == (m, n) {
        // SAFETY: the caller's promise.
        return unsafe { in_pieces(add, c, [a, b], [m, n, k]) };
    }
    let of_b = if columns == n { 0 } else { columns * k };
    with_scratch([rows * columns, rows * k, of_b], |[wide_c, wide_a, wide_b]| {
        wide_a.fill(0.0);
        wide_b.fill(0.0);
        wide_c.fill(0.0);
        let to = Panel::of_mut(wide_c, columns);
        let rows_of_a = Panel::of_mut(wide_a, k);
        let columns_of_b = if of_b == 0 { b } else { Panel::of_mut(wide_b, k).transposed() };
        // SAFETY: the scratch has the elements of all three, with as many more as were added; else the caller's
        // promise.
        unsafe {
            rows_of_a.copy(a, [m, k]);
            if of_b > 0 {
                columns_of_b.copy(b, [k, n]);
            }
            if add {
                to.copy(c, [m, n]);
            }
            in_pieces(add, to, [rows_of_a, columns_of_b], [rows, columns, k]);
            c.copy(to, [m, n]);
        }
    });
}

/// # Safety
/// As for [`whole`].
unsafe fn in_pieces(add: bool, c: Panel, [a, b]: [Panel; 2], [m, n, k]: [usize; 3]) {
    for at in (0..k.max(1)).step_by(PIECE) {
        let terms = PIECE.min(k - at);
        // SAFETY: columns of `a` and rows of `b` that there are; else the caller's promise.
        unsafe { whole(add || at > 0, c, [a.at(0, at), b.at(at, 0)], [m, n, terms]) };
    }
}

#[cfg(test)]
mod tests {
    use super::product_by_rows;
    use crate::base::random::unit;
    use crate::cpu::matrix::product::Panel;

    /// The first `m` rows of a product, for one way that the factors lie.
    fn some(m: usize, way: usize, add: bool, [n, k]: [usize; 2]) -> Vec<f32> {
        let number = |seed: u64, i: usize| (2.0 * unit(seed, i as u64) - 1.0) as f32;
        let all = 300;
        let a: Vec<f32> = (0..all * k).map(|i| number(1, i)).collect();
        let b: Vec<f32> = (0..n * k).map(|i| number(2, i)).collect();
        // Of row i the same numbers, however the factor lies.
        let turned: Vec<f32> = (0..all * k).map(|i| a[i % all * k + i / all]).collect();
        let (a, b) = match way {
            0 => (Panel::of(&a, k), Panel::of(&b, k).transposed()),
            1 => (Panel::of(&a, k), Panel::of(&b, n)),
            _ => (Panel::of(&turned, all).transposed(), Panel::of(&b, n)),
        };
        let mut c: Vec<f32> = (0..m * n).map(|i| number(3, i)).collect();
        // SAFETY: the panels have those elements.
        unsafe { product_by_rows(add, Panel::of_mut(&mut c, n), [a, b], [m, n, k]) };
        c
    }

    #[test]
    fn a_row_is_the_same_among_any_number_of_rows() {
        for way in 0..3 {
            for k in [1, 2, 7, 70, 512, 513, 1100] {
                for n in [1, 2, 3, 8, 17, 64, 65, 257] {
                    let whole = some(300, way, true, [n, k]);
                    for m in [1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 64, 128, 129] {
                        let got = some(m, way, true, [n, k]);
                        let same = got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "way {way}: {m} rows of {n} columns, {k} terms");
                    }
                }
            }
        }
    }

    #[test]
    fn a_column_is_the_same_among_any_number_of_columns() {
        let (m, k) = (70, 600);
        let number = |seed: u64, i: usize| (2.0 * unit(seed, i as u64) - 1.0) as f32;
        let a: Vec<f32> = (0..m * k).map(|i| number(1, i)).collect();
        let b: Vec<f32> = (0..300 * k).map(|i| number(2, i)).collect();
        let of = |first: usize, n: usize| {
            let mut c = vec![0.0; m * n];
            let columns = Panel::of(&b[first * k..], k).transposed();
            let to = Panel::of_mut(&mut c, n);
            // SAFETY: the panels have those elements.
            unsafe { product_by_rows(false, to, [Panel::of(&a, k), columns], [m, n, k]) };
            c
        };
        let whole = of(0, 300);
        for n in [1, 2, 7, 8, 9, 15, 16, 17, 47, 48, 49, 64, 65, 130, 257] {
            for first in [0, 1, 5, 43] {
                for (at, got) in of(first, n).iter().enumerate() {
                    let wanted = whole[at / n * 300 + first + at % n];
                    assert_eq!(
                        got.to_bits(),
                        wanted.to_bits(),
                        "{n} columns from {first} on, {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn products_are_right_beside_f64() {
        for way in 0..3 {
            for [m, n, k] in [[1, 1, 1], [3, 2, 600], [5, 9, 70], [2, 300, 513], [1, 4, 0]] {
                for add in [false, true] {
                    let number = |seed: u64, i: usize| 2.0 * unit(seed, i as u64) - 1.0;
                    let got = some(m, way, add, [n, k]);
                    for (at, &got) in got.iter().enumerate() {
                        let (row, column) = (at / n, at % n);
                        let of_b =
                            |i: usize| if way == 0 { column * k + i } else { i * n + column };
                        let term = |i| {
                            f64::from(number(1, row * k + i) as f32)
                                * f64::from(number(2, of_b(i)) as f32)
                        };
                        let before = if add { f64::from(number(3, at) as f32) } else { 0.0 };
                        let wanted = before + (0..k).map(term).sum::<f64>();
                        let far = 1e-6 * (1.0 + (0..k).map(|i| term(i).abs()).sum::<f64>());
                        assert!((f64::from(got) - wanted).abs() <= far, "{way} {m} {n} {k} {at}");
                    }
                }
            }
        }
    }
}
