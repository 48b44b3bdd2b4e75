//! Bad input to log-probability and entropy: what is not cross entropy's own.

use crate::data::{Data, Rng};
use crate::harness::devices;
use crate::ranks::unwritten;
use warploss::{
    DType, Device, GradOutput, LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream, Result,
};

/// A legal call on [2, 3] logits, to be spoiled in one place.
#[derive(Clone)]
struct Call {
    logits: Data,
    target: Data,
    grad_logprob: Data,
    grad_entropy: Data,
    saved_lse: Data,
    grad_logits: Data,
    logprob: Data,
    entropy: Data,
    lse: Data,
    argmax: Data,
    rank: Data,
    options: LogprobEntropy,
}

fn f32s(shape: &[usize]) -> Data {
    Data::floats(DType::F32, shape, &Rng(3).normals(shape.iter().product(), 1.0))
}

fn i64s(shape: &[usize], values: &[i64]) -> Data {
    Data::indices(DType::I64, shape, values)
}

impl Call {
    fn new() -> Call {
        let poison = || Data::poison(DType::F32, &[2]);
        Call {
            logits: f32s(&[2, 3]).padded(1),
            target: i64s(&[2], &[0, 2]),
            grad_logprob: f32s(&[2]),
            grad_entropy: f32s(&[]),
            saved_lse: f32s(&[2]),
            grad_logits: Data::poison(DType::F32, &[2, 3]).padded(2),
            logprob: poison(),
            entropy: poison(),
            lse: poison(),
            argmax: unwritten(&[2]),
            rank: unwritten(&[2]),
            options: LogprobEntropy::default(),
        }
    }

    /// Every buffer, bit by bit.
    fn bits(&self) -> Vec<Vec<u64>> {
        let f32s = [&self.logits, &self.grad_logits, &self.logprob, &self.entropy, &self.lse];
        f32s.into_iter().chain([&self.argmax, &self.rank]).map(|data| data.bits()).collect()
    }

    fn run(&mut self, form: Form, device: &Device) -> Result<()> {
        let (target, lse) = (self.target.view(), self.saved_lse.view());
        let upstream = LogprobEntropyUpstream {
            grad_logprob: GradOutput::Tensor(self.grad_logprob.view()),
            grad_entropy: GradOutput::Tensor(self.grad_entropy.view()),
        };
        let out = LogprobEntropyOut {
            logprob: self.logprob.view_mut(),
            entropy: self.entropy.view_mut(),
            lse: Some(self.lse.view_mut()),
            argmax: Some(self.argmax.view_mut()),
            rank: Some(self.rank.view_mut()),
        };
        let options = &self.options;
        match form {
            Form::Forward => options.forward_into(device, self.logits.view(), target, out),
            Form::Allocating => options.forward(device, self.logits.view(), target).map(drop),
            Form::Backward => {
                let grad = self.grad_logits.view_mut();
                let saved = (target, lse);
                options.backward_into(device, self.logits.view(), saved, upstream, grad)
            }
            Form::InPlace => {
                let logits = self.logits.view_mut();
                options.backward_in_place(device, logits, target, lse, upstream)
            }
            Form::Fused => {
                let logits = self.logits.view_mut();
                options.forward_backward_in_place(device, logits, target, upstream, out)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Forward,
    Allocating,
    Backward,
    InPlace,
    Fused,
}

const ALL: &[Form] = &[Form::Forward, Form::Allocating, Form::Backward, Form::InPlace, Form::Fused];
const UPSTREAM: &[Form] = &[Form::Backward, Form::InPlace, Form::Fused];
const SAVED: &[Form] = &[Form::Backward, Form::InPlace];
const OUT: &[Form] = &[Form::Forward, Form::Fused];

/// What is wrong, how to make it so, which forms must refuse it, and what they must say.
type Bad = (&'static str, fn(&mut Call), &'static [Form], &'static [&'static str]);

const BAD: &[Bad] = &[
    ("a class too many", |c| c.target = i64s(&[2], &[0, 3]), ALL, &["target", "row 1", "got 3"]),
    ("float targets", |c| c.target = f32s(&[2]), ALL, &["target", "f32", "i64"]),
    ("targets of other rows", |c| c.target = i64s(&[1], &[0]), ALL, &["target", "[1]", "[2]"]),
    ("index logits", |c| c.logits = i64s(&[2, 3], &[0; 6]), ALL, &["logits", "i64", "f32"]),
    (
        "a scale of 0",
        |c| c.options = LogprobEntropy::default().logit_scale(0.0),
        ALL,
        &["logit_scale", "> 0", "got 0"],
    ),
    (
        "a NaN cap",
        |c| c.options = LogprobEntropy::default().softcap(Some(f32::NAN)),
        ALL,
        &["softcap", "finite", "NaN"],
    ),
    (
        "-100 when 255 is ignored",
        |c| {
            c.options = LogprobEntropy::default().ignore_index(255);
            c.target = i64s(&[2], &[255, -100]);
        },
        ALL,
        &["target", "row 1", "got -100", "255"],
    ),
    (
        "upstream gradients of other rows",
        |c| c.grad_logprob = f32s(&[3]),
        UPSTREAM,
        &["grad_logprob", "[3]", "[2]"],
    ),
    (
        "an entropy gradient of other rows",
        |c| c.grad_entropy = f32s(&[2, 1]),
        UPSTREAM,
        &["grad_entropy", "[2, 1]", "[2]"],
    ),
    (
        "an entropy gradient of another dtype",
        |c| c.grad_entropy = Data::floats(DType::F16, &[2], &[1.0; 2]),
        UPSTREAM,
        &["grad_entropy", "f16", "f32"],
    ),
    ("a saved lse of other rows", |c| c.saved_lse = f32s(&[3]), SAVED, &["lse", "[3]", "[2]"]),
    (
        "a gradient of another shape",
        |c| c.grad_logits = Data::poison(DType::F32, &[3, 2]),
        &[Form::Backward],
        &["grad_logits", "[3, 2]", "[2, 3]"],
    ),
    (
        "one log-probability for two rows",
        |c| c.logprob = Data::poison(DType::F32, &[]),
        OUT,
        &["logprob", "[]", "[2]"],
    ),
    (
        "an entropy that is not f32",
        |c| c.entropy = Data::poison(DType::BF16, &[2]),
        OUT,
        &["entropy", "bf16", "f32"],
    ),
    ("an lse of other rows", |c| c.lse = Data::poison(DType::F32, &[1]), OUT, &["lse", "[1]"]),
    (
        "an argmax that is not i64",
        |c| c.argmax = Data::poison(DType::F32, &[2]),
        OUT,
        &["argmax", "f32", "i64"],
    ),
    ("ranks of other rows", |c| c.rank = unwritten(&[3]), OUT, &["rank", "[3]", "[2]"]),
];

#[test]
fn logprob_entropy_names_what_is_wrong_and_writes_nothing() {
    for (device_name, device) in devices() {
        for &form in ALL {
            Call::new().run(form, device).expect("a legal call");
        }
        for (bad, spoil, forms, says) in BAD {
            for &form in *forms {
                let mut call = Call::new();
                spoil(&mut call);
                let before = call.bits();
                let at = format!("{bad}, {form:?}, {device_name}");
                let Err(error) = call.run(form, device) else { panic!("legal: {at}") };
                let said = error.to_string();
                for part in *says {
                    assert!(said.contains(part), "{part:?} is not in {said:?}: {at}");
                }
                let argument = said.split(':').next();
                assert_eq!(argument, Some(says[0]), "the argument comes first: {at}");
                assert!(before == call.bits(), "something was written: {at}");
            }
        }
    }
}
