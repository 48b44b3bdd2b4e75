//! Captures a fused cross entropy into a CUDA graph, replays it on new logits, and compares with
//! the same call made plainly. Without a GPU it says so and is done.

use cudarc::driver::{CudaContext, CudaSlice, sys};
use warploss::{CrossEntropy, CrossEntropyOut, Device, TensorMut, TensorRef};

const ROWS: usize = 64;
const CLASSES: usize = 32_003;

fn numbers(seed: usize) -> Vec<f32> {
    let value = |i: usize| (i as u32 ^ seed as u32).wrapping_mul(2_654_435_761) >> 16;
    (0..ROWS * CLASSES).map(|i| (value(i) % 1999) as f32 / 100.0 - 10.0).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Err(why) = Device::cuda(0) {
        println!("skipped, no graph was captured: {why}");
        return Ok(());
    }
    let context = CudaContext::new(0)?;
    // SAFETY: one stream does all the work below, so that nothing has to be waited for.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;
    let device = Device::on_stream(stream.clone())?;

    let target: Vec<i64> = (0..ROWS).map(|row| (row * 499 % CLASSES) as i64).collect();
    let target = stream.clone_htod(&target)?;
    let mut logits = stream.clone_htod(&numbers(0))?;
    let mut loss = stream.alloc_zeros::<f32>(1)?;
    let step = |logits: &mut CudaSlice<f32>, loss: &mut CudaSlice<f32>| {
        let logits = TensorMut::from_cuda_slice(logits, &[ROWS, CLASSES])?;
        let target = TensorRef::from_cuda_slice(&target, &[ROWS])?;
        let out = CrossEntropyOut::loss(TensorMut::from_cuda_slice(loss, &[])?);
        CrossEntropy::default().forward_backward_in_place(&device, logits, target, 1.0, out)
    };

    // Once plainly: kernels are loaded and workspace is there. Then captured; nothing runs.
    step(&mut logits, &mut loss)?;
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let captured = step(&mut logits, &mut loss);
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags_enum(0))?;
    captured?;
    let graph = graph.ok_or("the graph is empty")?;

    for seed in 1..4 {
        stream.memcpy_htod(&numbers(seed), &mut logits)?;
        step(&mut logits, &mut loss)?;
        let expected = (stream.clone_dtoh(&loss)?, stream.clone_dtoh(&logits)?);
        device.check()?;

        stream.memcpy_htod(&numbers(seed), &mut logits)?;
        stream.memset_zeros(&mut loss)?;
        graph.launch()?;
        let got = (stream.clone_dtoh(&loss)?, stream.clone_dtoh(&logits)?);
        device.check()?;
        if got != expected {
            return Err(format!("replay {seed}: other results than the plain call's").into());
        }
        println!("replay {seed}: loss {}, bit for bit the plain call's", got.0[0]);
    }
    Ok(())
}
