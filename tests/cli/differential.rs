//! `warploss check --differential`: two devices agree on random calls, and a device that does not is
//! found out.

use crate::broken_kernels::BROKEN;
use crate::{Run, command, run, warploss};
use warploss::check::catalogue::Op;

fn differential(ops: &[&str], seed: &str, cases: &str, replace: Option<&str>) -> Run {
    let mut command = command();
    command.arg("check").args(ops).args(["--differential", "--device", "cpu,emulated"]);
    command.args(["--seed", seed, "--cases", cases]);
    if let Some(replace) = replace {
        command.env("WARPLOSS_EMULATOR_REPLACE", replace);
    }
    run(&mut command)
}

/// The numbers of a summary: calls, errors on both, differences.
fn counts(summary: &str) -> [u64; 3] {
    let numbers = summary.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    numbers.collect::<Vec<u64>>().try_into().expect("three numbers")
}

#[test]
fn two_devices_agree_on_random_calls_right_and_wrong() {
    let run = differential(&[], "1", "60", None);
    assert_eq!(run.status, 0, "{run:?}");
    let [calls, refused, differences] = counts(&run.stdout);
    assert!(calls == 60 * Op::ALL.len() as u64 && differences == 0, "{run:?}");
    assert!(refused > calls / 10 && refused < calls / 2, "wrong calls and right ones: {run:?}");
}

#[test]
fn a_broken_kernel_is_a_difference_that_its_seed_repeats() {
    // A kernel that loses digits is for the comparison with f64, in `broken_kernels.rs`.
    for (kernel, broken, op) in BROKEN.into_iter().take(3) {
        let replace = format!("{kernel}={broken}");
        let found = differential(&[op], "0", "1500", Some(&replace));
        assert_eq!((found.status, found.stdout.as_str()), (1, ""), "{broken}: {found:?}");
        let last = found.stderr.trim_end().rsplit('\n').next().unwrap_or_default();
        assert!(counts(last)[2] > 0, "{broken}: {last}");
        let line = found.stderr.lines().next().unwrap();
        assert!(line.contains("difference: ") && line.contains("; call: "), "{broken}: {line}");
        let (_, rest) = line.rsplit_once("--seed ").expect("how to repeat it");
        let seed = rest.split(' ').next().unwrap();
        let again = differential(&[op], seed, "1", Some(&replace));
        assert_eq!(again.stderr.lines().next(), Some(line), "{broken}");
        let sound = differential(&[op], seed, "1", None);
        assert_eq!(sound.status, 0, "{broken}: {sound:?}");
    }
}

#[test]
fn devices_and_budgets_that_make_no_sense_are_named() {
    for (line, parts) in [
        ("check --differential --device cpu", ["--device", "two devices"]),
        ("check --device cpu,cpu", ["--device", "one device"]),
        ("check --differential --device cpu,gpu", ["--device", "expected auto"]),
        ("check --seconds 3 --device cpu", ["--differential", ""]),
        ("check --differential --device cpu,cpu --seconds 0", ["--seconds", "1.."]),
        ("info --device cpu,cpu", ["--device", "one device"]),
    ] {
        let run = warploss(line);
        let error = run.error(2);
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
    let run = warploss("check mse --differential --device cpu,cpu --seconds 1");
    assert_eq!(run.status, 0, "{run:?}");
}
