//! PyTorch's answers: `scripts/golden/make.py` made them, the files are committed.

use crate::cross_entropy::CrossEntropyCase;
use crate::data::Data;
use crate::elementwise::ElementwiseCase;
use crate::harness::{Case, Expected, check_against};
use crate::js_div_logits::JsDivLogitsCase;
use crate::log_softmax::LogSoftmaxCase;
use crate::logprob_entropy::LogprobEntropyCase;
use crate::logsumexp::LogSumExpCase;
use crate::multi_margin::MarginCase;
use crate::nll::NllCase;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use warploss::check::catalogue;
use warploss::{DType, Reduction};

/// A loss is a row, but for the elementwise ones, which the catalogue has: the file's name, the cases it
/// must hold at least, and how one is read.
type Read = fn(&Golden<'_>) -> Box<dyn Case>;
const LOSSES: &[(&str, usize, Read)] = &[
    ("cross_entropy", 140, |g| Box::new(CrossEntropyCase::golden(g))),
    ("soft_cross_entropy", 130, |g| Box::new(SoftCrossEntropyCase::golden(g))),
    ("nll", 50, |g| Box::new(NllCase::golden(g))),
    ("multi_margin", 80, |g| Box::new(MarginCase::golden(g))),
    ("log_softmax", 50, |g| Box::new(LogSoftmaxCase::golden(g))),
    ("logsumexp", 130, |g| Box::new(LogSumExpCase::golden(g))),
    ("logprob_entropy", 60, |g| Box::new(LogprobEntropyCase::golden(g))),
    ("js_div_logits", 60, |g| Box::new(JsDivLogitsCase::golden(g))),
];

#[test]
fn every_loss_agrees_with_pytorch_on_every_device() {
    each(|_, case, golden| {
        let mut expected = case.expected();
        for e in &mut expected {
            golden.answer(e);
        }
        check_against(case, &expected);
    });
}

/// The reference is what all other tests lean on.
#[test]
fn the_reference_agrees_with_pytorch_to_f64() {
    each(|name, case, golden| {
        for reference in case.expected() {
            let mut pytorch = reference.clone();
            golden.answer(&mut pytorch);
            for (i, (&a, &b)) in reference.values.iter().zip(&pytorch.values).enumerate() {
                let agree = a == b
                    || (a.is_nan() && b.is_nan())
                    || (a - b).abs() <= 1e-12 * (1.0 + b.abs());
                assert!(agree, "{name}.{}[{i}]: {a:e}, PyTorch {b:e}", reference.name);
            }
        }
    });
}

/// The rows, and a file for each elementwise loss of the catalogue.
fn losses() -> Vec<(String, usize, Read)> {
    let rows = LOSSES.iter().map(|&(name, at_least, read)| (name.to_owned(), at_least, read));
    let elementwise = catalogue::elementwise().map(|loss| {
        let read: Read = |g| Box::new(ElementwiseCase::golden(g));
        (loss.name.replace('-', "_"), 90, read)
    });
    rows.chain(elementwise).collect()
}

fn each(test: impl Fn(&str, &dyn Case, &Golden<'_>)) {
    for (loss, at_least, read) in losses() {
        let path = format!("{}/tests/golden/{loss}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let file = SafeTensors::deserialize(&bytes).expect(&path);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect(&path);
        let golden = &metadata.metadata().as_ref().expect("metadata")["golden"];
        let golden: Value = serde_json::from_str(golden).expect("JSON");
        let cases = golden["cases"].as_object().expect("cases");
        assert!(cases.len() >= at_least, "{path}: {} cases", cases.len());
        for (name, options) in cases {
            let one = Golden { file: &file, name, options };
            test(name, &*read(&one), &one);
        }
    }
}

/// One case of a file.
pub(crate) struct Golden<'a> {
    file: &'a SafeTensors<'a>,
    pub(crate) name: &'a str,
    pub(crate) options: &'a Value,
}

impl Golden<'_> {
    fn tensor(&self, key: &str) -> Option<TensorView<'_>> {
        self.file.tensor(&format!("{}.{key}", self.name)).ok()
    }

    fn f64(&self, key: &str) -> Vec<f64> {
        let tensor = self.tensor(key).unwrap_or_else(|| panic!("{} lacks {key}", self.name));
        assert_eq!(tensor.dtype(), Dtype::F64, "{}.{key}", self.name);
        let number = |b: &[u8]| f64::from_le_bytes(b.try_into().expect("8 bytes"));
        tensor.data().chunks_exact(8).map(number).collect()
    }

    /// Puts PyTorch's values in place of the reference's.
    fn answer(&self, expected: &mut Expected) {
        let values = self.f64(expected.name);
        assert_eq!(values.len(), expected.values.len(), "{}.{}", self.name, expected.name);
        expected.values = values;
    }

    pub(crate) fn data(&self, key: &str) -> Option<Data> {
        let tensor = self.tensor(key)?;
        let size = tensor.dtype().bitsize() / 8;
        let chunks = || tensor.data().chunks_exact(size);
        let integer = |b: &[u8]| {
            let mut wide = [0; 8];
            wide[..b.len()].copy_from_slice(b);
            u64::from_le_bytes(wide)
        };
        let floats = |dtype, widen: fn(u64) -> f64| {
            let values: Vec<f64> = chunks().map(|b| widen(integer(b))).collect();
            Data::floats(dtype, tensor.shape(), &values)
        };
        let indices = |dtype, widen: fn(u64) -> i64| {
            let values: Vec<i64> = chunks().map(|b| widen(integer(b))).collect();
            Data::indices(dtype, tensor.shape(), &values)
        };
        Some(match tensor.dtype() {
            Dtype::F32 => floats(DType::F32, |b| f32::from_bits(b as u32).into()),
            Dtype::F16 => floats(DType::F16, |b| warploss::f16::from_bits(b as u16).to_f64()),
            Dtype::BF16 => floats(DType::BF16, |b| warploss::bf16::from_bits(b as u16).to_f64()),
            Dtype::I64 => indices(DType::I64, |b| b as i64),
            Dtype::I32 => indices(DType::I32, |b| (b as i32).into()),
            Dtype::U32 => indices(DType::U32, |b| b as i64),
            Dtype::U8 => indices(DType::U8, |b| b as i64),
            other => panic!("{}.{key} is {other:?}", self.name),
        })
    }

    pub(crate) fn number(&self, option: &str) -> f64 {
        self.options[option].as_f64().unwrap_or_else(|| panic!("{}: {option}", self.name))
    }

    pub(crate) fn reduction(&self) -> Reduction {
        let all = [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];
        let named = all.into_iter().find(|r| self.options["reduction"] == r.name());
        named.unwrap_or_else(|| panic!("{}: reduction", self.name))
    }

    pub(crate) fn dims(&self) -> Vec<isize> {
        let dims = self.options["dims"].as_array().expect("dims");
        dims.iter().map(|d| d.as_i64().expect("an integer") as isize).collect()
    }
}
