//! Where NVIDIA's libraries lie: one search for all of them, a pure function of a machine that is
//! described. Used by the build script too, so it knows nothing of the crate.
//!
//! | order | place |
//! |---|---|
//! | 1 | what the library's own variable names; nothing else then |
//! | 2 | the dynamic linker's variable |
//! | 3 | the toolkit that `CUDA_HOME` or `CUDA_PATH` names |
//! | 4 | the Python or conda environment that is active |
//! | 5 | the packages of the `python3` that is first on `PATH`, and the user's own |
//! | 6 | toolkits where NVIDIA's installers put them, the newest first |
//! | 7 | distributions' folders |
//! | 8 | wherever else the system looks |

use libloading::Library;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A library of NVIDIA's.
#[derive(Debug)]
pub(crate) struct Sought {
    /// The environment variable that names the file or its folder.
    pub(crate) variable: &'static str,
    /// Names that it goes by, newest first.
    pub(crate) names: &'static [&'static str],
    /// How libraries begin that it opens by their names alone: they are opened before it.
    pub(crate) companions: &'static [&'static str],
}

/// What the search asks of a machine.
pub(crate) struct Machine<'m> {
    pub(crate) variable: &'m dyn Fn(&str) -> Option<OsString>,
    /// What absolute paths begin with: `/`.
    pub(crate) root: &'m Path,
    pub(crate) windows: bool,
}

/// A loaded library. What it opened first stays loaded as long.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) library: Library,
    pub(crate) path: PathBuf,
    _companions: Vec<Library>,
}

/// Folders of libraries below a toolkit, a conda environment or a Python package.
fn below(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = ["lib64", "lib"].iter().map(|name| root.join(name)).collect();
    folders
        .extend(children(&root.join("targets"), "").into_iter().map(|target| target.join("lib")));
    // Windows; from CUDA 13 on in a folder by architecture.
    folders.extend(["bin", "bin/x64", "bin/x86_64"].iter().map(|name| root.join(name)));
    folders.push(root.join("Library/bin"));
    folders.push(root.join("Library/bin/x64"));
    folders
}

/// Numbers in a name, so that 13.10 is newer than 13.9.
fn numbers(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let digits = name.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|run| run.parse().ok()).collect()
}

/// What begins with `prefix` in a folder, the newest version first.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.sort_by_key(|path| std::cmp::Reverse(numbers(path)));
    found
}

/// Folders of NVIDIA's packages below the prefix of a Python.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let mut sites = vec![prefix.join("Lib/site-packages")];
    for library in [prefix.join("lib"), prefix.join("lib64"), prefix.join("local/lib")] {
        for python in children(&library, "python3") {
            sites.extend([python.join("site-packages"), python.join("dist-packages")]);
        }
    }
    // CUDA 13's packages share a folder, `cu13`; CUDA 12's have one each.
    let nvidia = sites.iter().flat_map(|site| children(&site.join("nvidia"), ""));
    nvidia.flat_map(|package| below(&package)).collect()
}

