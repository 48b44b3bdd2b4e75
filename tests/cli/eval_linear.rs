//! Losses of hidden states and classifiers: the classifiers here make logits of hidden states as they are.

use super::*;

const IDENTITY: [f32; 4] = [1.0, 0.0, 0.0, 1.0];

fn logs(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.ln()).collect()
}

#[test]
fn linear_logprob_entropy_writes_both_and_gradients_of_all() {
    let folder = Folder::new();
    let mut tensors = vec![
        f32s("input", &[3, 2], &logs(&[1.0, 3.0, 1.0, 1.0, 5.0, 1.0])),
        f32s("linear_weight", &[2, 2], &IDENTITY),
        i64s("target", &[3], &[1, 0, -100]),
    ];
    folder.write(&tensors);
    let object = folder.eval("linear-logprob-entropy --device cpu").json();
    assert_eq!(object["op"], "linear-logprob-entropy");
    assert_eq!((&object["rows"], &object["ignored"]), (&3.into(), &1.into()));
    assert_eq!(folder.outputs(), ["entropy", "logprob"]);
    assert_close(&folder.read("logprob").2, &[0.75f32.ln(), 0.5f32.ln(), 0.0], 1e-6);
    folder.eval("linear-logprob-entropy --grad --ranks").json();
    let expected = ["argmax", "entropy", "grad_input", "grad_linear_weight", "logprob", "rank"];
    assert_eq!(folder.outputs(), expected);
    assert_close(&folder.read("grad_input").2, &[-0.25, 0.25, 0.5, -0.5, 0.0, 0.0], 1e-6);
    tensors.push(f32s("temperature", &[3], &[0.5, 1.0, 1.0]));
    folder.write(&tensors);
    folder.eval("linear-logprob-entropy").json();
    assert_close(&folder.read("logprob").2[..1], &[0.9f32.ln()], 1e-6);
    let result = folder.eval("linear-logprob-entropy --reduction sum");
    assert!(result.error(2).starts_with("warploss: --reduction: expected none"), "{result:?}");
}

#[test]
fn a_teacher_takes_the_place_of_targets() {
    let folder = Folder::new();
    let tensors = vec![
        f32s("input", &[2, 2], &logs(&[1.0, 3.0, 1.0, 1.0])),
        f32s("linear_weight", &[2, 2], &IDENTITY),
        f32s("teacher_input", &[2, 2], &logs(&[1.0, 1.0, 1.0, 1.0])),
        f32s("teacher_weight", &[2, 2], &IDENTITY),
    ];
    folder.write(&tensors);
    let object = folder.eval("linear-cross-entropy --distill tv --device cpu").json();
    // A quarter is on the other class, in one row of two.
    assert!((object["loss"].as_f64().unwrap() - 0.125).abs() < 1e-6, "{object}");
    assert_eq!(object["reduction"], "batchmean");
    assert_eq!(folder.outputs(), ["loss"]);
    let object = folder.eval("linear-cross-entropy --distill kl --reduction sum --grad").json();
    let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
    assert!((object["loss"].as_f64().unwrap() - expected).abs() < 1e-6, "{object}");
    let outputs =
        ["grad_input", "grad_linear_weight", "grad_teacher_input", "grad_teacher_weight", "loss"];
    assert_eq!(folder.outputs(), outputs);
    assert_close(&folder.read("grad_input").2, &[-0.25, 0.25, 0.0, 0.0], 1e-6);
    for (options, named) in [
        ("--distill kl --label-smoothing 0.1", "--label-smoothing: expected none beside --distill"),
        ("--distill js --beta 2", "--beta: expected a number in [0, 1]"),
        ("--distill kl --write rank", "--write: expected none beside --distill"),
        ("--distill kl --filter 1e-5", "--filter: expected none beside --distill"),
        ("--teacher-scale 2", "--teacher-scale: expected --distill as well"),
    ] {
        let result = folder.eval(&format!("linear-cross-entropy {options}"));
        assert!(result.error(2).contains(named), "{options}: {result:?}");
    }
}

#[test]
fn a_filter_leaves_out_what_is_below_its_bound() {
    let folder = Folder::new();
    let tensors = vec![
        f32s("input", &[2, 2], &logs(&[1.0, 3.0, 1.0, 1.0])),
        f32s("linear_weight", &[2, 2], &IDENTITY),
        i64s("target", &[2], &[1, 0]),
    ];
    folder.write(&tensors);
    let line = "linear-cross-entropy --grad --reduction sum --device cpu";
    folder.eval(&format!("{line} --filter 0.2")).json();
    assert_close(&folder.read("grad_input").2, &[0.25, -0.25, -0.5, 0.5], 1e-6);
    folder.eval(&format!("{line} --filter 0.3")).json();
    assert_close(&folder.read("grad_input").2, &[0.0, 0.0, -0.5, 0.5], 1e-6);
    for (options, named) in [
        ("--filter 2", "--filter: expected from 0 to 1, got 2"),
        ("--filter 0.1 --label-smoothing 0.2", "got 0.1 with label_smoothing 0.2"),
    ] {
        let result = folder.eval(&format!("{line} {options}"));
        assert!(result.error(2).contains(named), "{options}: {result:?}");
    }
}

#[test]
fn temperatures_and_lists_by_the_names_that_options_give() {
    let folder = Folder::new();
    let tensors = vec![
        f32s("input", &[2, 2], &logs(&[1.0, 3.0, 1.0, 1.0])),
        f32s("linear_weight", &[3, 2], &[1.0, 0.0, 0.0, 1.0, f32::NAN, 0.0]),
        i64s("target", &[2], &[1, 0]),
        f32s("tau", &[2], &[0.5, 1.0]),
        i64s("kept", &[2], &[0, 1]),
    ];
    folder.write(&tensors);
    let line = "linear-cross-entropy --reduction none --device cpu --subset kept";
    folder.eval(line).json();
    assert_close(&folder.read("loss").2, &[-0.75f32.ln(), -0.5f32.ln()], 1e-6);
    folder.eval(&format!("{line} --rows-temperature tau")).json();
    assert_close(&folder.read("loss").2, &[-0.9f32.ln(), -0.5f32.ln()], 1e-6);
    for (options, named) in [
        ("--rows-temperature none", "none"),
        ("--rows-temperature kept", "kept"),
        ("--subset tau", "tau"),
        ("--distill kl --rows-temperature tau", "--rows-temperature: expected none beside"),
    ] {
        let result = folder.eval(&format!("linear-cross-entropy {options}"));
        assert!(result.error(2).contains(named), "{options}: {result:?}");
    }
}

#[test]
fn a_classifier_for_each_position_has_losses_of_its_own() {
    let folder = Folder::new();
    // Logits as they are at the first position, and turned about at the second.
    let tensors = vec![
        f32s("input", &[2, 2], &logs(&[1.0, 3.0, 1.0, 1.0])),
        f32s("linear_weight", &[2, 2, 2], &[1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]),
        i64s("target", &[2, 2], &[1, 1, 0, -100]),
    ];
    folder.write(&tensors);
    let line = "linear-cross-entropy --reduction none --device cpu --grad";
    let object = folder.eval(line).json();
    assert_eq!((&object["rows"], &object["ignored"]), (&4.into(), &1.into()));
    let losses = [-0.75f32.ln(), -0.25f32.ln(), -0.5f32.ln(), 0.0];
    assert_close(&folder.read("loss").2, &losses, 1e-6);
    assert_eq!(folder.read("loss").1, [2, 2]);
    assert_eq!(folder.read("grad_linear_weight").1, [2, 2, 2]);
}
