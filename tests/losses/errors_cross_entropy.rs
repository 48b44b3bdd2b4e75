//! Bad calls of cross entropy: every error names its argument, and nothing has been written when it
//! comes.

mod spoiled;

use crate::data::{Data, Rng};
use crate::harness::devices;
use spoiled::{ALL, BAD};
use warploss::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, DType, Device, GradOutput, Reduction,
    Result, TensorRef,
};

/// A legal call of cross entropy, [2, 3] logits, to be spoiled in one place.
#[derive(Clone)]
struct Call {
    logits: Data,
    target: Data,
    weight: Option<Data>,
    grad_output: Option<Data>,
    saved_lse: Data,
    grad_logits: Data,
    grad_target: Option<Data>,
    loss: Data,
    lse: Data,
    z_loss: Data,
    options: CrossEntropy<'static>,
}

fn f32s(shape: &[usize]) -> Data {
    Data::floats(DType::F32, shape, &Rng(3).normals(shape.iter().product(), 1.0))
}

fn i64s(shape: &[usize], values: &[i64]) -> Data {
    Data::indices(DType::I64, shape, values)
}

impl Call {
    fn new() -> Call {
        Call {
            logits: f32s(&[2, 3]).padded(1),
            target: i64s(&[2], &[0, 2]),
            weight: None,
            grad_output: None,
            saved_lse: f32s(&[2]),
            grad_logits: Data::poison(DType::F32, &[2, 3]).padded(2),
            grad_target: None,
            loss: Data::poison(DType::F32, &[2]),
            lse: Data::poison(DType::F32, &[2]),
            z_loss: Data::poison(DType::F32, &[2]),
            options: CrossEntropy::default().reduction(Reduction::None),
        }
    }

    /// Every buffer, bit by bit.
    fn bits(&self) -> Vec<Vec<u64>> {
        let outputs = [&self.logits, &self.grad_logits, &self.loss, &self.lse, &self.z_loss];
        outputs.into_iter().chain(&self.grad_target).map(|data| data.bits()).collect()
    }

    fn run(&mut self, form: Form, device: &Device) -> Result<()> {
        let options = match &self.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        };
        let target = self.target.view();
        let lse = self.saved_lse.view();
        let g = match &self.grad_output {
            Some(g) => GradOutput::from(g.view()),
            None => GradOutput::default(),
        };
        let out = CrossEntropyOut {
            lse: Some(self.lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        };
        let target_gradient = self.grad_target.as_mut().map(|t| t.view_mut());
        let gradients = |logits| CrossEntropyGradients { logits, target: target_gradient };
        match form {
            Form::Forward => options.forward(device, self.logits.view(), target).map(drop),
            Form::ForwardInto => options.forward_into(device, self.logits.view(), target, out),
            Form::Backward => {
                options.backward(device, self.logits.view(), target, lse, g).map(drop)
            }
            Form::BackwardInto => {
                let gradients = gradients(self.grad_logits.view_mut());
                options.backward_into(device, self.logits.view(), (target, lse), g, gradients)
            }
            Form::BackwardInPlace => {
                let gradients = gradients(self.logits.view_mut());
                options.backward_in_place(device, gradients, target, lse, g)
            }
            Form::Fused => {
                let gradients = gradients(self.logits.view_mut());
                options.forward_backward_in_place(device, gradients, target, g, out)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Forward,
    ForwardInto,
    Backward,
    BackwardInto,
    BackwardInPlace,
    Fused,
}

#[test]
fn the_call_that_gets_spoiled_is_legal() {
    for (_, device) in devices() {
        for &form in ALL {
            Call::new().run(form, device).expect("a legal call");
        }
    }
}

#[test]
fn cross_entropy_names_what_is_wrong_and_writes_nothing() {
    for (bad, spoil, forms, says) in BAD {
        for (device_name, device) in devices() {
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

/// A bad target anywhere in a large batch, found by whichever thread: the first one is named.
#[test]
fn the_first_bad_target_of_a_large_batch_is_named() {
    let rows = 50_000;
    let mut target = vec![1i64; rows];
    target[33_333] = -7;
    target[49_999] = 8;
    let logits = vec![0.5f32; rows * 2];
    for (_, device) in devices() {
        let (logits, target) = (
            TensorRef::new(&logits, &[rows, 2]).expect("a view"),
            TensorRef::new(&target, &[rows]).expect("a view"),
        );
        let said = CrossEntropy::default().forward(device, logits, target);
        let said = said.expect_err("two bad rows").to_string();
        assert!(said.contains("row 33333") && said.contains("-7"), "{said}");
    }
}

/// Language models have their classes last, PyTorch's losses in dimension 1.
#[test]
fn logits_whose_classes_are_last_are_told_which_views_to_take() {
    let device = Device::cpu();
    let said = |shape: &[usize], target: &[usize]| {
        let (logits, target) = (f32s(shape), i64s(target, &vec![0; target.iter().product()]));
        let (logits, target) = (logits.view(), target.view());
        let cross_entropy = CrossEntropy::default().forward(&device, logits, target).map(|_| ());
        let nll = warploss::Nll::default().forward(&device, logits, target).map(|_| ());
        [cross_entropy, nll].map(|refused| refused.expect_err("another shape").to_string())
    };
    for said in said(&[2, 5, 7], &[2, 5]) {
        assert!(said.starts_with("target: expected shape [2, 7] (the "), "{said}");
        let hint = "where classes come last, view both as [10, 7] and [10]), got [2, 5]";
        assert!(said.ends_with(hint), "{said}");
    }
    for said in said(&[2, 3, 5, 7], &[2, 3, 5]) {
        assert!(said.contains("[30, 7] and [30]"), "{said}");
    }
    let others =
        [([2, 5, 7], &[2, 6][..]), ([2, 5, 7], &[5, 7]), ([2, 5, 7], &[2]), ([2, 5, 7], &[10])];
    for (shape, target) in others {
        for said in said(&shape, target) {
            assert!(!said.contains("view both"), "{said}");
        }
    }
    for said in said(&[4, 3], &[3]) {
        assert!(!said.contains("view both"), "{said}");
    }
}
