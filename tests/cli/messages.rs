//! What the one line says: the name that the user knows, the value as it was typed, and what was
//! perhaps meant.

use super::*;
use warploss::check::catalogue;

/// A file that ops with class indices can read.
fn good() -> Folder {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[2, 3], &[0.0; 6]), i64s("target", &[2], &[0, 2])]);
    folder
}

/// A file that ops with a target of floats can read.
fn pairs() -> Folder {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[2, 3], &[0.1; 6]), f32s("target", &[2, 3], &[0.2; 6])]);
    folder
}

#[track_caller]
fn says(result: &Run, parts: &[&str]) {
    let line = result.error(2);
    assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
}

#[test]
fn numbers_are_told_as_they_were_typed() {
    let folder = pairs();
    for (options, typed) in [
        (
            "cross-entropy --label-smoothing 1.1",
            "--label-smoothing: expected a number in [0, 1], got 1.1",
        ),
        ("cross-entropy --label-smoothing=1.10", "got 1.10"),
        ("cross-entropy --logit-scale -0.1", "got -0.1"),
        ("cross-entropy --logit-scale 1e39", "got 1e39"),
        ("cross-entropy --logit-scale=-1e-3", "got -1e-3"),
        ("cross-entropy --softcap -2.30", "got -2.30"),
        ("cross-entropy --z-loss -1e-4", "got -1e-4"),
        ("logprob-entropy --softcap -0.7", "got -0.7"),
        ("js-div --beta 1.1", "--beta: expected a number in [0, 1], got 1.1"),
        ("js-div --teacher-scale -0.3", "got -0.3"),
        ("smooth-l1 --beta -0.1", "got -0.1"),
        ("huber --delta -1e-1", "got -1e-1"),
    ] {
        let line = folder.eval(options).error(2).to_owned();
        assert!(line.ends_with(typed), "{options}: {line}");
    }
}

#[test]
fn a_near_miss_gets_a_suggestion() {
    let folder = good();
    for (options, meant) in [
        ("cross-entropy --label_smoothing 0.1", "did you mean --label-smoothing?"),
        ("cross-entropy --lable-smoothing 0.1", "did you mean --label-smoothing?"),
        ("cross-entropy --reductoin sum", "did you mean --reduction?"),
        ("cross-entropy --reduction means", "did you mean mean?"),
        ("cross_entropy", "did you mean cross-entropy?"),
        ("log-softmxa", "log-softmax?"),
    ] {
        says(&folder.eval(options), &[meant]);
    }
    says(&warploss("evla l1"), &["did you mean eval?"]);
    says(&warploss("bench cross-entrpy"), &["did you mean cross-entropy?"]);
    says(&warploss("check jsdiv"), &["js-div"]);
    // And what resembles nothing gets none.
    assert!(!folder.eval("cross-entropy --xyzzy").error(2).contains("did you mean"));
}

#[test]
fn a_tensor_under_nearly_the_name_is_pointed_out() {
    let folder = Folder::new();
    let input = || f32s("input", &[2, 3], &[0.0; 6]);
    folder.write(&[input(), i64s("Targets", &[2], &[0, 2])]);
    says(&folder.eval("nll"), &["target: expected", "did you mean Targets?"]);
    folder.write(&[f32s("step3.input", &[2, 3], &[0.0; 6]), i64s("step3.target", &[2], &[0, 2])]);
    says(&folder.eval("nll"), &["input: expected", "did you mean --prefix step3.?"]);
    says(&folder.eval("nll --prefix step4."), &["step4.input", "did you mean step3.input?"]);
    folder.write(&[f32s("x", &[2, 3], &[0.0; 6])]);
    assert!(!folder.eval("nll").error(2).contains("did you mean"));
}

#[test]
fn the_environments_device_is_named_where_it_is_to_blame() {
    let folder = good();
    let eval = |device: &str, more: &[&str]| {
        let mut command = command();
        command.env("WARPLOSS_DEVICE", device).args(["eval", "logsumexp"]).args(more);
        run(command.arg("--input").arg(folder.path("in.safetensors")))
    };
    for device in ["gpu", "", "cuda:x"] {
        let line = eval(device, &[]).error(2).to_owned();
        assert!(line.contains("WARPLOSS_DEVICE") && !line.contains("--device"), "{line}");
    }
    // What the command line says is what it is judged by, and overrides the environment.
    let line = eval("cpu", &["--device", "gpu"]).error(2).to_owned();
    assert!(line.contains("--device") && !line.contains("WARPLOSS_DEVICE"), "{line}");
    eval("cpu", &["--device=cpu"]).json();
    // A device that is legal but not there.
    let absent = eval("cuda:99", &[]);
    let line = absent.error(1);
    assert!(line.contains("WARPLOSS_DEVICE cuda:99: ") && !line.contains("--device"), "{line}");
    let absent = eval("cpu", &["--device", "cuda:99"]);
    assert!(absent.error(1).contains("--device cuda:99: "), "{absent:?}");
}

