//! Bad input: every error names its argument, and nothing has been written when it comes.

use crate::data::{Data, Rng};
use crate::harness::devices;
use warploss::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, DType, Device, GradOutput, LogSoftmax,
    LogSumExp, Nll, Reduction, Result, TensorRef,
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

/// Forms by what they take.
const ALL: &[Form] = &[
    Form::Forward,
    Form::ForwardInto,
    Form::Backward,
    Form::BackwardInto,
    Form::BackwardInPlace,
    Form::Fused,
];
const UPSTREAM: &[Form] = &[Form::Backward, Form::BackwardInto, Form::BackwardInPlace, Form::Fused];
const SAVED: &[Form] = &[Form::Backward, Form::BackwardInto, Form::BackwardInPlace];
const GRAD: &[Form] = &[Form::BackwardInto];
const GRADIENTS: &[Form] = &[Form::BackwardInto, Form::BackwardInPlace, Form::Fused];
const OUT: &[Form] = &[Form::ForwardInto, Form::Fused];

/// What is wrong, how to make it so, which forms must refuse it, and what they must say.
type Bad = (&'static str, fn(&mut Call), &'static [Form], &'static [&'static str]);

const BAD: &[Bad] = &[
    // Targets.
    (
        "a class too many",
        |c| c.target = i64s(&[2], &[0, 3]),
        ALL,
        &["target", "row 1", "got 3", "[0, 3)", "-100"],
    ),
    (
        "a negative class",
        |c| c.target = i64s(&[2], &[-1, 0]),
        ALL,
        &["target", "row 0", "got -1", "[0, 3)", "-100"],
    ),
    (
        "the first of two bad rows",
        |c| c.target = i64s(&[2], &[7, 9]),
        ALL,
        &["target", "row 0", "got 7"],
    ),
    (
        "-100 when 255 is ignored",
        |c| {
            c.options = c.options.clone().ignore_index(255);
            c.target = i64s(&[2], &[255, -100]);
        },
        ALL,
        &["target", "row 1", "got -100", "255"],
    ),
    (
        "a class beyond 32 bits",
        |c| c.target = i64s(&[2], &[1 << 32, 0]),
        ALL,
        &["target", "got 4294967296"],
    ),
    (
        "an unsigned class too large",
        |c| c.target = Data::indices(DType::U8, &[2], &[2, 200]),
        ALL,
        &["target", "row 1", "got 200"],
    ),
    (
        "a kept class among none",
        |c| {
            c.logits = f32s(&[2, 0]);
            c.grad_logits = f32s(&[2, 0]);
        },
        ALL,
        &["target", "row 0", "[0, 0)"],
    ),
    ("targets of a float dtype", |c| c.target = f32s(&[2]), ALL, &["target", "f32", "i64"]),
    (
        "targets for other rows",
        |c| c.target = i64s(&[3], &[0, 1, 2]),
        ALL,
        &["target", "[3]", "[2]", "[2, 3]"],
    ),
    (
        "targets of the logits' shape",
        |c| c.target = i64s(&[2, 3], &[0; 6]),
        ALL,
        &["target", "[2, 3]"],
    ),
    (
        "targets without the extra dimensions",
        |c| {
            c.logits = f32s(&[2, 3, 4]);
            c.grad_logits = f32s(&[2, 3, 4]);
        },
        ALL,
        &["target", "[2, 4]", "[2]"],
    ),
    // Logits.
    (
        "logits of an index dtype",
        |c| c.logits = i64s(&[2, 3], &[0; 6]),
        ALL,
        &["logits", "i64", "f32"],
    ),
    (
        "a number for logits",
        |c| {
            c.logits = f32s(&[]);
            c.target = i64s(&[], &[0]);
        },
        ALL,
        &["logits", "at least 1 dimension,", "got 0"],
    ),
    // Weights.
    ("a weight too many", |c| c.weight = Some(f32s(&[4])), ALL, &["weight", "[4]", "[3]"]),
    (
        "weights in two dimensions",
        |c| c.weight = Some(f32s(&[1, 3])),
        ALL,
        &["weight", "[1, 3]", "[3]"],
    ),
    (
        "weights of another float dtype",
        |c| c.weight = Some(Data::floats(DType::F16, &[3], &[1.0; 3])),
        ALL,
        &["weight", "f16", "f32"],
    ),
    (
        "weights of an index dtype",
        |c| c.weight = Some(i64s(&[3], &[1; 3])),
        ALL,
        &["weight", "i64", "f32"],
    ),
    (
        "a NaN weight of an unused class",
        |c| c.weight = Some(Data::floats(DType::F32, &[3], &[1.0, f64::NAN, 1.0])),
        ALL,
        &["weight", "index 1", "NaN"],
    ),
    (
        "an infinite weight",
        |c| c.weight = Some(Data::floats(DType::F32, &[3], &[1.0, 1.0, f64::NEG_INFINITY])),
        ALL,
        &["weight", "index 2", "-inf"],
    ),
    // Options.
    (
        "a reduction of divergences",
        |c| c.options = c.options.clone().reduction(Reduction::BatchMean),
        ALL,
        &["reduction", "batchmean", "none, sum or mean"],
    ),
    (
        "smoothing above 1",
        |c| c.options = c.options.clone().label_smoothing(1.5),
        ALL,
        &["label_smoothing", "1.5", "[0, 1]"],
    ),
    (
        "smoothing below 0",
        |c| c.options = c.options.clone().label_smoothing(-0.1),
        ALL,
        &["label_smoothing", "-0.1", "[0, 1]"],
    ),
    (
        "smoothing NaN",
        |c| c.options = c.options.clone().label_smoothing(f64::NAN),
        ALL,
        &["label_smoothing", "NaN", "[0, 1]"],
    ),
    (
        "a scale of 0",
        |c| c.options = c.options.clone().logit_scale(0.0),
        ALL,
        &["logit_scale", "> 0", "got 0"],
    ),
    (
        "a negative scale",
        |c| c.options = c.options.clone().logit_scale(-2.0),
        ALL,
        &["logit_scale", "> 0", "-2"],
    ),
    (
        "an infinite scale",
        |c| c.options = c.options.clone().logit_scale(f32::INFINITY),
        ALL,
        &["logit_scale", "finite", "inf"],
    ),
    (
        "a scale near the end of f32",
        |c| c.options = c.options.clone().logit_scale(2.4e38),
        ALL,
        &["logit_scale", "up to 2e38", "24"],
    ),
    (
        "a NaN scale",
        |c| c.options = c.options.clone().logit_scale(f32::NAN),
        ALL,
        &["logit_scale", "finite", "NaN"],
    ),
    (
        "a cap of 0",
        |c| c.options = c.options.clone().softcap(Some(0.0)),
        ALL,
        &["softcap", "> 0", "got 0"],
    ),
    (
        "an infinite cap",
        |c| c.options = c.options.clone().softcap(Some(f32::INFINITY)),
        ALL,
        &["softcap", "finite", "inf"],
    ),
    (
        "a NaN cap",
        |c| c.options = c.options.clone().softcap(Some(f32::NAN)),
        ALL,
        &["softcap", "finite", "NaN"],
    ),
    (
        "a negative z-loss",
        |c| c.options = c.options.clone().lse_square_scale(-1e-4),
        ALL,
        &["lse_square_scale", "≥ 0", "-0.0001"],
    ),
    (
        "an infinite z-loss",
        |c| c.options = c.options.clone().lse_square_scale(f64::INFINITY),
        ALL,
        &["lse_square_scale", "finite", "inf"],
    ),
    (
        "a NaN z-loss",
        |c| c.options = c.options.clone().lse_square_scale(f64::NAN),
        ALL,
        &["lse_square_scale", "finite", "NaN"],
    ),
    (
        "a z-loss beyond f32",
        |c| c.options = c.options.clone().lse_square_scale(1e39),
        ALL,
        &["lse_square_scale", "f32", "1000000000"],
    ),
    // Probabilities.
    (
        "probabilities for other classes",
        |c| c.target = f32s(&[2, 4]),
        ALL,
        &["target", "[2, 4]", "[2, 3]"],
    ),
    (
        "probabilities of another float dtype",
        |c| c.target = Data::floats(DType::F16, &[2, 3], &[0.5; 6]),
        ALL,
        &["target", "f16", "f32"],
    ),
    (
        "an ignored label with probabilities",
        |c| {
            c.target = f32s(&[2, 3]);
            c.options = c.options.clone().ignore_index(0);
        },
        ALL,
        &["ignore_index", "negative", "got 0"],
    ),
    (
        "an infinite weight beside probabilities",
        |c| {
            c.target = f32s(&[2, 3]);
            c.weight = Some(Data::floats(DType::F32, &[3], &[1.0, 1.0, f64::INFINITY]));
        },
        ALL,
        &["weight", "index 2", "inf"],
    ),
    (
        "a teacher among class indices",
        |c| c.options = c.options.clone().teacher_scale(Some(0.5)),
        ALL,
        &["teacher_scale", "class indices", "0.5"],
    ),
    (
        "a teacher's scale of 0",
        |c| {
            c.target = f32s(&[2, 3]);
            c.options = c.options.clone().teacher_scale(Some(0.0));
        },
        ALL,
        &["teacher_scale", "> 0", "got 0"],
    ),
    (
        "a gradient of class indices",
        |c| c.grad_target = Some(f32s(&[2, 3])),
        GRADIENTS,
        &["grad_target", "class indices", "[2, 3]"],
    ),
    (
        "a gradient of a teacher's logits",
        |c| {
            c.target = f32s(&[2, 3]);
            c.options = c.options.clone().teacher_scale(Some(1.0));
            c.grad_target = Some(f32s(&[2, 3]));
        },
        GRADIENTS,
        &["grad_target", "teacher", "[2, 3]"],
    ),
    (
        "a gradient of probabilities in another shape",
        |c| {
            c.target = f32s(&[2, 3]);
            c.grad_target = Some(f32s(&[3, 2]));
        },
        GRADIENTS,
        &["grad_target", "[3, 2]", "[2, 3]"],
    ),
    (
        "a gradient of probabilities in another dtype",
        |c| {
            c.target = f32s(&[2, 3]);
            c.grad_target = Some(Data::poison(DType::BF16, &[2, 3]));
        },
        GRADIENTS,
        &["grad_target", "bf16", "f32"],
    ),
    // Upstream gradient and saved log-sum-exp.
    (
        "upstream gradients for other rows",
        |c| c.grad_output = Some(f32s(&[3])),
        UPSTREAM,
        &["grad_output", "[3]", "[2]"],
    ),
    (
        "upstream gradients of a mean, per row",
        |c| {
            c.options = c.options.clone().reduction(Reduction::Mean);
            c.loss = Data::poison(DType::F32, &[]);
            c.z_loss = Data::poison(DType::F32, &[]);
            c.grad_output = Some(f32s(&[2]));
        },
        UPSTREAM,
        &["grad_output", "[2]", "[]"],
    ),
    (
        "upstream gradients of another float dtype",
        |c| c.grad_output = Some(Data::floats(DType::BF16, &[2], &[1.0; 2])),
        UPSTREAM,
        &["grad_output", "bf16", "f32"],
    ),
    (
        "upstream gradients of an index dtype",
        |c| c.grad_output = Some(i64s(&[2], &[1, 1])),
        UPSTREAM,
        &["grad_output", "i64", "f32"],
    ),
    ("a saved lse of other rows", |c| c.saved_lse = f32s(&[3]), SAVED, &["lse", "[3]", "[2]"]),
    (
        "a saved lse that is not f32",
        |c| c.saved_lse = Data::floats(DType::F16, &[2], &[1.0; 2]),
        SAVED,
        &["lse", "f16", "f32"],
    ),
    // Outputs.
    (
        "a gradient of another shape",
        |c| c.grad_logits = Data::poison(DType::F32, &[3, 2]),
        GRAD,
        &["grad_logits", "[3, 2]", "[2, 3]"],
    ),
    (
        "a gradient of another dtype",
        |c| c.grad_logits = Data::poison(DType::F16, &[2, 3]),
        GRAD,
        &["grad_logits", "f16", "f32"],
    ),
    (
        "one loss for two rows",
        |c| c.loss = Data::poison(DType::F32, &[]),
        OUT,
        &["loss", "[]", "[2]"],
    ),
    (
        "a loss that is not f32",
        |c| c.loss = Data::poison(DType::BF16, &[2]),
        OUT,
        &["loss", "bf16", "f32"],
    ),
    (
        "losses with padding",
        |c| c.loss = Data::poison(DType::F32, &[2]).padded(1),
        OUT,
        &["loss", "stride 1", "got row stride 2"],
    ),
    (
        "an lse of another shape",
        |c| c.lse = Data::poison(DType::F32, &[2, 1]),
        OUT,
        &["lse", "[2, 1]", "[2]"],
    ),
    (
        "a z-loss of another shape",
        |c| c.z_loss = Data::poison(DType::F32, &[1]),
        OUT,
        &["z_loss", "[1]", "[2]"],
    ),
];

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

