//! Negative log-likelihood: forward reads an element a row, backward writes the gradient once.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{Device, Float, Nll, TensorMut, TensorRef, bf16};

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    let nll = Nll::default();
    for shape in data::SHAPES {
        let rows = [shape[0]];
        let mut input = data::logits::<T>(shape);
        let target: Vec<i64> = (0..shape[0]).map(|r| (r * 7919 % shape[1]) as i64).collect();
        let mut value = [0f32];

        let mut group = data::group(c, "nll/forward");
        data::time::<T>(&mut group, shape, 0, || {
            let (input, target) =
                (TensorRef::new(&input, &shape)?, TensorRef::new(&target, &rows)?);
            nll.forward_into(&device, input, target, TensorMut::new(&mut value, &[])?)
        });
        group.finish();

        let mut group = data::group(c, "nll/forward-backward");
        data::time::<T>(&mut group, shape, size_of::<T>(), || {
            let loss = TensorMut::new(&mut value, &[])?;
            let (input, target) =
                (TensorMut::new(&mut input, &shape)?, TensorRef::new(&target, &rows)?);
            nll.forward_backward_in_place(&device, input, target, 1.0, loss)
        });
        group.finish();
    }
}

criterion_group!(nll, passes::<f32>, passes::<bf16>);
criterion_main!(nll);
