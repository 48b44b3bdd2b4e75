//! PyTorch's module, whose answers are recorded.

use super::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use warploss::Reduction;

struct Golden<'a> {
    file: &'a SafeTensors<'a>,
    name: &'a str,
    options: &'a Value,
}

impl Golden<'_> {
    fn view(&self, key: &str) -> Option<TensorView<'_>> {
        self.file.tensor(&format!("{}.{key}", self.name)).ok()
    }

    fn f64(&self, key: &str) -> Vec<f64> {
        let view = self.view(key).unwrap_or_else(|| panic!("{} lacks {key}", self.name));
        assert_eq!(view.dtype(), Dtype::F64, "{}.{key}", self.name);
        let number = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap());
        view.data().chunks_exact(8).map(number).collect()
    }

    fn tensor(&self, key: &str) -> Option<Tensor> {
        let view = self.view(key)?;
        let size = view.dtype().bitsize() / 8;
        let words = view.data().chunks_exact(size).map(|b| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(b);
            u64::from_le_bytes(wide)
        });
        fn of<T: warploss::Element>(shape: &[usize], values: impl Iterator<Item = T>) -> Tensor {
            Tensor::from_vec(values.collect(), shape).unwrap()
        }
        let shape = view.shape();
        Some(match view.dtype() {
            Dtype::F32 => of(shape, words.map(|w| f32::from_bits(w as u32))),
            Dtype::F16 => of(shape, words.map(|w| f16::from_bits(w as u16))),
            Dtype::BF16 => of(shape, words.map(|w| bf16::from_bits(w as u16))),
            Dtype::I64 => of(shape, words.map(u64::cast_signed)),
            Dtype::I32 => of(shape, words.map(|w| w as i32)),
            Dtype::U32 => of(shape, words.map(|w| w as u32)),
            Dtype::U8 => of(shape, words.map(|w| w as u8)),
            other => panic!("{}.{key} is {other:?}", self.name),
        })
    }

    fn loss(&self) -> AdaptiveLogSoftmax<'static> {
        let number = |key: &str| self.options[key].as_u64().unwrap() as usize;
        let cutoffs = self.options["cutoffs"].as_array().unwrap().iter();
        let cutoffs: Vec<_> = cutoffs.map(|c| c.as_u64().unwrap() as usize).collect();
        let all = [Reduction::None, Reduction::Sum, Reduction::Mean];
        let reduction = all.into_iter().find(|r| self.options["reduction"] == r.name()).unwrap();
        AdaptiveLogSoftmax::new(number("in_features"), number("classes"), &cutoffs)
            .div_value(self.options["div_value"].as_f64().unwrap())
            .head_bias(self.options["head_bias"].as_bool().unwrap())
            .ignore_index(self.options["ignore_index"].as_i64())
            .reduction(reduction)
    }
}

fn each(test: impl Fn(&Golden<'_>)) {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/adaptive_log_softmax.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let golden = &metadata.metadata().as_ref().unwrap()["golden"];
    let golden: Value = serde_json::from_str(golden).unwrap();
    let cases = golden["cases"].as_object().unwrap();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for (name, options) in cases {
        test(&Golden { file: &file, name, options });
    }
}

fn parameters(case: &Golden<'_>, loss: &AdaptiveLogSoftmax<'_>) -> AdaptiveParameters<Tensor> {
    let prefix = format!("{}.", case.name);
    let is_parameter = |key: &str| key.starts_with("head.") || key.starts_with("tail.");
    let keys = case.file.names().into_iter().filter_map(|name| name.strip_prefix(&prefix));
    let named = keys
        .filter(|key| is_parameter(key))
        .map(|key| (format!("m.{key}"), case.tensor(key).unwrap()));
    loss.parameters_from("m.", named, Tensor::shape).unwrap()
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    each(|case| {
        let loss = case.loss();
        let parameters = parameters(case, &loss);
        let weight = case.tensor("row_weight");
        let loss = match &weight {
            Some(weight) => loss.row_weight(weight.view()),
            None => loss,
        };
        let [input, target] = ["input", "target"].map(|key| case.tensor(key).unwrap());
        let upstream = case.tensor("grad_output");
        for (device, assert_close) in everywhere(input.dtype()) {
            let upstream = match &upstream {
                Some(g) => GradOutput::from(g.view()),
                None => GradOutput::default(),
            };
            let view = parameters.view();
            let out = loss.forward(&device, &view, input.view(), target.view()).unwrap();
            let named = |key: &str| format!("{} {key}", case.name);
            assert_close(&named("output"), &out.output, &case.f64("output"));
            assert_close(&named("loss"), &out.loss, &case.f64("loss"));
            let (input, target) = (input.view(), target.view());
            let grad = loss.forward_backward(&device, &view, input, target, upstream).unwrap();
            assert_close(&named("output"), &grad.output.output, &case.f64("output"));
            assert_close(&named("loss"), &grad.output.loss, &case.f64("loss"));
            assert_close(&named("grad_input"), &grad.input, &case.f64("grad_input"));
            for (key, grad) in grad.parameters.into_named() {
                let key = format!("grad_{key}");
                assert_close(&named(&key), &grad, &case.f64(&key));
            }
        }
    });
}

#[test]
fn distributions_agree_with_pytorch() {
    each(|case| {
        let loss = case.loss();
        let parameters = parameters(case, &loss);
        let (view, input) = (parameters.view(), case.tensor("input").unwrap());
        let expected = case.f64("log_prob");
        for (device, assert_close) in everywhere(input.dtype()) {
            let log_prob = loss.log_prob(&device, &view, input.view()).unwrap();
            assert_close(case.name, &log_prob, &expected);
            let best = loss.predict(&device, &view, input.view()).unwrap();
            let classes = loss.top_k(&device, &view, input.view(), 1).unwrap().0;
            assert_eq!(best.as_slice::<i64>(), classes.as_slice::<i64>(), "{}", case.name);
            let pytorchs = case.tensor("predict").unwrap();
            assert_eq!(best, pytorchs, "{}", case.name);
        }
    });
}