/// A call of nll that is to be refused: what is wrong, its tensors and options, what it must say.
type BadNll =
    (&'static str, [&'static [usize]; 3], Nll<'static>, &'static [i64], &'static [&'static str]);

#[test]
fn nll_names_what_is_wrong_and_writes_nothing() {
    let none = || Nll::default().reduction(Reduction::None);
    let bad: Vec<BadNll> = vec![
        (
            "a class too many",
            [&[2, 3], &[2], &[2]],
            none(),
            &[0, 3],
            &["target", "row 1", "[0, 3)"],
        ),
        ("a negative class", [&[2, 3], &[2], &[2]], none(), &[-1, 0], &["target", "row 0", "-100"]),
        ("other rows", [&[2, 3], &[1], &[2]], none(), &[0], &["target", "[1]", "[2]"]),
        ("a loss too many", [&[2, 3], &[2], &[3]], none(), &[0, 1], &["loss", "[3]", "[2]"]),
        ("no classes", [&[2, 0], &[2], &[2]], none(), &[0, 1], &["target", "row 0", "[0, 0)"]),
        ("a number", [&[], &[], &[]], none(), &[0], &["input", "got 0"]),
        (
            "a reduction of divergences",
            [&[2, 3], &[2], &[]],
            Nll::default().reduction(Reduction::BatchMean),
            &[0, 1],
            &["reduction", "batchmean"],
        ),
    ];
    for (what, [shape, rows, losses], nll, target, says) in bad {
        for (device_name, device) in devices() {
            let (mut input, target) = (f32s(shape), i64s(rows, target));
            let mut loss = Data::poison(DType::F32, losses);
            let before = [input.bits(), loss.bits()];
            let target = target.view();
            let forward = nll.forward_into(device, input.view(), target, loss.view_mut());
            let view = input.view_mut();
            let fused = nll.forward_backward_in_place(device, view, target, 1.0, loss.view_mut());
            for result in [forward, fused] {
                let said = result.expect_err(what).to_string();
                let all = says.iter().all(|part| said.contains(part));
                assert!(all && said.starts_with(says[0]), "{what}, {device_name}: {said}");
            }
            assert!(before == [input.bits(), loss.bits()], "something was written: {what}");
        }
    }
    for (_, device) in devices() {
        let mut grad = Data::poison(DType::F32, &[2, 3]);
        let (before, g, target) = (grad.bits(), f32s(&[3]), i64s(&[2], &[0, 1]));
        let said = none().backward_into(device, target.view(), g.view(), grad.view_mut());
        let said = said.expect_err("three gradients for two rows").to_string();
        assert!(said.starts_with("grad_output") && said.contains("[3]"), "{said}");
        assert!(before == grad.bits());
    }
}

