//! The calls as C makes them: what they give is what the library gives, and what is wrong is said and not done.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use warploss_c::*;

const HOST: warploss_place = warploss_place { device_type: 1, device_id: 0 };
const F32: warploss_dtype = warploss_dtype { code: 2, bits: 32, lanes: 1 };
const I64: warploss_dtype = warploss_dtype { code: 0, bits: 64, lanes: 1 };

fn tensor<T>(data: &mut [T], dtype: warploss_dtype, shape: &[i64]) -> warploss_tensor {
    warploss_tensor {
        data: data.as_mut_ptr().cast::<c_void>(),
        device: HOST,
        ndim: shape.len() as i32,
        dtype,
        shape: shape.as_ptr(),
        strides: null(),
        byte_offset: 0,
    }
}

fn said() -> String {
    // SAFETY: it is text that lasts until the next call.
    unsafe { CStr::from_ptr(warploss_last_error()) }.to_string_lossy().into_owned()
}

struct Opened(*mut warploss_device);

impl Opened {
    fn cpu() -> Opened {
        let mut device = null_mut();
        // SAFETY: a place for a pointer.
        let status = unsafe { warploss_device_open_cpu(2, &mut device) };
        assert_eq!(status, warploss_status::Ok);
        Opened(device)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: it was opened, and is closed once.
        unsafe { warploss_device_close(self.0) };
    }
}

fn outputs(loss: *const warploss_tensor) -> warploss_cross_entropy_outputs {
    warploss_cross_entropy_outputs {
        loss,
        lse: null(),
        z_loss: null(),
        logprob: null(),
        entropy: null(),
        argmax: null(),
        rank: null(),
    }
}

const ROWS: usize = 3;
const CLASSES: usize = 5;

fn logits() -> Vec<f32> {
    (0..ROWS * CLASSES).map(|i| (i * 7919 % 23) as f32 / 5.0 - 2.0).collect()
}

#[test]
fn cross_entropy_is_the_librarys() {
    use warploss::{CrossEntropy, Device, Tensor};
    let device = Opened::cpu();
    let ids = vec![4i64, -100, 1];
    let whole = Tensor::from_vec(logits(), &[ROWS, CLASSES]).unwrap();
    let target = Tensor::from_vec(ids.clone(), &[ROWS]).unwrap();
    let options = CrossEntropy::default().label_smoothing(0.1);
    let wanted = options.forward_backward(&Device::cpu(), whole, target.view(), 2.0).unwrap();
    let with = warploss_cross_entropy_options {
        label_smoothing: 0.1,
        ..warploss_cross_entropy_options_default()
    };
    let upstream = warploss_upstream { grad_output_number: 2.0, ..warploss_upstream_default() };
    let (mut ids, shape) = (ids, [ROWS as i64, CLASSES as i64]);
    let t = tensor(&mut ids, I64, &shape[..1]);
    for in_place in [true, false] {
        let (mut x, mut loss, mut argmax) = (logits(), [0f32], [0i64; ROWS]);
        let mut grad = vec![7f32; ROWS * CLASSES];
        let [a, b] = [tensor(&mut x, F32, &shape), tensor(&mut grad, F32, &shape)];
        let (l, c) = (tensor(&mut loss, F32, &[]), tensor(&mut argmax, I64, &shape[..1]));
        let out = warploss_cross_entropy_outputs { argmax: &c, ..outputs(&l) };
        let to = if in_place { null() } else { &raw const b };
        // SAFETY: all that is named is here.
        let status = unsafe {
            warploss_cross_entropy_forward_backward(device.0, &with, &a, &t, &upstream, to, &out)
        };
        assert_eq!(status, warploss_status::Ok, "{}", said());
        let got = if in_place { &x } else { &grad };
        assert_eq!(&got[..], wanted.grad_logits.as_slice::<f32>().unwrap());
        assert_eq!(loss[0], wanted.output.loss.item().unwrap());
        assert!(argmax[1] == -1 && (0..5).contains(&argmax[0]), "{argmax:?}");
        if !in_place {
            assert_eq!(x, logits());
        }
    }
}

