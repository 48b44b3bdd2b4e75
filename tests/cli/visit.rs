//! What a visit to a card asks of the command line: verdicts, forced schedules, kernels, many lines.

use crate::{Folder, Run, command, run, warploss};
use serde_json::Value;

/// The objects of a run, a line each.
fn objects(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_op_has_a_verdict_of_its_own() {
    let result = warploss("check nll mse --cases 3 --json --device cpu");
    assert_eq!((result.status, result.stderr.as_str()), (0, ""), "{result:?}");
    let found = objects(&result);
    assert_eq!(found.iter().map(|v| &v["op"]).collect::<Vec<_>>(), ["nll", "mse"]);
    for verdict in &found {
        assert_eq!((&verdict["verdict"], &verdict["cases"]), (&"agrees".into(), &3.into()));
        assert!(verdict["worst_share"].as_f64().unwrap() <= 1.0);
    }
}

#[test]
fn shapes_and_schedules_that_cannot_be_are_told() {
    for (line, part) in [
        ("check nll --schedule split --device cpu", "--schedule: expected a CUDA or an emulated"),
        ("check nll --rows 3", "--classes"),
        ("check nll --classes 3", "--rows"),
        ("check nll --rows 0 --classes 3", "--rows"),
        ("check --rows 2 --classes 3 --device cpu", "adaptive-log-softmax"),
        ("check nll --schedule cluster-3", "cluster-2"),
        (
            "info --kernels --device cpu",
            "--kernels: expected a CUDA or an emulated device, got cpu",
        ),
        ("bench --lines nowhere --json --device cpu", "--lines nowhere"),
        ("bench nll --lines nowhere --json", "--lines"),
        ("bench --lines nowhere", "--json"),
    ] {
        let result = warploss(line);
        assert!(result.error(2).contains(part), "{line}: {result:?}");
    }
}

#[test]
fn cases_have_the_shape_that_is_asked_for() {
    let result = warploss("check logsumexp --cases 4 --rows 3 --classes 5003 --json --device cpu");
    assert_eq!(objects(&result)[0]["verdict"], "agrees", "{result:?}");
}

#[test]
fn lines_are_measured_one_after_another_and_one_that_fails_hides_no_other() {
    let folder = Folder::new();
    let file = folder.path("lines");
    let lines = [
        "# two dtypes",
        "",
        "cross-entropy --rows 7 --classes 1000 --dtype bf16 --seconds 0",
        "nll --rows 1000000000000 --classes 1000000 --seconds 0",
        "mse --elements 999 --pass forward --seconds 0",
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let bench =
        || run(command().args(["bench", "--json", "--device", "cpu", "--lines"]).arg(&file));
    let result = bench();
    assert_eq!(result.status, 1, "{result:?}");
    assert_eq!(result.stderr.trim_end(), "warploss: 1 of 3 lines failed");
    let found = objects(&result);
    assert_eq!(found.iter().map(|v| v["line"].clone()).collect::<Vec<_>>(), lines[2..].to_vec());
    assert_eq!((&found[0]["rows"], &found[2]["elements"]), (&7.into(), &999.into()));
    assert!(found[1]["failed"].as_str().unwrap().contains("memory"));
    // What cannot be measured at all is told before anything is.
    std::fs::write(&file, "mse --elements 9\nmse --elements none\n").unwrap();
    assert!(bench().error(2).contains("line 2: "), "{:?}", bench());
    std::fs::write(&file, "--seconds 0\n").unwrap();
    assert!(bench().error(2).contains("line 1: expected OP"), "{:?}", bench());
    std::fs::write(&file, "# nothing\n").unwrap();
    assert!(bench().error(2).contains("expected lines of OP"), "{:?}", bench());
}

#[cfg(feature = "emulator")]
mod emulated {
    use super::*;

    #[test]
    fn an_op_that_fails_leaves_the_others_their_verdicts() {
        let check = |more: &[&str]| {
            let mut command = command();
            command.env("WARPLOSS_EMULATOR_REPLACE", "logsumexp_warp_forward_bf16=broken_merge");
            command.args(["check", "nll", "logsumexp", "mse", "--device", "emulated"]);
            run(command.args(["--cases", "60"]).args(more))
        };
        let result = check(&["--json"]);
        assert_eq!(result.status, 1, "{result:?}");
        let found = objects(&result);
        let verdicts: Vec<_> = found.iter().map(|v| v["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["agrees", "mismatch", "agrees"]);
        assert!(found[1]["message"].as_str().unwrap().contains("warploss check logsumexp --seed"));
        // In words there is one line, and no table that looks as if all were well.
        assert!(check(&[]).error(1).contains("warploss check logsumexp --seed"));
    }

    #[test]
    fn a_forced_schedule_is_reached() {
        for (schedule, said) in [
            ("block", "block a row"),
            ("cluster-2", "cluster of 2 "),
            ("cluster-4", "cluster of 4 "),
            ("cluster-8", "cluster of 8 "),
            ("cluster-16", "cluster of 16 "),
            ("split", "two phases"),
            ("twice", "two visits"),
        ] {
            let result = warploss(&format!(
                "check cross-entropy --rows 2 --classes 5003 --cases 2 --schedule {schedule} --json --device emulated"
            ));
            let verdict = result.json();
            assert_eq!(verdict["verdict"], "agrees", "{schedule}: {verdict}");
            let schedules = verdict["schedules"].as_array().unwrap();
            let reached = schedules.iter().filter(|s| s.as_str().unwrap().contains(said));
            assert!(reached.count() > 0, "{schedule}: {verdict}");
        }
    }

    #[test]
    fn every_kernel_is_listed() {
        let value = warploss("info --kernels --json --device emulated").json();
        let kernels = value["kernels"].as_array().unwrap();
        assert_eq!(value["loaded"].as_u64().unwrap() as usize, kernels.len());
        assert_eq!(value["failed"], 0);
        assert_eq!(value["early_launches"], true);
        let named = |name: &str| kernels.iter().find(|k| k["kernel"] == name).unwrap();
        // Nobody knows registers where there is no machine code, nor how many clusters fit.
        let cluster = named("cross_entropy_cluster_bf16");
        assert_eq!((&cluster["registers"], &cluster["threads"]), (&Value::Null, &512.into()));
        assert_eq!(cluster["places"], 2);
        let sizes: Vec<_> =
            cluster["clusters"].as_array().unwrap().iter().map(|c| c["size"].clone()).collect();
        assert_eq!(sizes, [2, 4, 8, 16].repeat(3));
        assert!(named("cross_entropy_block_bf16").get("clusters").is_none());
        let text = warploss("info --kernels --device emulated").stdout;
        assert!(text.contains("cross_entropy_cluster_bf16") && text.contains("0 failed"), "{text}");
    }
}