/// A call along dimensions, with its outputs.
struct Along {
    input: Data,
    output: Data,
    grad_output: Data,
    grad_input: Data,
}

impl Along {
    fn bits(&self) -> [Vec<u64>; 2] {
        [self.output.bits(), self.grad_input.bits()]
    }
}

/// What is wrong; the dimensions; how to spoil the rest; which of forward and backward must
/// refuse it; and what they must say.
type BadAlong =
    (&'static str, &'static [isize], fn(&mut Along), (bool, bool), &'static [&'static str]);

const BAD_DIMS: &[BadAlong] = &[
    ("a dimension too many", &[2], |_| (), (true, true), &["dim", "[-2, 1]", "got 2"]),
    ("a negative dimension too many", &[-3], |_| (), (true, true), &["dim", "[-2, 1]", "got -3"]),
    ("an extreme dimension", &[isize::MIN], |_| (), (true, true), &["dim", "[-2, 1]"]),
    (
        "an input of an index dtype",
        &[1],
        |a| a.input = i64s(&[2, 3], &[0; 6]),
        (true, true),
        &["input", "i64", "f32"],
    ),
    (
        "an output of another shape",
        &[1],
        |a| a.output = Data::poison(DType::F32, &[5]),
        (true, false),
        &["output", "[5]"],
    ),
    (
        "an output of another dtype",
        &[1],
        |a| a.output = Data::floats(DType::F16, a.output.shape(), &a.output.values()),
        (true, false),
        &["output", "f16", "f32"],
    ),
    (
        "upstream gradients of another shape",
        &[1],
        |a| a.grad_output = f32s(&[7]),
        (false, true),
        &["grad_output", "[7]"],
    ),
    (
        "upstream gradients of an index dtype",
        &[1],
        |a| {
            a.grad_output = i64s(a.grad_output.shape(), &vec![1; a.grad_output.values().len()]);
        },
        (false, true),
        &["grad_output", "i64", "f32"],
    ),
    (
        "a gradient of another shape",
        &[1],
        |a| a.grad_input = Data::poison(DType::F32, &[3, 2]),
        (false, true),
        &["grad_input", "[3, 2]", "[2, 3]"],
    ),
    (
        "a gradient of another dtype",
        &[1],
        |a| a.grad_input = Data::poison(DType::BF16, &[2, 3]),
        (false, true),
        &["grad_input", "bf16", "f32"],
    ),
];

