//! Cross entropy against probabilities and against a teacher's logits, the byte model of
//! `warploss bench soft-cross-entropy`: both tensors read once, the gradient written over the logits.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{CrossEntropy, CrossEntropyOut, Device, Float, TensorMut, TensorRef, bf16};

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    for (name, teacher) in [("soft_cross_entropy", None), ("distillation", Some(0.5))] {
        let loss = CrossEntropy::default().teacher_scale(teacher);
        for shape in data::SHAPES {
            let (mut logits, mut target) = (data::logits::<T>(shape), data::logits::<T>(shape));
            // Not the same numbers as the logits, row by row.
            target.rotate_right(12_345);
            let mut value = [0f32];

            let mut group = data::group(c, &format!("{name}/forward"));
            data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
                let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?);
                let target = TensorRef::new(&target, &shape)?;
                loss.forward_into(&device, TensorRef::new(&logits, &shape)?, target, out)
            });
            group.finish();

            let mut group = data::group(c, &format!("{name}/forward-backward"));
            data::time::<T>(&mut group, shape, 3 * size_of::<T>(), || {
                let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?);
                let target = TensorRef::new(&target, &shape)?;
                let logits = TensorMut::new(&mut logits, &shape)?;
                loss.forward_backward_in_place(&device, logits, target, 1.0, out)
            });
            group.finish();
        }
    }
}

criterion_group!(soft_cross_entropy, passes::<f32>, passes::<bf16>);
criterion_main!(soft_cross_entropy);
