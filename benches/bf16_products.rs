//! Products of bf16 matrices as a linear cross entropy makes them, a tile of logits after another, against
//! f32's: 1024 rows, 100 000 classes, 512 features.
//!
//! `cargo bench --bench bf16_products [ROWS CLASSES [THREADS]]`, with the rows and classes of a tile: GFLOP/s
//! of the logits, of the hidden rows' gradient, and of the weights' gradient, whose left factor is the logits'
//! gradient in f32.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use warploss::{Device, Result, TensorMut, TensorRef, bf16};

const ROWS: usize = 1024;
const CLASSES: usize = 100_000;
const FEATURES: usize = 512;
const PRODUCTS: [&str; 3] = ["logits", "d hidden", "d weight"];

/// By what: f32, or a unit with so many parts of a left factor that is f32.
#[derive(Clone, Copy)]
enum By {
    F32,
    Bf16(usize, usize),
}

/// A matrix of [`FEATURES`] columns, in both types.
struct Matrix {
    wide: Vec<f32>,
    narrow: Vec<bf16>,
}

impl Matrix {
    fn new(rows: usize) -> Matrix {
        let number =
            |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / 4_294_967_296.0 - 0.5;
        let narrow: Vec<_> = (0..rows * FEATURES).map(|i| bf16::from_f32(number(i))).collect();
        Matrix { wide: narrow.iter().map(|x| x.to_f32()).collect(), narrow }
    }

    fn rows(&self, by: By, from: usize, len: usize) -> Result<TensorRef<'_>> {
        let at = from * FEATURES..(from + len) * FEATURES;
        match by {
            By::F32 => TensorRef::new(&self.wide[at], &[len, FEATURES]),
            By::Bf16(..) => TensorRef::new(&self.narrow[at], &[len, FEATURES]),
        }
    }
}

struct Bench {
    hidden: Matrix,
    weight: Matrix,
    gradient: Vec<f32>,
    tile: [usize; 2],
}

impl Bench {
    /// One of the three products of a tile.
    fn call(&self, by: By, which: usize, at: [usize; 2], out: &mut [f32]) -> Result<bool> {
        let [rows, classes] = [self.tile[0].min(ROWS - at[0]), self.tile[1].min(CLASSES - at[1])];
        let hidden = self.hidden.rows(by, at[0], rows)?;
        let weight = self.weight.rows(by, at[1], classes)?;
        let gradient = TensorRef::new(&self.gradient[..rows * classes], &[rows, classes])?;
        let (factors, turned, [m, n]) = match which {
            0 => ([hidden, weight], [false, true], [rows, classes]),
            1 => ([gradient, weight], [false, false], [rows, FEATURES]),
            _ => ([gradient, hidden], [true, false], [classes, FEATURES]),
        };
        let out = TensorMut::new(&mut out[..m * n], &[m, n])?;
        let (unit, parts) = match by {
            By::F32 => (0, 0),
            By::Bf16(unit, parts) => (unit, parts),
        };
        Ok(Device::cpu_product(unit, parts, factors, turned, out))
    }

    /// Seconds of a product of all tiles.
    fn run(&self, by: By, which: usize, threads: usize) -> f64 {
        let tiles = CLASSES.div_ceil(self.tile[1]);
        let next = AtomicUsize::new(0);
        let size = self.tile[1].max(self.tile[0]) * self.tile[1].max(FEATURES);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut out = vec![0.0; size];
                    loop {
                        let tile = next.fetch_add(1, Ordering::Relaxed);
                        if tile >= tiles {
                            break;
                        }
                        for row in (0..ROWS).step_by(self.tile[0]) {
                            let at = [row, tile * self.tile[1]];
                            assert!(self.call(by, which, at, &mut out).expect("legal views"));
                        }
                    }
                });
            }
        });
        begin.elapsed().as_secs_f64()
    }

    /// The largest difference from the f32 product of a tile, as a share of its largest element.
    fn off(&self, by: By, which: usize) -> f32 {
        let size = self.tile[1].max(self.tile[0]) * self.tile[1].max(FEATURES);
        let [mut got, mut expected] = [vec![0.0; size], vec![0.0; size]];
        self.call(by, which, [0, 0], &mut got).expect("legal views");
        self.call(By::F32, which, [0, 0], &mut expected).expect("legal views");
        let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        off / expected.iter().map(|x| x.abs()).fold(0.0, f32::max)
    }
}

fn main() {
    let given: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let (tile, threads) = match *given {
        [rows, classes] => ([rows, classes], vec![1, 2]),
        [rows, classes, threads] => ([rows, classes], vec![threads]),
        _ => ([256, 2048], vec![1, 2]),
    };
    let gradient = |i: usize| ((i as u32).wrapping_mul(2_246_822_519) as f32 / 1e9 - 2.0).exp();
    let bench = Bench {
        hidden: Matrix::new(ROWS),
        weight: Matrix::new(CLASSES),
        gradient: (0..tile[0] * tile[1]).map(gradient).collect(),
        tile,
    };
    let units = Device::cpu_bf16_units();
    for &threads in &threads {
        for (which, product) in PRODUCTS.iter().enumerate() {
            let parts = if which == 0 { 1..2 } else { 1..3 };
            let bf16 = (0..units.len()).flat_map(|u| parts.clone().map(move |p| By::Bf16(u, p)));
            for by in std::iter::once(By::F32).chain(bf16) {
                let off = bench.off(by, which);
                let runs = if matches!(by, By::F32) { 1 } else { 3 };
                let seconds = (0..runs).map(|_| bench.run(by, which, threads));
                let seconds = seconds.fold(f64::INFINITY, f64::min);
                let name = match by {
                    By::F32 => "f32".to_string(),
                    By::Bf16(unit, parts) => format!("{}, parts {parts}", units[unit]),
                };
                let rate = 2e-9 * (ROWS * CLASSES * FEATURES) as f64 / seconds;
                println!(
                    "{product:9} {threads} threads  {name:22} {rate:7.0} GFLOP/s  {seconds:.3} s  off {off:.1e}"
                );
            }
        }
    }
}
