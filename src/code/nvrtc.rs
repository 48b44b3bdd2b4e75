//! NVIDIA's run-time compiler, looked for and loaded by hand: a machine without it gets an error
//! that says what to install. Used by the build script too, so it knows nothing of the crate.

use super::libraries::{self, Opened, Sought};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

/// The environment variable that names the library or its folder.
pub(crate) const VARIABLE: &str = "WARPLOSS_NVRTC";

static NVRTC: Sought = Sought {
    variable: VARIABLE,
    names: &[
        "libnvrtc.so.13",
        "libnvrtc.so.12",
        "libnvrtc.so",
        "nvrtc64_130_0.dll",
        "nvrtc64_120_0.dll",
    ],
    // NVRTC 13.0 does not find its own unless it is loaded already.
    companions: &["libnvrtc-builtins.so", "nvrtc-builtins64_"],
};

/// The oldest that the kernels are compiled by.
const OLDEST: (i32, i32) = (12, 0);

/// What to do where there is none.
pub(crate) const ADVICE: &str = "install the CUDA toolkit 12 or newer, or \
    `pip install nvidia-cuda-nvrtc`, or set WARPLOSS_NVRTC to the folder of libnvrtc.so";

/// The loaded compiler.
pub(crate) struct Nvrtc {
    opened: Opened,
    version: (i32, i32),
}

/// What a program is compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Machine code of one architecture.
    #[allow(dead_code)] // The build script makes nothing else.
    Machine(u32),
    /// PTX for this architecture or a later one, which the driver finishes.
    #[allow(dead_code)]
    Ptx(u32),
}

/// A compiled program.
pub(crate) struct Compiled {
    /// A cubin, or PTX with a zero at its end.
    pub(crate) code: Vec<u8>,
    /// What the compiler said; the build script passes its warnings on.
    #[allow(dead_code)]
    pub(crate) log: String,
}

impl Target {
    /// Options of a compilation.
    pub(crate) fn options(self) -> Vec<String> {
        let target = match self {
            Target::Machine(arch) => format!("sm_{arch}"),
            Target::Ptx(arch) => format!("compute_{arch}"),
        };
        // NVRTC before 13.4 takes lambdas in device functions for the host's without the last one.
        [&format!("--gpu-architecture={target}"), "--std=c++17", "-default-device"]
            .map(String::from)
            .into()
    }
}

impl Nvrtc {
    /// The compilers of this machine that load, in the order in which they are tried; for each file
    /// that does not, the reason.
    pub(crate) fn all() -> impl Iterator<Item = Result<Nvrtc, String>> {
        libraries::candidates(&NVRTC).into_iter().map(|path| Nvrtc::open(&path))
    }

    /// Loads the first compiler found; the reason where there is none.
    #[allow(dead_code)] // The build script's, the command line's and the tests'.
    pub(crate) fn load() -> Result<Nvrtc, String> {
        let mut last = String::new();
        for nvrtc in Nvrtc::all() {
            match nvrtc {
                Ok(nvrtc) => return Ok(nvrtc),
                Err(why) => last = why,
            }
        }
        Err(Nvrtc::absent(&last))
    }

    /// The error where none loads.
    pub(crate) fn absent(last: &str) -> String {
        let why = libraries::nowhere(&NVRTC, last);
        format!("NVRTC was not found ({why}); {ADVICE}")
    }

    fn open(path: &Path) -> Result<Nvrtc, String> {
        type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
        let opened = Opened::open(path, &NVRTC)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the signature is NVRTC's.
        unsafe { opened.function::<Version>("nvrtcVersion")?(&mut major, &mut minor) };
        if (major, minor) < OLDEST {
            return Err(format!("{} is of version {major}.{minor}", path.display()));
        }
        Ok(Nvrtc { opened, version: (major, minor) })
    }

    /// The file, or the name by which the system found it.
    #[allow(dead_code)] // The build script's.
    pub(crate) fn path(&self) -> &Path {
        &self.opened.path
    }

    /// The architectures that it makes machine code for, 90 for sm_90, in ascending order.
    pub(crate) fn architectures(&self) -> Result<Vec<u32>, String> {
        type Get = unsafe extern "C" fn(*mut c_int) -> c_int;
        let mut count = 0;
        // SAFETY: the signatures are NVRTC's, and the list is as long as it says.
        let mut known = unsafe {
            self.call::<Get>("nvrtcGetNumSupportedArchs")?(&mut count);
            let mut known = vec![0; count.max(0) as usize];
            self.call::<Get>("nvrtcGetSupportedArchs")?(known.as_mut_ptr());
            known
        };
        known.sort_unstable();
        Ok(known.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect())
    }

    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// # Safety
    /// `F` is the function's signature.
    unsafe fn call<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: `F` is the signature of the function, which each caller has from NVRTC's header.
        unsafe { self.opened.function(name) }
    }

    /// Compiles a program with headers `(name, text)`.
    ///
    /// # Errors
    /// What the compiler said.
    pub(crate) fn compile(
        &self,
        source: &str,
        headers: &[(&str, &str)],
        target: Target,
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
        let options = target.options();
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
            let (size, code) = match target {
                Target::Machine(_) => ("nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
                Target::Ptx(_) => ("nvrtcGetPTXSize", "nvrtcGetPTX"),
            };
            let result = match compiled {
                0 => get(size, code).and_then(|code| Ok(Compiled { code, log: log? })),
                code => Err(format!("{}: {}", say(code), log.unwrap_or_default())),
            };
            self.call::<Destroy>("nvrtcDestroyProgram")?(&mut program);
            result
        }
    }
}