const BAD_DIM_LISTS: &[BadAlong] = &[
    ("no dimension", &[], |_| (), (true, true), &["dim", "got 0"]),
    ("a dimension twice", &[1, 1], |_| (), (true, true), &["dim", "distinct", "1 twice"]),
    (
        "a dimension twice, counted from both ends",
        &[1, -1],
        |_| (),
        (true, true),
        &["dim", "distinct", "-1 twice"],
    ),
    (
        "more dimensions than there can be",
        &[0, 1, 2, 3, 4, 5, 6, 7, 8],
        |_| (),
        (true, true),
        &["dim", "got 9"],
    ),
];

/// Runs a table: `run(call, dims, device)` makes the forward and the backward call.
fn check_along(
    table: &[BadAlong],
    output: &[usize],
    run: impl Fn(&mut Along, &[isize], &Device) -> (Result<()>, Result<()>),
) {
    for (bad, dims, spoil, (forward, backward), says) in table {
        for (_, device) in devices() {
            let mut call = Along {
                input: f32s(&[2, 3]).padded(1),
                output: Data::poison(DType::F32, output),
                grad_output: f32s(output),
                grad_input: Data::poison(DType::F32, &[2, 3]).padded(2),
            };
            spoil(&mut call);
            let before = call.bits();
            let results = run(&mut call, dims, device);
            let must = [(forward, results.0, "forward"), (backward, results.1, "backward")];
            for (_, result, direction) in must.into_iter().filter(|(must, ..)| **must) {
                let Err(error) = result else { panic!("legal: {bad}, {direction}") };
                let said = error.to_string();
                for part in *says {
                    assert!(said.contains(part), "{part:?} is not in {said:?}: {bad}, {direction}");
                }
            }
            let after = call.bits();
            assert!(!forward || before[0] == after[0], "{bad}: the output was written");
            assert!(!backward || before[1] == after[1], "{bad}: the gradient was written");
        }
    }
}

