//! `warploss plan`.

use super::*;

/// Zipf's counts, the most frequent class last.
fn counts(classes: usize) -> Vec<i64> {
    (1..=classes as i64).rev().map(|rank| 1_000_000 / rank).collect()
}

fn plan(folder: &Folder, options: &str) -> Run {
    let mut command = command();
    command.arg("plan").args(options.split_whitespace());
    run(command.arg("--counts").arg(folder.path("in.safetensors")).args(["--device", "cpu"]))
}

#[test]
fn a_plan_is_printed_beside_others_and_drawn() {
    let folder = Folder::new();
    folder.write(&[i64s("counts", &[1500], &counts(1500))]);
    let figure = folder.path("plan.svg");
    let options = format!(
        "--hidden 16 --batch 32 --max-clusters 2 --beside 7,70,700 --beside 99 --svg {}",
        figure.display()
    );
    let run = plan(&folder, &options);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run:?}");
    for part in [
        "plan",
        "documentation",
        "10,100,1000",
        "7,70,700",
        "99",
        "all classes",
        "predicted ms",
        "measured",
    ] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    // The last line is what `bench` and `eval` take.
    let last = run.stdout.lines().last().unwrap();
    let cutoffs = last.strip_prefix("--cutoffs ").unwrap();
    let cutoffs: Vec<usize> = cutoffs.split(',').map(|c| c.parse().unwrap()).collect();
    assert!((1..=2).contains(&cutoffs.len()) && cutoffs.iter().all(|c| (1..1500).contains(c)));
    // The costs are measured anew: the plan may differ, its form does not.
    let lines = plan(&folder, "--hidden 16 --batch 32 --beside 9,99 --json").stdout;
    let rows: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<_> = rows.iter().map(|row| row["plan"].as_str().unwrap()).collect();
    assert_eq!(names, ["plan", "documentation", "beside", "all classes"]);
    assert_eq!(
        (&rows[2]["cutoffs"], &rows[2]["widths"]),
        (&[9, 99][..].into(), &[4, 1][..].into())
    );
    assert_eq!(rows[2]["parameters"], 11 * 16 + 4 * (16 + 90) + 16 + 1401);
    for row in &rows {
        assert!(row["predicted_s"].as_f64() > Some(0.0) && row["measured_s"].as_f64() > Some(0.0));
    }
    let svg = std::fs::read_to_string(figure).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("classes in the shortlist"), "{svg}");
}

#[test]
fn bad_input_is_named_and_nothing_is_drawn() {
    let folder = Folder::new();
    let few = || i64s("counts", &[3], &[5, 3, 1]);
    let good = "--hidden 4 --batch 4";
    for (tensors, options, parts) in [
        (few(), "--hidden 0 --batch 4", ["--hidden", "≥ 1", ""]),
        (few(), "--hidden 4 --batch 0", ["--batch", "≥ 1", ""]),
        (few(), "--hidden 4 --batch 4 --div-value 0.5", ["--div-value", "≥ 1", "got 0.5"]),
        (few(), "--hidden 4 --batch 4 --max-clusters 0", ["--max-clusters", "≥ 1", ""]),
        (few(), "--hidden 4 --batch 4 --dtype f64", ["--dtype", "bf16", "f64"]),
        (few(), "--hidden 4 --batch 4 --beside 1,3", ["--beside", "[2, 3)", "got 3"]),
        (few(), "--hidden 4 --batch 4 --beside 1,", ["--beside", "whole numbers", ""]),
        (i64s("numbers", &[3], &[1; 3]), good, ["counts: expected", "got numbers", ""]),
        (f32s("counts", &[3], &[1.0; 3]), good, ["counts: expected integers", "[V]", "f32"]),
        (i64s("counts", &[3, 1], &[1; 3]), good, ["counts: expected integers", "[V]", "[3, 1]"]),
        (i64s("counts", &[3], &[1, -2, 3]), good, ["counts", "≥ 0", "-2 at class 1"]),
        (i64s("counts", &[1], &[7]), good, ["counts", "at least 2 classes", "got 1"]),
        (i64s("counts", &[3], &[0; 3]), good, ["counts", "above 0", "all 0"]),
    ] {
        folder.write(&[tensors]);
        let figure = folder.path("plan.svg");
        let run = plan(&folder, &format!("{options} --svg {}", figure.display()));
        let line = run.error(2);
        assert!(parts.iter().all(|part| line.contains(part)), "{options}: {line}");
        assert_eq!(folder.names(), ["in.safetensors"], "{options}");
    }
}
