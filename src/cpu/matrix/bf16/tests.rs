//! Products against f64, and their bits against one another.

use super::{COLUMNS, DEPTH, Factor, Packed, Parts, ROWS, Unit, multiply, packed_len, product};
use crate::cpu::matrix::product::Panel;
use half::bf16;

/// Numbers between −1 and 1 that repeat after no length that matters.
fn number(seed: usize) -> f32 {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 40) as f32 / 8_388_608.0 - 1.0
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| number(i + seed * 7919)).collect()
}

fn rounded(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

/// How the factors lie.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// `a·bᵀ`
    Dots,
    /// `a·b`
    Plain,
    /// `aᵀ·b`
    Outer,
}

const ORDERS: [Order; 3] = [Order::Dots, Order::Plain, Order::Outer];

/// A product's factors, with rows further apart than they are long.
struct Case {
    order: Order,
    sizes: [usize; 3],
    a: Vec<f32>,
    narrow: Vec<bf16>,
    b: Vec<bf16>,
    strides: [usize; 2],
}

impl Case {
    fn new(order: Order, [m, n, k]: [usize; 3]) -> Case {
        let strides = match order {
            Order::Dots => [k + 3, k + 5],
            Order::Plain => [k + 3, n + 1],
            Order::Outer => [m + 1, n + 7],
        };
        let a = numbers(strides[0] * m.max(k), 1);
        let (narrow, b) = (rounded(&a), rounded(&numbers(strides[1] * n.max(k), 2)));
        Case { order, sizes: [m, n, k], a, narrow, b, strides }
    }

    /// `None`: the left factor in bf16.
    fn left(&self, parts: Option<Parts>) -> Factor {
        let turned = matches!(self.order, Order::Outer);
        match parts {
            Some(parts) => {
                let a = Panel::of(&self.a, self.strides[0]);
                Factor::F32(if turned { a.transposed() } else { a }, parts)
            }
            None => {
                let a = Panel::of(&self.narrow, self.strides[0]);
                Factor::Bf16(if turned { a.transposed() } else { a })
            }
        }
    }

    fn right(&self) -> Panel<bf16> {
        let b = Panel::of(&self.b, self.strides[1]);
        if matches!(self.order, Order::Dots) { b.transposed() } else { b }
    }

    /// The terms of an element, in f64.
    fn terms(&self, narrow: bool, i: usize, j: usize) -> impl Iterator<Item = f64> {
        (0..self.sizes[2]).map(move |p| {
            let a = match self.order {
                Order::Outer => p * self.strides[0] + i,
                _ => i * self.strides[0] + p,
            };
            let b = match self.order {
                Order::Dots => j * self.strides[1] + p,
                _ => p * self.strides[1] + j,
            };
            let a = if narrow { self.narrow[a].to_f64() } else { f64::from(self.a[a]) };
            a * self.b[b].to_f64()
        })
    }

    /// The product of some rows and columns.
    fn part(
        &self,
        unit: Unit,
        parts: Option<Parts>,
        [rows, columns]: [std::ops::Range<usize>; 2],
    ) -> Vec<f32> {
        let mut c = vec![f32::NAN; rows.len() * columns.len()];
        let out = Panel::of_mut(&mut c, columns.len());
        let sizes = [rows.len(), columns.len(), self.sizes[2]];
        // SAFETY: rows and columns of the case's factors, and as many of `c`.
        unsafe {
            let a = self.left(parts).at(rows.start, 0);
            product(unit, false, out, (a, self.right().at(0, columns.start)), sizes);
        }
        c
    }
}

const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 1, 0],
    [193, 517, 70],
    [33, 17, 123],
    [16, 32, 32],
    [17, 33, 31],
    [3, 100, 33],
    [64, 48, DEPTH],
    [5, 40, DEPTH + 1],
    [31, 15, 2 * DEPTH + 77],
    [ROWS + 1, COLUMNS + 1, 5],
    [2, 2 * COLUMNS + 3, 64],
];

