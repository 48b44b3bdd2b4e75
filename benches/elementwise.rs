//! The elementwise losses of the catalogue, the byte model of `warploss bench mse` and its like:
//! input and target read once, the gradient written.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::check::catalogue;
use warploss::check::elementwise::{Domain, Given};
use warploss::{Device, ElementwiseGradOut, Float, Reduction, TensorMut, TensorRef, bf16};

/// Elements, as rows of a matrix.
const SHAPE: [usize; 2] = data::SHAPES[1];

/// Numbers that a tensor holds, each made of a logit.
fn numbers<T: Float>(domain: Domain) -> Vec<T> {
    let of = |x: f32| match domain {
        Domain::Any => x,
        Domain::Logarithms => -x.abs(),
        Domain::Probabilities => (-x.abs()).exp(),
        Domain::Signs => 1f32.copysign(x),
        Domain::Counts => x.abs().floor(),
    };
    data::logits::<T>(SHAPE).iter().map(|x| T::from_f32(of(x.to_f32()))).collect()
}

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    let mut value = [0f32];
    for of in catalogue::elementwise() {
        let loss = of.with(&[]);
        let given = Given { weight: None, third: None, reduction: Reduction::Mean };
        let op = loss.make(given);
        let (input, mut target) = (numbers::<T>(of.input), numbers::<T>(loss.target()));
        let mut grad = input.clone();
        target.rotate_right(12_345);
        let mut group = data::group(c, &format!("{}/forward", of.name));
        data::time::<T>(&mut group, SHAPE, 2 * size_of::<T>(), || {
            let (x, y) = (TensorRef::new(&input, &SHAPE)?, TensorRef::new(&target, &SHAPE)?);
            op.forward_into(&device, x, y, TensorMut::new(&mut value, &[])?)
        });
        group.finish();
        let mut group = data::group(c, &format!("{}/forward-backward", of.name));
        data::time::<T>(&mut group, SHAPE, 3 * size_of::<T>(), || {
            let (x, y) = (TensorRef::new(&input, &SHAPE)?, TensorRef::new(&target, &SHAPE)?);
            let grad_input = Some(TensorMut::new(&mut grad, &SHAPE)?);
            let grads = ElementwiseGradOut { grad_input, ..Default::default() };
            let out = (TensorMut::new(&mut value, &[])?, grads);
            op.forward_backward_into(&device, x, y, 1.0.into(), out)
        });
        group.finish();
    }
}

criterion_group!(elementwise, passes::<f32>, passes::<bf16>);
criterion_main!(elementwise);
