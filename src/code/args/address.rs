//! Addresses on the device, by what lies there. The C type stands in backticks: the header that
//! kernels include is made of these structs (`cargo run -p xtask -- table`). 0 where there is no
//! such tensor, or no use for it.

/// `const void*`: elements whose type another argument says, or the kernel.
pub(crate) type In = u64;
/// `void*`: the same, written.
pub(crate) type Out = u64;
/// `const float*`
pub(crate) type InF32 = u64;
/// `float*`
pub(crate) type OutF32 = u64;
/// `const double*`
pub(crate) type InF64 = u64;
/// `double*`
pub(crate) type OutF64 = u64;
/// `const wl_i64*`
pub(crate) type InI64 = u64;
/// `wl_i64*`
pub(crate) type OutI64 = u64;
/// `const wl_u32*`
pub(crate) type InU32 = u64;
/// `wl_u32*`
pub(crate) type OutU32 = u64;
/// `const Totals*`
pub(crate) type InTotals = u64;
/// `Totals*`
pub(crate) type OutTotals = u64;
/// `Status*`
pub(crate) type OutStatus = u64;
