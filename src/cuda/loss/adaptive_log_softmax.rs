//! Adaptive log-softmax on a CUDA device. Rows are grouped by cluster on the device (`bins.rs`); the
//! head and each cluster are products and, over their logits, a cross entropy (`linear_softmax.rs`).

mod distribution;
mod pick;

use crate::base::error::{Error, Result};
use crate::base::tensor::TensorMut;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::{InputGradient, Sum};
use crate::cuda::matrix::clusters::{Bins, Grouping};
use crate::cuda::matrix::linear_softmax::operands::{Gradients, Softmax};
use crate::cuda::matrix::products::Linear;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::adaptive_log_softmax::{AdaptiveParameters, CheckedAdaptive};
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut};

/// A call on the device.
struct Call<'c, 'p> {
    cuda: &'p Cuda,
    bins: Bins<'p>,
    input: Input<'p>,
    parameters: AdaptiveParameters<Input<'p>>,
    checked: &'c CheckedAdaptive<'c>,
}

fn grouping<'a>(checked: &'a CheckedAdaptive<'a>) -> Result<Grouping<'a>> {
    let (options, rows) = (checked.options, checked.rows.len);
    let Some(target) = checked.target else {
        return Err(Error::Device { reason: "no target".into() });
    };
    Ok(Grouping {
        target,
        rows,
        classes: options.classes,
        cutoffs: &options.cutoffs,
        capacities: (0..options.clusters()).map(|i| options.capacity(i, rows)).collect(),
        order: options.class_order.as_ref(),
        ignore_index: options.ignore_index,
        weight: options.row_weight,
        reduction: options.reduction,
        cluster_columns: true,
    })
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
        let bins = Bins::new(cuda, &grouping(checked)?, grad_output, outputs)?;
        Ok(Call { cuda, bins, input, parameters, checked })
    }

    fn head(&self) -> Softmax<'p> {
        Softmax {
            cuda: self.cuda,
            input: Panel::from(&self.input),
            budget: self.checked.options.workspace,
            linear: Linear {
                weight: Panel::from(&self.parameters.head_weight),
                bias: self.parameters.head_bias.as_ref().map(Panel::from),
            },
            projection: None,
            slots: self.bins.rows(),
            features: self.checked.options.in_features,
            width: self.checked.options.in_features,
            classes: self.checked.options.head_size(),
        }
    }

    fn cluster(&self, i: usize) -> Softmax<'p> {
        let (options, tail) = (self.checked.options, &self.parameters.tails[i]);
        Softmax {
            cuda: self.cuda,
            input: Panel::from(&self.input),
            budget: self.checked.options.workspace,
            linear: Linear { weight: Panel::from(&tail.weight), bias: None },
            projection: Some(Panel::from(&tail.projection)),
            slots: self.bins.cluster(i),
            features: options.in_features,
            width: options.width(i),
            classes: options.cluster(i).len(),
        }
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
        let sizes = [self.checked.rows.len, self.checked.options.in_features];
        let d_x = grad_input.map(|out| InputGradient::new(self.cuda, out, sizes));
        let d_x = d_x.transpose()?;
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
        // SAFETY: shapes, strides and lengths were checked and outputs are borrowed exclusively,
        // says the caller: all that each launch below asks.
        unsafe {
            self.bins.columns()?;
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
                (Some(out), Some(d_x)) => d_x.settle(self.cuda, out, sizes, self.bins.rows()),
                _ => Ok(()),
            }
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
