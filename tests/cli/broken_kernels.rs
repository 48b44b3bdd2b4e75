//! That `warploss check` finds a kernel which computes something else, on a card that is emulated.

use crate::{command, run};

/// A kernel, a broken one to be run in its place, the op that uses it, and what is said.
const BROKEN: [(&str, &str, &str, &str); 4] = [
    ("cross_entropy_few_gradient_f32", "broken_target", "cross-entropy", "mismatch in"),
    ("logsumexp_warp_forward_bf16", "broken_merge", "logsumexp", "mismatch in"),
    ("log_softmax_few_gradient_f32", "broken_length", "log-softmax", "mismatch in"),
    ("cross_entropy_block_f32", "broken_precision", "cross-entropy", "mismatch in"),
];

#[test]
fn a_broken_kernel_fails_the_check_and_its_case_is_printed() {
    for (kernel, broken, op, says) in BROKEN {
        let check = |seed: &str, cases: &str, replace: Option<&str>| {
            let mut command = command();
            command.args(["check", op, "--device", "emulated", "--seed", seed, "--cases", cases]);
            if let Some(other) = replace {
                command.env("WARPLOSS_EMULATOR_REPLACE", format!("{kernel}={other}"));
            }
            run(&mut command)
        };
        let found = check("0", "400", Some(broken));
        let error = found.error(1);
        assert!(error.contains(says) && error.contains("case: "), "{broken}: {error}");
        // The case that is printed fails again by itself, and agrees where the kernel is sound.
        let (_, rest) = error.split_once("--seed ").expect("how to repeat it");
        let seed = rest.split(' ').next().unwrap();
        assert_eq!(check(seed, "1", Some(broken)).error(1), error, "{broken}");
        let sound = check(seed, "1", None);
        assert_eq!(sound.status, 0, "{broken}: {sound:?}");
    }
}
