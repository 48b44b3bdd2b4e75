//! What only a GPU can show: cudarc's slices and their events, pinned copies, streams side by side, a
//! graph that is captured. Where there is none, each test says that it was skipped, and why. Where
//! `WARPLOSS_TEST_DEVICE` is `cuda` there must be one; where it is `emulated`, what needs no slices of
//! cudarc's runs on an emulated card.

use cudarc::driver::{CudaContext, CudaStream, sys};
use std::sync::Arc;
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, Error, Reduction, Tensor, TensorMut, TensorRef,
};

/// Few where each thread is run by itself.
const ROWS: usize = 256;
const EMULATED_ROWS: usize = 8;
const CLASSES: usize = 50_257;

fn asked_for() -> Option<String> {
    std::env::var("WARPLOSS_TEST_DEVICE").ok().filter(|name| !name.is_empty())
}

fn emulated() -> bool {
    asked_for().as_deref() == Some("emulated")
}

fn rows() -> usize {
    if emulated() { EMULATED_ROWS } else { ROWS }
}

/// Streams of one context; `None`, said aloud, without a GPU.
fn streams<const N: usize>(test: &str) -> Option<[Arc<CudaStream>; N]> {
    if emulated() {
        println!("{test}: skipped: slices of cudarc's need a GPU");
        return None;
    }
    if let Err(why) = Device::cuda(0) {
        assert!(asked_for().is_none(), "{test}: {why}");
        println!("{test}: skipped: {why}");
        return None;
    }
    let context = CudaContext::new(0).expect("the context that the device has");
    Some(std::array::from_fn(|_| context.new_stream().expect("a stream")))
}

/// Streams of one device, whichever it is.
fn devices<const N: usize>(test: &str) -> Option<[Device; N]> {
    #[cfg(feature = "emulator")]
    if emulated() {
        let card = warploss::emulator::Description::h100();
        let first = Device::emulated(card, Some(5)).unwrap();
        return Some(std::array::from_fn(|_| first.another_stream().unwrap()));
    }
    assert!(!emulated(), "{test}: this build has no emulator");
    let streams = streams::<N>(test)?;
    Some(streams.map(|stream| Device::on_stream(stream).unwrap()))
}

fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let value = |i: usize| ((i as u32) ^ seed).wrapping_mul(2_654_435_761) >> 16;
    (0..n).map(|i| (value(i) % 1999) as f32 / 100.0 - 10.0).collect()
}

fn targets() -> Vec<i64> {
    (0..rows()).map(|row| (row * 499 % CLASSES) as i64).collect()
}

/// Loss and gradient by the CPU.
fn expected(logits: &[f32]) -> (f32, Vec<f32>) {
    let target = targets();
    let logits = Tensor::from_vec(logits.to_vec(), &[rows(), CLASSES]).unwrap();
    let target = TensorRef::new(&target, &[rows()]).unwrap();
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
    let mut logits = owner.alloc_zeros::<f32>(rows() * CLASSES).unwrap();
    let mut loss = owner.alloc_zeros::<f32>(1).unwrap();
    for seed in 1..5 {
        let data = numbers(seed, rows() * CLASSES);
        owner.memcpy_htod(&data, &mut logits).unwrap();
        let x = TensorMut::from_cuda_slice(&mut logits, &[rows(), CLASSES]).unwrap();
        let out = CrossEntropyOut::loss(TensorMut::from_cuda_slice(&mut loss, &[]).unwrap());
        let target = TensorRef::from_cuda_slice(&target, &[rows()]).unwrap();
        let ce = CrossEntropy::default();
        ce.forward_backward_in_place(&device, x, target, 1.0, out).unwrap();
        let got = (reader.clone_dtoh(&loss).unwrap()[0], reader.clone_dtoh(&logits).unwrap());
        agree(&got, &expected(&data));
    }
    device.check().unwrap();
}

#[test]
fn host_tensors_go_through_pinned_buffers() {
    let Some([device]) = devices("host_tensors_go_through_pinned_buffers") else { return };
    let data = numbers(7, rows() * CLASSES);
    let view = TensorRef::new(&data, &[rows(), CLASSES]).unwrap();
    let back = device.upload(view).unwrap().to_host().unwrap();
    assert!(back.as_slice::<f32>() == Some(&data[..]));
    let target = targets();
    let target = TensorRef::new(&target, &[rows()]).unwrap();
    let logits = Tensor::from_vec(data.clone(), &[rows(), CLASSES]).unwrap();
    let done = CrossEntropy::default().forward_backward(&device, logits, target, 1.0).unwrap();
    let grad = done.grad_logits.as_slice::<f32>().unwrap().to_vec();
    agree(&(done.output.loss.item().unwrap(), grad), &expected(&data));
}