#[test]
fn linear_cross_entropy_and_elementwise_losses_are_the_librarys() {
    use warploss::{Device, LinearCrossEntropy, LinearInput, TensorRef};
    let device = Opened::cpu();
    let (mut x, mut w, mut ids) = (logits(), logits(), vec![0i64, 2, 1]);
    // Three rows and three classes of five features.
    let (shape, features) = ([3i64, 5], [3usize, 5]);
    let wanted = {
        let [x, w] = [&x, &w].map(|data| TensorRef::new(data, &features).unwrap());
        let input = LinearInput::new(x, w, TensorRef::new(&ids, &[3]).unwrap());
        LinearCrossEntropy::default().forward_backward(&Device::cpu(), &input, 1.0).unwrap()
    };
    let (mut loss, mut dx, mut dw) = ([0f32], vec![0f32; 15], vec![0f32; 15]);
    let [a, b] = [&mut x, &mut w].map(|data| tensor(data, F32, &shape));
    let t = tensor(&mut ids, I64, &shape[..1]);
    let input = warploss_linear_input {
        input: &a,
        linear_weight: &b,
        linear_bias: null(),
        target: &t,
        temperature: null(),
        row_weight: null(),
    };
    let [of_x, of_w] = [&mut dx, &mut dw].map(|data| tensor(data, F32, &shape));
    let to = warploss_linear_gradients {
        input: &of_x,
        linear_weight: &of_w,
        linear_bias: null(),
        accumulate: false,
    };
    let (l, with) = (tensor(&mut loss, F32, &[]), warploss_cross_entropy_options_default());
    let (out, upstream) = (outputs(&l), warploss_upstream_default());
    // SAFETY: all that is named is here.
    let status = unsafe {
        warploss_linear_cross_entropy_forward_backward(
            device.0, &with, 0, &input, &upstream, &to, &out,
        )
    };
    assert_eq!(status, warploss_status::Ok, "{}", said());
    assert_eq!(loss[0], wanted.output.loss.item().unwrap());
    assert_eq!(&dx[..], wanted.input.as_slice::<f32>().unwrap());
    assert_eq!(&dw[..], wanted.linear_weight.as_slice::<f32>().unwrap());

    let (mut p, mut q, mut loss) = ([1f32, 3.0], [0f32, 1.0], [0f32]);
    let mut grad = [0f32; 2];
    let two = [2i64];
    let [p, q, grad_of] = [&mut p, &mut q, &mut grad].map(|data| tensor(&mut data[..], F32, &two));
    let l = tensor(&mut loss, F32, &[]);
    let mse = warploss_elementwise_options_default(warploss_elementwise::Mse);
    // SAFETY: all that is named is here.
    let status =
        unsafe { warploss_elementwise_call(device.0, &mse, &p, &q, null(), &grad_of, null(), &l) };
    assert_eq!(status, warploss_status::Ok, "{}", said());
    assert_eq!((loss[0], grad), (2.5, [1.0, 2.0]));
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_written() {
    let device = Opened::cpu();
    let (mut x, mut ids, mut loss) = (logits(), vec![0i64, 1, 2], [7f32]);
    let shape = [ROWS as i64, CLASSES as i64];
    let (a, t) = (tensor(&mut x, F32, &shape), tensor(&mut ids, I64, &shape[..1]));
    let l = tensor(&mut loss, F32, &[]);
    let with = warploss_cross_entropy_options_default();
    let run =
        |device: *mut warploss_device,
         with: *const warploss_cross_entropy_options,
         (a, t, l): (*const warploss_tensor, *const warploss_tensor, *const warploss_tensor),
         parts: &[&str]| {
            let out = outputs(l);
            // SAFETY: all that is not null is here.
            let status = unsafe { warploss_cross_entropy_forward(device, with, a, t, &out) };
            assert_eq!(status, warploss_status::BadArgument, "{parts:?}");
            let said = said();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        };
    run(null_mut(), &with, (&a, &t, &l), &["device", "NULL"]);
    run(device.0, null(), (&a, &t, &l), &["options", "NULL"]);
    run(device.0, &with, (null(), &t, &l), &["logits", "NULL"]);
    run(device.0, &with, (&a, null(), &l), &["target", "NULL"]);
    run(device.0, &with, (&a, &t, null()), &["loss", "NULL"]);
    let wrong = |change: fn(&mut warploss_tensor), parts: &[&str]| {
        let mut a = a;
        change(&mut a);
        run(device.0, &with, (&a, &t, &l), parts);
    };
    wrong(|a| a.data = null_mut(), &["logits", "null"]);
    wrong(|a| a.ndim = 9, &["logits", "ndim", "9"]);
    wrong(|a| a.ndim = -1, &["logits", "ndim", "-1"]);
    wrong(|a| a.shape = null(), &["logits", "shape", "NULL"]);
    wrong(|a| a.shape = [i64::MAX, i64::MAX].as_ptr(), &["logits"]);
    wrong(|a| a.shape = [-3, 5].as_ptr(), &["logits", "not negative", "-3"]);
    wrong(|a| a.strides = [1, 3].as_ptr(), &["logits"]);
    wrong(|a| a.strides = [0, 1].as_ptr(), &["logits"]);
    wrong(|a| a.byte_offset = 1, &["logits", "multiple of 4"]);
    wrong(|a| a.dtype.lanes = 4, &["logits", "4 lanes"]);
    wrong(|a| a.dtype.bits = 64, &["logits", "64 bits"]);
    wrong(|a| a.device.device_type = 9, &["logits", "device_type", "9"]);
    wrong(|a| a.device.device_type = 2, &["logits", "device_type"]);
    let mut bad = with;
    bad.reduction = 17;
    run(device.0, &bad, (&a, &t, &l), &["reduction", "17"]);
    bad = warploss_cross_entropy_options { label_smoothing: 1.5, ..with };
    run(device.0, &bad, (&a, &t, &l), &["label_smoothing", "1.5"]);
    let mut far = vec![0i64, 9, 2];
    let far = tensor(&mut far, I64, &shape[..1]);
    run(device.0, &with, (&a, &far, &l), &["target", "9 at row 1"]);
    // Memory that is the logits' own.
    let over = warploss_tensor { ndim: 0, ..a };
    run(device.0, &with, (&a, &t, &over), &["loss", "apart from logits"]);
    assert_eq!((loss[0], x), (7.0, logits()));
}