impl Machine<'_> {
    fn set(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The folders that a variable lists.
    fn listed(&self, name: &str) -> Vec<PathBuf> {
        let list = (self.variable)(name).unwrap_or_default();
        std::env::split_paths(&list).filter(|folder| folder.is_absolute()).collect()
    }

    /// Prefixes of the interpreter that is first on `PATH`, by where it lies: it is not run.
    fn pythons(&self) -> Vec<PathBuf> {
        let names =
            if self.windows { ["python.exe", "python3.exe"] } else { ["python3", "python"] };
        let folders = self.listed("PATH");
        let both = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
        let Some(python) = both.into_iter().find(|path| path.is_file()) else {
            return Vec::new();
        };
        let prefix = |python: &Path| {
            let folder = python.parent()?;
            match folder.file_name()?.to_str()? {
                "bin" | "Scripts" => folder.parent().map(Path::to_owned),
                // pyenv: a script that picks a version.
                "shims" => {
                    let pyenv = folder.parent()?;
                    let chosen = self.set("PYENV_VERSION").or_else(|| {
                        let text = std::fs::read_to_string(pyenv.join("version")).ok()?;
                        text.lines().next().map(PathBuf::from)
                    })?;
                    Some(pyenv.join("versions").join(chosen))
                }
                _ => Some(folder.to_owned()),
            }
        };
        // A virtual environment's interpreter is a link to the one it was made by.
        let real = python.canonicalize().ok();
        [Some(python), real].iter().flatten().filter_map(|path| prefix(path)).collect()
    }

    fn folders(&self) -> Vec<PathBuf> {
        let mut folders = self.listed(if self.windows { "PATH" } else { "LD_LIBRARY_PATH" });
        for toolkit in ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| self.set(name)) {
            folders.extend(below(&toolkit));
        }
        for active in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| self.set(name)) {
            folders.extend(packages(&active));
            folders.extend(below(&active));
        }
        for python in self.pythons() {
            folders.extend(packages(&python));
        }
        if let Some(home) = self.set("HOME") {
            folders.extend(packages(&home.join(".local")));
        }
        if self.windows {
            let programs = self.set("ProgramFiles").unwrap_or_default();
            let all = children(&programs.join("NVIDIA GPU Computing Toolkit/CUDA"), "v");
            folders.extend(all.iter().flat_map(|toolkit| below(toolkit)));
            return folders;
        }
        let mut toolkits = vec![self.at("usr/local/cuda")];
        toolkits.extend(children(&self.at("usr/local"), "cuda-"));
        toolkits.extend([self.at("opt/cuda"), self.at("usr/lib/nvidia-cuda-toolkit")]);
        folders.extend(toolkits.iter().flat_map(|toolkit| below(toolkit)));
        for place in ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64"] {
            folders.push(self.at(place));
        }
        folders
    }

    /// The library's files in the order in which they are tried, then its names alone.
    pub(crate) fn candidates(&self, sought: &Sought) -> Vec<PathBuf> {
        let within = |folders: Vec<PathBuf>| {
            let files = folders.into_iter().flat_map(|folder| {
                sought.names.iter().map(move |name| folder.join(name)).filter(|path| path.is_file())
            });
            files.collect::<Vec<_>>()
        };
        let mut paths = match self.set(sought.variable) {
            Some(file) if file.is_file() => return vec![file],
            Some(folder) => {
                let named = std::iter::once(folder.clone()).chain(below(&folder));
                return within(named.collect());
            }
            None => within(self.folders()),
        };
        // One library has several names in a folder, and a folder several ways to it.
        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
        let own = |name: &&&str| name.ends_with(".dll") == self.windows;
        paths.extend(sought.names.iter().filter(own).map(PathBuf::from));
        paths
    }
}

/// The files of a library on this machine.
pub(crate) fn candidates(sought: &Sought) -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    let machine = Machine { variable: &variable, root: Path::new("/"), windows: cfg!(windows) };
    machine.candidates(sought)
}

/// Why there is none, where no candidate opens: a variable that leads nowhere is named.
pub(crate) fn nowhere(sought: &Sought, last: &str) -> String {
    match std::env::var(sought.variable).ok().filter(|value| !value.is_empty()) {
        Some(value) if last.is_empty() => {
            format!("{}={value} holds none of {}", sought.variable, sought.names.join(", "))
        }
        Some(value) => format!("{}={value}: {last}", sought.variable),
        None => last.into(),
    }
}

impl Opened {
    /// # Errors
    /// What the system said.
    pub(crate) fn open(path: &Path, sought: &Sought) -> Result<Opened, String> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let beside = folder.map(|folder| {
            let all = sought.companions.iter().flat_map(|prefix| children(folder, prefix));
            all.filter(|path| !path.to_string_lossy().contains(".alt.")).collect::<Vec<_>>()
        });
        // SAFETY: the initialisers of NVIDIA's libraries have no requirements. A companion that does
        // not load is not needed, or is missed below.
        unsafe {
            let companions = beside.unwrap_or_default();
            let companions = companions.iter().filter_map(|path| Library::new(path).ok()).collect();
            let library = Library::new(path).map_err(|error| error.to_string())?;
            Ok(Opened { library, path: path.to_owned(), _companions: companions })
        }
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` is the function's signature.
    ///
    /// # Errors
    /// The library has none of that name.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: `F` is the function's signature: whoever names the function promises it, from the
        // vendor's header.
        let symbol = unsafe { self.library.get::<F>(name.as_bytes()) };
        symbol.map(|s| *s).map_err(|e| format!("{} lacks {name}: {e}", self.path.display()))
    }
}

// A path of its own, as the build script has this file elsewhere in its tree.
#[cfg(test)]
#[path = "libraries/tests.rs"]
mod tests;
