//! Log-softmax over the last dimension, the calls and the byte model of `warploss bench
//! log-softmax`, all in the input's dtype: forward reads the input and writes the output, backward
//! reads input and upstream gradient and writes the gradient.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{Device, Float, LogSoftmax, TensorMut, TensorRef, bf16};

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    let op = LogSoftmax::dim(-1);
    for shape in data::SHAPES {
        let input = data::logits::<T>(shape);
        let mut output = vec![T::default(); input.len()];

        let mut group = data::group(c, "log_softmax/forward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let output = TensorMut::new(&mut output, &shape)?;
            op.forward_into(&device, TensorRef::new(&input, &shape)?, output)
        });
        group.finish();

        let upstream = output; // any numbers will do
        let mut grad = vec![T::default(); input.len()];
        let mut group = data::group(c, "log_softmax/backward");
        data::time::<T>(&mut group, shape, 3 * size_of::<T>(), || {
            let (input, upstream) =
                (TensorRef::new(&input, &shape)?, TensorRef::new(&upstream, &shape)?);
            op.backward_into(&device, input, upstream, TensorMut::new(&mut grad, &shape)?)
        });
        group.finish();
    }
}

criterion_group!(log_softmax, passes::<f32>, passes::<bf16>);
criterion_main!(log_softmax);
