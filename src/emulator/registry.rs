//! The kernels that were compiled in, by name.

use super::abi;
use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

include!(concat!(env!("OUT_DIR"), "/emulator_units.rs"));

/// A kernel's entry point and bounds.
pub(super) struct Kernel {
    pub(super) thunk: unsafe extern "C" fn(*const c_void),
    pub(super) args_size: usize,
    /// Most threads of a block.
    pub(super) threads: u32,
    /// The cluster size it was compiled for; 0: any.
    pub(super) cluster: u32,
}

/// All kernels.
pub(super) fn kernels() -> &'static HashMap<&'static str, Kernel> {
    static KERNELS: OnceLock<HashMap<&'static str, Kernel>> = OnceLock::new();
    KERNELS.get_or_init(|| {
        abi::check_layout();
        // Named here, a unit is linked, and with it the constructors that list its kernels.
        std::hint::black_box(UNITS.iter().map(|unit| **unit).sum::<i32>());
        let mut all = HashMap::new();
        // SAFETY: the list is built by constructors before `main` and never changes; its nodes and
        // strings are statics.
        unsafe {
            let mut next = abi::wl_emu_first_kernel();
            while let Some(kernel) = next.as_ref() {
                let name = CStr::from_ptr(kernel.name).to_str().expect("kernel names are ASCII");
                assert!(kernel.args_align <= 16, "kernel {name}: arguments aligned above 16");
                let entry = Kernel {
                    thunk: kernel.thunk,
                    args_size: kernel.args_size as usize,
                    threads: kernel.threads,
                    cluster: kernel.cluster,
                };
                assert!(all.insert(name, entry).is_none(), "kernel {name} is listed twice");
                next = kernel.next;
            }
        }
        all
    })
}
