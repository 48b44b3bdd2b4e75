//! Products that go by zeros: against sums in f64, with the bits of products that do not, and no turn at the
//! banks lost.

use half::{bf16, f16};
use warploss::emulator::{Description, Emulator, Launch};

/// `BlockSparseArgs` of `kernels/core/args_generated.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Args {
    a: u64,
    a_rest: u64,
    b: u64,
    b_rest: u64,
    flags: u64,
    c: u64,
    m: i64,
    n: i64,
    k: i64,
    a_stride: i64,
    b_stride: i64,
    c_stride: i64,
    tiles: i64,
    add: u32,
    pad: u32,
}

/// A matrix `[rows, columns]` in two parts, of whose pieces of 32 by 64 those alone are no zeros whose bit its tile's
/// flag has; and one `[k, n]`.
struct Case {
    sizes: [usize; 2],
    n: usize,
    /// Elements between rows.
    strides: [usize; 3],
    parts: [usize; 2],
    /// Of tiles of 128 by 256.
    flags: Vec<u32>,
    a: [Vec<bf16>; 2],
    b: [Vec<bf16>; 2],
}

/// Numbers of a few bits in [-1, 1].
fn number(seed: usize, i: usize) -> f32 {
    let mixed = (i + 1000 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 40) % 65) as f32 / 32.0 - 1.0
}

/// A tile's flag: none, all, and a few of the sixteen.
fn flag(tile: usize) -> u32 {
    [0x2c91, 0, 0xffff, 0x8000, 0x0e01][tile % 5]
}

fn has(flags: &[u32], columns: usize, [row, column]: [usize; 2]) -> bool {
    let flag = flags[row / 128 * columns.div_ceil(256) + column / 256];
    flag >> (column % 256 / 64 * 4 + row % 128 / 32) & 1 != 0
}

