//! Cross entropy, the calls and the byte model of `warploss bench cross-entropy`:
//! forward reads the logits, backward reads them and writes the gradient, fused reads and writes.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, Device, Float, LogprobEntropy,
    LogprobEntropyOut, LogprobEntropyUpstream, TensorMut, TensorRef, TopKOut, bf16,
};

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

/// Log-probability, entropy, rank and the five likeliest classes beside the loss, and gradients of the first two:
/// in one call, and in two calls that leave two gradients to be added.
fn all_of_it<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    for shape in data::SHAPES {
        let (rows, top) = ([shape[0]], [shape[0], 5]);
        let mut logits = data::logits::<T>(shape);
        let mut others = logits.clone();
        let target: Vec<i64> = (0..shape[0]).map(|r| (r * 7919 % shape[1]) as i64).collect();
        let (mut value, mut rank) = ([0f32], vec![0i64; shape[0]]);
        let [mut logprob, mut entropy] = [(); 2].map(|()| vec![0f32; shape[0]]);
        let (mut classes, mut likeliest) = (vec![0i64; 5 * shape[0]], vec![0f32; 5 * shape[0]]);

        for (name, k) in [("one call", false), ("one call with five classes", true)] {
            let mut group = data::group(c, &format!("cross_entropy/all of it, {name}"));
            data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
                let top_k = TopKOut {
                    classes: TensorMut::new(&mut classes, &top)?,
                    logprob: TensorMut::new(&mut likeliest, &top)?,
                };
                let out = CrossEntropyOut {
                    logprob: Some(TensorMut::new(&mut logprob, &rows)?),
                    entropy: Some(TensorMut::new(&mut entropy, &rows)?),
                    rank: Some(TensorMut::new(&mut rank, &rows)?),
                    top_k: k.then_some(top_k),
                    ..CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?)
                };
                let upstream = CrossEntropyUpstream {
                    grad_logprob: (-0.5).into(),
                    grad_entropy: 0.01.into(),
                    ..1.0.into()
                };
                let (logits, target) =
                    (TensorMut::new(&mut logits, &shape)?, TensorRef::new(&target, &rows)?);
                let loss = CrossEntropy::default();
                loss.forward_backward_in_place(&device, logits, target, upstream, out)
            });
            group.finish();
        }

        let mut group = data::group(c, "cross_entropy/all of it, two calls");
        data::time::<T>(&mut group, shape, 4 * size_of::<T>(), || {
            let target = TensorRef::new(&target, &rows)?;
            let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?);
            let one = TensorMut::new(&mut logits, &shape)?;
            CrossEntropy::default().forward_backward_in_place(&device, one, target, 1.0, out)?;
            let tokens = LogprobEntropyOut {
                rank: Some(TensorMut::new(&mut rank, &rows)?),
                ..LogprobEntropyOut::new(
                    TensorMut::new(&mut logprob, &rows)?,
                    TensorMut::new(&mut entropy, &rows)?,
                )
            };
            let upstream =
                LogprobEntropyUpstream { grad_logprob: (-0.5).into(), grad_entropy: 0.01.into() };
            let other = TensorMut::new(&mut others, &shape)?;
            let loss = LogprobEntropy::default();
            loss.forward_backward_in_place(&device, other, target, upstream, tokens)
        });
        group.finish();
    }
}

criterion_group!(cross_entropy, passes::<f32>, passes::<bf16>, all_of_it::<f32>, all_of_it::<bf16>);
criterion_main!(cross_entropy);
