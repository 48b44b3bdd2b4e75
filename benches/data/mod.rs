//! What the benches share: shapes, inputs and the model of bytes moved.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use std::time::Duration;
use warploss::{Float, Result};

/// A vocabulary of today and a smaller one, with as many rows as make about 130 M logits.
pub(crate) const SHAPES: [[usize; 2]; 2] = [[1024, 128_256], [4096, 32_000]];

/// Logits between −4 and 4, the same on every run.
pub(crate) fn logits<T: Float>([rows, classes]: [usize; 2]) -> Vec<T> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 16;
    let value = |i| (hash(i) % 129) as f32 / 16.0 - 4.0;
    (0..rows * classes).map(|i| T::from_f32(value(i))).collect()
}

/// A group whose calls take long enough that ten samples do.
pub(crate) fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group
}

/// Times `call`, which moves `bytes` per element of `shape` to or from memory.
pub(crate) fn time<T: Float>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    shape @ [rows, classes]: [usize; 2],
    bytes: usize,
    mut call: impl FnMut() -> Result<()>,
) {
    let id = BenchmarkId::new(T::DTYPE.name(), format!("{rows}x{classes}"));
    group.throughput(Throughput::Bytes((bytes * shape.iter().product::<usize>()) as u64));
    group.bench_function(id, |b| b.iter(|| call().expect("a legal call")));
}
