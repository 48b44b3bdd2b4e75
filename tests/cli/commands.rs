//! Help, devices, `info`, `bench`, `check`.

use super::*;
use warploss::check::catalogue;

#[test]
fn every_command_has_help_with_an_example() {
    for line in [
        "--help",
        "eval --help",
        "eval cross-entropy --help",
        "eval log-softmax --help",
        "eval logsumexp --help",
        "eval logprob-entropy --help",
        "bench --help",
        "check --help",
        "sample --help",
        "info --help",
    ] {
        let result = warploss(line);
        assert_eq!((result.status, result.stderr.as_str()), (0, ""), "{line}");
        assert!(result.stdout.contains("Example:\n  warploss "), "{line}");
    }
    assert!(warploss("--version").stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_examples_of_help_are_commands_that_parse() {
    // Each example with --help behind it: what does not parse does not reach the help.
    for line in ["--help", "bench --help", "check --help", "sample --help", "info --help"] {
        let help = warploss(line).stdout;
        let examples = help.lines().filter_map(|l| l.strip_prefix("  warploss "));
        for example in examples {
            assert_eq!(warploss(&format!("{example} --help")).status, 0, "{example}");
        }
    }
}

#[test]
fn usage_errors_are_one_line() {
    for (line, part) in [
        ("", "eval"),
        ("eval", "cross-entropy"),
        ("frobnicate", "eval, bench, check, plan, sample, info"),
        ("eval cross-entropy", "--input"),
        ("info --nonsense", "--nonsense"),
        ("bench kl", "cross-entropy"),
        ("bench --rows 5", "OP"),
        ("bench cross-entropy --rows 0", "--rows"),
        ("bench cross-entropy --filter 0.1", "--filter"),
        ("bench linear-cross-entropy --filter 2", "--filter"),
        ("bench linear-cross-entropy --filter 0.1 --subset 4", "--subset"),
        ("bench cross-entropy --rows-temperature", "--rows-temperature"),
        ("bench cross-entropy --dtype f64", "--dtype"),
        ("bench cross-entropy --seconds -1", "--seconds"),
        ("check nothing", "cross-entropy"),
        ("check --cases 0", "--cases"),
    ] {
        let result = warploss(line);
        assert!(result.error(2).contains(part), "{line}: {result:?}");
    }
}

#[test]
fn a_device_that_is_not_there_is_status_1_with_the_reason() {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[2], &[0.0, 0.0])]);
    let emulated = if cfg!(feature = "emulator") { None } else { Some("emulated") };
    for device in ["cuda:4096"].into_iter().chain(emulated) {
        let result = folder.eval(&format!("logsumexp --device {device}"));
        assert!(result.error(1).contains("device"), "{result:?}");
    }
    assert_eq!(folder.names(), ["in.safetensors"]);
}

#[test]
fn the_environment_sets_the_default_device() {
    let folder = Folder::new();
    let path = folder.write(&[f32s("input", &[2], &[0.0, 0.0])]);
    let with = |value: &str, more: &[&str]| {
        let mut command = command();
        command.env("WARPLOSS_DEVICE", value).args(["eval", "logsumexp", "--input"]).arg(&path);
        run(command.args(more))
    };
    assert_eq!(with("cpu", &[]).json()["device"], "cpu");
    assert!(with("abacus", &[]).error(2).contains("abacus"));
    assert_eq!(with("cuda:99", &["--device", "cpu"]).json()["device"], "cpu");
}

