//! NVIDIA's run-time compiler, looked for and loaded by hand: a machine without it gets an error
//! that says what to install. Used by the build script too, so it knows nothing of the crate.

use libloading::Library;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::path::PathBuf;

/// Names that the library goes by, newest first.
const NAMES: [&str; 5] =
    ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];

/// The environment variable that names the library or its folder.
pub(crate) const VARIABLE: &str = "WARPLOSS_NVRTC";

/// What to do where there is none.
pub(crate) const ADVICE: &str = "install the CUDA toolkit 12 or newer, or \
    `pip install nvidia-cuda-nvrtc`, or set WARPLOSS_NVRTC to the folder of libnvrtc.so";

/// The loaded compiler.
pub(crate) struct Nvrtc {
    library: Library,
    version: (i32, i32),
}

/// A compiled program.
pub(crate) struct Compiled {
    pub(crate) cubin: Vec<u8>,
    /// What the compiler and the assembler said, warnings included.
    /// What the compiler said; the build script passes its warnings on.
    #[allow(dead_code)]
    pub(crate) log: String,
}

/// Where a library of NVIDIA's may be, in the order in which it is tried: what a variable names, the
/// toolkit, a Python package, and wherever the system looks.
pub(crate) fn candidates(variable: &str, names: &[&str], package: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut paths: Vec<PathBuf> = Vec::new();
    let env = |name: &str| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
    if let Some(given) = env(variable).map(PathBuf::from) {
        match given.is_file() {
            true => paths.push(given),
            false => folders.push(given),
        }
    }
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(root) = env(variable).map(PathBuf::from) {
            folders.extend([root.join("lib64"), root.join("bin")]);
        }
    }
    folders.push("/usr/local/cuda/lib64".into());
    // A Python environment with NVIDIA's packages.
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        let Some(root) = env(variable).map(PathBuf::from) else { continue };
        for python in std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten() {
            let nvidia = python.path().join("site-packages/nvidia");
            folders.extend([nvidia.join("cu13/lib"), nvidia.join(package).join("lib")]);
        }
    }
    for folder in folders {
        paths.extend(names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    }
    paths.extend(names.iter().map(PathBuf::from));
    paths
}

impl Nvrtc {
    /// Loads the first compiler found; the reason where there is none.
    pub(crate) fn load() -> Result<Nvrtc, String> {
        let mut last = String::new();
        for path in candidates(VARIABLE, &NAMES, "cuda_nvrtc") {
            // SAFETY: NVRTC's initialisers have no requirements.
            match unsafe { Library::new(&path) } {
                Ok(library) => {
                    let mut nvrtc = Nvrtc { library, version: (0, 0) };
                    let (mut major, mut minor) = (0, 0);
                    type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
                    // SAFETY: the signature is NVRTC's.
                    unsafe {
                        nvrtc.call::<Version>("nvrtcVersion")?(&mut major, &mut minor);
                    }
                    nvrtc.version = (major, minor);
                    return Ok(nvrtc);
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("NVRTC was not found ({last}); {ADVICE}"))
    }

    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// # Safety
    /// `F` is the function's signature.
    unsafe fn call<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: the caller's contract.
        let symbol = unsafe { self.library.get::<F>(name.as_bytes()) };
        symbol.map(|s| *s).map_err(|e| format!("NVRTC lacks {name}: {e}"))
    }

    /// Compiles a program with headers `(name, text)` to machine code.
    ///
    /// # Errors
    /// What the compiler said.
    pub(crate) fn compile(
        &self,
        source: &str,
        headers: &[(&str, &str)],
        options: &[String],
    ) -> Result<Compiled, String> {
        type Program = *mut c_void;
        type Strings = *const *const c_char;
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            Strings,
            Strings,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(Program, c_int, Strings) -> c_int;
        type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
        type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
        type Text = unsafe extern "C" fn(c_int) -> *const c_char;

        let owned = |text: &str| CString::new(text).map_err(|e| e.to_string());
        let names = headers.iter().map(|h| owned(h.0)).collect::<Result<Vec<_>, _>>()?;
        let texts = headers.iter().map(|h| owned(h.1)).collect::<Result<Vec<_>, _>>()?;
        let flags = options.iter().map(|o| owned(o)).collect::<Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (names, texts, flags) =
            ((pointers(&names), names), (pointers(&texts), texts), (pointers(&flags), flags));
        let (source, unit) = (owned(source)?, owned("warploss.cu")?);

        // SAFETY: signatures are NVRTC's; strings live until the end of this function, and
        // buffers have the sizes that NVRTC asks for.
        unsafe {
            let text = self.call::<Text>("nvrtcGetErrorString")?;
            let say = |code: c_int| CStr::from_ptr(text(code)).to_string_lossy().into_owned();
            let mut program: Program = std::ptr::null_mut();
            let created = self.call::<Create>("nvrtcCreateProgram")?(
                &mut program,
                source.as_ptr(),
                unit.as_ptr(),
                headers.len() as c_int,
                texts.0.as_ptr(),
                names.0.as_ptr(),
            );
            if created != 0 {
                return Err(say(created));
            }
            let get = |size: &str, get: &str| -> Result<Vec<u8>, String> {
                let mut n = 0usize;
                self.call::<Size>(size)?(program, &mut n);
                let mut bytes = vec![0u8; n.max(1)];
                self.call::<Get>(get)?(program, bytes.as_mut_ptr().cast());
                bytes.truncate(n);
                Ok(bytes)
            };
            let compiled = self.call::<Compile>("nvrtcCompileProgram")?(
                program,
                options.len() as c_int,
                flags.0.as_ptr(),
            );
            let log = get("nvrtcGetProgramLogSize", "nvrtcGetProgramLog").map(|mut bytes| {
                bytes.retain(|&b| b != 0);
                String::from_utf8_lossy(&bytes).into_owned()
            });
            let result = match compiled {
                0 => get("nvrtcGetCUBINSize", "nvrtcGetCUBIN")
                    .and_then(|cubin| Ok(Compiled { cubin, log: log? })),
                code => Err(format!("{}: {}", say(code), log.unwrap_or_default())),
            };
            self.call::<Destroy>("nvrtcDestroyProgram")?(&mut program);
            result
        }
    }
}

/// Options for an architecture (90 for sm_90).
pub(crate) fn options(arch: u32) -> Vec<String> {
    vec![format!("--gpu-architecture=sm_{arch}"), "--std=c++17".into()]
}
