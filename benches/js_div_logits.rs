//! Jensen–Shannon divergence from logits, the byte model of `warploss bench js-div-logits`: both
//! tensors read once, the gradient written over the logits.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{Device, Float, JsDivLogits, TensorMut, TensorRef, bf16};

fn passes<T: Float>(c: &mut Criterion) {
    let (device, js) = (Device::best(), JsDivLogits::default());
    for shape in data::SHAPES {
        let (mut logits, mut target) = (data::logits::<T>(shape), data::logits::<T>(shape));
        // Not the same numbers as the logits, row by row.
        target.rotate_right(12_345);
        let mut value = [0f32];

        let mut group = data::group(c, "js_div_logits/forward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let (x, y) = (TensorRef::new(&logits, &shape)?, TensorRef::new(&target, &shape)?);
            js.forward_into(&device, x, y, TensorMut::new(&mut value, &[])?)
        });
        group.finish();

        let mut group = data::group(c, "js_div_logits/forward-backward");
        data::time::<T>(&mut group, shape, 3 * size_of::<T>(), || {
            let (x, y) = (TensorMut::new(&mut logits, &shape)?, TensorRef::new(&target, &shape)?);
            let loss = TensorMut::new(&mut value, &[])?;
            js.forward_backward_in_place(&device, x, y, 1.0, loss)
        });
        group.finish();
    }
}

criterion_group!(js_div_logits, passes::<f32>, passes::<bf16>);
criterion_main!(js_div_logits);