/// Logits and targets go up, loss and gradient come back.
fn whole_call(device: &Device, data: &[f32]) -> (f32, Vec<f32>) {
    let target = targets();
    let logits = device.upload(TensorRef::new(data, &[rows(), CLASSES]).unwrap()).unwrap();
    let target = device.upload(TensorRef::new(&target, &[rows()]).unwrap()).unwrap();
    let ce = CrossEntropy::default();
    let done = ce.forward_backward(device, logits, target.view(), 1.0).unwrap();
    let grad = done.grad_logits.to_host().unwrap();
    (done.output.loss.item().unwrap(), grad.as_slice::<f32>().unwrap().to_vec())
}

#[test]
fn streams_of_one_context_work_side_by_side() {
    let Some(devices) = devices::<3>("streams_of_one_context_work_side_by_side") else { return };
    let serial: Vec<_> = (0..3).map(|seed| expected(&numbers(seed, rows() * CLASSES))).collect();
    let times = if emulated() { 1 } else { 5 };
    std::thread::scope(|scope| {
        for (seed, (device, expected)) in devices.iter().zip(&serial).enumerate() {
            scope.spawn(move || {
                let data = numbers(seed as u32, rows() * CLASSES);
                for _ in 0..times {
                    agree(&whole_call(device, &data), expected);
                }
            });
        }
    });
}

const GRAPH: &str = "a_captured_graph_gives_the_bits_of_the_plain_call";

fn same_bits(plain: &(f32, Vec<f32>), replayed: &(f32, Vec<f32>)) {
    let bits = |(loss, grad): &(f32, Vec<f32>)| -> Vec<u32> {
        grad.iter().chain([loss]).map(|x| x.to_bits()).collect()
    };
    assert!(bits(plain) == bits(replayed), "loss {} and {}, or gradients", plain.0, replayed.0);
}

#[test]
fn a_captured_graph_gives_the_bits_of_the_plain_call() {
    #[cfg(feature = "emulator")]
    if emulated() {
        return replay_on_an_emulated_card();
    }
    let Some([stream]) = streams(GRAPH) else { return };
    // SAFETY: one stream does all the work below, so that nothing has to be waited for.
    unsafe { stream.context().disable_event_tracking() };
    let device = Device::on_stream(stream.clone()).unwrap();
    let target = stream.clone_htod(&targets()).unwrap();
    let mut logits = stream.alloc_zeros::<f32>(rows() * CLASSES).unwrap();
    let mut loss = stream.alloc_zeros::<f32>(1).unwrap();
    macro_rules! step {
        () => {{
            let x = TensorMut::from_cuda_slice(&mut logits, &[rows(), CLASSES]).unwrap();
            let target = TensorRef::from_cuda_slice(&target, &[rows()]).unwrap();
            let out = CrossEntropyOut::loss(TensorMut::from_cuda_slice(&mut loss, &[]).unwrap());
            CrossEntropy::default().forward_backward_in_place(&device, x, target, 1.0, out)
        }};
    }
    step!().unwrap();
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).unwrap();
    let captured = step!();
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags_enum(0)).unwrap();
    captured.unwrap();
    let graph = graph.expect("a graph with launches");
    for seed in 1..4 {
        let data = numbers(seed, rows() * CLASSES);
        stream.memcpy_htod(&data, &mut logits).unwrap();
        step!().unwrap();
        let plain = (stream.clone_dtoh(&loss).unwrap()[0], stream.clone_dtoh(&logits).unwrap());
        stream.memcpy_htod(&data, &mut logits).unwrap();
        stream.memset_zeros(&mut loss).unwrap();
        graph.launch().unwrap();
        let again = (stream.clone_dtoh(&loss).unwrap()[0], stream.clone_dtoh(&logits).unwrap());
        device.check().unwrap();
        same_bits(&plain, &again);
        agree(&again, &expected(&data));
    }
}

#[cfg(feature = "emulator")]
fn replay_on_an_emulated_card() {
    let [device] = devices(GRAPH).expect("an emulated card");
    let (data, target) = (numbers(1, rows() * CLASSES), targets());
    let target = device.upload(TensorRef::new(&target, &[rows()]).unwrap()).unwrap();
    let call = |captured: bool| {
        let mut x = device.upload(TensorRef::new(&data, &[rows(), CLASSES]).unwrap()).unwrap();
        let mut loss = device.upload(TensorRef::new(&[0f32], &[]).unwrap()).unwrap();
        let mut step = || {
            let out = CrossEntropyOut::loss(loss.view_mut());
            let ce = CrossEntropy::default();
            ce.forward_backward_in_place(&device, x.view_mut(), target.view(), 1.0, out)
        };
        match captured {
            true => device.capture(&mut step).unwrap().replay().unwrap(),
            false => step().unwrap(),
        }
        let grad = x.to_host().unwrap().as_slice::<f32>().unwrap().to_vec();
        (loss.item().unwrap(), grad)
    };
    let (plain, again) = (call(false), call(true));
    same_bits(&plain, &again);
    agree(&again, &expected(&data));
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
