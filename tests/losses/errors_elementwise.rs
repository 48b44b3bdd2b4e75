//! Bad input to the elementwise losses: what is wrong is named, and nothing is written.

use crate::data::{Data, Rng};
use crate::harness::devices;
use warploss::{
    BceWithLogits, DType, Device, ElementwiseGradOut, GradOutput, Huber, KlDiv, L1, Mse, Reduction,
    Result, SmoothL1,
};

/// A legal call on [2, 3], to be spoiled in one place.
#[derive(Clone)]
struct Call {
    input: Data,
    target: Data,
    weight: Option<Data>,
    pos_weight: Option<Data>,
    grad_output: Option<Data>,
    loss: Data,
    grad_input: Data,
    grad_target: Data,
    reduction: Reduction,
    beta: f32,
    delta: f32,
}

fn f32s(shape: &[usize]) -> Data {
    Data::floats(DType::F32, shape, &Rng(3).normals(shape.iter().product(), 1.0))
}

impl Call {
    fn new() -> Call {
        Call {
            input: f32s(&[2, 3]).padded(1),
            target: f32s(&[2, 3]),
            weight: None,
            pos_weight: None,
            grad_output: None,
            loss: Data::poison(DType::F32, &[]),
            grad_input: Data::poison(DType::F32, &[2, 3]).padded(2),
            grad_target: Data::poison(DType::F32, &[2, 3]),
            reduction: Reduction::Mean,
            beta: 1.0,
            delta: 1.0,
        }
    }

    fn run(&mut self, loss: &str, device: &Device) -> Result<()> {
        let (x, y) = (self.input.view(), self.target.view());
        let g = match &self.grad_output {
            Some(g) => GradOutput::Tensor(g.view()),
            None => GradOutput::Number(1.0),
        };
        let grads = ElementwiseGradOut {
            grad_input: Some(self.grad_input.view_mut()),
            grad_target: Some(self.grad_target.view_mut()),
            grad_variance: None,
        };
        let out = (self.loss.view_mut(), grads);
        macro_rules! call {
            ($op:expr) => {
                $op.reduction(self.reduction).forward_backward_into(device, x, y, g, out)
            };
        }
        macro_rules! weighted {
            ($op:expr) => {
                match &self.weight {
                    Some(weight) => call!($op.weight(weight.view())),
                    None => call!($op),
                }
            };
        }
        match loss {
            "mse" => weighted!(Mse::default()),
            "l1" => weighted!(L1::default()),
            "smooth_l1" => weighted!(SmoothL1::default().beta(self.beta)),
            "huber" => weighted!(Huber::default().delta(self.delta)),
            "bce" => match &self.pos_weight {
                Some(r) => weighted!(BceWithLogits::default().pos_weight(r.view())),
                None => weighted!(BceWithLogits::default()),
            },
            "kl" => call!(KlDiv::default()),
            other => panic!("{other}"),
        }
    }

    fn written(&self) -> [Vec<u64>; 3] {
        [self.loss.bits(), self.grad_input.bits(), self.grad_target.bits()]
    }
}