#[test]
fn info_says_what_there_is() {
    let object = warploss("info --json").json();
    assert_eq!(object["version"], env!("CARGO_PKG_VERSION"));
    assert!(object["features"].as_array().unwrap().contains(&"cli".into()));
    assert!(object["cpu"]["threads"].as_u64().unwrap() >= 1);
    assert!(object["cpu"]["simd"].is_string());
    assert!(object["cuda"]["devices"].is_array());
    assert!(object["kernel_cache"]["bytes"].is_u64());
    let text = warploss("info --threads 1").stdout;
    for part in ["warploss", "threads     1", "cuda", "nvrtc", "kernel cache"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn bench_measures_one_line_of_each_op_and_pass() {
    for op in ["cross-entropy", "log-softmax", "logsumexp", "logprob-entropy", "multi-margin"] {
        for pass in ["forward", "backward", "forward-backward"] {
            let object = warploss(&format!(
                "bench {op} --pass {pass} --rows 7 --classes 1000 --dtype bf16 --seconds 0 --json"
            ))
            .json();
            let keys: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
            let expected = [
                "op",
                "pass",
                "dtype",
                "rows",
                "classes",
                "device",
                "median_s",
                "min_s",
                "max_s",
                "runs",
                "bytes",
                "gb_per_s",
                "copy_gb_per_s",
                "share_of_copy",
            ];
            // What is there beyond the documented fields comes after them.
            assert_eq!(keys[..expected.len()], expected);
            assert_eq!((&object["op"], &object["pass"]), (&op.into(), &pass.into()));
            let number = |key: &str| object[key].as_f64().unwrap();
            assert!(number("min_s") <= number("median_s") && number("median_s") <= number("max_s"));
            assert_eq!(number("bytes") % 14_000.0, 0.0);
            let share = number("gb_per_s") / number("copy_gb_per_s");
            assert!((share - number("share_of_copy")).abs() < 1e-9);
        }
    }
    let elementwise = catalogue::elementwise().map(|of| of.name);
    for (op, pass) in elementwise.zip(["forward", "backward", "forward-backward"].iter().cycle()) {
        let object = warploss(&format!(
            "bench {op} --pass {pass} --elements 40001 --dtype f16 --seconds 0 --json"
        ))
        .json();
        assert_eq!((&object["op"], &object["elements"]), (&op.into(), &40_001.into()));
        let tensors = if *pass == "forward" { 2 } else { 3 };
        assert_eq!(object["bytes"], tensors * 80_002);
    }
    for (line, named) in [
        ("mse --rows 3", "--rows: expected --elements for mse"),
        ("kl-div --classes 3", "--classes: expected --elements for kl-div"),
        ("nll --hidden 3", "--hidden: expected --rows, --classes for nll"),
        ("adaptive-log-softmax --elements 3", "--elements: expected --rows, --classes, --hidden"),
        (
            "adaptive-log-softmax --classes 9 --cutoffs 4,9",
            "--cutoffs: expected a number in [5, 9)",
        ),
        ("logsumexp --elements 3", "--elements: expected --rows, --classes for logsumexp"),
    ] {
        let run = warploss(&format!("bench {line} --seconds 0"));
        assert!(run.error(2).contains(named), "{run:?}");
    }
    let table = warploss("bench logsumexp --rows 2 --classes 100 --seconds 0").stdout;
    assert!(table.contains("of copy") && table.contains("logsumexp"), "{table}");
}

#[test]
fn bench_of_products_tells_operations() {
    for (pass, dtype) in [("forward", "f32"), ("forward-backward", "bf16"), ("backward", "f16")] {
        let object = warploss(&format!(
            "bench adaptive-log-softmax --pass {pass} --rows 40 --hidden 24 --classes 900 \
             --cutoffs 20,200 --dtype {dtype} --seconds 0 --json --device cpu"
        ))
        .json();
        assert_eq!(
            (&object["op"], &object["pass"]),
            (&"adaptive-log-softmax".into(), &pass.into())
        );
        assert_eq!((&object["hidden"], &object["classes"]), (&24.into(), &900.into()));
        assert_eq!(object["cutoffs"], serde_json::json!([20, 200]));
        // Head 22 × 24, tails 6 × 24 + 180 × 6 and 24 + 700; input 40 × 24.
        let elements = 22 * 24 + 6 * 24 + 180 * 6 + 24 + 700 + 40 * 24;
        let size = if dtype == "f32" { 4 } else { 2 };
        let passes = if pass == "forward" { 1 } else { 2 };
        assert_eq!(object["bytes"], passes * size * elements);
        let number = |key: &str| object[key].as_f64().unwrap();
        let operations = number("gflop_per_s") * number("median_s") * 1e9;
        let head = 2.0 * 40.0 * 24.0 * 22.0 * if pass == "forward" { 1.0 } else { 3.0 };
        assert!(operations > head && operations < 3.0 * head, "{operations}, head {head}");
    }
    let table = warploss(
        "bench adaptive-log-softmax --rows 4 --hidden 8 --classes 2100 --seconds 0 --device cpu",
    );
    assert!(table.stdout.contains("GFLOP/s"), "{table:?}");
}

/// On an emulated card: tensors and copies on the device, no times that mean anything.
#[cfg(feature = "emulator")]
#[test]
fn bench_measures_on_the_device() {
    for op in ["cross-entropy", "log-softmax", "logsumexp"] {
        for pass in ["forward", "backward", "forward-backward"] {
            let object = warploss(&format!(
                "bench {op} --pass {pass} --rows 3 --classes 1003 --seconds 0 --json --device emulated"
            ))
            .json();
            let number = |key: &str| object[key].as_f64().unwrap();
            assert!(number("median_s") > 0.0 && number("copy_gb_per_s") > 0.0, "{object}");
            assert_eq!(object["device"], "emulated");
            assert!(object["read_gb_per_s"].is_null(), "{object}");
        }
    }
    // Its gradient is checked against f64 with the same pieces left out.
    let line = "linear-cross-entropy --rows 40 --hidden 16 --classes 1003 --dtype bf16";
    let filtered = format!("bench {line} --filter 1e-3 --seconds 0 --json --device emulated");
    let object = warploss(&filtered).json();
    assert!((object["filter"].as_f64().unwrap() - 1e-3).abs() < 1e-9, "{object}");
    // And so is that of rows with temperatures.
    for op in ["linear-cross-entropy --subset 5", "linear-cross-entropy", "linear-logprob-entropy"]
    {
        let line = "--rows 40 --hidden 16 --classes 1003 --rows-temperature --seconds 0 --json";
        for device in ["cpu", "emulated"] {
            let object = warploss(&format!("bench {op} {line} --device {device}")).json();
            assert_eq!(object["rows_temperature"], true, "{object}");
        }
    }
}

#[test]
fn bench_of_what_does_not_fit_is_an_error() {
    let result = warploss("bench cross-entropy --rows 99999999 --classes 99999999 --seconds 0");
    assert!(result.error(1).contains("memory"), "{result:?}");
}

#[test]
fn check_passes_and_counts_its_cases() {
    let result = warploss("check --seed 3 --cases 12");
    assert_eq!(result.status, 0, "{result:?}");
    let all = 12 * warploss::check::catalogue::Op::ALL.len();
    assert!(result.stdout.contains(&format!("{all} cases agree on cpu")), "{result:?}");
    let one = warploss("check logsumexp --cases 4").stdout;
    assert!(one.contains("4 cases agree") && !one.contains("cross-entropy"), "{one}");
}
