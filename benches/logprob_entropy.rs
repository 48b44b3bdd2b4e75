//! Log-probability and entropy, the calls and the byte model of `warploss bench logprob-entropy`:
//! forward reads the logits, backward reads them and writes the gradient, fused reads and writes.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use warploss::{Device, Float, LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream, bf16};
use warploss::{TensorMut, TensorRef};

fn passes<T: Float>(c: &mut Criterion) {
    let device = Device::best();
    let op = LogprobEntropy::default();
    let upstream =
        LogprobEntropyUpstream { grad_logprob: (-1.0).into(), grad_entropy: 0.01.into() };
    for shape in data::SHAPES {
        let rows = [shape[0]];
        let mut logits = data::logits::<T>(shape);
        let target: Vec<i64> = (0..shape[0]).map(|r| (r * 7919 % shape[1]) as i64).collect();
        let [mut logprob, mut entropy, mut lse] = [(); 3].map(|()| vec![0f32; shape[0]]);
        let (mut argmax, mut rank) = (vec![0i64; shape[0]], vec![0i64; shape[0]]);

        for ranks in [false, true] {
            let name = if ranks { "forward-with-ranks" } else { "forward" };
            let mut group = data::group(c, &format!("logprob_entropy/{name}"));
            data::time::<T>(&mut group, shape, size_of::<T>(), || {
                let mut out = LogprobEntropyOut::new(
                    TensorMut::new(&mut logprob, &rows)?,
                    TensorMut::new(&mut entropy, &rows)?,
                );
                out.lse = Some(TensorMut::new(&mut lse, &rows)?);
                if ranks {
                    out.argmax = Some(TensorMut::new(&mut argmax, &rows)?);
                    out.rank = Some(TensorMut::new(&mut rank, &rows)?);
                }
                let target = TensorRef::new(&target, &rows)?;
                op.forward_into(&device, TensorRef::new(&logits, &shape)?, target, out)
            });
            group.finish();
        }

        let mut grad = vec![T::default(); logits.len()];
        let mut group = data::group(c, "logprob_entropy/backward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let saved = (TensorRef::new(&target, &rows)?, TensorRef::new(&lse, &rows)?);
            let grad = TensorMut::new(&mut grad, &shape)?;
            op.backward_into(&device, TensorRef::new(&logits, &shape)?, saved, upstream, grad)
        });
        group.finish();
        drop(grad);

        // From the second run on the logits are the last run's gradient: as good as any other.
        let mut group = data::group(c, "logprob_entropy/forward-backward");
        data::time::<T>(&mut group, shape, 2 * size_of::<T>(), || {
            let out = LogprobEntropyOut::new(
                TensorMut::new(&mut logprob, &rows)?,
                TensorMut::new(&mut entropy, &rows)?,
            );
            let (logits, target) =
                (TensorMut::new(&mut logits, &shape)?, TensorRef::new(&target, &rows)?);
            op.forward_backward_in_place(&device, logits, target, upstream, out)
        });
        group.finish();
    }
}

criterion_group!(logprob_entropy, passes::<f32>, passes::<bf16>);
criterion_main!(logprob_entropy);
