//! One file an op: how its calls are drawn, how they are made, and what the f64 reference says.

mod adaptive_embedding;
mod adaptive_log_softmax;
mod cross_entropy;
mod elementwise;
mod information;
mod js_div_logits;
mod lines;
mod logprob_entropy;
mod nll;
mod sampled_softmax;

use super::bound::{Bound, tail_name};
use super::draft::Draft;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Op;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::random::Random;
use crate::check::reference::WithSizes;
use crate::check::subject::Expected;
use crate::spec::adaptive_log_softmax::ClassOrder;
use crate::spec::output_layer::LayerOutput;
use std::sync::Arc;

/// An op as it is fuzzed.
#[derive(Debug)]
pub(super) struct Row {
    /// Draws a right call.
    pub(super) draw: fn(&mut Draft),
    /// Makes a call, right or wrong.
    pub(super) run: fn(&Bound<'_>) -> Result<()>,
    /// What is right, where the call is.
    pub(super) expect: fn(&Bound<'_>) -> Result<Reference>,
    /// A tensor that a call reads and another call made: its name, and that call.
    pub(super) saved: Option<Saved>,
}

/// What is right.
#[derive(Debug, Default)]
pub(super) struct Reference {
    /// By quantity.
    pub(super) expected: Vec<Expected>,
    /// Gradients of parameters, by name.
    pub(super) gradients: Vec<(String, WithSizes)>,
    /// Log-probabilities of all classes, row by row, that classes are picked by; and how many there are.
    pub(super) picked_by: Option<(WithSizes, usize)>,
}

impl From<Vec<Expected>> for Reference {
    fn from(expected: Vec<Expected>) -> Reference {
        Reference { expected, ..Reference::default() }
    }
}

/// How many times the tolerance exponentials need that are multiplied by much: logarithms of no
/// probabilities, positive weights of 1e30. Of 16 bits they are good to 2^-17
/// (kernels/core/logarithm.cuh).
fn roughness(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1.0 } else { 2f64.powi(-17) / 2e-6 }
}

/// See [`Row::saved`].
pub(super) type Saved = (&'static str, fn(&Bound<'_>) -> Result<Tensor>);

/// The table.
pub(super) fn row(op: Op) -> Row {
    match op {
        Op::CrossEntropy => cross_entropy::INDICES,
        Op::SoftCrossEntropy => cross_entropy::PROBABILITIES,
        Op::LogSoftmax => lines::LOG_SOFTMAX,
        Op::LogSumExp => lines::LOGSUMEXP,
        Op::LogprobEntropy => logprob_entropy::ROW,
        Op::Nll => nll::ROW,
        Op::Mse => elementwise::MSE,
        Op::L1 => elementwise::L1,
        Op::SmoothL1 => elementwise::SMOOTH_L1,
        Op::Huber => elementwise::HUBER,
        Op::BceWithLogits => elementwise::BCE_WITH_LOGITS,
        Op::KlDiv => elementwise::KL_DIV,
        Op::JsDiv => elementwise::JS_DIV,
        Op::JsDivLogits => js_div_logits::ROW,
        Op::Information => information::ROW,
        Op::AdaptiveLogSoftmax => adaptive_log_softmax::ROW,
        Op::AdaptiveEmbedding => adaptive_embedding::ROW,
        Op::SampledSoftmax => sampled_softmax::ROW,
    }
}

/// The results of a layer's forward pass.
fn give_output(b: &Bound<'_>, out: LayerOutput) {
    b.give("output", out.output);
    b.give("loss", out.loss);
}

/// The clusters of an adaptive layer.
struct Clusters {
    features: usize,
    classes: usize,
    cutoffs: Vec<usize>,
    widths: Vec<usize>,
}

