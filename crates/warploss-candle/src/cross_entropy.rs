//! Cross entropy over logits.

use crate::graph::{Back, result, scaled};
use crate::memory::{Made, device, in_rows, lend, lend_some, told};
use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Tensor};
use std::sync::Arc;
use warploss::{CrossEntropy, CrossEntropyGradients, CrossEntropyOut, GradOutput, Reduction};

/// Cross entropy between logits and class indices or class probabilities, with candle's backward.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | logits | `[C]`, `[N, C]` or `[N, C, d1, …]` | f32, f16, bf16 |
/// | target, indices | the logits' without C | i64, i32, u32, u8 |
/// | target, probabilities | the logits' | the logits' |
/// | weight (of classes) | `[C]` | f32 or the logits' |
/// | result | `[]`; the logits' without C for [`Reduction::None`] | f32 |
///
/// Logits are taken where they lie, row strides and all. Of a mean or a sum the gradient is made with the loss, from one
/// read of the logits, and [`backward`](Tensor::backward) hands it out; of losses by row it is made in `backward`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use warploss_candle::CrossEntropyLoss;
/// let logits = Var::new(&[[2.0f32, 1.0, 0.1], [0.5, 2.5, 0.0]], &Device::Cpu)?;
/// let target = Tensor::new(&[0u32, 1], &Device::Cpu)?;
/// let loss = CrossEntropyLoss::default().forward(&logits, &target)?;
/// assert!((loss.to_scalar::<f32>()? - 0.3069).abs() < 1e-4);
/// let gradients = loss.backward()?;
/// assert_eq!(gradients.get(&logits).unwrap().dims(), [2, 3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CrossEntropyLoss {
    options: CrossEntropy<'static>,
    reduction: Reduction,
    weight: Option<Tensor>,
    in_place: bool,
}

impl Default for CrossEntropyLoss {
    fn default() -> Self {
        CrossEntropyLoss::new(CrossEntropy::default())
    }
}

impl CrossEntropyLoss {
    /// With the library's options; the mean of the rows' losses unless [`CrossEntropyLoss::reduction`] says otherwise.
    pub fn new(options: CrossEntropy<'static>) -> CrossEntropyLoss {
        let reduction = Reduction::Mean;
        let options = options.reduction(reduction);
        CrossEntropyLoss { options, reduction, weight: None, in_place: false }
    }

