//! What a GPU's driver says of a kernel that it has loaded.

use crate::base::error::Result;
use crate::code::card::Block;
use crate::cuda::driver::{Kernel, Resources};
use crate::cuda::real::gpu::{Gpu, cluster_of, device};
use crate::cuda::real::probe::probe;
use cudarc::driver::result::function::get_function_attribute;
use cudarc::driver::sys::{self, CUfunction_attribute_enum as Kind};

impl Gpu {
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // `info --kernels` asks.
    pub(crate) fn resources(&self, kernel: Kernel) -> Result<Resources> {
        self.bind()?;
        let get = |kind| {
            // SAFETY: a function that `Gpu::function` gave; its module stays as long as this object.
            let value = unsafe { get_function_attribute(kernel.0 as sys::CUfunction, kind) };
            value.map(|v| v.max(0) as u32).map_err(|e| device("a kernel's attributes", e))
        };
        Ok(Resources {
            registers: Some(get(Kind::CU_FUNC_ATTRIBUTE_NUM_REGS)?),
            shared: Some(get(Kind::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?),
            local: Some(get(Kind::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?),
            threads: get(Kind::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        })
    }

    pub(crate) fn places(&self, kernel: Kernel, block: Block) -> Result<u32> {
        self.bind()?;
        self.asked_once((kernel.0, [0, block.threads, block.shared]), || {
            let (mut places, threads) = (0, block.threads as i32);
            let function = kernel.0 as sys::CUfunction;
            // SAFETY: a function that `Gpu::function` gave; its module stays as long as this object.
            let asked = unsafe {
                let shared = block.shared as usize;
                sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                    &mut places,
                    function,
                    threads,
                    shared,
                )
            };
            asked.result().map_err(|e| device("how many blocks there can be", e))?;
            Ok(places.max(0) as u32)
        })
    }

    pub(crate) fn active_clusters(
        &self,
        kernel: Kernel,
        block: Block,
        cluster: u32,
    ) -> Result<Option<u32>> {
        if cluster > self.card.cluster {
            return Ok(Some(0));
        }
        let Some(ask) = probe()?.clusters else { return Ok(None) };
        self.bind()?;
        let mut attribute = cluster_of(cluster);
        let config = sys::CUlaunchConfig {
            gridDimX: cluster,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: block.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: block.shared,
            hStream: std::ptr::null_mut(),
            attrs: &mut attribute,
            numAttrs: 1,
        };
        let shape = (kernel.0, [cluster, block.threads, block.shared]);
        let active = self.asked_once(shape, || {
            let mut clusters = 0;
            // SAFETY: the function is loaded, and config and attribute live until the call returns.
            match unsafe { ask(&mut clusters, kernel.0 as sys::CUfunction, &config) } {
                // Larger than the device has them at all.
                sys::CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE => Ok(0),
                asked => {
                    asked.result().map_err(|e| device("how many clusters there can be", e))?;
                    Ok(clusters.max(0) as u32)
                }
            }
        })?;
        Ok(Some(active))
    }
}
