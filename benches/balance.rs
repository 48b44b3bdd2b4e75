//! The balanced sampler on 10 million samples in a million classes: making it, with its memory, and
//! draws a second. Beside them what is plainest: a library sort of the samples by class, and
//! gathering labels in an order that was shuffled and stored, which every sampler's user does.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use warploss::TensorRef;
use warploss::balance::{
    BalancedSampler, ClassWeights, Phase, SamplerOptions, weights_from_counts,
};

const SAMPLES: usize = 10_000_000;
const CLASSES: usize = 1_000_000;
const BATCH: usize = 4096;

/// Class c about as often as 1 / (c + 1), as words are; every class at least once.
fn labels() -> Vec<u32> {
    let spread = |i: usize| (i as u32).wrapping_mul(2_654_435_761);
    let label = |i: usize| match i {
        0..CLASSES => i as u32,
        _ => ((CLASSES as f64).powf(f64::from(spread(i)) / 4_294_967_296.0) - 1.0) as u32,
    };
    (0..SAMPLES).map(label).collect()
}

fn balance(c: &mut Criterion) {
    let labels = labels();
    let view = || TensorRef::new(&labels, &[SAMPLES]).expect("a legal view");
    let make =
        |options: &SamplerOptions| BalancedSampler::new(view(), options).expect("legal labels");
    let options = SamplerOptions::new(BATCH).classes(CLASSES);
    let sampler = make(&options);
    println!(
        "{} samples, {} classes, the largest of {}: {:.2} bytes a sample; {} batches an epoch",
        sampler.samples(),
        sampler.classes(),
        sampler.largest_class(),
        sampler.bytes() as f64 / SAMPLES as f64,
        sampler.epoch_batch_count(Phase::Balanced)
    );

    let mut group = c.benchmark_group("balance");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(SAMPLES as u64));
    group.bench_function("build", |b| b.iter(|| make(&options)));

    group.bench_function("build, by a sort", |b| {
        b.iter(|| {
            let mut order: Vec<u32> = (0..SAMPLES as u32).collect();
            order.sort_unstable_by_key(|&i| (labels[i as usize], i));
            order
        })
    });

    group.throughput(Throughput::Elements(BATCH as u64));
    let order: Vec<usize> = make(&options.clone().epochs(0).closing_epochs(1)).flatten().collect();
    let mut batches = order.chunks(BATCH).cycle();
    let mut gathered = Vec::new();
    group.bench_function(BenchmarkId::new("draw", "none: gather by a stored order"), |b| {
        b.iter(|| {
            gathered.clear();
            gathered.extend(batches.next().into_iter().flatten().map(|&i| labels[i]));
        });
    });
    for (name, options) in [
        ("shuffled", options.clone()),
        ("unshuffled", options.clone().shuffle(false)),
        ("natural", options.clone().epochs(0).closing_epochs(u64::MAX)),
    ] {
        let mut sampler = make(&options);
        let mut batch = Vec::new();
        group.bench_function(BenchmarkId::new("draw", name), |b| {
            b.iter(|| assert!(sampler.next_into(&mut batch)));
        });
    }

    let mut counts = vec![0u64; CLASSES];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let rule = ClassWeights::effective_number(0.999);
    group.throughput(Throughput::Elements(CLASSES as u64));
    group.bench_function("weights", |b| b.iter(|| weights_from_counts(&counts, rule)));
    group.finish();
}

criterion_group!(benches, balance);
criterion_main!(benches);