/// Draws clusters, and the options that say which.
fn draw_clusters(d: &mut Draft) -> Clusters {
    let features = d.random.pick(&[1, 2, 3, 8, 17]);
    let classes = d.random.pick(&[2, 3, 5, 12, 40, 300]);
    let mut cutoffs: Vec<usize> =
        (0..1 + d.random.below(3)).map(|_| 1 + d.random.below(classes - 1)).collect();
    cutoffs.sort_unstable();
    cutoffs.dedup();
    let widths: Vec<usize> = cutoffs.iter().map(|_| d.random.below(2 + features)).collect();
    d.set("features", Setpoint::Integer(features as i64));
    d.set("classes", Setpoint::Integer(classes as i64));
    d.set("cutoffs", Setpoint::List(cutoffs.clone()));
    d.set("widths", Setpoint::List(widths.clone()));
    d.option("class_order", Setpoint::Flag(false), &[Setpoint::Flag(true)]);
    draw_workspace(d);
    Clusters { features, classes, cutoffs, widths }
}

/// Bytes of a device's buffers. Sums of 16-bit gradients are f32 where there is room: here there is.
fn draw_workspace(d: &mut Draft) {
    let least = if d.dtype == DType::F32 { 64 } else { 1 << 15 };
    let others = [least, 2 * least, 64 * least].map(Setpoint::Integer);
    d.option("workspace", Setpoint::Unset, &others);
}

impl Clusters {
    /// Names and shapes of the clusters' parameters.
    fn tails(&self) -> Vec<(String, Vec<usize>)> {
        let ends = self.cutoffs[1..].iter().copied().chain([self.classes]);
        let clusters = self.cutoffs.iter().zip(ends).zip(&self.widths).enumerate();
        let of = |(i, ((&from, to), &width)): (usize, ((&usize, usize), &usize))| {
            let projection = (tail_name("", i, 0), vec![width, self.features]);
            [projection, (tail_name("", i, 1), vec![to - from, width])]
        };
        clusters.flat_map(of).collect()
    }
}

/// An order of classes that follows from the call's seed.
fn order(seed: u64, classes: usize) -> Result<Arc<ClassOrder>> {
    let mut random = Random::new(seed);
    let counts: Vec<u64> = (0..classes.min(1 << 20)).map(|_| random.below(50) as u64).collect();
    Ok(Arc::new(ClassOrder::from_counts(&counts)?))
}

/// Memory for the gradients of a layer's input and parameters, each asked for or not.
fn draw_gradients(
    d: &mut Draft,
    (name, shape, letters): (&str, &[usize], &str),
    parameters: &[(String, Vec<usize>)],
) {
    d.optional_out(name, d.dtype, shape, letters);
    if d.random.one_in(2) {
        draw_parameter_gradients(d, parameters);
    }
}

/// Gradients of parameters under their names, on top of what is there if they are added to it.
fn named_gradients(
    b: &Bound<'_>,
    grads: impl IntoIterator<Item = (String, WithSizes)>,
) -> Result<Vec<(String, WithSizes)>> {
    let mut named = Vec::new();
    for (name, mut grad) in grads {
        let name = format!("grad_{name}");
        if let (true, Some(before)) = (b.flag("accumulate"), b.optional(&name)) {
            let before = before.to_f64()?;
            for ((value, size), before) in grad.values.iter_mut().zip(&mut grad.sizes).zip(before) {
                (*value, *size) = (*value + before, *size + before.abs());
            }
        }
        named.push((name, grad));
    }
    Ok(named)
}

/// Memory for the gradients of parameters, which may be added to what is there.
fn draw_parameter_gradients(d: &mut Draft, parameters: &[(String, Vec<usize>)]) {
    let accumulate = d.random.one_in(2);
    d.set("accumulate", Setpoint::Flag(accumulate));
    for (name, shape) in parameters {
        let data = d.normal(shape, 1.0);
        let dtype = d.dtype;
        d.given((&format!("grad_{name}"), Role::Both), (dtype, shape, ""), data);
    }
}