#[test]
fn products_are_those_of_f64_to_f32_sums() {
    for unit in Unit::available() {
        for order in ORDERS {
            for sizes @ [m, n, k] in SHAPES {
                let case = Case::new(order, sizes);
                for (parts, add) in [None, Some(Parts::One), Some(Parts::Two)]
                    .into_iter()
                    .flat_map(|parts| [(parts, false), (parts, true)])
                {
                    let before = numbers(m * (n + 2), 3);
                    let mut c = before.clone();
                    let out = Panel::of_mut(&mut c, n + 2);
                    // SAFETY: the case's factors and `c` have those elements.
                    unsafe { product(unit, add, out, (case.left(parts), case.right()), sizes) };
                    // An f32 factor in two parts loses 2⁻¹⁷ of each element; else it is as it was, or rounded.
                    let lost = if parts == Some(Parts::Two) { 2f64.powi(-17) } else { 0.0 };
                    for i in 0..m {
                        for j in 0..n + 2 {
                            let (got, was) = (c[i * (n + 2) + j], before[i * (n + 2) + j]);
                            if j >= n {
                                assert_eq!(got, was, "beyond the columns");
                                continue;
                            }
                            let base = if add { f64::from(was) } else { 0.0 };
                            let narrow = parts != Some(Parts::Two);
                            let expected = base + case.terms(narrow, i, j).sum::<f64>();
                            let scale = case.terms(narrow, i, j).map(f64::abs).sum::<f64>();
                            // Sums of random signs: far from the bound of k roundings.
                            let depth = (k as f64).sqrt() + 4.0;
                            let bound = (base.abs() + scale) * (lost + depth * 2f64.powi(-24));
                            assert!(
                                (f64::from(got) - expected).abs() <= bound,
                                "{} {order:?} {sizes:?} {parts:?} {add} at {i}, {j}: {got} for {expected}",
                                unit.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn two_parts_are_256_times_nearer_than_one() {
    for unit in Unit::available() {
        let case = Case::new(Order::Plain, [40, 40, 300]);
        let worst = |parts: Parts| {
            let c = case.part(unit, Some(parts), [0..40, 0..40]);
            let off = |at: usize| {
                (f64::from(c[at]) - case.terms(false, at / 40, at % 40).sum::<f64>()).abs()
            };
            (0..1600).map(off).fold(0.0, f64::max)
        };
        let [one, two] = [Parts::One, Parts::Two].map(worst);
        assert!(two * 64.0 < one, "{}: {one:e} by one part, {two:e} by two", unit.name());
    }
}

/// Every border: of a step, a panel, a pair of panels, and a block.
#[test]
fn bits_depend_on_the_row_the_column_and_the_depth_alone() {
    for unit in Unit::available() {
        for order in ORDERS {
            for k in [1, 31, 33, 70, DEPTH - 1, DEPTH + 33] {
                for parts in [None, Some(Parts::One), Some(Parts::Two)] {
                    let [m, n] = [ROWS + 35, COLUMNS + 35];
                    let case = Case::new(order, [m, n, k]);
                    let whole = case.part(unit, parts, [0..m, 0..n]);
                    let same = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
                        let piece = case.part(unit, parts, [rows.clone(), columns.clone()]);
                        for (at, got) in piece.iter().enumerate() {
                            let i = rows.start + at / columns.len();
                            let j = columns.start + at % columns.len();
                            assert_eq!(
                                got.to_bits(),
                                whole[i * n + j].to_bits(),
                                "{} {order:?} {k} {parts:?}: {i}, {j} of {rows:?} × {columns:?}",
                                unit.name()
                            );
                        }
                    };
                    for row in [0, 7, 8, 15, 16, 31, 32, ROWS - 1, ROWS, m - 1] {
                        same(row..row + 1, COLUMNS - 20..n);
                    }
                    for column in [0, 15, 16, 31, 32, COLUMNS - 1, COLUMNS, n - 1] {
                        same(ROWS - 20..m, column..column + 1);
                    }
                    for [rows, columns] in [[2, 3], [9, 17], [17, 33], [33, 15]] {
                        same(5..5 + rows, 11..11 + columns);
                    }
                }
            }
        }
    }
}

#[test]
fn packed_factors_give_the_bits_of_factors_where_they_lie() {
    for unit in Unit::available() {
        for sizes @ [m, n, k] in [[50, 70, 90], [20, COLUMNS + 20, DEPTH + 5], [ROWS + 9, 33, 64]] {
            let case = Case::new(Order::Dots, sizes);
            let lens = [packed_len(m, k, Parts::Two), packed_len(n, k, Parts::One)];
            let [mut left, mut right] = lens.map(|len| vec![f32::NAN; len]);
            let mut c = vec![0.0; m * n];
            // SAFETY: the case's factors and `c` have those elements.
            unsafe {
                let a = Packed::left(unit, case.left(Some(Parts::Two)), [m, k], &mut left);
                let b = Packed::right(unit, case.right(), [k, n], &mut right);
                multiply(unit, false, Panel::of_mut(&mut c, n), [a, b], sizes);
            }
            assert_eq!(c, case.part(unit, Some(Parts::Two), [0..m, 0..n]));
        }
    }
}

/// The only element of a product of one row and one column.
fn dot(unit: Unit, parts: Parts, a: &[f32], b: &[f32]) -> f32 {
    let (b, mut c) = (rounded(b), [f32::NAN]);
    let factors = (Factor::F32(Panel::of(a, a.len()), parts), Panel::of(&b, 1));
    // SAFETY: as many terms in both.
    unsafe { product(unit, false, Panel::of_mut(&mut c, 1), factors, [1, 1, a.len()]) };
    c[0]
}

#[test]
fn extremes_go_through() {
    for unit in Unit::available() {
        let two = |a: f32, b: f32| dot(unit, Parts::Two, &[a], &[b]);
        for (a, b, expected) in [
            (f32::INFINITY, 2.0, f32::INFINITY),
            (f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY),
            (f32::INFINITY, f32::NEG_INFINITY, f32::NAN),
            (f32::NAN, 1.0, f32::NAN),
            (1.0, f32::NAN, f32::NAN),
            (f32::INFINITY, 0.0, f32::NAN),
            // The nearest bf16 is infinite.
            (f32::MAX, 1.0, f32::MAX * (1.0 - 1.0 / 65536.0)),
            (-f32::MAX, 0.5, f32::MAX * -0.5 * (1.0 - 1.0 / 65536.0)),
            (f32::MAX, 4.0, f32::INFINITY),
            (0.0, -1.0, 0.0),
        ] {
            let got = two(a, b);
            let near = ((got - expected) / expected).abs() <= 2f32.powi(-16);
            let same = got == expected || got.is_nan() && expected.is_nan() || near;
            assert!(same, "{}: {a:e} · {b:e} is {got:e}, not {expected:e}", unit.name());
        }
        // An infinite right factor: of parts with one sign it is infinite, of both signs NaN, of none NaN.
        assert!(dot(unit, Parts::One, &[1.5], &[f32::INFINITY]) == f32::INFINITY);
        assert!(two(1.5, f32::INFINITY).is_nan());
        // Signalling NaN and the least of mantissas remain NaN in either number of parts.
        let quiet = f32::from_bits(0x7f80_0001);
        assert!(two(quiet, 1.0).is_nan() && dot(unit, Parts::One, &[quiet], &[1.0]).is_nan());
    }
}

#[test]
fn subnormal_numbers_count_as_zero() {
    let (least, below) = (f32::MIN_POSITIVE, f32::MIN_POSITIVE / 2.0);
    for unit in Unit::available() {
        for parts in [Parts::One, Parts::Two] {
            let name = unit.name();
            assert_eq!(dot(unit, parts, &[least], &[1.0]), least, "{name}");
            assert_eq!(dot(unit, parts, &[below], &[1024.0]), 0.0, "{name}");
            assert_eq!(dot(unit, parts, &[1024.0], &[below]), 0.0, "{name}");
            // A sum that is subnormal is none.
            assert_eq!(dot(unit, parts, &[least], &[0.5]), 0.0, "{name}");
        }
        // What is left of a small number is lost, and no more than 2⁻¹²⁶ is.
        let small = 1.999 * 2f32.powi(-120);
        let off = f64::from(dot(unit, Parts::Two, &[small], &[1.0])) - f64::from(small);
        assert!(off.abs() <= f64::from(least), "{}: {off:e}", unit.name());
    }
}

#[test]
fn large_terms_that_cancel_leave_the_small_ones() {
    for unit in Unit::available() {
        for k in [2, 3, 64, 1000] {
            // 2²⁰ and its opposite far apart; ones between them lose what f32 sums lose.
            let mut a = vec![1.0f32; k];
            (a[0], a[k - 1]) = (1_048_576.0, -1_048_576.0);
            let got = dot(unit, Parts::Two, &a, &vec![1.0; k]);
            let expected = (k - 2) as f32;
            let bound = k as f32 * 1_048_576.0 * 2f32.powi(-24);
            assert!((got - expected).abs() <= bound, "{} {k}: {got}", unit.name());
        }
    }
}

#[test]
fn threads_have_tiles_of_their_own() {
    let Some(unit) = Unit::available().pop() else { return };
    let case = Case::new(Order::Plain, [70, 70, 600]);
    let expected = case.part(unit, Some(Parts::Two), [0..70, 0..70]);
    let go = || {
        for _ in 0..50 {
            assert_eq!(case.part(unit, Some(Parts::Two), [0..70, 0..70]), expected);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(go))));
}
