//! What a machine has of NVIDIA's libraries, and what each lacks, for `warploss info`.

use crate::code::choice::{Version, first_version};
use crate::code::compile::{EMBEDDED_BY, embedded_architectures};
use crate::code::nvrtc::Nvrtc;
use crate::cuda::real::{blas, probe};

/// A library that loads.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file, or the name by which the system found it.
    pub(crate) library: String,
    pub(crate) version: Version,
    pub(crate) lacks: Vec<String>,
}

/// Architectures of the GPUs that the kernels are made for.
const ARCHITECTURES: [u32; 6] = [80, 86, 89, 90, 100, 120];

/// The driver; it may be too old for what compiles here or was embedded.
pub(crate) fn driver() -> Result<Found, String> {
    let found = probe::probe().map_err(|e| e.to_string())?;
    let compiler = Nvrtc::load().ok().map(|nvrtc| nvrtc.version());
    let embedded = EMBEDDED_BY.filter(|_| !embedded_architectures().is_empty());
    let lacks = driver_lacks(found.version, embedded, compiler);
    Ok(Found { library: found.name.into(), version: found.version, lacks })
}

/// The first compiler.
pub(crate) fn nvrtc() -> Result<Found, String> {
    let nvrtc = Nvrtc::load()?;
    let lacks = match nvrtc.architectures() {
        Ok(known) => nvrtc_lacks(&known),
        Err(why) => vec![why],
    };
    let library = nvrtc.path().display().to_string();
    Ok(Found { library, version: nvrtc.version(), lacks })
}

pub(crate) fn cublas() -> Result<Found, String> {
    let (path, version) = blas::probe().map_err(|e| e.to_string())?;
    let [major, minor] = *version;
    Ok(Found { library: path.display().to_string(), version: (major, minor), lacks: Vec::new() })
}

/// A driver takes machine code of its own major version of CUDA and of older ones, and PTX up to its
/// own version.
fn driver_lacks(
    driver: Version,
    embedded: Option<Version>,
    compiler: Option<Version>,
) -> Vec<String> {
    let mut lacks = Vec::new();
    if let Some((major, minor)) = embedded.filter(|embedded| embedded.0 > driver.0) {
        lacks.push(format!("cannot load the embedded code of NVRTC {major}.{minor}"));
    }
    if let Some((major, minor)) = compiler.filter(|compiler| compiler.0 > driver.0) {
        lacks.push(format!("can load neither machine code nor PTX of NVRTC {major}.{minor}"));
    } else if let Some((major, minor)) = compiler.filter(|&compiler| compiler > driver) {
        lacks.push(format!("cannot load PTX of NVRTC {major}.{minor}, but its machine code"));
    }
    lacks
}

fn nvrtc_lacks(known: &[u32]) -> Vec<String> {
    let unknown = ARCHITECTURES.iter().filter(|arch| !known.contains(arch));
    unknown
        .map(|&arch| {
            let (major, minor) = first_version(arch);
            format!("no sm_{arch} (from {major}.{minor} on)")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compiler_lacks_new_architectures() {
        let old = nvrtc_lacks(&[50, 60, 70, 75, 80, 86, 87, 89, 90]);
        assert_eq!(old, ["no sm_100 (from 12.8 on)", "no sm_120 (from 12.8 on)"]);
        assert!(nvrtc_lacks(&ARCHITECTURES).is_empty());
    }

    #[test]
    fn an_old_driver_lacks_what_newer_compilers_make() {
        let lacks =
            |driver, compiler| driver_lacks(driver, Some((13, 5)), Some(compiler)).join("; ");
        assert_eq!(
            lacks((12, 0), (13, 0)),
            "cannot load the embedded code of NVRTC 13.5; can load neither machine code nor PTX of \
             NVRTC 13.0"
        );
        assert!(lacks((12, 0), (12, 9)).ends_with("PTX of NVRTC 12.9, but its machine code"));
        assert_eq!(lacks((13, 0), (13, 5)), "cannot load PTX of NVRTC 13.5, but its machine code");
        assert_eq!(lacks((13, 5), (12, 1)), "");
        assert!(driver_lacks((12, 0), None, None).is_empty());
    }
}
