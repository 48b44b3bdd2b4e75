//! Bad input: exit status 2, one line that names what is wrong, no output of any kind.

use super::*;

/// A file that every op can read.
fn good() -> Folder {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[2, 3], &[0.0; 6]), i64s("target", &[2], &[0, 2])]);
    folder
}

#[test]
fn options_out_of_range_are_named_with_what_was_expected() {
    let folder = good();
    for (options, parts) in [
        ("cross-entropy --label-smoothing 1.5", ["--label-smoothing", "[0, 1]", "1.5"]),
        ("cross-entropy --label-smoothing NaN", ["--label-smoothing", "[0, 1]", "NaN"]),
        ("cross-entropy --z-loss -1", ["--z-loss", "≥ 0", "-1"]),
        ("cross-entropy --softcap -2", ["--softcap", "> 0", "-2"]),
        ("cross-entropy --softcap 1e-50", ["--softcap", "f32 does not round", "1e-50"]),
        ("cross-entropy --logit-scale 0", ["--logit-scale", "> 0", "0"]),
        ("cross-entropy --reduction avg", ["--reduction", "mean", "avg"]),
        ("cross-entropy --ignore-index x", ["--ignore-index", "invalid", "x"]),
        ("cross-entropy --classes 4", ["--classes", "1 to 3", "4"]),
        ("cross-entropy --classes 0", ["--classes", "1 to 3", "0"]),
        ("cross-entropy --classes 2", ["target", "[0, 2)", "2 at row 1"]),
        ("cross-entropy --threads 0", ["--threads", "1..", "0"]),
        ("cross-entropy --device gpu", ["--device", "cuda:N", "gpu"]),
        ("log-softmax --dim 2", ["--dim", "[-2, 1]", "2"]),
        ("log-softmax --reduction sum", ["--reduction", "none", "sum"]),
        ("logsumexp --dim 1,-1", ["--dim", "distinct", "twice"]),
        ("logsumexp --dim -3", ["--dim", "[-2, 1]", "-3"]),
        ("logprob-entropy --logit-scale -1", ["--logit-scale", "> 0", "-1"]),
        ("logprob-entropy --softcap inf", ["--softcap", "finite", "inf"]),
        ("logprob-entropy --reduction mean", ["--reduction", "none", "mean"]),
        ("log-softmax --keepdim", ["--keepdim", "unexpected", ""]),
        ("triplet", ["triplet", "cross-entropy, log-softmax, logsumexp", ""]),
    ] {
        let result = folder.eval(options);
        let line = result.error(2);
        assert!(parts.iter().all(|part| line.contains(part)), "{options}: {line}");
        assert_eq!(folder.names(), ["in.safetensors"], "{options}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named_with_both_shapes() {
    let input = || f32s("input", &[2, 3], &[0.0; 6]);
    let target = || i64s("target", &[2], &[0, 2]);
    for (tensors, parts) in [
        (vec![target()], ["input: expected", "got target"]),
        (vec![input()], ["target: expected", "got input"]),
        (vec![input(), i64s("target", &[3], &[0; 3])], ["target: expected", "[3]"]),
        (vec![input(), f32s("target", &[2], &[0.0; 2])], ["target: expected", "f32"]),
        (vec![input(), i64s("target", &[2], &[0, 3])], ["target: expected", "3 at row 1"]),
        (vec![input(), i64s("target", &[2], &[-1, 0])], ["target: expected", "-1 at row 0"]),
        (vec![i64s("input", &[2, 3], &[0; 6]), target()], ["input: expected", "i64"]),
        (vec![f32s("input", &[], &[0.0]), target()], ["input: expected", "got 0"]),
        (vec![input(), target(), f32s("weight", &[2], &[1.0; 2])], ["weight: expected", "[2]"]),
        (
            vec![input(), target(), f32s("weight", &[3], &[1.0, f32::NAN, 1.0])],
            ["weight: expected finite", "index 1"],
        ),
        (
            vec![input(), target(), f32s("grad_output", &[2], &[1.0; 2])],
            ["grad_output: expected", "[2]"],
        ),
        (
            vec![f32s("input", &[1; 9], &[0.0]), target()],
            ["input: expected at most 8 dimensions", "[1, 1"],
        ),
    ] {
        let folder = Folder::new();
        folder.write(&tensors);
        let result = folder.eval("cross-entropy --grad");
        let line = result.error(2);
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
        assert_eq!(folder.names(), ["in.safetensors"]);
    }
}

/// A file of a header and data, as an attacker may write it.
fn hostile(folder: &Folder, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(folder.path("in.safetensors"), bytes).unwrap();
}

#[test]
fn files_that_are_not_safetensors_are_refused() {
    let entry = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(
            "{{\"input\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}}}"
        )
    };
    let folder = Folder::new();
    for bytes in [&b""[..], b"\x01", b"not a safetensors file at all", &[0xff; 64], &[0; 64]] {
        std::fs::write(folder.path("in.safetensors"), bytes).unwrap();
        let result = folder.eval("logsumexp");
        assert!(result.error(2).contains("expected a safetensors file"), "{result:?}");
    }
    for header in [
        entry("F32", "[2]", 0, 4),
        entry("F32", "[2]", 0, 80),
        entry("F32", "[2]", 8, 0),
        entry("F32", "[2]", u64::MAX - 7, u64::MAX),
        entry("F32", "[4294967296,4294967296,2]", 0, 8),
        entry("F32", "[18446744073709551615]", 0, 8),
        entry("F32", "[-1]", 0, 8),
        entry("X7", "[2]", 0, 8),
        "{".into(),
        "[]".into(),
        "{\"a\":".repeat(5000),
    ] {
        hostile(&folder, &header, &[0; 8]);
        assert!(folder.eval("logsumexp").error(2).contains("safetensors"), "{header:.60}");
    }
    hostile(&folder, &entry("F64", "[1]", 0, 8), &[0; 8]);
    assert!(folder.eval("logsumexp").error(2).contains("input: expected dtype"));
    assert_eq!(folder.names(), ["in.safetensors"]);
}

#[test]
fn sizes_that_overflow_behind_a_dimension_of_0_are_refused() {
    let folder = Folder::new();
    let huge = "[0,4294967296,4294967296]";
    hostile(
        &folder,
        &format!("{{\"input\":{{\"dtype\":\"F32\",\"shape\":{huge},\"data_offsets\":[0,0]}}}}"),
        &[],
    );
    for op in ["cross-entropy", "log-softmax", "logsumexp", "logprob-entropy"] {
        assert!(folder.eval(op).error(2).contains("input: expected"), "{op}");
    }
}

#[test]
fn misaligned_data_is_read_all_the_same() {
    let folder = Folder::new();
    let mut header =
        "{\"input\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}".to_owned();
    while !header.len().is_multiple_of(4) || header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header.push(' ');
    hostile(&folder, &header, &[0; 8]);
    let loss = folder.eval("logsumexp").json()["loss"].as_f64().unwrap();
    assert!((loss - 2f64.ln()).abs() < 1e-6);
}

#[test]
#[cfg(target_os = "linux")]
fn what_does_not_fit_in_memory_is_an_error_and_no_abort() {
    // A sparse file: 2 TiB of zeros in no space. Its log-softmax needs as much memory.
    let folder = Folder::new();
    let n: u64 = 1 << 39;
    let mut header = format!(
        "{{\"input\":{{\"dtype\":\"F32\",\"shape\":[1,{n}],\"data_offsets\":[0,{}]}}}}",
        4 * n
    );
    let aligned = header.len().next_multiple_of(8);
    let misaligned = format!("{header:aligned$} ");
    header = format!("{header:aligned$}");
    for header in [header, misaligned] {
        sparse_is_refused(&folder, &header, 4 * n);
    }
}

#[cfg(target_os = "linux")]
fn sparse_is_refused(folder: &Folder, header: &str, data: u64) {
    hostile(folder, header, &[]);
    let path = folder.path("in.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    if file.set_len(8 + header.len() as u64 + data).is_err() {
        return; // A file system without sparse files of that size.
    }
    let result = folder.eval("log-softmax");
    // Where the mapping itself is refused, the file is to blame.
    assert!(matches!(result.status, 1 | 2), "{result:?}");
    let line = result.error(result.status);
    assert!(line.contains("memory") || line.contains("--input"), "{line}");
    assert_eq!(folder.names(), ["in.safetensors"]);
}

#[test]
fn paths_that_cannot_be_used_are_named() {
    let folder = good();
    let (input, missing) = (folder.path("in.safetensors"), folder.path("nope"));
    let eval = |input: &Path, output: &Path| {
        let mut command = command();
        command.args(["eval", "logsumexp", "--input"]).arg(input).arg("--output").arg(output);
        run(&mut command)
    };
    assert!(eval(&missing, &folder.path("out")).error(2).contains("--input"));
    assert!(eval(folder.0.path(), &folder.path("out")).error(2).contains("--input"));
    assert!(eval(&input, &missing.join("out")).error(2).contains("--output"));
    assert!(eval(&input, folder.0.path()).error(2).contains("--output"));
    if cfg!(unix) {
        assert!(eval(&input, Path::new("/dev/null")).error(2).contains("regular file"));
    }
    assert_eq!(folder.names(), ["in.safetensors"]);
}
