//! Every loss of the catalogue, whichever it is: cases that the catalogue draws, all their forms, on
//! every device. A loss that is a row of it is tested here without a word.

use crate::harness::devices;
use warploss::Device;
use warploss::check::catalogue::Op;
use warploss::check::subject::{Engine, check};

/// Cases of each loss on each device.
const CASES: u64 = 8;

/// What is wrong with a loss's cases on a device, in words.
fn wrong(op: Op, device: &Device) -> Vec<String> {
    let shapes: [&[usize]; 4] = [&[3, 37], &[2, 5, 3], &[9], &[4, 260]];
    let case = |seed: u64| {
        let shape = op.takes_shape().then_some(shapes[seed as usize % shapes.len()]);
        let case = op.case_of_shape(seed, shape).expect("a case");
        match check(&Engine(device.clone()), &case) {
            Err(why) => Some(format!("{why}\n  of {case}")),
            Ok(findings) => {
                assert!(!findings.is_empty(), "nothing was compared: {case}");
                let bad = findings.iter().find(|finding| !finding.worst.agrees());
                bad.map(|finding| format!("{finding}\n  of {case}"))
            }
        }
    };
    (0..CASES).filter_map(case).collect()
}

#[test]
fn every_loss_of_the_catalogue_agrees_with_its_reference_on_every_device() {
    for &op in Op::ALL {
        for (name, device) in devices() {
            let wrong = wrong(op, device);
            assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
        }
    }
}

#[test]
fn names_are_the_command_lines_and_no_two_are_alike() {
    let mut names: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
    let plain = |name: &&str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    assert!(names.iter().all(plain), "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Op::ALL.len());
}
