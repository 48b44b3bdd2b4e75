//! Adaptive log-softmax: against PyTorch's module, a plain f64 computation, itself under other
//! names and on other threads; and what it refuses.

#[cfg(feature = "emulator")]
mod device;
mod errors;
mod extremes;
mod golden;
mod properties;
mod reference;
#[cfg(feature = "safetensors")]
mod state_dict;

use warploss::{
    AdaptiveLogSoftmax, AdaptiveParameters, AdaptiveTail, DType, Device, Float, GradOutput,
    LayerGradOut, LayerOut, Tensor, TensorRef, bf16, f16,
};

/// A tensor of a float type from f64 values.
pub(crate) fn floats(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    fn of<T: Float>(shape: &[usize], values: &[f64]) -> Tensor {
        let values = values.iter().map(|&v| T::from_f32(v as f32)).collect();
        Tensor::from_vec::<T>(values, shape).unwrap()
    }
    match dtype {
        DType::F32 => of::<f32>(shape, values),
        DType::F16 => of::<f16>(shape, values),
        DType::BF16 => of::<bf16>(shape, values),
        other => panic!("{other} holds no floats"),
    }
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.view().to_f64().unwrap()
}

/// Deterministic numbers in ±1.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// How far a result of this type may be off: its own rounding, and f32 sums of terms of a size.
fn tolerance(dtype: DType, expected: f64, size: f64) -> f64 {
    let rounding = match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    };
    let smallest = if dtype == DType::F16 { 2f64.powi(-25) } else { 0.0 };
    rounding * 1.01 * expected.abs() + 2e-6 * size + smallest
}

#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &[f64]) {
    let size = expected.iter().filter(|e| e.is_finite()).fold(0.0f64, |m, e| m.max(e.abs()));
    let values = values(got);
    assert_eq!(values.len(), expected.len(), "{what}");
    for (i, (&got_value, &e)) in values.iter().zip(expected).enumerate() {
        let close = (got_value - e).abs() <= tolerance(got.dtype(), e, size)
            || got_value == e
            || got_value.is_nan() && e.is_nan();
        assert!(close, "{what}[{i}]: got {got_value}, expected {e} (size {size})");
    }
}

/// What passes products of 16-bit numbers on an imitated card: logits, and gradients on their way, are f32
/// there too. Losses may be off by ten of f32's steps, gradients by a unit in the last place as well.
#[track_caller]
fn assert_near(what: &str, got: &Tensor, expected: &[f64]) {
    let size = expected.iter().filter(|e| e.is_finite()).fold(0.0f64, |m, e| m.max(e.abs()));
    let got_values = values(got);
    assert_eq!(got_values.len(), expected.len(), "{what}");
    for (i, (&value, &e)) in got_values.iter().zip(expected).enumerate() {
        let allowed = match got.dtype() {
            DType::F16 => 2f64.powi(-10) * e.abs() + 1e-5 * size + 2f64.powi(-24),
            DType::BF16 => 2f64.powi(-7) * e.abs() + 1e-5 * size,
            _ if got.shape().len() < 2 => 2e-5 * (1.0 + e.abs()),
            _ => (2e-5 * (1.0 + e.abs())).min(1e-4 * e.abs() + 1e-5 * size),
        };
        let close = (value - e).abs() <= allowed || value == e || value.is_nan() && e.is_nan();
        assert!(close, "{what}[{i}]: got {value}, expected {e} (size {size})");
    }
}

/// Where sums of weights' gradients do not fit the workspace they are rounded at every chunk of rows.
#[cfg(feature = "emulator")]
#[track_caller]
fn assert_summed(what: &str, got: &Tensor, expected: &[f64], chunks: usize) {
    let size = expected.iter().filter(|e| e.is_finite()).fold(0.0f64, |m, e| m.max(e.abs()));
    let unit = 2f64.powi(if got.dtype() == DType::F16 { -11 } else { -8 });
    for (i, (&got, &e)) in values(got).iter().zip(expected).enumerate() {
        let close = (got - e).abs() <= unit * chunks as f64 * size + 1e-7;
        assert!(close, "{what}[{i}]: got {got}, expected {e} (size {size})");
    }
}

/// How a result is compared.
type Assert = fn(&str, &Tensor, &[f64]);

/// Threads, and imitated cards where they are built, with what results of the type may be off.
fn everywhere(dtype: DType) -> Vec<(Device, Assert)> {
    let threads = devices().into_iter().map(|device| (device, assert_close as Assert));
    let on_card = if dtype == DType::F32 { assert_close } else { assert_near as Assert };
    #[cfg(feature = "emulator")]
    let cards = device::cards().map(|card| (card, on_card));
    #[cfg(not(feature = "emulator"))]
    let cards: [(Device, Assert); 0] = {
        let _ = on_card;
        []
    };
    threads.chain(cards).collect()
}

/// Threads that every result is computed on, alike.
fn devices() -> [Device; 2] {
    [Device::cpu_with_threads(1).unwrap(), Device::cpu_with_threads(3).unwrap()]
}
