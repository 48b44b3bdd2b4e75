//! Parameters by name, from and to files.

#[cfg(feature = "safetensors")]
pub(crate) mod file;
#[cfg(feature = "safetensors")]
pub(crate) mod sniff;
mod state_dict;
