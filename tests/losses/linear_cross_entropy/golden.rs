//! PyTorch's answers: `scripts/golden/linear_cross_entropy.py`.

use super::{floats, values};
use crate::harness::devices;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use warploss::{
    CrossEntropy, DType, GradOutput, LinearCrossEntropy, LinearGradOut, LinearInput, Reduction,
    Tensor,
};

struct Golden<'a> {
    file: &'a SafeTensors<'a>,
    name: &'a str,
    options: &'a Value,
}

impl Golden<'_> {
    fn tensor(&self, key: &str) -> Option<Tensor> {
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

    fn f64(&self, key: &str) -> Vec<f64> {
        let view = self.file.tensor(&format!("{}.{key}", self.name)).unwrap();
        assert_eq!(view.dtype(), Dtype::F64, "{key}");
        view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// Besides what the type is rounded by, an error may be so large beside the largest: products of f32 sums.
#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &[f64]) {
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

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/linear_cross_entropy.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let golden = &metadata.metadata().as_ref().unwrap()["golden"];
    let golden: Value = serde_json::from_str(golden).unwrap();
    let cases = golden["cases"].as_object().unwrap();
    assert!(cases.len() >= 65, "{} cases", cases.len());
    for (name, options) in cases {
        agrees(&Golden { file: &file, name, options });
    }
}

fn agrees(case: &Golden<'_>) {
    let reduction = match case.options["reduction"].as_str().unwrap() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        _ => Reduction::Mean,
    };
    let weight = case.tensor("weight");
    let loss = CrossEntropy::default()
        .reduction(reduction)
        .ignore_index(case.options["ignore_index"].as_i64().unwrap())
        .label_smoothing(case.options["label_smoothing"].as_f64().unwrap());
    let loss = match &weight {
        Some(weight) => loss.weight(weight.view()),
        None => loss,
    };
    let loss = LinearCrossEntropy::from(loss);
    let own = ["input", "linear_weight", "target"].map(|key| case.tensor(key).unwrap());
    let optional = ["linear_bias", "temperature", "row_weight", "grad_output"];
    let [bias, temperature, row_weight, upstream] = optional.map(|key| case.tensor(key));
    let input = LinearInput {
        linear_bias: bias.as_ref().map(Tensor::view),
        temperature: temperature.as_ref().map(Tensor::view),
        row_weight: row_weight.as_ref().map(Tensor::view),
        ..LinearInput::new(own[0].view(), own[1].view(), own[2].view())
    };
    let g = match &upstream {
        Some(g) => GradOutput::from(g.view()),
        None => GradOutput::default(),
    };
    for (name, device) in devices() {
        let named = |key: &str| format!("{name}: {} {key}", case.name);
        let out = loss.forward(device, &input).unwrap();
        assert_close(&named("loss"), &out.loss, &case.f64("loss"));
        let grad = loss.forward_backward(device, &input, g).unwrap();
        assert_close(&named("loss"), &grad.output.loss, &case.f64("loss"));
        assert_close(&named("grad_input"), &grad.input, &case.f64("grad_input"));
        let of_weight = case.f64("grad_linear_weight");
        assert_close(&named("grad_linear_weight"), &grad.linear_weight, &of_weight);
        if let Some(bias) = &grad.linear_bias {
            assert_close(&named("grad_linear_bias"), bias, &case.f64("grad_linear_bias"));
        }
        if own[2].dtype().is_float() {
            let mut grad = own[2].clone();
            let gradients =
                LinearGradOut { target: Some(grad.view_mut()), ..LinearGradOut::default() };
            loss.backward_into(device, &input, g, gradients).unwrap();
            assert_close(&named("grad_target"), &grad, &case.f64("grad_target"));
        }
    }
}
