//! Host tensors to a GPU and back: through pinned buffers, chunk by chunk, as calls with host
//! tensors do it, beside one plain copy of pageable memory. Both move the same bytes; the staged
//! one fills the next chunk while the device copies this one.

mod data;

use criterion::{Criterion, criterion_group, criterion_main};
use cudarc::driver::CudaContext;
use warploss::{Device, TensorRef};

fn staging(c: &mut Criterion) {
    let shape = data::SHAPES[0];
    let (device, stream) = match Device::cuda(0) {
        Ok(device) => {
            let context = CudaContext::new(0).expect("the context that the device has");
            (device, context.new_stream().expect("a stream"))
        }
        Err(why) => {
            println!("staging: not measured ({why})");
            return;
        }
    };
    let mut logits = data::logits::<f32>(shape);
    let mut slice = stream.alloc_zeros::<f32>(logits.len()).expect("memory");
    let size = size_of::<f32>();

    let mut group = data::group(c, "staging/to_device/staged");
    data::time::<f32>(&mut group, shape, size, || {
        device.upload(TensorRef::new(&logits, &shape)?)?;
        device.synchronize()
    });
    group.finish();
    let mut group = data::group(c, "staging/to_device/pageable");
    data::time::<f32>(&mut group, shape, size, || {
        stream.memcpy_htod(&logits, &mut slice).expect("a copy");
        stream.synchronize().expect("the stream");
        Ok(())
    });
    group.finish();

    let tensor = device.upload(TensorRef::new(&logits, &shape).expect("a view")).expect("memory");
    let mut group = data::group(c, "staging/to_host/staged");
    data::time::<f32>(&mut group, shape, size, || tensor.to_host().map(drop));
    group.finish();
    let mut group = data::group(c, "staging/to_host/pageable");
    data::time::<f32>(&mut group, shape, size, || {
        // Memory of its own each time, as the staged copy has it.
        logits = vec![0.0; slice.len()];
        stream.memcpy_dtoh(&slice, &mut logits).expect("a copy");
        stream.synchronize().expect("the stream");
        Ok(())
    });
    group.finish();
}

criterion_group!(benches, staging);
criterion_main!(benches);
