//! The elementwise losses, the byte model of `warploss bench mse` and its like:
//! input and target read once, the gradient written over the input.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{
    Bce, BceWithLogits, Device, Float, GaussianNll, HingeEmbedding, Huber, JsDiv, KlDiv, L1, Mse,
    PoissonNll, Reduction, SigmoidFocal, SmoothL1, SoftMargin, TensorMut, TensorRef, bf16,
};

/// Elements, as rows of a matrix.
const SHAPE: [usize; 2] = data::SHAPES[1];

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    // Logarithms of probabilities, and probabilities.
    let logs = |shape| {
        let mut x = data::logits::<T>(shape);
        x.iter_mut().for_each(|x| *x = T::from_f32(-x.to_f32().abs()));
        x
    };
    let shares: Vec<T> = logs(SHAPE).iter().map(|x| T::from_f32(x.to_f32().exp())).collect();
    let mut other = logs(SHAPE);
    other.rotate_right(12_345);
    let mut value = [0f32];
    macro_rules! loss {
        ($name:literal, $op:expr, $input:expr, $target:expr) => {
            let (op, mut input, target) = ($op, $input, $target);
            let mut group = data::group(c, concat!($name, "/forward"));
            data::time::<T>(&mut group, SHAPE, 2 * size_of::<T>(), || {
                let (x, y) = (TensorRef::new(&input, &SHAPE)?, TensorRef::new(target, &SHAPE)?);
                op.forward_into(&device, x, y, TensorMut::new(&mut value, &[])?)
            });
            group.finish();
            let mut group = data::group(c, concat!($name, "/forward-backward"));
            data::time::<T>(&mut group, SHAPE, 3 * size_of::<T>(), || {
                let (x, y) = (TensorMut::new(&mut input, &SHAPE)?, TensorRef::new(target, &SHAPE)?);
                let loss = TensorMut::new(&mut value, &[])?;
                op.forward_backward_in_place(&device, x, y, 1.0, loss)
            });
            group.finish();
        };
    }
    loss!("mse", Mse::default(), data::logits::<T>(SHAPE), &other);
    loss!("l1", L1::default(), data::logits::<T>(SHAPE), &other);
    loss!("smooth_l1", SmoothL1::default(), data::logits::<T>(SHAPE), &other);
    loss!("huber", Huber::default(), data::logits::<T>(SHAPE), &other);
    loss!("bce_with_logits", BceWithLogits::default(), data::logits::<T>(SHAPE), &shares);
    loss!("kl_div", KlDiv::default(), logs(SHAPE), &shares);
    loss!("js_div", JsDiv::default().reduction(Reduction::Mean), logs(SHAPE), &other);
    loss!("soft_margin", SoftMargin::default(), data::logits::<T>(SHAPE), &other);
    loss!("hinge_embedding", HingeEmbedding::default(), data::logits::<T>(SHAPE), &other);
    loss!("bce", Bce::default(), shares.clone(), &shares);
    loss!("poisson_nll", PoissonNll::default(), logs(SHAPE), &shares);
    loss!("gaussian_nll", GaussianNll::default(), data::logits::<T>(SHAPE), &other);
    let focal = SigmoidFocal::default().reduction(Reduction::Mean);
    loss!("sigmoid_focal", focal, data::logits::<T>(SHAPE), &shares);
}

criterion_group!(elementwise, passes::<f32>, passes::<bf16>);
criterion_main!(elementwise);
