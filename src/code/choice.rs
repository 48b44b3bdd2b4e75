//! Which code of a kernel a driver is given: what was embedded; where it refuses that, machine code by
//! the user's compilers, one after the other, and of each also PTX, which the driver finishes.

use crate::base::error::{Error, Result};
use crate::code::nvrtc::{ADVICE, Target};

/// A version of CUDA.
pub(crate) type Version = (i32, i32);

/// Why code was not loaded.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The driver does not take this code; it may take other code.
    Code(String),
    /// Something else broke.
    Failed(Error),
}

/// A compiler of the user's, with one kernel to compile.
pub(crate) trait Compiler {
    fn version(&self) -> Version;
    /// Architectures that it knows, ascending.
    fn architectures(&self) -> Vec<u32>;
    /// Code, or what the compiler said.
    fn compile(&self, target: Target) -> Result<Vec<u8>, String>;
}

/// Whether NVIDIA promises that machine code for one architecture runs on another: the same major
/// version and no newer, but parts of its systems on chip run none but their own.
pub(crate) fn runs(built: u32, arch: u32) -> bool {
    let own = |arch: u32| matches!(arch, 87 | 88 | 101 | 110);
    let same_major = built / 10 == arch / 10 && built <= arch;
    built == arch || same_major && !own(arch) && !own(built)
}

/// What a compiler that knows some architectures can make for one, the best first.
pub(crate) fn targets(known: &[u32], arch: u32) -> Vec<Target> {
    let machine = known.iter().copied().filter(|&built| runs(built, arch)).max();
    // PTX of any older one will do.
    let ptx = known.iter().copied().filter(|&built| built <= arch).max();
    machine.map(Target::Machine).into_iter().chain(ptx.map(Target::Ptx)).collect()
}

/// The first version of NVRTC that knows an architecture.
pub(crate) fn first_version(arch: u32) -> Version {
    match arch {
        ..=90 if arch != 88 => (12, 0),
        100 | 101 | 120 => (12, 8),
        103 | 121 => (12, 9),
        _ => (13, 0),
    }
}

/// A device, and the driver's version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) arch: u32,
    pub(crate) driver: Version,
}

impl Wanted<'_> {
    /// Loads the first code that the driver takes; `refused` is what it said of the embedded.
    ///
    /// # Errors
    /// Each thing that was tried, and what to install.
    pub(crate) fn load<C: Compiler, T>(
        self,
        refused: Option<&str>,
        compilers: impl Iterator<Item = Result<C, String>>,
        mut load: impl FnMut(&[u8]) -> Result<T, Refused>,
    ) -> Result<T> {
        let mut tried: Vec<String> = refused.map(String::from).into_iter().collect();
        let mut absent = String::new();
        let mut found = Vec::new();
        for compiler in compilers {
            let compiler = match compiler {
                Ok(compiler) => compiler,
                Err(why) => {
                    absent = why;
                    continue;
                }
            };
            let version @ (major, minor) = compiler.version();
            // The same one under another name says the same again.
            if found.contains(&version) {
                continue;
            }
            found.push(version);
            let targets = targets(&compiler.architectures(), self.arch);
            if targets.is_empty() {
                tried.push(format!("NVRTC {major}.{minor} knows nothing up to sm_{}", self.arch));
            }
            for target in targets {
                let what = match target {
                    Target::Machine(arch) => format!("NVRTC {major}.{minor} for sm_{arch}"),
                    Target::Ptx(arch) => format!("NVRTC {major}.{minor}, PTX of {arch}"),
                };
                match compiler.compile(target) {
                    Err(log) => tried.push(format!("{what}: {}", log.trim())),
                    Ok(code) => match load(&code) {
                        Ok(loaded) => return Ok(loaded),
                        Err(Refused::Failed(error)) => return Err(error),
                        Err(Refused::Code(why)) => {
                            tried.push(format!("{what}: the driver says {why}"));
                        }
                    },
                }
            }
        }
        if found.is_empty() {
            tried.push(crate::code::nvrtc::Nvrtc::absent(&absent));
        }
        let Wanted { kernel, arch, .. } = self;
        let reason = format!(
            "kernel {kernel}: no code for sm_{arch} that this driver takes ({}); {}",
            tried.join("; "),
            self.advice(&found)
        );
        Err(Error::Device { reason })
    }

    /// What to install so that code can be had.
    fn advice(self, found: &[Version]) -> String {
        let (major, minor) = self.driver;
        let oldest = first_version(self.arch);
        let package = match major {
            ..=12 => "nvidia-cuda-nvrtc-cu12",
            _ => "nvidia-cuda-nvrtc",
        };
        // A driver runs machine code of its own major version and of older ones.
        let compiler = format!(
            "NVRTC {}.{} or newer, up to {}.x (`pip install {package}`)",
            oldest.0,
            oldest.1,
            major.max(oldest.0)
        );
        let newest = found.iter().chain([&oldest]).map(|version| version.0).max().unwrap_or(major);
        match found {
            _ if newest > major => format!(
                "the driver is of CUDA {major}.{minor}: install {compiler}, or a driver of CUDA \
                 {newest}.0 or newer"
            ),
            [] => format!("the driver is of CUDA {major}.{minor}: {ADVICE}"),
            _ => format!(
                "the driver is of CUDA {major}.{minor}: install {compiler}, or a newer driver"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
