//! Class indices on a CUDA device: what kernels that read indices are given, and nothing else.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::class_indices::ClassIndices;

/// Class indices that kernels read; as [`Input`].
#[derive(Debug)]
pub(crate) struct Indices<'p> {
    address: u64,
    dtype: DType,
    argument: &'static str,
    _input: Option<Input<'p>>,
}

impl Cuda {
    pub(crate) fn indices<'p>(&'p self, indices: ClassIndices<'p>) -> Result<Indices<'p>> {
        let argument = indices.argument();
        let input = self.input(argument, indices.tensor())?;
        let (address, dtype) = (input.address, input.dtype);
        Ok(Indices { address, dtype, argument, _input: Some(input) })
    }
}

impl Indices<'_> {
    /// Those (i64) that a call has made itself, at this address, of what the caller calls `argument`.
    pub(crate) fn of_workspace(argument: &'static str, address: u64) -> Self {
        Indices { address, dtype: DType::I64, argument, _input: None }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The number that stands for the dtype in a kernel.
    pub(crate) fn kind(&self) -> u32 {
        args::kind(self.dtype)
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
