//! `warploss info`: what there is, and for what is missing, the plain reason.

use super::device::DeviceChoice;
use super::failure::Failure;
use super::kernels;
use super::memory::in_words;
#[cfg(feature = "cuda")]
use crate::cuda::real::found;
#[cfg(feature = "cuda")]
use crate::cuda::real::found::Found;
use crate::device::Device;
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The command.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  warploss info --json")]
pub(super) struct Info {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Instead, load every kernel on the device, and say what it takes there
    #[arg(long)]
    kernels: bool,
}

/// Features of the crate that this build can have.
const FEATURES: &[(&str, bool)] = &[
    ("cli", cfg!(feature = "cli")),
    ("cuda", cfg!(feature = "cuda")),
    ("emulator", cfg!(feature = "emulator")),
];

impl Info {
    pub(super) fn run(&self, device: DeviceChoice) -> Result<(), Failure> {
        let (value, text): (_, fn(&Value) -> String) = match self.kernels {
            true => (kernels::gather(device)?, kernels::text),
            false => (gather(), text),
        };
        let text = if self.json { format!("{value}\n") } else { text(&value) };
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|e| Failure::failed(format!("standard output: {e}")))
    }
}

/// The CUDA devices that work, and why there are no more.
#[cfg(feature = "cuda")]
fn cuda_devices() -> (Vec<String>, String) {
    let mut devices = Vec::new();
    loop {
        match Device::cuda(devices.len()) {
            Ok(device) => devices.push(device.description()),
            Err(e) => return (devices, e.to_string()),
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> (Vec<String>, String) {
    (Vec::new(), "this build computes on the CPU only; GPUs need the feature `cuda`".into())
}

/// NVIDIA's libraries by name: what was found of each, or why not and what to do.
#[cfg(feature = "cuda")]
fn libraries() -> Vec<(&'static str, Value)> {
    let value = |found: std::result::Result<Found, String>| match found {
        Ok(found) => json!({
            "found": true,
            "library": found.library,
            "version": format!("{}.{}", found.version.0, found.version.1),
            "lacks": found.lacks,
        }),
        Err(reason) => json!({ "found": false, "reason": reason }),
    };
    vec![
        ("driver", value(found::driver())),
        ("nvrtc", value(found::nvrtc())),
        ("cublas", value(found::cublas())),
    ]
}

#[cfg(not(feature = "cuda"))]
fn libraries() -> Vec<(&'static str, Value)> {
    let reason = "this build does not use it; GPUs need the feature `cuda`";
    ["driver", "nvrtc", "cublas"]
        .map(|name| (name, json!({ "found": false, "reason": reason })))
        .into()
}

fn gather() -> Value {
    let cpu = Device::cpu().cpu_info();
    let features: Vec<_> = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let cache = cache_folder();
    let bytes = cache.as_deref().filter(|folder| folder.is_dir()).map(size_of_folder);
    let (devices, reason) = cuda_devices();
    let mut cuda = json!({ "devices": devices, "reason": reason });
    for (name, library) in libraries() {
        cuda[name] = library;
    }
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "features": features,
        "cpu": {
            "model": cpu_model().unwrap_or_else(|| "unknown".into()),
            "architecture": std::env::consts::ARCH,
            "threads": cpu.threads,
            "simd": cpu.simd,
        },
        "cuda": cuda,
        "kernel_cache": {
            "path": cache.as_ref().map(|path| path.display().to_string()),
            "exists": bytes.is_some(),
            "bytes": bytes.unwrap_or(0),
        },
    })
}

fn text(value: &Value) -> String {
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let cpu = &value["cpu"];
    let features: Vec<_> = value["features"].as_array().into_iter().flatten().map(plain).collect();
    let cache = &value["kernel_cache"];
    let cache_size = match cache["exists"].as_bool() {
        Some(true) => in_words(cache["bytes"].as_u64().unwrap_or(0).into()),
        _ => "not there yet".into(),
    };
    let library = |v: &Value| match v["found"].as_bool() {
        Some(true) => {
            let lacks: Vec<_> = v["lacks"].as_array().into_iter().flatten().map(plain).collect();
            let lacks = lacks.iter().map(|what| format!("; {what}")).collect::<String>();
            format!("{} ({}){lacks}", plain(&v["version"]), plain(&v["library"]))
        }
        _ => format!("not found: {}", plain(&v["reason"])),
    };
    let devices = match value["cuda"]["devices"].as_array() {
        Some(devices) if !devices.is_empty() => {
            devices.iter().map(plain).collect::<Vec<_>>().join("; ")
        }
        _ => format!("no device: {}", plain(&value["cuda"]["reason"])),
    };
    [
        ("warploss", plain(&value["version"])),
        ("features", features.join(", ")),
        ("cpu", format!("{} ({})", plain(&cpu["model"]), plain(&cpu["architecture"]))),
        ("  threads", plain(&cpu["threads"])),
        ("  simd", plain(&cpu["simd"])),
        ("cuda", devices),
        ("  driver", library(&value["cuda"]["driver"])),
        ("  nvrtc", library(&value["cuda"]["nvrtc"])),
        ("  cublas", library(&value["cuda"]["cublas"])),
        ("kernel cache", format!("{}, {cache_size}", plain(&cache["path"]))),
    ]
    .iter()
    .map(|(key, value)| format!("{key:<14}{value}\n"))
    .collect()
}

/// The processor's name, where the system tells it in a file.
pub(super) fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name") || l.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The user's cache folder for compiled kernels.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library/Caches"))
    } else {
        set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))
    };
    base.map(|folder| folder.join("warploss"))
}

/// Bytes of the files in a folder and below; what cannot be read counts 0, links are not followed.
fn size_of_folder(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => size_of_folder(&entry.path()),
            Ok(m) if m.is_file() => m.len(),
            _ => 0,
        })
        .sum()
}
