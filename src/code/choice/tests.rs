//! A driver and compilers that are made up.

use crate::code::choice::*;

/// A compiler whose code is what it was made for, as text.
struct Fake {
    version: Version,
    known: Vec<u32>,
}

impl Compiler for Fake {
    fn version(&self) -> Version {
        self.version
    }
    fn architectures(&self) -> Vec<u32> {
        self.known.clone()
    }
    fn compile(&self, target: Target) -> Result<Vec<u8>, String> {
        Ok(format!("{:?} by {:?}", target, self.version).into_bytes())
    }
}

fn fake(major: i32, minor: i32) -> Result<Fake, String> {
    let mut known = vec![75, 80, 86, 87, 89, 90];
    if (major, minor) >= (12, 8) {
        known.extend([100, 120]);
    }
    Ok(Fake { version: (major, minor), known })
}

/// What a driver that takes `takes` ends up with, and what it was shown.
fn run(
    wanted: Wanted<'_>,
    compilers: Vec<Result<Fake, String>>,
    takes: impl Fn(&str) -> bool,
) -> (Result<String>, Vec<String>) {
    let mut shown = Vec::new();
    let refused = Some("embedded by NVRTC 13.5: NO_BINARY_FOR_GPU");
    let done = wanted.load(refused, compilers.into_iter(), |code| {
        let text = String::from_utf8_lossy(code).into_owned();
        shown.push(text.clone());
        if takes(&text) { Ok(text) } else { Err(Refused::Code("UNSUPPORTED_PTX_VERSION".into())) }
    });
    (done, shown)
}

const HOPPER: Wanted<'static> = Wanted { kernel: "mse", arch: 90, driver: (12, 0) };

#[test]
fn a_refusing_driver_is_given_the_next_best() {
    let both = || vec![fake(13, 5), fake(12, 1)];
    // It takes what is of its own major version.
    let (done, shown) = run(HOPPER, both(), |code| code.contains("(12, 1)"));
    assert_eq!(done.unwrap(), "Machine(90) by (12, 1)");
    assert_eq!(shown.len(), 3, "{shown:?}");
    // It takes PTX alone.
    let (done, shown) = run(HOPPER, both(), |code| code.starts_with("Ptx"));
    assert_eq!(done.unwrap(), "Ptx(90) by (13, 5)");
    assert_eq!(shown, ["Machine(90) by (13, 5)", "Ptx(90) by (13, 5)"]);
    // One that takes everything is given machine code of the first.
    let (done, _) = run(HOPPER, both(), |_| true);
    assert_eq!(done.unwrap(), "Machine(90) by (13, 5)");
    // What does not load, and what is there twice, is passed over.
    let some = vec![Err("damaged".into()), fake(13, 5), fake(13, 5), fake(12, 9)];
    let (done, shown) = run(HOPPER, some, |code| code.contains("(12, 9)"));
    assert_eq!((done.unwrap().as_str(), shown.len()), ("Machine(90) by (12, 9)", 3));
}

#[test]
fn where_nothing_is_taken_the_error_says_what_to_install() {
    let (done, _) = run(HOPPER, vec![fake(13, 5)], |_| false);
    let said = done.unwrap_err().to_string();
    for part in [
        "kernel mse",
        "embedded by NVRTC 13.5: NO_BINARY_FOR_GPU",
        "NVRTC 13.5 for sm_90: the driver says UNSUPPORTED_PTX_VERSION",
        "PTX of 90",
        "the driver is of CUDA 12.0",
        "NVRTC 12.0 or newer, up to 12.x (`pip install nvidia-cuda-nvrtc-cu12`)",
        "or a driver of CUDA 13.0 or newer",
    ] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    let (done, shown) = run(HOPPER, vec![Err("libnvrtc.so.13: cannot open".into())], |_| true);
    let said = done.unwrap_err().to_string();
    assert!(shown.is_empty() && said.contains("libnvrtc.so.13: cannot open"), "{said}");
    assert!(said.contains("pip install nvidia-cuda-nvrtc"), "{said}");
    // A new GPU and an old compiler: PTX was all that there was.
    let blackwell = Wanted { arch: 120, driver: (12, 8), ..HOPPER };
    let (done, shown) = run(blackwell, vec![fake(12, 1)], |_| false);
    assert_eq!(shown, ["Ptx(90) by (12, 1)"]);
    assert!(done.unwrap_err().to_string().contains("NVRTC 12.8 or newer, up to 12.x"));
}

#[test]
fn what_is_no_refusal_ends_the_search() {
    let mut calls = 0;
    let done: Result<()> = HOPPER.load(None, [fake(13, 5), fake(12, 1)].into_iter(), |_| {
        calls += 1;
        Err(Refused::Failed(Error::Device { reason: "out of memory".into() }))
    });
    assert_eq!(calls, 1);
    assert!(done.unwrap_err().to_string().contains("out of memory"));
}

#[test]
fn machine_code_runs_where_nvidia_promises_it() {
    for (built, arch, promised) in [
        (80, 80, true),
        (80, 86, true),
        (86, 89, true),
        (89, 89, true),
        (89, 86, false),
        (80, 87, false),
        (86, 87, false),
        (87, 87, true),
        (87, 89, false),
        (86, 88, false),
        (80, 90, false),
        (100, 101, false),
        (100, 103, true),
        (101, 103, false),
        (100, 110, false),
        (110, 110, true),
        (120, 121, true),
        (121, 120, false),
        (100, 120, false),
    ] {
        assert_eq!(runs(built, arch), promised, "{built} on {arch}");
    }
}

#[test]
fn a_compiler_makes_machine_code_where_it_can_and_ptx_for_the_rest() {
    let known = [80, 86, 89, 90, 100, 120];
    for (arch, machine, ptx) in [
        (80, Some(80), 80),
        (87, None, 86),
        (90, Some(90), 90),
        (101, None, 100),
        (103, Some(100), 100),
        (110, None, 100),
        (121, Some(120), 120),
    ] {
        let expected: Vec<_> =
            machine.map(Target::Machine).into_iter().chain([Target::Ptx(ptx)]).collect();
        assert_eq!(targets(&known, arch), expected, "{arch}");
    }
    assert!(targets(&[90], 80).is_empty());
}
