//! Options of losses whose logits are products and never all in memory.

use crate::spec::linear_cross_entropy::LinearPath;
use clap::{Args, ValueEnum};

/// How logits are made, and in how much memory.
#[derive(Debug, Args)]
pub(super) struct OfProducts {
    /// How logits are made that are never all in memory
    #[arg(
        long,
        value_name = "auto|chunked|tiled",
        default_value = "auto",
        hide_possible_values = true
    )]
    path: PathArg,

    /// Memory that the call may take beside inputs and results
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    workspace_mib: usize,
}

/// `--path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PathArg {
    Auto,
    Chunked,
    Tiled,
}

/// The arguments as the command line has them.
pub(super) const NAMES: [(&str, &str); 2] =
    [("max_workspace_bytes", "--workspace-mib (in bytes)"), ("path", "--path")];

impl OfProducts {
    pub(super) fn path(&self) -> LinearPath {
        match self.path {
            PathArg::Auto => LinearPath::Auto,
            PathArg::Chunked => LinearPath::Chunked,
            PathArg::Tiled => LinearPath::Tiled,
        }
    }

    /// In bytes.
    pub(super) fn workspace(&self) -> usize {
        self.workspace_mib.saturating_mul(1 << 20)
    }
}
