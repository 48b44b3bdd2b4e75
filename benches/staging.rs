//! Host tensors to a GPU and back, as calls with host tensors move them, each beside the plain way:
//! a copy alone against a copy of pageable memory; a whole call, which sends, computes and receives
//! block by block at the same time, against copying all of it there, computing, and copying back.
//! The floor is what the two directions take at the bandwidths of pinned memory, measured here.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use std::sync::Arc;
use std::time::Instant;
use warploss::{CrossEntropy, CrossEntropyOut, Device, TensorMut, TensorRef};

fn staging(c: &mut Criterion) {
    let shape = data::SHAPES[0];
    let (device, stream) = match Device::cuda(0) {
        Ok(_) => {
            let context = CudaContext::new(0).expect("the context that the device has");
            let stream = context.new_stream().expect("a stream");
            // One stream for both ways, so that the plain one waits for nothing else.
            (Device::on_stream(stream.clone()).expect("a device"), stream)
        }
        Err(why) => {
            println!("staging: not measured ({why})");
            return;
        }
    };
    let mut logits = data::logits::<f32>(shape);
    let mut slice = stream.alloc_zeros::<f32>(logits.len()).expect("memory");
    floor(&stream, &mut slice);
    copies(c, &device, &stream, &mut logits, &mut slice);
    calls(c, &device, &stream, &mut logits, &mut slice);
}

/// Seconds that `bytes` take each way from and to pinned memory, each way alone: printed, with
/// what a call takes at least that moves as much both ways at once.
fn floor(stream: &Arc<CudaStream>, slice: &mut CudaSlice<f32>) {
    const ROUNDS: usize = 10;
    let n = slice.len();
    // SAFETY: plain numbers, all of which are written below before any is read. Not
    // write-combined: the way back is read.
    let mut pinned = unsafe { stream.context().alloc_pinned_with_flags::<f32>(n, 0) };
    let pinned = pinned.as_mut().expect("pinned memory");
    pinned.as_mut_slice().expect("written by nobody else").fill(1.0);
    let seconds = |copy: &mut dyn FnMut()| {
        let run = |copy: &mut dyn FnMut()| {
            let begin = Instant::now();
            copy();
            stream.synchronize().expect("the stream");
            begin.elapsed().as_secs_f64()
        };
        run(copy);
        (0..ROUNDS).map(|_| run(copy)).fold(f64::INFINITY, f64::min)
    };
    let to = seconds(&mut || stream.memcpy_htod(&*pinned, slice).expect("a copy"));
    let from = seconds(&mut || stream.memcpy_dtoh(&*slice, pinned).expect("a copy"));
    let rate = |seconds: f64| (n * size_of::<f32>()) as f64 / seconds / 1e9;
    println!(
        "staging: pinned memory, best of {ROUNDS}: {:.1} GB/s to the device, {:.1} GB/s from it; \
         floor of a fused call: {:.2} ms",
        rate(to),
        rate(from),
        to.max(from) * 1e3
    );
}

fn copies(
    c: &mut Criterion,
    device: &Device,
    stream: &Arc<CudaStream>,
    logits: &mut Vec<f32>,
    slice: &mut CudaSlice<f32>,
) {
    let (shape, size) = (data::SHAPES[0], size_of::<f32>());
    let mut group = data::group(c, "staging/to_device/staged");
    data::time::<f32>(&mut group, shape, size, || {
        drop(device.upload(TensorRef::new(logits, &shape)?)?);
        device.synchronize()
    });
    group.finish();
    let mut group = data::group(c, "staging/to_device/pageable");
    data::time::<f32>(&mut group, shape, size, || {
        stream.memcpy_htod(logits, slice).expect("a copy");
        stream.synchronize().expect("the stream");
        Ok(())
    });
    group.finish();

    let tensor = device.upload(TensorRef::new(logits, &shape).expect("a view")).expect("memory");
    let mut group = data::group(c, "staging/to_host/staged");
    data::time::<f32>(&mut group, shape, size, || tensor.to_host().map(drop));
    group.finish();
    let mut group = data::group(c, "staging/to_host/pageable");
    data::time::<f32>(&mut group, shape, size, || {
        // Memory of its own each time, as the staged copy has it.
        *logits = vec![0.0; slice.len()];
        stream.memcpy_dtoh(slice, logits).expect("a copy");
        stream.synchronize().expect("the stream");
        Ok(())
    });
    group.finish();
    *logits = data::logits::<f32>(shape);
}

/// Cross entropy, fused: as many bytes there as back.
fn calls(
    c: &mut Criterion,
    device: &Device,
    stream: &Arc<CudaStream>,
    logits: &mut [f32],
    slice: &mut CudaSlice<f32>,
) {
    let (shape, size) = (data::SHAPES[0], size_of::<f32>());
    let loss = CrossEntropy::default();
    let target: Vec<i64> = (0..shape[0]).map(|r| (r * 7919 % shape[1]) as i64).collect();
    let rows = [shape[0]];
    let mut value = [0f32];
    let mut group = data::group(c, "staging/fused/overlapped");
    data::time::<f32>(&mut group, shape, 2 * size, || {
        let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?);
        let target = TensorRef::new(&target, &rows)?;
        loss.forward_backward_in_place(device, TensorMut::new(logits, &shape)?, target, 1.0, out)
    });
    group.finish();
    assert!(value[0].is_finite(), "a loss");

    let mut group = data::group(c, "staging/fused/pageable, one after another");
    data::time::<f32>(&mut group, shape, 2 * size, || {
        stream.memcpy_htod(logits, slice).expect("a copy");
        let out = CrossEntropyOut::loss(TensorMut::new(&mut value, &[])?);
        let x = TensorMut::from_cuda_slice(slice, &shape)?;
        loss.forward_backward_in_place(device, x, TensorRef::new(&target, &rows)?, 1.0, out)?;
        stream.memcpy_dtoh(slice, logits).expect("a copy");
        stream.synchronize().expect("the stream");
        Ok(())
    });
    group.finish();
    assert!(value[0].is_finite(), "a loss");
}

criterion_group!(benches, staging);
criterion_main!(benches);
