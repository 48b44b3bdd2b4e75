//! What the benches share: shapes, inputs and the model of bytes moved.

mod logits;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use std::time::Duration;
use warploss::{Float, Result};

pub(crate) use logits::logits;

/// A vocabulary of today and a smaller one, with as many rows as make about 130 M logits.
pub(crate) const SHAPES: [[usize; 2]; 2] = [[1024, 128_256], [4096, 32_000]];

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
