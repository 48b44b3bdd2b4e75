//! The command line as a process.

mod bad_input;
#[cfg(feature = "emulator")]
mod broken_kernels;
mod commands;
#[cfg(feature = "emulator")]
mod differential;
mod eval;
mod eval_adaptive;
mod eval_elementwise;
mod eval_linear;
mod eval_lists;
mod messages;
mod plan;
mod sample;
mod visit;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a process left behind.
#[derive(Debug)]
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    /// The one JSON object on the one line of a run that succeeded.
    fn json(&self) -> Value {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        assert_eq!(self.stdout.matches('\n').count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// The one line of a run that failed with `status`.
    fn error(&self, status: i32) -> &str {
        assert_eq!((self.status, self.stdout.as_str()), (status, ""), "{self:?}");
        assert_eq!(self.stderr.matches('\n').count(), 1, "{self:?}");
        self.stderr.trim_end()
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warploss"));
    command.env_remove("WARPLOSS_DEVICE");
    command
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `warploss` with the words of `line` and then the paths.
fn warploss(line: &str) -> Run {
    run(command().args(line.split_whitespace()))
}

/// A folder of its own for each test, gone afterwards.
struct Folder(tempfile::TempDir);

/// A tensor to be written.
struct Given {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn f32s(name: &'static str, shape: &[usize], values: &[f32]) -> Given {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Given { name, dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

fn bf16s(name: &'static str, shape: &[usize], values: &[f32]) -> Given {
    let bytes = values.iter().flat_map(|v| warploss::bf16::from_f32(*v).to_le_bytes()).collect();
    Given { name, dtype: Dtype::BF16, shape: shape.to_vec(), bytes }
}

fn i64s(name: &'static str, shape: &[usize], values: &[i64]) -> Given {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Given { name, dtype: Dtype::I64, shape: shape.to_vec(), bytes }
}

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `in.safetensors`.
    fn write(&self, tensors: &[Given]) -> PathBuf {
        let path = self.path("in.safetensors");
        let views = tensors
            .iter()
            .map(|t| (t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        path
    }

    /// Runs `warploss eval OPTIONS --input in.safetensors --output out.safetensors`.
    fn eval(&self, options: &str) -> Run {
        let (input, output) = (self.path("in.safetensors"), self.path("out.safetensors"));
        let mut command = command();
        command.arg("eval").args(options.split_whitespace());
        run(command.arg("--input").arg(input).arg("--output").arg(output))
    }

    /// Names of the files here.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A tensor of `out.safetensors`: dtype, shape, values.
    fn read(&self, name: &str) -> (Dtype, Vec<usize>, Vec<f32>) {
        read(&self.path("out.safetensors"), name)
    }

    /// Names of the tensors of `out.safetensors`.
    fn outputs(&self) -> Vec<String> {
        let bytes = std::fs::read(self.path("out.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }
}

fn read(path: &Path, name: &str) -> (Dtype, Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = match view.dtype() {
        Dtype::F32 => {
            let (words, _) = view.data().as_chunks::<4>();
            words.iter().map(|w| f32::from_le_bytes(*w)).collect()
        }
        Dtype::BF16 => {
            let (words, _) = view.data().as_chunks::<2>();
            words.iter().map(|w| warploss::bf16::from_le_bytes(*w).to_f32()).collect()
        }
        Dtype::F16 => {
            let (words, _) = view.data().as_chunks::<2>();
            words.iter().map(|w| warploss::f16::from_le_bytes(*w).to_f32()).collect()
        }
        Dtype::F64 => {
            let (words, _) = view.data().as_chunks::<8>();
            words.iter().map(|w| f64::from_le_bytes(*w) as f32).collect()
        }
        Dtype::I64 => {
            let (words, _) = view.data().as_chunks::<8>();
            words.iter().map(|w| i64::from_le_bytes(*w) as f32).collect()
        }
        other => panic!("unexpected dtype {other:?}"),
    };
    (view.dtype(), view.shape().to_vec(), values)
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{got:?} {expected:?}");
    for (g, e) in got.iter().zip(expected) {
        assert!(g == e || (g - e).abs() <= tolerance, "{got:?} {expected:?}");
    }
}
