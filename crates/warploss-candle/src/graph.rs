//! What candle's graph is told: a value that was computed outside of it, and who has its gradients.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};
use std::sync::{Arc, Mutex};

/// Gradients of some tensors from that of a result, in the order of the tensors.
pub(crate) type Back = dyn Fn(&Tensor) -> Result<Vec<Tensor>> + Send + Sync;

/// A result that depends on tensors.
///
/// Candle's operations have three arguments at most, a loss over parameters more: so each tensor has an operation of its
/// own, the first of them with the value and the others with zeros, and the result is their sum.
pub(crate) fn result(value: &Tensor, of: &[&Tensor], back: Arc<Back>) -> Result<Tensor> {
    let shared = Arc::new(Shared { back, left: Mutex::new(None) });
    let mut sum: Option<Tensor> = None;
    for (i, tensor) in of.iter().enumerate().filter(|(_, tensor)| tensor.track_op()) {
        let own = if sum.is_none() { value.clone() } else { value.zeros_like()? };
        let part = tensor.apply_op1(Part {
            value: own,
            of: i,
            count: of.len(),
            shared: shared.clone(),
        })?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    Ok(sum.unwrap_or_else(|| value.clone()))
}

/// The gradients of one backward pass: made for the first tensor that asks, and handed to the others.
struct Shared {
    back: Arc<Back>,
    left: Mutex<Option<Vec<Option<Tensor>>>>,
}

impl Shared {
    fn take(&self, i: usize, grad: &Tensor) -> Result<Tensor> {
        let Ok(mut left) = self.left.lock() else {
            candle_core::bail!("gradients: an earlier backward pass panicked")
        };
        let there = left.as_mut().and_then(|left| left.get_mut(i)).and_then(Option::take);
        if let Some(gradient) = there {
            return Ok(gradient);
        }
        let mut all: Vec<Option<Tensor>> = (self.back)(grad)?.into_iter().map(Some).collect();
        let Some(own) = all.get_mut(i).and_then(Option::take) else {
            candle_core::bail!("gradients: expected {} of them, got {}", i + 1, all.len())
        };
        *left = Some(all);
        Ok(own)
    }
}

/// One tensor's share in a result.
struct Part {
    value: Tensor,
    of: usize,
    count: usize,
    shared: Arc<Shared>,
}

impl Part {
    fn shape(&self) -> Shape {
        self.value.shape().clone()
    }
}

impl CustomOp1 for Part {
    fn name(&self) -> &'static str {
        "warploss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, _) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.clone(), self.shape())),
            _ => candle_core::bail!("warploss: a value on another device than its arguments"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let (storage, own) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(own)?, self.shape())),
            _ => candle_core::bail!("warploss: a value on another device than its arguments"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        match self.count {
            1 => Ok((self.shared.back)(grad)?.pop()),
            _ => self.shared.take(self.of, grad).map(Some),
        }
    }
}

/// Gradients for an upstream gradient of 1 that are there already, of a result that is one number: as they are, unless
/// the graph has something else to multiply them by. Asking for that waits for a GPU once, which is less than another
/// pass over the gradients.
pub(crate) fn scaled(ready: &[Tensor], grad: &Tensor) -> Result<Vec<Tensor>> {
    match grad.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()? {
        1.0 => Ok(ready.to_vec()),
        by => ready.iter().map(|gradient| gradient * by).collect(),
    }
}