/// The call fails on every device with an error that contains `named`, and writes nothing.
#[track_caller]
fn refused(loss: &str, named: &str, spoil: impl Fn(&mut Call)) {
    for (name, device) in devices() {
        let mut call = Call::new();
        spoil(&mut call);
        let before = call.written();
        let error = match call.run(loss, device) {
            Ok(()) => panic!("{loss} on {name}: expected {named}, got a result"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(named), "{loss} on {name}: expected {named}, got {error}");
        assert_eq!(before, call.written(), "{loss} on {name}: written though {error}");
    }
}

const ALL: [&str; 6] = ["mse", "l1", "smooth_l1", "huber", "bce", "kl"];
const REGRESSION: [&str; 4] = ["mse", "l1", "smooth_l1", "huber"];

#[test]
fn a_legal_call_is_accepted() {
    for loss in ALL {
        for (_, device) in devices() {
            Call::new().run(loss, device).expect("a legal call");
        }
    }
}

#[test]
fn shapes_that_do_not_broadcast_are_named() {
    let shape = "target: expected shape [2, 3] (the input's) or one that broadcasts with it, got";
    for loss in ["mse", "l1", "smooth_l1", "huber", "kl"] {
        refused(loss, &format!("{shape} [2, 2]"), |c| c.target = f32s(&[2, 2]));
        refused(loss, &format!("{shape} [2]"), |c| c.target = f32s(&[2]));
    }
    let equal = "target: expected shape [2, 3] (the input's), got [3]";
    refused("bce", equal, |c| c.target = f32s(&[3]));
}

#[test]
fn a_size_beyond_the_address_space_is_no_result() {
    let far = 1 << 33;
    refused("mse", "fits the address space", |c| {
        c.input = Data::poison(DType::F32, &[0, far, 1]);
        c.target = Data::poison(DType::F32, &[0, 1, far]);
    });
}

#[test]
fn dtypes_are_named() {
    for loss in ALL {
        refused(loss, "input: expected dtype f32, f16 or bf16, got i64", |c| {
            c.input = Data::indices(DType::I64, &[2, 3], &[0; 6]);
        });
        refused(loss, "target: expected dtype f32 (the input's), got bf16", |c| {
            c.target = Data::floats(DType::BF16, &[2, 3], &[0.0; 6]);
        });
        refused(loss, "target: expected dtype f32 (the input's), got u8", |c| {
            c.target = Data::indices(DType::U8, &[2, 3], &[0; 6]);
        });
        refused(loss, "grad_input: expected dtype f32 (the input's), got f16", |c| {
            c.grad_input = Data::poison(DType::F16, &[2, 3]);
        });
        refused(loss, "grad_target: expected dtype f32", |c| {
            c.grad_target = Data::poison(DType::F16, &[2, 3]);
        });
        refused(loss, "loss: expected dtype f32 (results are f32), got bf16", |c| {
            c.loss = Data::poison(DType::BF16, &[]);
        });
        refused(loss, "grad_output: expected dtype f32 (the input's), got f16", |c| {
            c.grad_output = Some(Data::floats(DType::F16, &[], &[1.0]));
        });
    }
}

#[test]
fn weights_of_another_shape_or_type_are_named() {
    for loss in REGRESSION {
        refused(loss, "weight: expected shape [2, 3] (the input's), got [3]", |c| {
            c.weight = Some(f32s(&[3]));
        });
        refused(loss, "target: expected shape [2, 3] (the input's, as there is a weight)", |c| {
            c.weight = Some(f32s(&[2, 3]));
            c.target = f32s(&[3]);
        });
        refused(loss, "weight: expected dtype f32 (the input's), got f16", |c| {
            c.weight = Some(Data::floats(DType::F16, &[2, 3], &[1.0; 6]));
        });
    }
    // They broadcast to the input and never enlarge it.
    let named = "weight: expected shape [2, 3] (the input's) or one that broadcasts to it, got";
    for shape in [&[2][..], &[2, 2], &[4, 2, 3], &[1, 2, 3]] {
        refused("bce", &format!("{named} {shape:?}"), |c| c.weight = Some(f32s(shape)));
        let named = format!("pos_{named} {shape:?}");
        refused("bce", &named, |c| c.pos_weight = Some(f32s(shape)));
    }
    refused("bce", "pos_weight: expected dtype f32", |c| {
        c.pos_weight = Some(Data::indices(DType::I32, &[3], &[1; 3]));
    });
}

#[test]
fn results_of_another_shape_are_named() {
    for loss in ALL {
        refused(loss, "loss: expected shape [] (reduction), got [2, 3]", |c| {
            c.loss = Data::poison(DType::F32, &[2, 3]);
        });
        refused(loss, "loss: expected shape [2, 3] (reduction), got []", |c| {
            c.reduction = Reduction::None;
        });
        refused(loss, "loss: expected rows without padding", |c| {
            c.reduction = Reduction::None;
            c.loss = Data::poison(DType::F32, &[2, 3]).padded(1);
        });
        refused(loss, "grad_input: expected shape [2, 3] (the input's), got [3, 2]", |c| {
            c.grad_input = Data::poison(DType::F32, &[3, 2]);
        });
        refused(loss, "grad_target: expected shape [2, 3] (the target's), got [6]", |c| {
            c.grad_target = Data::poison(DType::F32, &[6]);
        });
        refused(loss, "grad_output: expected shape [] (the result's) or one number", |c| {
            c.grad_output = Some(f32s(&[2, 3]));
        });
        refused(loss, "grad_output: expected shape [2, 3] (the result's) or one number", |c| {
            c.reduction = Reduction::None;
            c.loss = Data::poison(DType::F32, &[2, 3]);
            c.grad_output = Some(f32s(&[3]));
        });
        refused(loss, "grad_output: expected rows without padding", |c| {
            c.reduction = Reduction::None;
            c.loss = Data::poison(DType::F32, &[2, 3]);
            c.grad_output = Some(f32s(&[2, 3]).padded(1));
        });
    }
}

#[test]
fn options_out_of_range_are_named() {
    for beta in [-1.0, f32::NAN, f32::INFINITY] {
        let named = format!("beta: expected a finite number ≥ 0, got {beta}");
        refused("smooth_l1", &named, |c| c.beta = beta);
    }
    for delta in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let named = format!("delta: expected a finite number > 0, got {delta}");
        refused("huber", &named, |c| c.delta = delta);
    }
    for loss in &ALL[..5] {
        let named = "reduction: expected none, sum or mean, got batchmean";
        refused(loss, named, |c| c.reduction = Reduction::BatchMean);
    }
}

#[test]
fn an_input_smaller_than_the_result_cannot_hold_its_gradient() {
    for (name, device) in devices() {
        let (mut input, target) = (f32s(&[3]), f32s(&[2, 3]));
        let mut loss = Data::poison(DType::F32, &[]);
        let before = (input.bits(), loss.bits());
        let error = Mse::default()
            .forward_backward_in_place(
                device,
                input.view_mut(),
                target.view(),
                1.0,
                loss.view_mut(),
            )
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("input: expected shape [2, 3]"), "{name}: {error}");
        assert_eq!(before, (input.bits(), loss.bits()), "{name}");
    }
}
