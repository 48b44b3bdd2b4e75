//! That `warploss check` finds a kernel which computes something else, on a card that is emulated.

use crate::{command, run};

/// A kernel, a broken one to be run in its place, and the op that uses it.
pub(crate) const BROKEN: [(&str, &str, &str); 7] = [
    ("cross_entropy_few_gradient_f32", "broken_target", "cross-entropy"),
    ("logsumexp_warp_forward_bf16", "broken_merge", "logsumexp"),
    ("log_softmax_few_gradient_f32", "broken_length", "log-softmax"),
    ("cross_entropy_block_f32", "broken_precision", "cross-entropy"),
    ("tile_forward_bf16", "broken_classes", "adaptive-log-softmax"),
    ("segment_sums", "broken_parts", "adaptive-embedding"),
    ("sampled_logits", "broken_hits", "sampled-softmax"),
];

#[test]
fn a_broken_kernel_fails_the_check_and_its_case_is_printed() {
    for (kernel, broken, op) in BROKEN {
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
        assert!(error.contains("mismatch in") && error.contains("case: "), "{broken}: {error}");
        // The case that is printed fails again by itself, and agrees where the kernel is sound.
        let case = |error: &str| error.split_once("; case: ").expect("the case").1.to_owned();
        let (_, rest) = error.split_once("--seed ").expect("how to repeat it");
        let seed = rest.split(' ').next().unwrap();
        let again = check(seed, "1", Some(broken));
        assert_eq!(case(again.error(1)), case(error), "{broken}");
        let sound = check(seed, "1", None);
        assert_eq!(sound.status, 0, "{broken}: {sound:?}");
    }
}
