//! Machines that are made of empty files.

use super::*;
use std::collections::HashMap;

static NVRTC: Sought = Sought {
    variable: "WARPLOSS_NVRTC",
    names: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", "nvrtc64_130_0.dll"],
    companions: &["libnvrtc-builtins.so"],
};

/// A folder that stands for `/`.
struct Root(tempfile::TempDir);

impl Root {
    fn with(files: &[&str]) -> Root {
        let root = Root(tempfile::tempdir().unwrap());
        for file in files {
            let path = root.at(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// What is found, below the root; without the names alone. `~` in a variable is the root.
    fn find(&self, variables: &[(&str, &str)], windows: bool) -> Vec<String> {
        let root = self.0.path().to_str().unwrap();
        let set: HashMap<_, _> =
            variables.iter().map(|&(name, value)| (name, value.replace('~', root))).collect();
        let machine = Machine {
            variable: &|name| set.get(name).map(OsString::from),
            root: self.0.path(),
            windows,
        };
        let all = machine.candidates(&NVRTC);
        let below = |path: &PathBuf| {
            let path = path.strip_prefix(root).ok()?;
            Some(path.to_str().unwrap().replace('\\', "/"))
        };
        all.iter().filter_map(below).collect()
    }
}

/// One layout each: the file, and the variables by which it is found.
#[test]
fn every_layout_is_searched() {
    let layouts: &[(&str, &[(&str, &str)])] = &[
        ("usr/local/cuda/lib64/libnvrtc.so.13", &[]),
        ("usr/local/cuda-13.0/targets/x86_64-linux/lib/libnvrtc.so.13", &[]),
        ("usr/lib/x86_64-linux-gnu/libnvrtc.so.12", &[]),
        ("usr/lib/nvidia-cuda-toolkit/lib64/libnvrtc.so.12", &[]),
        ("opt/cuda/lib64/libnvrtc.so", &[]),
        ("given/lib/libnvrtc.so.12", &[("CUDA_HOME", "~/given")]),
        ("given/lib64/libnvrtc.so.12", &[("CUDA_PATH", "~/given")]),
        ("given/libnvrtc.so.12", &[("LD_LIBRARY_PATH", "~/nothing:~/given")]),
        ("given/libnvrtc.so.12", &[("WARPLOSS_NVRTC", "~/given")]),
        ("given/libnvrtc.so.12.9.86", &[("WARPLOSS_NVRTC", "~/given/libnvrtc.so.12.9.86")]),
        (
            "venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            &[("VIRTUAL_ENV", "~/venv")],
        ),
        (
            "venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            &[("VIRTUAL_ENV", "~/venv")],
        ),
        ("conda/lib/libnvrtc.so.12", &[("CONDA_PREFIX", "~/conda")]),
        ("conda/targets/x86_64-linux/lib/libnvrtc.so.12", &[("CONDA_PREFIX", "~/conda")]),
        (
            "conda/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            &[("CONDA_PREFIX", "~/conda")],
        ),
        (
            "home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            &[("HOME", "~/home")],
        ),
    ];
    for (file, variables) in layouts {
        let root = Root::with(&[file]);
        assert_eq!(root.find(variables, false), [*file], "{variables:?}");
        let unset: Vec<_> = variables.iter().map(|(name, _)| (*name, "")).collect();
        if !variables.is_empty() {
            assert!(root.find(&unset, false).is_empty(), "{file} without {variables:?}");
        }
    }
}

#[test]
fn packages_of_the_interpreter_on_the_path_are_found_without_running_it() {
    let package = "lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13";
    for (python, prefix) in
        [("env/bin/python3", "env"), ("env/bin/python", "env"), ("usr/bin/python3", "usr")]
    {
        let file = format!("{prefix}/{package}");
        let root = Root::with(&[python, &file]);
        let folder = format!("~/empty:~/{prefix}/bin");
        assert_eq!(root.find(&[("PATH", &folder)], false), [file]);
        assert!(root.find(&[("PATH", "~/empty")], false).is_empty());
    }
    // Debian's own.
    let file = "usr/lib/python3/dist-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12";
    let root = Root::with(&["usr/bin/python3", file]);
    assert_eq!(root.find(&[("PATH", "~/usr/bin")], false), [file]);
    // pyenv's shim is a script; `version` says what it runs.
    let file = format!("pyenv/versions/3.11.7/{package}");
    let root = Root::with(&["pyenv/shims/python3", &file]);
    std::fs::write(root.at("pyenv/version"), "3.11.7\n").unwrap();
    assert_eq!(root.find(&[("PATH", "~/pyenv/shims")], false), [&file[..]]);
    let other = [("PATH", "~/pyenv/shims"), ("PYENV_VERSION", "3.12.0")];
    assert!(root.find(&other, false).is_empty());
}

#[cfg(unix)]
#[test]
fn a_virtual_environment_on_the_path_comes_before_what_it_links_to() {
    let site = |prefix: &str| format!("{prefix}/lib/python3.11/site-packages/nvidia/cu13/lib");
    let [own, base] = ["venv", "usr"].map(|prefix| format!("{}/libnvrtc.so.13", site(prefix)));
    let root = Root::with(&["usr/bin/python3", "venv/pyvenv.cfg", &own, &base]);
    std::fs::create_dir_all(root.at("venv/bin")).unwrap();
    std::os::unix::fs::symlink(root.at("usr/bin/python3"), root.at("venv/bin/python3")).unwrap();
    assert_eq!(root.find(&[("PATH", "~/venv/bin:~/usr/bin")], false), [own, base]);
}

#[test]
fn what_a_variable_names_is_all_that_is_tried() {
    let root = Root::with(&["usr/local/cuda/lib64/libnvrtc.so.13", "given/libnvrtc.so.12"]);
    assert_eq!(root.find(&[("WARPLOSS_NVRTC", "~/given")], false), ["given/libnvrtc.so.12"]);
    assert!(root.find(&[("WARPLOSS_NVRTC", "~/none")], false).is_empty());
    let set = |name: &str| (name == "WARPLOSS_NVRTC").then(|| OsString::from("/none"));
    let machine = Machine { variable: &set, root: root.0.path(), windows: false };
    assert!(machine.candidates(&NVRTC).is_empty(), "not even the names alone");
    // Where nothing is found, the system is asked by its own kind of name.
    for (windows, expected) in [(false, &NVRTC.names[..3]), (true, &NVRTC.names[3..])] {
        let empty = tempfile::tempdir().unwrap();
        let machine = Machine { variable: &|_| None, root: empty.path(), windows };
        let names: Vec<_> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(machine.candidates(&NVRTC), names);
    }
}

#[test]
fn the_newest_comes_first_and_nothing_twice() {
    let [old, new] = ["usr/local/cuda-13.9/lib64", "usr/local/cuda-13.10/lib64"];
    let files = [old, new].map(|folder| format!("{folder}/libnvrtc.so.13"));
    let root = Root::with(&[&files[0], &files[1]]);
    assert_eq!(root.find(&[], false), [&files[1][..], &files[0]]);
    let again = [("CUDA_HOME", "~/usr/local/cuda-13.9"), ("CUDA_PATH", "~/usr/local/cuda-13.9")];
    assert_eq!(root.find(&again, false), [&files[0][..], &files[1]]);
    let both = ["cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.so.13"]
        .map(|file| format!("env/lib/python3.11/site-packages/nvidia/{file}"));
    let root = Root::with(&[&both[0], &both[1]]);
    assert_eq!(root.find(&[("VIRTUAL_ENV", "~/env")], false), [&both[1][..], &both[0]]);
}

#[test]
fn folders_of_windows() {
    let dll = "nvrtc64_130_0.dll";
    for (folder, variables) in [
        ("cuda/bin", [("CUDA_PATH", "~/cuda")]),
        ("cuda/bin/x64", [("CUDA_PATH", "~/cuda")]),
        ("conda/Library/bin", [("CONDA_PREFIX", "~/conda")]),
        ("conda/Library/bin/x64", [("CONDA_PREFIX", "~/conda")]),
        ("venv/Lib/site-packages/nvidia/cu13/bin/x86_64", [("VIRTUAL_ENV", "~/venv")]),
        ("venv/Lib/site-packages/nvidia/cuda_nvrtc/bin", [("VIRTUAL_ENV", "~/venv")]),
        ("p/NVIDIA GPU Computing Toolkit/CUDA/v13.0/bin/x64", [("ProgramFiles", "~/p")]),
        ("tools", [("PATH", "~/tools")]),
    ] {
        let file = format!("{folder}/{dll}");
        assert_eq!(Root::with(&[&file]).find(&variables, true), [file], "{variables:?}");
    }
}
