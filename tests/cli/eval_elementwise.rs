//! `warploss eval` of the elementwise losses.

use super::*;
use warploss::check::catalogue;
use warploss::check::elementwise::Given;
use warploss::check::option::Scalar;
use warploss::{Device, Reduction, TensorRef};

#[test]
fn pairs_broadcast_and_both_tensors_have_a_gradient() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        f32s("target", &[2], &[1.0, 4.0]),
        f32s("grad_output", &[], &[2.0]),
    ]);
    let object = folder.eval("mse --grad --device cpu").json();
    assert_eq!((&object["op"], &object["reduction"]), (&"mse".into(), &"mean".into()));
    assert_eq!((&object["loss"], &object["rows"]), (&2.0.into(), &4.into()));
    assert_eq!(object["ignored"], 0);
    assert_eq!(folder.outputs(), ["grad_input", "grad_target", "loss"]);
    assert_eq!(folder.read("grad_input"), (Dtype::F32, vec![2, 2], vec![0.0, -2.0, 2.0, 0.0]));
    assert_eq!(folder.read("grad_target"), (Dtype::F32, vec![2], vec![-2.0, 2.0]));

    let object = folder.eval("l1 --reduction none").json();
    assert_eq!(object["loss"], Value::Null);
    assert_eq!(folder.outputs(), ["loss"]);
    assert_eq!(folder.read("loss"), (Dtype::F32, vec![2, 2], vec![0.0, 2.0, 2.0, 0.0]));
}

