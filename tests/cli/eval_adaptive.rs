//! `warploss eval adaptive-log-softmax`.

use super::*;

const GOLDEN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/adaptive_log_softmax.safetensors");

/// The recorded cases that the command line can express, and their options.
fn cases() -> Vec<(String, Value)> {
    let bytes = std::fs::read(GOLDEN).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let golden: Value =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["golden"]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let cases = golden["cases"].as_object().unwrap().iter();
    let cases = cases.map(|(name, options)| (name.clone(), options.clone()));
    cases.filter(|(name, _)| file.tensor(&format!("{name}.row_weight")).is_err()).collect()
}

/// Options of a case, as words.
fn words(name: &str, options: &Value) -> String {
    let cutoffs = options["cutoffs"].as_array().unwrap();
    let cutoffs: Vec<_> = cutoffs.iter().map(Value::to_string).collect();
    let ignored = match options["ignore_index"].as_i64() {
        Some(label) => format!("--ignore-index {label}"),
        None => String::new(),
    };
    let reduction = options["reduction"].as_str().unwrap();
    format!("--prefix {name}. --cutoffs {} --reduction {reduction} {ignored}", cutoffs.join(","))
}

fn golden() -> Folder {
    let folder = Folder::new();
    std::fs::copy(GOLDEN, folder.path("in.safetensors")).unwrap();
    folder
}

/// What was written beside what PyTorch's module said.
fn assert_written(folder: &Folder, case: &str, key: &str) {
    let (dtype, shape, got) = folder.read(key);
    let (_, expected_shape, expected) = read(Path::new(GOLDEN), &format!("{case}.{key}"));
    assert_eq!(shape, expected_shape, "{case} {key}");
    let size = expected.iter().fold(0f32, |m, e| if e.is_finite() { m.max(e.abs()) } else { m });
    let rounding = match dtype {
        Dtype::F16 => 1e-3,
        Dtype::BF16 => 8e-3,
        _ => 4e-6,
    };
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let close = (g - e).abs() <= rounding * size + 1e-7 || g == e || g.is_nan() && e.is_nan();
        assert!(close, "{case} {key}[{i}]: {g}, expected {e}");
    }
}

#[test]
fn every_mode_agrees_with_pytorch() {
    let (folder, mut seen) = (golden(), 0);
    for (case, options) in cases() {
        let words = words(&case, &options);
        let eval = |more: &str| folder.eval(&format!("adaptive-log-softmax {words} {more}")).json();
        let object = eval("--grad --device cpu");
        assert_eq!(object["op"], "adaptive-log-softmax");
        let keys = folder.outputs();
        let parameters = 2 * options["cutoffs"].as_array().unwrap().len() + 1;
        let bias = usize::from(options["head_bias"] == true);
        assert_eq!(keys.len(), 3 + parameters + bias, "{case}: {keys:?}");
        for key in keys {
            assert_written(&folder, &case, &key);
        }
        eval("--mode log-prob");
        assert_eq!(folder.outputs(), ["log_prob"]);
        assert_written(&folder, &case, "log_prob");
        eval("--mode predict");
        assert_eq!(folder.outputs(), ["predict"]);
        assert_written(&folder, &case, "predict");
        seen += 1;
    }
    assert!(seen >= 30, "{seen} cases");
}

/// The same on an imitated card.
#[cfg(feature = "emulator")]
#[test]
fn a_card_agrees_with_pytorch() {
    let folder = golden();
    for case in ["f32_bias", "ignored", "four_clusters"] {
        let eval = |more: &str| {
            let words = format!("--prefix {case}. --ignore-index -100 --device emulated {more}");
            folder.eval(&format!("adaptive-log-softmax {words}")).json()
        };
        assert_eq!(eval("--grad")["device"], "emulated");
        folder.outputs().iter().for_each(|key| assert_written(&folder, case, key));
        for mode in ["log-prob", "predict"] {
            eval(&format!("--mode {mode}"));
            folder.outputs().iter().for_each(|key| assert_written(&folder, case, key));
        }
    }
}

#[test]
fn the_gradient_of_the_output_is_that_of_the_negative_losses() {
    let folder = golden();
    let of = |options: &str| {
        folder.eval(&format!("adaptive-log-softmax --prefix f32_bias. {options}")).json();
        ["grad_input", "grad_head.bias", "grad_tail.1.0.weight"].map(|key| folder.read(key).2)
    };
    // f32_bias has no upstream gradient: 1 for each.
    let losses = of("--grad --reduction none");
    let outputs = of("--grad --reduction mean --grad-of output");
    for (loss, output) in losses.iter().zip(&outputs) {
        assert!(loss.iter().any(|&g| g != 0.0));
        assert!(loss.iter().zip(output).all(|(l, o)| *l == -*o), "{loss:?} {output:?}");
    }
    // The loss is reduced as asked all the same.
    assert_written(&folder, "f32_bias", "loss");
    assert_written(&folder, "f32_bias", "output");
}

#[test]
fn cutoffs_follow_from_the_weights() {
    let folder = golden();
    for case in ["four_clusters", "f16_bias", "width_0"] {
        folder.eval(&format!("adaptive-log-softmax --prefix {case}. --grad")).json();
        for key in folder.outputs() {
            assert_written(&folder, case, &key);
        }
    }
}

#[test]
fn bad_input_is_named_and_nothing_is_written() {
    let folder = golden();
    for (options, parts) in [
        ("--prefix f32_mean. --cutoffs 8", ["--cutoffs: expected 8,20", "weights", "got 8"]),
        ("--prefix f32_mean. --cutoffs 20,8", ["--cutoffs", "[21, ", "got 8"]),
        ("--prefix f32_mean. --cutoffs 0,20", ["--cutoffs", "[1, ", "got 0"]),
        ("--prefix f32_mean. --cutoffs 8,8", ["--cutoffs", "[9, ", "got 8"]),
        ("--prefix f32_mean. --cutoffs 8,21", ["--cutoffs: expected 8,20", "weights", "got 8,21"]),
        ("--prefix f32_mean. --cutoffs 7,8,20", ["--cutoffs: expected 8,20", "40", "got 7,8,20"]),
        ("--prefix f32_mean. --cutoffs 8,20,40", ["--cutoffs: expected 8,20", "without", "20,40"]),
        ("--prefix f32_mean. --cutoffs 8,40", ["--cutoffs", "[9, 40)", "got 40"]),
        ("--prefix f32_mean. --cutoffs 40", ["--cutoffs", "[1, 40)", "got 40"]),
        ("--prefix f32_mean. --cutoffs x", ["--cutoffs", "x", ""]),
        ("--prefix none. --cutoffs 8", ["none.input", "expected", "got"]),
        ("--prefix f32_mean. --mode predict --grad", ["--grad", "--mode loss", ""]),
        ("--prefix f32_mean. --classes 10", ["--classes", "got 10", ""]),
        ("--prefix ignored. --cutoffs 8,20", ["ignored.target", "[0, 40)", "-100"]),
        ("--prefix f32_mean. --reduction batchmean", ["--reduction", "mean", "batchmean"]),
        ("--prefix f32_mean. --mode top", ["--mode", "predict", "top"]),
    ] {
        let run = folder.eval(&format!("adaptive-log-softmax {options}"));
        let line = run.error(2);
        assert!(parts.iter().all(|part| line.contains(part)), "{options}: {line}");
        assert_eq!(folder.names(), ["in.safetensors"], "{options}");
    }
}
