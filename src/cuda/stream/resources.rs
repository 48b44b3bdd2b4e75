//! What every kernel takes of a multiprocessor, asked of the driver kernel by kernel.

use crate::base::error::Result;
use crate::code::card::{Block, STATIC_SHARED};
use crate::code::plan::SLICE_BYTES;
use crate::code::variants::{Entry, Variant};
use crate::cuda::driver::Resources;
use crate::cuda::stream::Stream;

/// A kernel of the table, and what the driver says of it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) symbol: String,
    pub(crate) module: &'static str,
    /// Most threads of a block by its bounds.
    pub(crate) threads: u32,
    pub(crate) resources: Result<Resources>,
    /// Blocks of so many threads that a multiprocessor holds.
    pub(crate) places: Result<u32>,
    /// Of a kernel for clusters: a block as plans have it, a cluster size, and how many such clusters
    /// are active at once.
    pub(crate) clusters: Vec<(Block, u32, Result<Option<u32>>)>,
}

impl Stream {
    /// Loads every kernel that the card can run, and asks what it takes.
    pub(crate) fn kernels(&self) -> Vec<Listed> {
        let arch = self.driver.card().arch;
        let all = Variant::all().into_iter().filter(|variant| variant.runs_on(arch));
        all.map(|variant| self.listed(variant)).collect()
    }

    fn listed(&self, variant: Variant) -> Listed {
        let kernel = self.driver.kernel(variant);
        let resources = kernel.clone().and_then(|kernel| self.driver.resources(kernel));
        let (threads, _) = variant.bounds();
        let block = Block { threads, shared: 0 };
        let places = kernel.clone().and_then(|kernel| self.driver.places(kernel, block));
        let mut clusters = Vec::new();
        if let (Ok(kernel), Variant::Row(_, Entry::Cluster, _)) = (kernel, variant) {
            let limit = self.driver.card().shared_per_block.saturating_sub(STATIC_SHARED);
            let slices = [SLICE_BYTES, 2 * SLICE_BYTES, limit];
            for (shared, threads) in slices.into_iter().zip([256, 512, 512]) {
                let block = Block { threads, shared: shared as u32 };
                let sizes = [2, 4, 8, 16];
                clusters.extend(
                    sizes.map(|n| (block, n, self.driver.active_clusters(kernel, block, n))),
                );
            }
        }
        let (symbol, module) = (variant.symbol(), variant.module().file());
        Listed { symbol, module, threads, resources, places, clusters }
    }
}