#[test]
fn options_reach_the_loss() {
    let folder = Folder::new();
    folder.write(&[
        bf16s("input", &[3], &[1.0, -2.0, 0.5]),
        bf16s("target", &[3], &[0.0, 0.0, 0.0]),
        f32s("weight", &[3], &[1.0, 2.0, 1.0]),
    ]);
    for (line, expected) in [
        ("mse", (1.0 + 8.0 + 0.25) / 4.0),
        ("l1 --reduction sum", 1.0 + 4.0 + 0.5),
        ("smooth-l1", (0.5 + 3.0 + 0.125) / 4.0),
        ("smooth-l1 --beta 0 --reduction sum", 5.5),
        ("smooth-l1 --beta 2 --reduction sum", 0.25 + 2.0 + 0.0625),
        ("huber", (0.5 + 3.0 + 0.125) / 3.0),
        ("huber --delta 0.5 --reduction sum", 0.375 + 1.75 + 0.125),
    ] {
        let loss = folder.eval(line).json()["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-6, "{line}: {loss}, expected {expected}");
    }
    for line in ["mse --grad", "huber --grad --reduction none"] {
        folder.eval(line).json();
        assert_eq!(folder.read("grad_input").0, Dtype::BF16);
    }
}

/// Of every loss that the catalogue describes, with each choice of options.
#[test]
fn every_option_of_every_loss_reaches_it() {
    let folder = Folder::new();
    let (input, target) = ([0.25f32, 0.75, 0.5], [0.5f32, 0.25, 1.0]);
    folder.write(&[f32s("input", &[3], &input), f32s("target", &[3], &target)]);
    let mut lines = 0;
    for of in catalogue::elementwise().filter(|of| of.evaluated.is_some()) {
        for loss in of.variants() {
            let mut line = format!("{} --device cpu --reduction sum", of.name);
            for (choice, value) in of.options.iter().zip(loss.options()) {
                let name = choice.name.replace('_', "-");
                match choice.default {
                    Scalar::Number(_) => line += &format!(" --{name} {value}"),
                    Scalar::Flag(_) if *value != 0.0 => line += &format!(" --{name}"),
                    Scalar::Flag(_) => {}
                }
            }
            let given = Given { weight: None, third: None, reduction: Reduction::Sum };
            let [x, y] = [&input, &target].map(|data| TensorRef::new(data, &[3]).unwrap());
            let expected = loss.make(given).forward(&Device::cpu(), x, y).unwrap().item().unwrap();
            let got = folder.eval(&line).json()["loss"].as_f64().unwrap();
            assert!((got - f64::from(expected)).abs() <= 1e-6, "{line}: {got}, {expected}");
            lines += 1;
        }
    }
    assert!(lines > 20, "{lines}");
}

#[test]
fn labels_and_distributions() {
    let folder = Folder::new();
    let half = 0.5f32.ln();
    folder.write(&[
        f32s("input", &[2, 2], &[half, half, half, half]),
        f32s("target", &[2, 2], &[1.0, 0.0, 0.5, 0.5]),
        f32s("weight", &[2, 2], &[f32::NAN; 4]),
    ]);
    // A weight is nothing that kl-div reads.
    for (reduction, divisor) in [("sum", 1.0), ("batchmean", 2.0), ("mean", 4.0)] {
        let object = folder.eval(&format!("kl-div --reduction {reduction}")).json();
        assert_eq!(object["reduction"], reduction);
        let loss = object["loss"].as_f64().unwrap();
        assert!((loss - 2f64.ln() / divisor).abs() < 1e-6, "{reduction}: {loss}");
    }
    folder.write(&[
        f32s("input", &[2], &[half, half]),
        f32s("target", &[2], &[0.0, f32::NEG_INFINITY]),
    ]);
    folder.eval("kl-div --log-target --grad --reduction none").json();
    assert_close(&folder.read("loss").2, &[2f32.ln(), 0.0], 1e-6);
    assert_close(&folder.read("grad_input").2, &[-1.0, 0.0], 1e-6);

    folder.write(&[
        f32s("input", &[2, 2], &[0.0; 4]),
        f32s("target", &[2, 2], &[1.0, 0.0, 1.0, 0.0]),
        f32s("weight", &[2, 1], &[1.0, 3.0]),
        f32s("pos_weight", &[2], &[2.0, 9.0]),
    ]);
    let object = folder.eval("bce-with-logits --grad --reduction sum").json();
    assert!((object["loss"].as_f64().unwrap() - 12.0 * 2f64.ln()).abs() < 1e-5);
    assert_close(&folder.read("grad_input").2, &[-1.0, 0.5, -3.0, 1.5], 1e-6);
}

#[test]
fn what_is_wrong_is_named() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[2, 3], &[0.0; 6]),
        f32s("target", &[2, 2], &[0.0; 4]),
        f32s("weight", &[3], &[1.0; 3]),
    ]);
    for (line, named) in [
        ("mse", "target: expected shape [2, 3] (the input's, as there is a weight)"),
        ("kl-div", "target: expected shape [2, 3] (the input's) or one that broadcasts with it"),
        ("bce-with-logits", "target: expected shape [2, 3] (the input's)"),
        ("l1 --reduction batchmean", "--reduction: expected none, sum or mean, got batchmean"),
        ("smooth-l1 --beta -1", "--beta: expected a finite number ≥ 0, got -1"),
        ("huber --delta 0", "--delta: expected a finite number > 0, got 0"),
        ("huber --delta inf", "--delta: expected a finite number > 0, got inf"),
        (
            "mse --classes 2",
            "--classes: expected none (the rows of this op have no classes), got 2",
        ),
        ("kl-div --prefix a.", "a.input: expected a tensor of this name"),
    ] {
        let run = folder.eval(line);
        assert!(run.error(2).contains(named), "{line}: {run:?}");
        assert_eq!(folder.names(), ["in.safetensors"]);
    }
    folder.write(&[i64s("input", &[1], &[0]), f32s("target", &[1], &[0.0])]);
    assert!(folder.eval("mse").error(2).contains("input: expected dtype f32, f16 or bf16"));
    folder.write(&[bf16s("input", &[1], &[0.0]), f32s("target", &[1], &[0.0])]);
    assert!(folder.eval("mse").error(2).contains("target: expected dtype bf16"));
}
