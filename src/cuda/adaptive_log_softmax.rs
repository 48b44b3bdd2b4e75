//! Adaptive log-softmax on a CUDA device. Rows are grouped by cluster on the device
//! (`kernels/adaptive_log_softmax.cu`); the head and each cluster are products (`products.rs`) and, over
//! their logits, a cross entropy, chunk by chunk (`softmax.rs`). How many rows a cluster has is never
//! asked: it has slots for as many as its capacity, and those that are empty are ignored rows.

mod bins;
mod distribution;
mod softmax;

use super::Cuda;
use super::args::MAX_CLUSTERS;
use super::memory::{Input, Output};
use super::pool::Block;
use super::products::{Linear, Panel, Places};
use super::variants::Batch;
use crate::loss::{AdaptiveParameters, CheckedAdaptive, GradOutput, LayerGradOut, LayerOut};
use crate::{DType, Error, Result, TensorMut};
use bins::Bins;
use softmax::{Gradients, Softmax, Sum};

/// A call on the device.
struct Call<'c, 'p> {
    cuda: &'p Cuda,
    bins: Bins<'p>,
    input: Input<'p>,
    parameters: AdaptiveParameters<Input<'p>>,
    /// Bytes of a buffer at most.
    budget: usize,
    checked: &'c CheckedAdaptive<'c>,
}

/// The head's columns.
fn head(parameters: &AdaptiveParameters<Input<'_>>) -> Linear {
    let bias = parameters.head_bias.as_ref().map(Panel::from);
    Linear { weight: Panel::from(&parameters.head_weight), bias }
}

/// More clusters than kernels can be told of are an error.
fn check_clusters(checked: &CheckedAdaptive<'_>) -> Result<()> {
    let clusters = checked.options.clusters();
    if clusters <= MAX_CLUSTERS {
        return Ok(());
    }
    let reason = format!("{clusters} clusters, of which a CUDA device takes {MAX_CLUSTERS}");
    Err(Error::Device { reason })
}

/// The input's gradient on its way: where products add to it.
struct InputGradient<'p> {
    sum: Panel,
    _wide: Option<Block<'p>>,
}

