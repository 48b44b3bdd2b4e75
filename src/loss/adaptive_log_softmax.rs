//! The public calls of this loss; what it computes: `spec/adaptive_log_softmax.rs`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::Device;
use crate::loss::output_layer::OutputLayer;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, Call};
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGrad, LayerGradOut, LayerOut, LayerOutput};

impl<'w> AdaptiveLogSoftmax<'w> {
    /// Log-probability of each row's target, and the loss.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or target that breaks the rules above; memory that the
    /// device cannot reach; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<LayerOutput> {
        let checked = self.check(parameters, &input, &target)?;
        let mut output = checked.rows.allocate(device, self.reduction, &input)?;
        self.forward_into(device, parameters, (input, target), output.out())?;
        Ok(output)
    }

    /// As [`AdaptiveLogSoftmax::forward`], of `(input, target)`, into the caller's buffers.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        (input, target): (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()> {
        let checked = self.check(parameters, &input, &target)?;
        checked.rows.check_out(self.reduction, &out)?;
        device
            .backend("input", &checked.places())?
            .adaptive_log_softmax(&checked, Call::Forward { out })
    }

    /// Log-probabilities, loss, and the gradients of the input and of every parameter.
    /// `grad_output` is the upstream gradient of the loss.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`], and the shape of `grad_output`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<LayerGrad<AdaptiveParameters<Tensor>>> {
        let checked = self.check(parameters, &input, &target)?;
        let mut output = checked.rows.allocate(device, self.reduction, &input)?;
        let zeros =
            |name, like: &TensorRef<'_>| device.zeros(name, like.dtype(), like.shape(), like);
        let mut grad_input = zeros("grad_input", &input)?;
        let mut grads = parameters.try_map(|_, p| zeros("grad_parameters", p))?;
        let gradients = LayerGradOut {
            input: Some(grad_input.view_mut()),
            parameters: Some(grads.view_mut()),
            accumulate: false,
        };
        let data = (input, target);
        let written = (output.out(), gradients);
        self.forward_backward_into(device, parameters, data, grad_output, written)?;
        Ok(LayerGrad { output, input: grad_input, parameters: grads })
    }

    /// As [`AdaptiveLogSoftmax::forward_backward`], of `(input, target)`, into the caller's
    /// buffers: those gradients for which there is memory, the parameters' added to what is there
    /// if so asked.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into<'g>(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        (input, target): (TensorRef<'_>, TensorRef<'_>),
        grad_output: impl Into<GradOutput<'g>>,
        (out, gradients): (LayerOut<'_>, LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>),
    ) -> Result<()> {
        let checked = self.check(parameters, &input, &target)?;
        let grad_output = grad_output.into();
        checked.rows.check_out(self.reduction, &out)?;
        checked.check_gradients(&grad_output, &gradients)?;
        device
            .backend("input", &checked.places())?
            .adaptive_log_softmax(&checked, Call::ForwardBackward { grad_output, out, gradients })
    }

    /// Log-probabilities of all classes: `[N, V]` (or `[V]`), f32.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`].
    pub fn log_prob(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
    ) -> Result<Tensor> {
        let shape = self.check_input(parameters, &input)?.per_class();
        let mut out = device.zeros("log_prob", f32::DTYPE, shape, &input)?;
        self.log_prob_into(device, parameters, input, out.view_mut())?;
        Ok(out)
    }

    /// As [`AdaptiveLogSoftmax::log_prob`], into the caller's buffer, whose row stride is free.
    ///
    /// # Errors
    /// As `log_prob`; nothing is written then.
    pub fn log_prob_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        out: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check_input(parameters, &input)?;
        checked.check_per_class(&out)?;
        device
            .backend("input", &checked.places())?
            .adaptive_log_softmax(&checked, Call::LogProb { out })
    }

    /// The most likely class of each row, the lowest of equals; i64. The full distribution is
    /// formed only for rows whose head does not decide, and only of clusters that can win; a CUDA
    /// device is waited for to know which, unless its stream is captured.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`].
    pub fn predict(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
    ) -> Result<Tensor> {
        let checked = self.check_input(parameters, &input)?;
        let mut classes = device.zeros("classes", i64::DTYPE, checked.rows.shape, &input)?;
        let (view, none) = (classes.view_mut(), None);
        device
            .backend("input", &checked.places())?
            .adaptive_log_softmax(&checked, Call::TopK { k: 1, classes: view, log_prob: none })?;
        Ok(classes)
    }

    /// The k most likely classes of each row and their log-probabilities, best first, the lower
    /// of equals before the higher: `[N, k]` (or `[k]`), i64 and f32. Clusters are looked at, and a
    /// CUDA device waited for, as [`AdaptiveLogSoftmax::predict`] says.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`]; a `k` that is 0 or above the number of classes.
    pub fn top_k(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        k: usize,
    ) -> Result<(Tensor, Tensor)> {
        let checked = self.check_input(parameters, &input)?;
        let shape = checked.per_row(checked.check_k(k)?);
        let mut classes = device.zeros("classes", i64::DTYPE, shape, &input)?;
        let mut log_prob = device.zeros("log_prob", f32::DTYPE, shape, &input)?;
        let (view, values) = (classes.view_mut(), Some(log_prob.view_mut()));
        device
            .backend("input", &checked.places())?
            .adaptive_log_softmax(&checked, Call::TopK { k, classes: view, log_prob: values })?;
        Ok((classes, log_prob))
    }

    /// A class drawn from each row's distribution, by numbers that depend on the seed and the row
    /// alone; i64. A cluster is looked at for rows that drew it, and a CUDA device waited for, as
    /// [`AdaptiveLogSoftmax::predict`] says.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmax::forward`].
    pub fn sample(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        seed: u64,
    ) -> Result<Tensor> {
        let checked = self.check_input(parameters, &input)?;
        let mut classes = device.zeros("classes", i64::DTYPE, checked.rows.shape, &input)?;
        let view = classes.view_mut();
        device
            .backend("input", &checked.places())?
            .adaptive_log_softmax(&checked, Call::Sample { seed, classes: view })?;
        Ok(classes)
    }
}

impl OutputLayer for AdaptiveLogSoftmax<'_> {
    type Parameters<T> = AdaptiveParameters<T>;

    fn init(&self, dtype: DType, seed: u64) -> Result<AdaptiveParameters<Tensor>> {
        AdaptiveLogSoftmax::init(self, dtype, seed)
    }

    fn views(parameters: &AdaptiveParameters<Tensor>) -> AdaptiveParameters<TensorRef<'_>> {
        parameters.view()
    }

    fn views_mut(parameters: &mut AdaptiveParameters<Tensor>) -> AdaptiveParameters<TensorMut<'_>> {
        parameters.view_mut()
    }

    fn forward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()> {
        AdaptiveLogSoftmax::forward_into(self, device, parameters, data, out)
    }

    fn forward_backward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        grad_output: GradOutput<'_>,
        written: (LayerOut<'_>, LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>),
    ) -> Result<()> {
        let call = AdaptiveLogSoftmax::forward_backward_into;
        call(self, device, parameters, data, grad_output, written)
    }
}