#[test]
fn the_input_is_not_overwritten() {
    let folder = good();
    let input = folder.path("in.safetensors");
    let before = std::fs::read(&input).unwrap();
    let eval = |input: &Path, output: &Path| {
        let mut command = command();
        command.args(["eval", "cross-entropy", "--grad", "--input"]).arg(input);
        run(command.arg("--output").arg(output))
    };
    std::fs::create_dir(folder.path("sub")).unwrap();
    let mut same =
        vec![input.clone(), folder.path("sub/../in.safetensors"), folder.path("./in.safetensors")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&input, folder.path("symbolic")).unwrap();
        std::fs::hard_link(&input, folder.path("hard")).unwrap();
        same.extend([folder.path("symbolic"), folder.path("hard")]);
    }
    for output in &same {
        says(&eval(&input, output), &["--output", "another file than --input", "same"]);
        says(&eval(output, &input), &["--output", "another file than --input", "same"]);
    }
    assert_eq!(std::fs::read(&input).unwrap(), before);
    let other = folder.path("out.safetensors");
    eval(&input, &other).json();
    eval(&input, &other).json(); // An output of before is replaced.

    folder.write(&[i64s("labels", &[3], &[0, 1, 1])]);
    let mut command = command();
    let command = command.args(["sample", "--batch", "2", "--labels"]).arg(&input);
    says(&run(command.arg("--output").arg(&input)), &["--output", "another file than --labels"]);
}

#[test]
fn gradients_that_would_go_nowhere_are_refused() {
    let (labelled, pairs) = (good(), pairs());
    for op in catalogue::elementwise().map(|of| of.name) {
        let mut command = command();
        command.args(["eval", op, "--grad", "--input"]).arg(pairs.path("in.safetensors"));
        says(&run(&mut command), &["--grad: expected --output as well", "got none"]);
    }
    for op in
        ["nll", "multi-margin", "cross-entropy", "log-softmax", "logsumexp", "logprob-entropy"]
    {
        let mut command = command();
        command.args(["eval", op, "--grad", "--input"]).arg(labelled.path("in.safetensors"));
        says(&run(&mut command), &["--grad: expected --output as well", "got none"]);
    }
}

#[test]
fn dtypes_are_told_by_what_a_tensor_is_for() {
    let f64s = |name, shape: &[usize]| {
        let n = 8 * shape.iter().product::<usize>();
        Given { name, dtype: Dtype::F64, shape: shape.to_vec(), bytes: vec![0; n] }
    };
    let input = || f32s("input", &[2, 3], &[0.0; 6]);
    let folder = Folder::new();
    folder.write(&[f64s("input", &[2, 3]), i64s("target", &[2], &[0, 2])]);
    for op in ["cross-entropy", "nll", "logsumexp", "log-softmax", "logprob-entropy", "mse"] {
        let line = folder.eval(op).error(2).to_owned();
        assert!(line.ends_with("input: expected dtype f32, f16 or bf16, got f64"), "{op}: {line}");
    }
    folder.write(&[input(), f64s("target", &[2])]);
    for op in ["nll", "logprob-entropy"] {
        let line = folder.eval(op).error(2).to_owned();
        assert!(line.ends_with("target: expected dtype i64, i32, u32 or u8, got f64"), "{line}");
    }
    says(&folder.eval("cross-entropy"), &["i64, i32, u32 or u8 (class indices), or f32, f16"]);
    folder.write(&[input(), f32s("target", &[2, 3], &[0.0; 6]), f64s("labels", &[2])]);
    says(&folder.eval("js-div"), &["labels: expected dtype i64, i32, u32 or u8, got f64"]);
    folder.write(&[input(), i64s("target", &[2], &[0, 2]), f64s("weight", &[3])]);
    says(&folder.eval("nll"), &["weight: expected dtype f32, f16 or bf16, got f64"]);
}

#[test]
fn ranks_beside_probabilities_are_refused_in_words() {
    says(
        &pairs().eval("cross-entropy --ranks"),
        &[
            "--ranks: expected a target of class indices",
            "probabilities have no rank",
            "f32 [2, 3]",
        ],
    );
}

#[test]
fn a_target_of_floats_says_nothing_to_log_probabilities_of_classes() {
    let devices: &[&str] = if cfg!(feature = "emulator") { &["cpu", "emulated"] } else { &["cpu"] };
    for device in devices {
        for options in ["", "--ignore-index -1", "--ignore-index 1", "--ranks", "--grad"] {
            let line = pairs().eval(&format!("logprob-entropy --device {device} {options}"));
            says(&line, &["target: expected dtype i64, i32, u32 or u8", "got f32"]);
        }
    }
}