    /// Default [`Reduction::Mean`].
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.options = self.options.reduction(reduction);
        self.reduction = reduction;
        self
    }

    /// Class weights, on the logits' device. Default: 1 each.
    pub fn weight(mut self, weight: Tensor) -> Self {
        self.weight = Some(weight.detach());
        self
    }

    /// Whether the gradient overwrites the logits: nothing as large as they are is allocated. For logits that nobody
    /// reads after this call, their own operation's backward included (a product's does not, a `tanh`'s does). Default
    /// false.
    pub fn in_place(mut self, in_place: bool) -> Self {
        self.in_place = in_place;
        self
    }

    /// The loss.
    ///
    /// # Errors
    /// The library's, in its words: a shape, dtype, option or target that it does not take; tensors of two devices.
    pub fn forward(&self, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
        let (logits, target) = (in_rows(logits)?, in_rows(target)?);
        let soft = target.dtype().is_float();
        let tracked = logits.track_op() || soft && target.track_op();
        let rows = rows_of(&logits);
        if !tracked {
            return self.losses(&logits, &target, &rows, None);
        }
        if self.reduction == Reduction::None {
            let mut lse = Made::new(logits.device(), DType::F32, &rows)?;
            let loss = self.losses(&logits, &target, &rows, Some(&mut lse))?;
            let back = self.later(&logits, &target, lse.tensor());
            return result(&loss, &of(&logits, &target), back);
        }
        let (loss, ready) = match self.in_place {
            true => self.over(&logits, &target)?,
            false => self.fused(&logits, &target)?,
        };
        result(&loss, &of(&logits, &target), Arc::new(move |grad: &Tensor| scaled(&ready, grad)))
    }

    fn loss_shape<'r>(&self, rows: &'r [usize]) -> &'r [usize] {
        if self.reduction == Reduction::None { rows } else { &[] }
    }

    /// Losses, with what a backward pass is made from where there is room for it.
    fn losses(
        &self,
        logits: &Tensor,
        target: &Tensor,
        rows: &[usize],
        lse: Option<&mut Made>,
    ) -> Result<Tensor> {
        let mut loss = Made::new(logits.device(), DType::F32, self.loss_shape(rows))?;
        lend!(x = logits, "logits");
        lend!(t = target, "target");
        lend_some!(w = self.weight, "weight");
        let options = self.with(w);
        let lse = lse.map(Made::view_mut).transpose()?;
        let out = CrossEntropyOut { lse, ..CrossEntropyOut::loss(loss.view_mut()?) };
        options.forward_into(&device(logits.device())?, x, t, out).map_err(told)?;
        Ok(loss.tensor())
    }

    /// The options with weights that are lent.
    fn with<'w>(&self, weight: Option<warploss::TensorRef<'w>>) -> CrossEntropy<'w> {
        match weight {
            Some(weight) => self.options.clone().weight(weight),
            None => self.options.clone(),
        }
    }

    /// The loss, and gradients beside the logits.
    fn fused(&self, logits: &Tensor, target: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let mut loss = Made::new(logits.device(), DType::F32, &[])?;
        let mut grad = Made::like(logits)?;
        let mut of_target = of_target(target)?;
        {
            lend!(x = logits, "logits");
            lend!(t = target, "target");
            lend_some!(w = self.weight, "weight");
            let gradients = CrossEntropyGradients {
                logits: grad.view_mut()?,
                target: of_target.as_mut().map(Made::view_mut).transpose()?,
            };
            let out = CrossEntropyOut::loss(loss.view_mut()?);
            let device = device(logits.device())?;
            let options = self.with(w);
            options.forward_backward_into(&device, x, t, 1.0, gradients, out).map_err(told)?;
        }
        let ready = [Some(grad), of_target].into_iter().flatten().map(Made::tensor).collect();
        Ok((loss.tensor(), ready))
    }

    /// The same with the gradient over the logits.
    fn over(&self, logits: &Tensor, target: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        if target.dtype().is_float() && target.track_op() {
            candle_core::bail!("target: expected no gradient of it where the logits' is in place");
        }
        let op = Over { loss: self, target, made: Default::default() };
        logits.inplace_op1(&op)?;
        let Some(loss) = op.made.into_inner() else {
            candle_core::bail!("warploss: candle did not call the operation")
        };
        Ok((loss.tensor(), vec![logits.detach()]))
    }

    /// What makes the gradients of rows' losses, once it is known what they are multiplied by.
    fn later(&self, logits: &Tensor, target: &Tensor, lse: Tensor) -> Arc<Back> {
        let (logits, target) = (logits.detach(), target.clone());
        let call = self.clone();
        Arc::new(move |grad: &Tensor| {
            let grad = grad.contiguous()?;
            let mut made = Made::like(&logits)?;
            let mut of_target = of_target(&target)?;
            {
                lend!(x = &logits, "logits");
                lend!(t = &target, "target");
                lend!(saved = &lse, "lse");
                lend!(g = &grad, "grad_output");
                lend_some!(w = call.weight, "weight");
                let gradients = CrossEntropyGradients {
                    logits: made.view_mut()?,
                    target: of_target.as_mut().map(Made::view_mut).transpose()?,
                };
                let (device, g) = (device(logits.device())?, GradOutput::Tensor(g));
                let options = call.with(w);
                options.backward_into(&device, x, (t, saved), g, gradients).map_err(told)?;
            }
            Ok([Some(made), of_target].into_iter().flatten().map(Made::tensor).collect())
        })
    }
}

/// What the result depends on.
fn of<'t>(logits: &'t Tensor, target: &'t Tensor) -> Vec<&'t Tensor> {
    let mut of = vec![logits];
    of.extend((target.dtype().is_float() && target.track_op()).then_some(target));
    of
}

/// Memory for the gradient of probabilities that the graph asks for.
fn of_target(target: &Tensor) -> Result<Option<Made>> {
    let wanted = target.dtype().is_float() && target.track_op();
    wanted.then(|| Made::like(target)).transpose()
}

/// The logits' shape without their classes.
fn rows_of(logits: &Tensor) -> Vec<usize> {
    let dims = logits.dims();
    let classes = usize::from(dims.len() > 1);
    dims.iter().enumerate().filter(|&(i, _)| i != classes).map(|(_, &size)| size).collect()
}

/// The call that writes the gradient over the logits.
struct Over<'c> {
    loss: &'c CrossEntropyLoss,
    target: &'c Tensor,
    made: std::cell::RefCell<Option<Made>>,
}

impl Over<'_> {
    fn run(&self, logits: warploss::TensorMut<'_>) -> Result<()> {
        let mut loss = Made::new(self.target.device(), DType::F32, &[])?;
        {
            lend!(t = self.target, "target");
            lend_some!(w = self.loss.weight, "weight");
            let out = CrossEntropyOut::loss(loss.view_mut()?);
            let (device, options) = (device(self.target.device())?, self.loss.with(w));
            options.forward_backward_in_place(&device, logits, t, 1.0, out).map_err(told)?;
        }
        self.made.replace(Some(loss));
        Ok(())
    }
}

impl InplaceOp1 for Over<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.run(crate::memory::host_mut(storage, layout, "logits")?)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        crate::cuda::with_mut(storage, layout, "logits", |logits| self.run(logits))
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("logits: this build has no feature `cuda`")
    }
}
