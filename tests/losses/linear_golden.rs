//! Cases of losses of hidden states that PyTorch answered, as files have them.

use crate::adaptive_log_softmax::{floats, values};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use warploss::{DType, Tensor};

/// Has `check` look at each case of a file, of which there are so many at least.
pub(crate) fn each(file: &str, least: usize, check: impl Fn(&Golden<'_>)) {
    let path = format!("{}/tests/golden/{file}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let golden = &metadata.metadata().as_ref().unwrap()["golden"];
    let golden: Value = serde_json::from_str(golden).unwrap();
    let cases = golden["cases"].as_object().unwrap();
    assert!(cases.len() >= least, "{} cases", cases.len());
    for (name, options) in cases {
        check(&Golden { file: &file, name, options });
    }
}

pub(crate) struct Golden<'a> {
    file: &'a SafeTensors<'a>,
    pub(crate) name: &'a str,
    pub(crate) options: &'a Value,
}

impl Golden<'_> {
    pub(crate) fn tensor(&self, key: &str) -> Option<Tensor> {
        let view = self.file.tensor(&format!("{}.{key}", self.name)).ok()?;
        let (bytes, shape) = (view.data(), view.shape());
        let of = |size: usize| bytes.chunks_exact(size);
        let wide = |dtype, read: &dyn Fn(&[u8]) -> f64, size| {
            floats(dtype, shape, &of(size).map(read).collect::<Vec<f64>>())
        };
        let half = |b: &[u8]| u16::from_le_bytes(b.try_into().unwrap());
        Some(match view.dtype() {
            Dtype::F32 => {
                wide(DType::F32, &|b| f32::from_le_bytes(b.try_into().unwrap()).into(), 4)
            }
            Dtype::F16 => wide(DType::F16, &|b| warploss::f16::from_bits(half(b)).into(), 2),
            Dtype::BF16 => wide(DType::BF16, &|b| warploss::bf16::from_bits(half(b)).into(), 2),
            Dtype::I64 => {
                let data = of(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
                Tensor::from_vec::<i64>(data, shape).unwrap()
            }
            Dtype::I32 => {
                let data = of(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
                Tensor::from_vec::<i32>(data, shape).unwrap()
            }
            Dtype::U32 => {
                let data = of(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
                Tensor::from_vec::<u32>(data, shape).unwrap()
            }
            Dtype::U8 => Tensor::from_vec::<u8>(bytes.to_vec(), shape).unwrap(),
            other => panic!("{key}: {other:?}"),
        })
    }

    pub(crate) fn f64(&self, key: &str) -> Vec<f64> {
        let view = self.file.tensor(&format!("{}.{key}", self.name)).unwrap();
        assert_eq!(view.dtype(), Dtype::F64, "{key}");
        view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// Besides what the type is rounded by, an error may be so large beside the largest: products of f32 sums.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, expected: &[f64]) {
    let size = expected.iter().filter(|e| e.is_finite()).fold(0f64, |m, e| m.max(e.abs()));
    let (rounding, smallest) = match got.dtype() {
        DType::F16 => (2f64.powi(-11) * 1.01, 2f64.powi(-25)),
        DType::BF16 => (2f64.powi(-8) * 1.01, 0.0),
        _ => (2f64.powi(-24), 0.0),
    };
    let got = values(got);
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&value, &e)) in got.iter().zip(expected).enumerate() {
        let allowed = rounding * e.abs() + 2e-5 * size + smallest;
        let close = (value - e).abs() <= allowed || value == e || value.is_nan() && e.is_nan();
        assert!(close, "{what}[{i}]: got {value}, expected {e} ± {allowed}");
    }
}