#[test]
fn labels_that_are_no_classes_are_told_as_labels() {
    let devices: &[&str] = if cfg!(feature = "emulator") { &["cpu", "emulated"] } else { &["cpu"] };
    let folder = Folder::new();
    for device in devices {
        for (labels, value) in [([0, 7], "got 7 at row 1"), ([-1, 0], "got -1 at row 0")] {
            folder.write(&[
                f32s("input", &[2, 3], &[0.1; 6]),
                f32s("target", &[2, 3], &[0.2; 6]),
                i64s("labels", &[2], &labels),
            ]);
            for grad in ["", "--grad"] {
                let result = folder.eval(&format!("js-div --device {device} {grad}"));
                says(&result, &["labels: expected a class in [0, 3)", value]);
                assert_eq!(folder.names(), ["in.safetensors"]);
            }
        }
    }
}

#[test]
fn one_dimension_is_singular() {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[], &[0.0]), i64s("target", &[], &[0])]);
    for op in ["cross-entropy", "nll", "logprob-entropy"] {
        says(&folder.eval(op), &["input: expected at least 1 dimension, got 0"]);
    }
    folder.write(&[i64s("labels", &[1, 1], &[0])]);
    let mut command = command();
    command.args(["sample", "--batch", "1", "--labels"]).arg(folder.path("in.safetensors"));
    command.arg("--output").arg(folder.path("out.safetensors"));
    says(&run(&mut command), &["labels: expected 1 dimension, got 2"]);
}

#[test]
fn a_file_of_another_kind_is_told_by_what_it_looks_like() {
    let whole = std::fs::read(good().path("in.safetensors")).unwrap();
    let folder = Folder::new();
    let cut = whole.len() - 1;
    for (bytes, looks) in [
        (&b""[..], "an empty file"),
        (b"PK\x03\x04\0\0\0\0archive/data.pkl", "a PyTorch file"),
        (b"\x80\x02}q\0X\x05\0\0\0inputq\x01.", "a pickle"),
        (b"<!DOCTYPE html>\n<html><body>Not Found</body></html>", "an HTML page"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "a gzip file"),
        (b"{\"input\": [[0.0, 1.0]]}", "JSON"),
        (b"\x93NUMPY\x01\0v\0{'descr': '<f4', }", "a NumPy array"),
        (&whole[..cut], "cut off"),
        (&whole[..16], "cut off within its header"),
    ] {
        let path = folder.path("in.safetensors");
        std::fs::write(&path, bytes).unwrap();
        says(&folder.eval("nll"), &["--input ", "expected a safetensors file, got ", looks]);
        let mut command = command();
        command.args(["sample", "--batch", "1", "--labels"]).arg(path);
        command.arg("--output").arg(folder.path("out.safetensors"));
        says(&run(&mut command), &["--labels ", looks]);
    }
    assert_eq!(folder.names(), ["in.safetensors"]);
}

#[test]
fn text_that_is_no_number_is_told_in_words() {
    let folder = good();
    for (options, told) in [
        ("cross-entropy --softcap x", "'--softcap <C>': expected a number"),
        ("cross-entropy --label-smoothing=", "'--label-smoothing <E>': expected a number"),
        ("cross-entropy --ignore-index 1.5", "'--ignore-index <LABEL>': expected a whole number"),
        ("cross-entropy --classes -1", "'--classes <V>': expected a whole number ≥ 0"),
        ("log-softmax --dim 99999999999999999999", "expected a whole number closer to 0"),
    ] {
        let line = folder.eval(options).error(2).to_owned();
        assert!(line.ends_with(told), "{options}: {line}");
    }
}

#[test]
fn dtypes_are_told_once() {
    let folder = Folder::new();
    let input = || f32s("input", &[2, 3], &[0.0; 6]);
    let target = || i64s("target", &[2], &[0, 2]);
    folder.write(&[input(), target(), i64s("grad_output", &[], &[1])]);
    let line = folder.eval("cross-entropy --grad").error(2).to_owned();
    assert!(line.ends_with("grad_output: expected dtype f32 (the input's), got i64"), "{line}");
    folder.write(&[input(), target(), i64s("weight", &[3], &[1; 3])]);
    let line = folder.eval("nll").error(2).to_owned();
    assert!(line.ends_with("weight: expected dtype f32 (the input's), got i64"), "{line}");
}

#[test]
fn keys_that_a_state_dict_lacks_are_told_of_the_file() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[2, 2], &[0.1; 4]),
        i64s("target", &[2], &[0, 3]),
        f32s("head.weight", &[3, 2], &[0.1; 6]),
        f32s("tail.0.0.weight", &[1, 2], &[0.1; 2]),
    ]);
    let result = folder.eval("adaptive-log-softmax");
    says(&result, &["--input: expected `tail.0.1.weight`, got no such key"]);
}

#[test]
fn the_shape_of_an_adaptive_target_is_told_by_the_inputs() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[2, 2], &[0.1; 4]),
        i64s("target", &[3], &[0, 3, 1]),
        f32s("head.weight", &[3, 2], &[0.1; 6]),
        f32s("tail.0.0.weight", &[1, 2], &[0.1; 2]),
        f32s("tail.0.1.weight", &[2, 1], &[0.1; 2]),
    ]);
    let told = "target: expected shape [2] (the input's [2, 2] without its features), got [3]";
    says(&folder.eval("adaptive-log-softmax"), &[told]);
}
