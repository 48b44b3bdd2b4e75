//! Class indices on a CUDA device: what kernels that read indices are given, and nothing else.

use crate::base::error::Result;
use crate::code::args;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::class_indices::ClassIndices;

/// Class indices that kernels read; as [`Input`].
#[derive(Debug)]
pub(crate) struct Indices<'p> {
    input: Input<'p>,
    argument: &'static str,
}

impl Cuda {
    pub(crate) fn indices<'p>(&'p self, indices: ClassIndices<'p>) -> Result<Indices<'p>> {
        let argument = indices.argument();
        Ok(Indices { input: self.input(argument, indices.tensor())?, argument })
    }
}

impl Indices<'_> {
    pub(crate) fn address(&self) -> u64 {
        self.input.address
    }

    /// The number that stands for the dtype in a kernel.
    pub(crate) fn kind(&self) -> u32 {
        args::kind(self.input.dtype)
    }

    pub(crate) fn argument(&self) -> &'static str {
        self.argument
    }

    /// The kind of error (`status.rs`) that a class out of range is.
    pub(crate) fn bad(&self, ignores: bool) -> u32 {
        match (self.argument, ignores) {
            ("target", true) => 1,
            ("target", false) => 4,
            ("labels", _) => 8,
            _ => 6,
        }
    }
}
