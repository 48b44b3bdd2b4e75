//! Bad input: every error names its argument, and nothing has been written when it comes.

use crate::data::{Data, Rng};
use crate::harness::devices;
use warploss::{DType, Device, LogSoftmax, LogSumExp, Nll, Reduction, Result};

fn f32s(shape: &[usize]) -> Data {
    Data::floats(DType::F32, shape, &Rng(3).normals(shape.iter().product(), 1.0))
}

fn i64s(shape: &[usize], values: &[i64]) -> Data {
    Data::indices(DType::I64, shape, values)
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
