//! `warploss sample`: batches in a file, equal to the library's.

use super::*;
use ::warploss::TensorRef;
use ::warploss::balance::{BalancedSampler, SamplerOptions};

/// Forty samples of class 0, nine of 1, none of 2, one of 3.
fn labels() -> Vec<i64> {
    (0..50).map(|i| if i % 5 < 4 { 0 } else { i64::from(i < 48) + 3 * i64::from(i > 48) }).collect()
}

/// Runs `warploss sample OPTIONS --labels in.safetensors --output out.safetensors`.
fn sample(folder: &Folder, options: &str) -> Run {
    let mut command = command();
    command.arg("sample").args(options.split_whitespace());
    command.arg("--labels").arg(folder.path("in.safetensors"));
    run(command.arg("--output").arg(folder.path("out.safetensors")))
}

fn given(tensor: Given) -> Folder {
    let folder = Folder::new();
    folder.write(&[tensor]);
    folder
}

fn read_i64s(folder: &Folder, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(folder.path("out.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    assert_eq!((view.dtype(), view.shape().len()), (Dtype::I64, 1));
    view.data().as_chunks::<8>().0.iter().map(|w| i64::from_le_bytes(*w)).collect()
}

#[test]
fn batches_are_those_of_the_library() {
    let labels = labels();
    let folder = given(i64s("labels", &[50], &labels));
    let result = sample(&folder, "--batch 7 --epochs 2 --closing-epochs 1 --seed 11");
    let object = result.json();
    let options = SamplerOptions::new(7).seed(11).epochs(2).closing_epochs(1);
    let view = TensorRef::new(&labels, &[50]).unwrap();
    let expected: Vec<Vec<usize>> = BalancedSampler::new(view, &options).unwrap().collect();

    let (indices, offsets) = (read_i64s(&folder, "indices"), read_i64s(&folder, "batch_offsets"));
    let batches: Vec<Vec<usize>> = offsets
        .windows(2)
        .map(|w| indices[w[0] as usize..w[1] as usize].iter().map(|&i| i as usize).collect())
        .collect();
    assert_eq!(batches, expected);
    assert_eq!((offsets[0], *offsets.last().unwrap()), (0, indices.len() as i64));
    for (key, value) in [
        ("samples", 50),
        ("classes", 3),
        ("largest", 40),
        ("batch", 7),
        ("epochs", 2),
        ("closing_epochs", 1),
        ("seed", 11),
        ("batches", 2 * 120u64.div_ceil(7) + 50u64.div_ceil(7)),
        ("indices", 2 * 120 + 50),
    ] {
        assert_eq!(object[key], value, "{key}");
    }
    assert!(object["seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!(folder.names(), ["in.safetensors", "out.safetensors"]);
}

#[test]
fn one_balanced_epoch_of_seed_0_is_the_default() {
    let bytes = labels().iter().map(|&l| l as u8).collect();
    let folder = given(Given { name: "labels", dtype: Dtype::U8, shape: vec![50], bytes });
    assert_eq!(sample(&folder, "--batch 6").json()["indices"], 120);
    let first = read_i64s(&folder, "indices");
    sample(&folder, "--batch 6 --epochs 1 --closing-epochs 0 --seed 0").json();
    assert_eq!(read_i64s(&folder, "indices"), first);
    sample(&folder, "--batch 6 --seed 1").json();
    assert_ne!(read_i64s(&folder, "indices"), first);
}

#[test]
fn no_epochs_are_no_batches() {
    let folder = given(i64s("labels", &[50], &labels()));
    let object = sample(&folder, "--batch 6 --epochs 0").json();
    assert_eq!((&object["batches"], &object["indices"]), (&0.into(), &0.into()));
    assert_eq!(read_i64s(&folder, "batch_offsets"), [0]);
}

#[test]
fn bad_input_is_named_and_nothing_is_written() {
    let good = || i64s("labels", &[3], &[0, 1, 0]);
    for (tensor, options, parts) in [
        (good(), "", ["--batch", "required"]),
        (good(), "--batch 0", ["--batch", "1.."]),
        (good(), "--batch -3", ["--batch", "-3"]),
        (good(), "--batch 2 --epochs -1", ["--epochs", "-1"]),
        (good(), "--batch 2 --closing-epochs x", ["--closing-epochs", "x"]),
        (good(), "--batch 2 --seed 1.5", ["--seed", "1.5"]),
        (i64s("target", &[1], &[0]), "--batch 2", ["labels: expected a tensor", "got target"]),
        (
            i64s("labels", &[2], &[0, -7]),
            "--batch 2",
            ["labels: expected a class", "-7 at index 1"],
        ),
        (i64s("labels", &[0], &[]), "--batch 2", ["labels: expected at least one", "none"]),
        (i64s("labels", &[1, 1], &[0]), "--batch 2", ["labels: expected 1 dim", "got 2"]),
        (f32s("labels", &[1], &[0.0]), "--batch 2", ["labels: expected dtype", "f32"]),
    ] {
        let folder = given(tensor);
        let result = sample(&folder, options);
        let line = result.error(2);
        assert!(parts.iter().all(|part| line.contains(part)), "{options}: {line}");
        assert_eq!(folder.names(), ["in.safetensors"], "{options}");
    }
    let folder = Folder::new();
    assert!(sample(&folder, "--batch 2").error(2).contains("--labels"));
    std::fs::write(folder.path("in.safetensors"), "no").unwrap();
    let result = sample(&folder, "--batch 2");
    assert!(result.error(2).contains("--labels") && result.stderr.contains("safetensors"));
}

#[test]
fn more_batches_than_memory_holds_are_status_1() {
    let folder = given(i64s("labels", &[50], &labels()));
    for epochs in ["99999999999999", "18446744073709551615"] {
        let result = sample(&folder, &format!("--batch 2 --epochs {epochs}"));
        let line = result.error(1);
        assert!(line.contains("memory") || line.contains("allocate"), "{line}");
        assert_eq!(folder.names(), ["in.safetensors"]);
    }
}
