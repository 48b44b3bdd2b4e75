//! The losses of [`warploss`] for C.
//!
//! Every call checks what it is given, as the library's own calls do: a status says whether it was done, and
//! [`warploss_last_error`] what was wrong. No panic crosses the border. What a pointer names must be what its type says: that
//! alone cannot be checked.
#![warn(missing_docs)]
#![expect(non_camel_case_types, reason = "types have the names that C calls them by")]

mod cross_entropy;
mod device;
mod elementwise;
mod linear_cross_entropy;
mod status;
mod tensor;

pub use cross_entropy::*;
pub use device::*;
pub use elementwise::*;
pub use linear_cross_entropy::*;
pub use status::*;
pub use tensor::*;
