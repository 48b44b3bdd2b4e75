//! What calls of layers have in common: clusters of classes, and gradients of parameters.

use super::bound::{Bound, tail_name};
use super::draft::Draft;
use super::{Role, Setpoint};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::check::random::Random;
use crate::check::reference::WithSizes;
use crate::spec::adaptive_log_softmax::ClassOrder;
use crate::spec::output_layer::LayerOutput;
use std::sync::Arc;

/// The results of a layer's forward pass.
pub(in crate::check) fn give_output(b: &Bound<'_>, out: LayerOutput) {
    b.give("output", out.output);
    b.give("loss", out.loss);
}

/// The clusters of an adaptive layer.
pub(in crate::check) struct Clusters {
    pub(in crate::check) features: usize,
    pub(in crate::check) classes: usize,
    pub(in crate::check) cutoffs: Vec<usize>,
    pub(in crate::check) widths: Vec<usize>,
}

/// Draws clusters, and the options that say which.
pub(in crate::check) fn draw_clusters(d: &mut Draft) -> Clusters {
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
pub(in crate::check) fn draw_workspace(d: &mut Draft) {
    let least = if d.dtype == DType::F32 { 64 } else { 1 << 15 };
    let others = [least, 2 * least, 64 * least].map(Setpoint::Integer);
    d.option("workspace", Setpoint::Unset, &others);
}

impl Clusters {
    /// Names and shapes of the clusters' parameters.
    pub(in crate::check) fn tails(&self) -> Vec<(String, Vec<usize>)> {
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
pub(in crate::check) fn order(seed: u64, classes: usize) -> Result<Arc<ClassOrder>> {
    let mut random = Random::new(seed);
    let counts: Vec<u64> = (0..classes.min(1 << 20)).map(|_| random.below(50) as u64).collect();
    Ok(Arc::new(ClassOrder::from_counts(&counts)?))
}

/// Memory for the gradients of a layer's input and parameters, each asked for or not.
pub(in crate::check) fn draw_gradients(
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
pub(in crate::check) fn named_gradients(
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
pub(in crate::check) fn draw_parameter_gradients(
    d: &mut Draft,
    parameters: &[(String, Vec<usize>)],
) {
    let accumulate = d.random.one_in(2);
    d.set("accumulate", Setpoint::Flag(accumulate));
    for (name, shape) in parameters {
        let data = d.normal(shape, 1.0);
        let dtype = d.dtype;
        d.given((&format!("grad_{name}"), Role::Both), (dtype, shape, ""), data);
    }
}