#[test]
fn log_softmax_names_what_is_wrong_and_writes_nothing() {
    check_along(BAD_DIMS, &[2, 3], |call, dims, device| {
        let loss = LogSoftmax::dim(dims[0]);
        let forward = loss.forward_into(device, call.input.view(), call.output.view_mut());
        let (x, g) = (call.input.view(), call.grad_output.view());
        (forward, loss.backward_into(device, x, g, call.grad_input.view_mut()))
    });
}

#[test]
fn logsumexp_names_what_is_wrong_and_writes_nothing() {
    for table in [BAD_DIMS, BAD_DIM_LISTS] {
        check_along(table, &[2], |call, dims, device| {
            let loss = match LogSumExp::dims(dims) {
                Ok(loss) => loss,
                Err(error) => return (Err(error.clone()), Err(error)),
            };
            let forward = loss.forward_into(device, call.input.view(), call.output.view_mut());
            let saved = f32s(&[2]);
            let (x, g) = (call.input.view(), call.grad_output.view());
            let grad = call.grad_input.view_mut();
            (forward, loss.backward_into(device, x, saved.view(), g, grad))
        });
    }
}

#[test]
fn a_device_without_threads_is_refused() {
    let said = Device::cpu_with_threads(0).expect_err("no threads").to_string();
    assert!(said.contains("threads") && said.contains("at least 1"), "{said}");
}
