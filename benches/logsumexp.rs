//! Log-sum-exp over the last dimension, the calls and the byte model of `warploss bench
//! logsumexp`: forward reads the input, backward reads it and writes the gradient.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{Device, Float, LogSumExp, TensorMut, TensorRef, bf16};

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    let op = LogSumExp::dims(&[-1]).expect("one dimension");
    for shape in data::SHAPES {
        let rows = [shape[0]];
        let input = data::logits::<T>(shape);
        let mut output = vec![0f32; shape[0]];

        let mut group = data::group(c, "logsumexp/forward");
        data::time::<T>(&mut group, shape, size_of::<T>(), || {
            let output = TensorMut::new(&mut output, &rows)?;
            op.forward_into(&device, TensorRef::new(&input, &shape)?, output)
        });
        group.finish();

        let upstream = vec![1f32; shape[0]];
        let mut grad = vec![T::default(); input.len()];
        let mut group = data::group(c, "logsumexp/backward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let (output, upstream) =
                (TensorRef::new(&output, &rows)?, TensorRef::new(&upstream, &rows)?);
            let grad = TensorMut::new(&mut grad, &shape)?;
            op.backward_into(&device, TensorRef::new(&input, &shape)?, output, upstream, grad)
        });
        group.finish();
    }
}

criterion_group!(logsumexp, passes::<f32>, passes::<bf16>);
criterion_main!(logsumexp);