impl Case {
    fn new([rows, columns]: [usize; 2], turned: bool, n: usize, strides: [usize; 3]) -> Case {
        let [down, across] = [rows.div_ceil(128), columns.div_ceil(256)];
        let flags: Vec<u32> = (0..down * across).map(flag).collect();
        let k = if turned { rows } else { columns };
        let of_a = |part: usize| {
            let mut a = vec![bf16::ZERO; rows * strides[0]];
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
                if has(&flags, columns, [row, column]) {
                    let small = if part > 0 { 1.0 / 256.0 } else { 1.0 };
                    let value = small * number(1 + part, row * columns + column);
                    a[row * strides[0] + column] = bf16::from_f32(value);
                }
            }
            a
        };
        let of_b = |part: usize| {
            let mut b = vec![bf16::NAN; k * strides[1]];
            for (row, column) in (0..k).flat_map(|row| (0..n).map(move |c| (row, c))) {
                let small = if part > 0 { 1.0 / 256.0 } else { 1.0 };
                b[row * strides[1] + column] =
                    bf16::from_f32(small * number(5 + part, row * n + column));
            }
            b
        };
        let (a, b) = ([0, 1].map(of_a), [0, 1].map(of_b));
        Case { sizes: [rows, columns], n, strides, parts: [2, 2], flags, a, b }
    }

    /// m, n and k of the product.
    fn product(&self, turned: bool) -> [usize; 3] {
        let [rows, columns] = self.sizes;
        if turned { [columns, self.n, rows] } else { [rows, self.n, columns] }
    }

    /// Sums of all pairs of parts but the lesser ones', and of the terms' sizes.
    fn expected(&self, turned: bool) -> Vec<[f64; 2]> {
        let [m, n, k] = self.product(turned);
        let [a_stride, b_stride, _] = self.strides;
        let mut sums = vec![[0.0; 2]; m * n];
        for row in 0..m {
            for of in 0..k {
                let at = if turned { of * a_stride + row } else { row * a_stride + of };
                let a = [0, 1].map(|part| f64::from(self.a[part][at]));
                if a[0] == 0.0 && a[1] == 0.0 {
                    continue;
                }
                for column in 0..n {
                    let b = [0, 1].map(|part| f64::from(self.b[part][of * b_stride + column]));
                    let second = if self.parts[0] > 1 { a[1] * b[0] } else { 0.0 };
                    let third = if self.parts[1] > 1 { a[0] * b[1] } else { 0.0 };
                    let term = a[0] * b[0] + second + third;
                    let sum = &mut sums[row * n + column];
                    *sum = [sum[0] + term, sum[1] + term.abs()];
                }
            }
        }
        sums
    }

    /// What a kernel leaves of numbers of so many bytes in memory that was there, `to`. `unwritten`: tiles that are zeros
    /// alone are NaN, which nobody may read; else everything is flagged.
    fn run(
        &self,
        (kernel, seed): (&str, Option<u64>),
        (to, size, add): (&[u8], usize, bool),
        unwritten: bool,
    ) -> Vec<u8> {
        let turned = kernel.contains("turned") || kernel.contains("sums");
        let description = Description { bank_conflicts: true, ..Description::h100() };
        let emulator = Emulator::new(description).unwrap();
        let emulator = match seed {
            None => emulator,
            Some(seed) => emulator.with_seed(seed),
        };
        let up = |bytes: &[u8]| {
            let address = emulator.alloc(bytes.len() as u64).unwrap();
            emulator.copy_to_device(address, bytes).unwrap();
            address
        };
        let bits =
            |values: &[bf16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let [rows, columns] = self.sizes;
        let across = columns.div_ceil(256);
        let mut a = self.a.clone();
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
            if unwritten && self.flags[row / 128 * across + column / 256] == 0 {
                a.iter_mut().for_each(|a| a[row * self.strides[0] + column] = bf16::NAN);
            }
        }
        let flags: Vec<u8> = self
            .flags
            .iter()
            .flat_map(|&flag| if unwritten { flag } else { 0xffff }.to_le_bytes())
            .collect();
        let c = up(to);
        let [m, n, k] = self.product(turned).map(|size| size as i64);
        let [a_stride, b_stride, c_stride] = self.strides.map(|stride| stride as i64);
        let second = |parts: usize, values: &[bf16]| if parts > 1 { up(&bits(values)) } else { 0 };
        let args = Args {
            a: up(&bits(&a[0])),
            a_rest: second(self.parts[0], &a[1]),
            b: up(&bits(&self.b[0])),
            b_rest: second(self.parts[1], &self.b[1]),
            flags: up(&flags),
            c,
            m,
            n,
            k,
            a_stride,
            b_stride,
            c_stride,
            tiles: across as i64,
            add: add.into(),
            pad: 0,
        };
        // SAFETY: numbers without padding.
        let args =
            unsafe { std::slice::from_raw_parts((&raw const args).cast(), size_of::<Args>()) };
        let sums = kernel.contains("sums");
        let blocks = if sums { columns.div_ceil(32) } else { self.blocks(turned) };
        let shared = if sums { 0 } else { 3 * (128 + 256) * 32 * 2 };
        let (grid, cluster, leads, early) = ([blocks as u32, 1], 1, false, false);
        let launch = Launch { kernel, grid, threads: 256, cluster, shared, leads, early, args };
        let stats = emulator.launch(&launch).unwrap();
        assert_eq!(stats.bank_conflicts, 0, "{kernel}, {:?}, {seed:?}", self.sizes);
        let mut bytes = vec![0; to.len() / size * size];
        emulator.copy_to_host(c, &mut bytes).unwrap();
        bytes
    }

    fn blocks(&self, turned: bool) -> usize {
        let [m, n, _] = self.product(turned);
        m.div_ceil(128) * n.div_ceil(256)
    }

    /// Compares what a kernel leaves with sums in f64, and with what it leaves where every tile is gone through.
    fn holds(
        &self,
        kernel: &str,
        (size, wide): (usize, fn(&[u8]) -> f64),
        (off, add): (f64, bool),
    ) {
        let turned = kernel.contains("turned");
        let [m, n, _] = self.product(turned);
        let (expected, stride) = (self.expected(turned), self.strides[2]);
        // 1 and 2 in the type's bits, or 0.
        let there: Vec<u8> = (0..m * stride).flat_map(|_| self.there(size)).collect();
        let before = if add { wide(&self.there(size)) } else { 0.0 };
        let got = self.run((kernel, None), (&there, size, add), true);
        let all = self.run((kernel, Some(7)), (&there, size, add), false);
        assert!(got == all, "{kernel}, {:?}: other bits", self.sizes);
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |c| (row, c))) {
            let at = size * (row * stride + column);
            let (got, [sum, sizes]) = (wide(&got[at..at + size]), expected[row * n + column]);
            let wanted = sum + before;
            let far = off * wanted.abs() + 1e-5 * sizes + 1e-30;
            assert!((got - wanted).abs() <= far, "{kernel}[{row}, {column}]: {got}, {wanted}");
        }
        // What lies between rows is nobody's.
        for at in (0..m).flat_map(|row| size * (row * stride + n)..size * (row + 1) * stride) {
            assert_eq!(got[at], there[at]);
        }
    }

    fn there(&self, size: usize) -> Vec<u8> {
        match size {
            4 => 1.5f32.to_le_bytes().to_vec(),
            // Of f16 0.0075, of bf16 a number near 0.
            _ => bf16::from_f32(0.0078125).to_le_bytes().to_vec(),
        }
    }
}

