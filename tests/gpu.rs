//! What only a GPU can show: cudarc's slices and their events, pinned copies, two streams. Where
//! there is none, each test says that it was skipped, and why.
#![cfg(feature = "cuda")]

use cudarc::driver::{CudaContext, CudaStream};
use std::sync::Arc;
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, Error, Reduction, Tensor, TensorMut, TensorRef,
};

const ROWS: usize = 256;
const CLASSES: usize = 50_257;

/// Streams of one context; `None`, said aloud, without a GPU.
fn streams<const N: usize>(test: &str) -> Option<[Arc<CudaStream>; N]> {
    if let Err(why) = Device::cuda(0) {
        println!("{test}: skipped: {why}");
        return None;
    }
    let context = CudaContext::new(0).expect("the context that the device has");
    Some(std::array::from_fn(|_| context.new_stream().expect("a stream")))
}

fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let value = |i: usize| ((i as u32) ^ seed).wrapping_mul(2_654_435_761) >> 16;
    (0..n).map(|i| (value(i) % 1999) as f32 / 100.0 - 10.0).collect()
}

fn targets() -> Vec<i64> {
    (0..ROWS).map(|row| (row * 499 % CLASSES) as i64).collect()
}

/// Loss and gradient by the CPU.
fn expected(logits: &[f32]) -> (f32, Vec<f32>) {
    let target = targets();
    let logits = Tensor::from_vec(logits.to_vec(), &[ROWS, CLASSES]).unwrap();
    let target = TensorRef::new(&target, &[ROWS]).unwrap();
    let done = CrossEntropy::default().forward_backward(&Device::cpu(), logits, target, 1.0);
    let done = done.unwrap();
    (done.output.loss.item().unwrap(), done.grad_logits.as_slice::<f32>().unwrap().to_vec())
}

fn agree((loss, grad): &(f32, Vec<f32>), expected: &(f32, Vec<f32>)) {
    assert!((loss - expected.0).abs() <= 2e-6 * (1.0 + expected.0.abs()), "{loss}, {}", expected.0);
    let top = expected.1.iter().fold(0f32, |m, g| m.max(g.abs()));
    for (i, (g, e)) in grad.iter().zip(&expected.1).enumerate() {
        assert!((g - e).abs() <= 1e-5 * e.abs() + 1e-6 * top, "gradient {i}: {g}, expected {e}");
    }
}

/// Written on one stream, worked on by another, read on a third, with nothing but cudarc's events
/// between them.
#[test]
fn slices_of_other_streams_are_in_order() {
    let Some([owner, ours, reader]) = streams("slices_of_other_streams_are_in_order") else {
        return;
    };
    let device = Device::on_stream(ours).unwrap();
    let target = owner.clone_htod(&targets()).unwrap();
    let mut logits = owner.alloc_zeros::<f32>(ROWS * CLASSES).unwrap();
    let mut loss = owner.alloc_zeros::<f32>(1).unwrap();
    for seed in 1..5 {
        let data = numbers(seed, ROWS * CLASSES);
        owner.memcpy_htod(&data, &mut logits).unwrap();
        let x = TensorMut::from_cuda_slice(&mut logits, &[ROWS, CLASSES]).unwrap();
        let out = CrossEntropyOut::loss(TensorMut::from_cuda_slice(&mut loss, &[]).unwrap());
        let target = TensorRef::from_cuda_slice(&target, &[ROWS]).unwrap();
        let ce = CrossEntropy::default();
        ce.forward_backward_in_place(&device, x, target, 1.0, out).unwrap();
        let got = (reader.clone_dtoh(&loss).unwrap()[0], reader.clone_dtoh(&logits).unwrap());
        agree(&got, &expected(&data));
    }
    device.check().unwrap();
}

#[test]
fn host_tensors_go_through_pinned_buffers() {
    let Some([stream]) = streams("host_tensors_go_through_pinned_buffers") else { return };
    let device = Device::on_stream(stream).unwrap();
    let data = numbers(7, ROWS * CLASSES);
    let view = TensorRef::new(&data, &[ROWS, CLASSES]).unwrap();
    let back = device.upload(view).unwrap().to_host().unwrap();
    assert!(back.as_slice::<f32>() == Some(&data[..]));
    let target = targets();
    let target = TensorRef::new(&target, &[ROWS]).unwrap();
    let logits = Tensor::from_vec(data.clone(), &[ROWS, CLASSES]).unwrap();
    let done = CrossEntropy::default().forward_backward(&device, logits, target, 1.0).unwrap();
    let grad = done.grad_logits.as_slice::<f32>().unwrap().to_vec();
    agree(&(done.output.loss.item().unwrap(), grad), &expected(&data));
}

#[test]
fn streams_of_one_context_work_side_by_side() {
    let Some(streams) = streams::<3>("streams_of_one_context_work_side_by_side") else { return };
    let serial: Vec<_> = (0..3).map(|seed| expected(&numbers(seed, ROWS * CLASSES))).collect();
    std::thread::scope(|scope| {
        for (seed, (stream, expected)) in streams.into_iter().zip(&serial).enumerate() {
            scope.spawn(move || {
                let device = Device::on_stream(stream).unwrap();
                let data = numbers(seed as u32, ROWS * CLASSES);
                let target = targets();
                let up = |data: &[f32]| {
                    device.upload(TensorRef::new(data, &[ROWS, CLASSES]).unwrap()).unwrap()
                };
                let target = device.upload(TensorRef::new(&target, &[ROWS]).unwrap()).unwrap();
                for _ in 0..5 {
                    let ce = CrossEntropy::default();
                    let done = ce.forward_backward(&device, up(&data), target.view(), 1.0).unwrap();
                    let grad = done.grad_logits.to_host().unwrap();
                    let grad = grad.as_slice::<f32>().unwrap().to_vec();
                    agree(&(done.output.loss.item().unwrap(), grad), expected);
                }
            });
        }
    });
}

#[test]
fn a_bad_target_in_a_slice_comes_out_at_the_check() {
    let Some([stream]) = streams("a_bad_target_in_a_slice_comes_out_at_the_check") else { return };
    let device = Device::on_stream(stream.clone()).unwrap();
    let logits = stream.clone_htod(&numbers(1, 6)).unwrap();
    let target = stream.clone_htod(&[0i64, 3]).unwrap();
    let logits = TensorRef::from_cuda_slice(&logits, &[2, 3]).unwrap();
    let target = TensorRef::from_cuda_slice(&target, &[2]).unwrap();
    let ce = CrossEntropy::default().reduction(Reduction::None);
    ce.forward(&device, logits, target).unwrap();
    let error = device.check().unwrap_err();
    assert!(matches!(error, Error::Target { row: 1, value: 3, .. }), "{error}");
    device.check().unwrap();
}
