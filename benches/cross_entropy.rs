//! Cross entropy, the calls and the byte model of `warploss bench cross-entropy`:
//! forward reads the logits, backward reads them and writes the gradient, fused reads and writes.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{CrossEntropy, CrossEntropyOut, Device, Float, TensorMut, TensorRef, bf16};

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    let loss = CrossEntropy::default();
    for shape in data::SHAPES {
        let rows = [shape[0]];
        let mut logits = data::logits::<T>(shape);
        let target: Vec<i64> = (0..shape[0]).map(|r| (r * 7919 % shape[1]) as i64).collect();
        let (mut value, mut lse) = ([0f32], vec![0f32; shape[0]]);

        let mut group = data::group(c, "cross_entropy/forward");
        data::time::<T>(&mut group, shape, size_of::<T>(), || {
            let out = CrossEntropyOut {
                lse: Some(TensorMut::new(&mut lse, &rows)?),
                ..CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?)
            };
            let target = TensorRef::new(&target, &rows)?;
            loss.forward_into(&device, TensorRef::new(&logits, &shape)?, target, out)
        });
        group.finish();

        let mut grad = vec![T::default(); logits.len()];
        let mut group = data::group(c, "cross_entropy/backward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let saved = (TensorRef::new(&target, &rows)?, TensorRef::new(&lse, &rows)?);
            let grad = TensorMut::new(&mut grad, &shape)?;
            loss.backward_into(&device, TensorRef::new(&logits, &shape)?, saved, 1.0, grad)
        });
        group.finish();
        drop(grad);

        // From the second run on the logits are the last run's gradient: as good as any other.
        let mut group = data::group(c, "cross_entropy/forward-backward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?);
            let (logits, target) =
                (TensorMut::new(&mut logits, &shape)?, TensorRef::new(&target, &rows)?);
            loss.forward_backward_in_place(&device, logits, target, 1.0, out)
        });
        group.finish();
    }
}

criterion_group!(cross_entropy, passes::<f32>, passes::<bf16>);
criterion_main!(cross_entropy);