fn f32_of(bytes: &[u8]) -> f64 {
    f32::from_le_bytes(bytes.try_into().unwrap()).into()
}
fn f16_of(bytes: &[u8]) -> f64 {
    f16::from_le_bytes(bytes.try_into().unwrap()).into()
}
fn bf16_of(bytes: &[u8]) -> f64 {
    bf16::from_le_bytes(bytes.try_into().unwrap()).into()
}

/// Sizes about those of tiles, stages and pieces; rows that begin at multiples of 16 bytes, and such as do not; each
/// number of parts.
#[test]
fn zeros_are_gone_by_and_leave_every_bit() {
    type Kernel = (&'static str, (usize, fn(&[u8]) -> f64), f64);
    let plain: Kernel = ("test_sparse_f32", (4, f32_of), 1e-6);
    let half: Kernel = ("test_sparse_turned_f16", (2, f16_of), 1.0 / 2048.0);
    let brain: Kernel = ("test_sparse_turned_bf16", (2, bf16_of), 1.0 / 256.0);
    let cases: [(Kernel, bool, _, _, _, _); 6] = [
        (plain, false, [140, 520], 260, [520, 264, 260], [2, 1]),
        (plain, true, [129, 300], 33, [304, 33, 35], [1, 2]),
        (brain, true, [140, 300], 40, [304, 40, 41], [2, 1]),
        (half, false, [200, 257], 33, [264, 33, 40], [2, 2]),
        (plain, false, [3, 9], 1, [16, 1, 1], [2, 2]),
        (brain, false, [3, 9], 1, [16, 1, 1], [1, 1]),
    ];
    for ((kernel, number, off), add, sizes, n, strides, parts) in cases {
        let case = Case::new(sizes, kernel.contains("turned"), n, strides);
        Case { parts, ..case }.holds(kernel, number, (off, add));
    }
}

#[test]
fn columns_are_added_up_without_zeros() {
    for (sizes, strides) in [([300, 700], [704, 8, 1]), ([5, 33], [40, 8, 1])] {
        let case = Case::new(sizes, true, 1, strides);
        let [rows, columns] = sizes;
        let none = vec![0; 4 * columns];
        let got = case.run(("test_sparse_sums", None), (&none, 4, false), true);
        assert!(got == case.run(("test_sparse_sums", Some(3)), (&none, 4, false), false));
        for column in 0..columns {
            let parts = case
                .a
                .iter()
                .map(|a| (0..rows).map(|row| f64::from(a[row * strides[0] + column])).sum::<f64>());
            let (sum, got) = (parts.sum::<f64>(), f32_of(&got[4 * column..][..4]));
            assert!((got - sum).abs() <= 1e-4, "{column}: {got}, not {sum}");
        }
    }
}
