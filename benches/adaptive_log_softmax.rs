//! Adaptive log-softmax: products decide its time, so operations are counted, not bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use warploss::{
    AdaptiveLogSoftmax, AdaptiveParameters, Device, Float, LayerGradOut, LayerOut, Tensor,
    TensorRef, bf16,
};

const ROWS: usize = 1024;
const FEATURES: usize = 512;
const CUTOFFS: [usize; 3] = [2_000, 10_000, 50_000];
const CLASSES: usize = 100_000;

/// Targets whose logarithm is even: as words come.
fn targets() -> Vec<i64> {
    let place = |row: usize| (row * 7919 % ROWS) as f64 / ROWS as f64;
    (0..ROWS).map(|row| (CLASSES as f64).powf(place(row)) as i64 - 1).collect()
}

/// Multiplications and additions of the forward products.
fn operations(adaptive: &AdaptiveLogSoftmax<'_>, targets: &[i64]) -> u64 {
    let head = ROWS * FEATURES * (CUTOFFS[0] + CUTOFFS.len());
    let tails = (0..adaptive.clusters()).map(|i| {
        let classes = adaptive.cluster(i);
        let rows = targets.iter().filter(|&&t| classes.contains(&(t as usize))).count();
        rows * adaptive.width(i) * (FEATURES + classes.len())
    });
    2 * (head + tails.sum::<usize>()) as u64
}

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::cpu();
    let adaptive = AdaptiveLogSoftmax::new(FEATURES, CLASSES, &CUTOFFS);
    let parameters = adaptive.init(T::DTYPE, 7).expect("legal options");
    let zeros = |p: &Tensor| {
        Tensor::from_vec(vec![T::from_f32(0.0); p.shape().iter().product()], &p.shape())
    };
    let mut gradients: AdaptiveParameters<Tensor> =
        parameters.try_map(|_, p| zeros(p)).expect("memory");
    let input: Vec<T> = (0..ROWS * FEATURES)
        .map(|i| T::from_f32(((i as u32).wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0))
        .collect();
    let (targets, mut grad_input) = (targets(), input.clone());
    let mut output = Tensor::from_vec(vec![0f32; ROWS], &[ROWS]).expect("a shape");
    let mut loss = Tensor::from_vec(vec![0f32], &[]).expect("a shape");
    let shape = [ROWS, FEATURES];
    let forward = operations(&adaptive, &targets);
    for (name, products) in [("forward", 1), ("forward-backward", 3)] {
        let mut group = c.benchmark_group(format!("adaptive-log-softmax/{name}"));
        group.sample_size(10).warm_up_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(products * forward));
        let id = BenchmarkId::new(T::DTYPE.name(), format!("{ROWS}x{FEATURES}x{CLASSES}"));
        let mut call = || -> warploss::Result<()> {
            let (input, target) =
                (TensorRef::new(&input, &shape)?, TensorRef::new(&targets, &[ROWS])?);
            let (out, view) =
                (LayerOut { output: output.view_mut(), loss: loss.view_mut() }, parameters.view());
            if products == 1 {
                return adaptive.forward_into(&device, &view, (input, target), out);
            }
            let gradients = LayerGradOut {
                input: Some(warploss::TensorMut::new(&mut grad_input, &shape)?),
                parameters: Some(gradients.view_mut()),
                accumulate: false,
            };
            let written = (out, gradients);
            adaptive.forward_backward_into(&device, &view, (input, target), 1.0, written)
        };
        group.bench_function(id, |b| b.iter(|| call().expect("a legal call")));
        group.finish();
    }
}

criterion_group!(adaptive, passes::<f32>, passes::<bf16>);
criterion_main!(adaptive);