impl<'c: 'p, 'p> Call<'c, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &'c CheckedAdaptive<'c>,
        grad_output: &GradOutput<'p>,
        outputs: [u64; 2],
    ) -> Result<Self> {
        let input = cuda.input("input", checked.input)?;
        let parameters = checked.parameters.try_map(|_, p| cuda.input("parameters", *p))?;
        let bins = Bins::new(cuda, checked, grad_output, outputs)?;
        let budget = checked.options.workspace;
        Ok(Call { cuda, bins, input, parameters, budget, checked })
    }

    fn head(&self) -> Softmax<'_, 'p> {
        Softmax {
            call: self,
            linear: head(&self.parameters),
            projection: None,
            slots: self.bins.rows(),
            features: self.checked.options.in_features,
            width: self.checked.options.in_features,
            classes: self.checked.options.head_size(),
        }
    }

    fn cluster(&self, i: usize) -> Softmax<'_, 'p> {
        let (options, tail) = (self.checked.options, &self.parameters.tails[i]);
        Softmax {
            call: self,
            linear: Linear { weight: Panel::from(&tail.weight), bias: None },
            projection: Some(Panel::from(&tail.projection)),
            slots: self.bins.cluster(i),
            features: options.in_features,
            width: options.width(i),
            classes: options.cluster(i).len(),
        }
    }

    /// Where the input's gradient is added up: f32, if that is not its own type and there is room.
    fn input_gradient(&self, out: &Output<'_, '_>) -> Result<InputGradient<'p>> {
        let (rows, features) = (self.checked.rows.len, self.checked.options.in_features);
        let bytes = rows.saturating_mul(features).saturating_mul(4);
        if out.dtype == DType::F32 || bytes > self.budget {
            return Ok(InputGradient { sum: Panel::from(out), _wide: None });
        }
        let wide = self.cuda.pool.take("workspace", bytes)?;
        let sum = Panel::packed(wide.address(), DType::F32, features);
        Ok(InputGradient { sum, _wide: Some(wide) })
    }

    /// All launches of a call; the gradients of those outputs that there are.
    ///
    /// # Safety
    /// Shapes, strides and lengths were checked; outputs are borrowed exclusively.
    unsafe fn run(
        &self,
        grad_input: Option<&Output<'_, '_>>,
        grads: Option<(&AdaptiveParameters<Output<'_, '_>>, bool)>,
    ) -> Result<()> {
        let d_x = grad_input.map(|out| self.input_gradient(out)).transpose()?;
        let back = d_x.is_some() || grads.is_some();
        let gradients = |weight: Option<Panel>, bias: Option<Panel>, projection: Option<Panel>| {
            let add = grads.is_some_and(|(_, add)| add);
            let d_x = d_x.as_ref().map(|d_x| d_x.sum);
            let sum = |to: Option<Panel>| to.map(|to| Sum { to, add });
            Gradients { d_x, weight: sum(weight), bias: sum(bias), projection: sum(projection) }
        };
        let of_head = back.then(|| {
            let weight = grads.map(|(g, _)| Panel::from(&g.head_weight));
            let bias = grads.and_then(|(g, _)| g.head_bias.as_ref()).map(Panel::from);
            gradients(weight, bias, None)
        });
        // SAFETY: the caller's contract, for all of them.
        unsafe {
            self.bins.group(back)?;
            self.head().run(of_head)?;
            for i in 0..self.checked.options.clusters() {
                let of_tail = back.then(|| {
                    let tail = grads.map(|(g, _)| &g.tails[i]);
                    let weight = tail.map(|t| Panel::from(&t.weight));
                    gradients(weight, None, tail.map(|t| Panel::from(&t.projection)))
                });
                self.cluster(i).run(of_tail)?;
            }
            self.bins.finish()?;
            match (grad_input, d_x) {
                (Some(out), Some(d_x)) => self.settle(out, &d_x),
                _ => Ok(()),
            }
        }
    }

    /// The input's gradient as it was asked for: rounded, and 0 for rows that do not count.
    unsafe fn settle(&self, out: &Output<'_, '_>, d_x: &InputGradient<'_>) -> Result<()> {
        let (rows, features) = (self.checked.rows.len, self.checked.options.in_features);
        let to = Panel::from(out);
        let places = Places { rows: 0, marks: self.bins.rows().marks };
        // SAFETY: the caller's contract.
        unsafe {
            self.cuda.panel(Batch::PanelRound, [d_x.sum, to], [rows, features], places, false)
        }
    }
}

impl Cuda {
    pub(crate) fn adaptive_log_softmax_forward(
        &self,
        checked: &CheckedAdaptive<'_>,
        out: LayerOut<'_>,
    ) -> Result<()> {
        let output = self.output("output", out.output, false)?;
        let loss = self.output("loss", out.loss, false)?;
        let outputs = [output.address, loss.address];
        let upstream = GradOutput::default();
        let call = Call::new(self, checked, &upstream, outputs)?;
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { call.run(None, None)? };
        self.read_back([Some(output), Some(loss)])
    }

    pub(crate) fn adaptive_log_softmax_forward_backward(
        &self,
        checked: &CheckedAdaptive<'_>,
        grad_output: GradOutput<'_>,
        out: LayerOut<'_>,
        gradients: LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let output = self.output("output", out.output, false)?;
        let loss = self.output("loss", out.loss, false)?;
        let grad_input =
            gradients.input.map(|grad| self.output("grad_input", grad, false)).transpose()?;
        let add = gradients.accumulate;
        let grads = match gradients.parameters {
            Some(grads) => Some(grads.try_into_map(|g| self.output("grad_parameters", g, add))?),
            None => None,
        };
        let call = Call::new(self, checked, &grad_output, [output.address, loss.address])?;
        let of_parameters = grads.as_ref().map(|grads| (grads, add));
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { call.run(grad_input.as_ref(), of_parameters)? };
        let parameters = grads.into_iter().flat_map(AdaptiveParameters::into_named);
        let all = [output, loss].into_iter().chain(grad_input);
        self.read_back(all.chain(parameters.map(|(_, grad)| grad)).map(Some))
    }
}
