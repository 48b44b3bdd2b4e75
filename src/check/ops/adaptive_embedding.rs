//! Adaptive embeddings: the first tensor is the gradient of their output.

use super::{Call, Draw, First, INDICES, layer};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters};
use crate::spec::adaptive_log_softmax::ClassOrder;
use std::fmt;
use std::sync::Arc;

pub(in crate::check) const DRAW: Draw = Draw { shape, call: draw };

/// Options and tensors, owned.
#[derive(Debug)]
struct EmbeddingCall {
    embedding: AdaptiveEmbedding,
    parameters: AdaptiveEmbeddingParameters<Tensor>,
    index: Tensor,
    /// Whether parameters have gradients that are numbers.
    finite: bool,
}

impl Call for EmbeddingCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EmbeddingCall { embedding, index, .. } = self;
        let cut = &embedding.cut;
        write!(f, ", classes {}, cutoffs {:?}", cut.classes, cut.cutoffs)?;
        let widths: Vec<usize> = (0..cut.clusters()).map(|i| cut.width(i)).collect();
        write!(f, ", widths {widths:?}, index {}", index.dtype())?;
        write!(f, ", class_order {}", cut.class_order.is_some())?;
        write!(f, ", padding_idx {:?}", embedding.padding_idx)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let parameters = self.parameters.try_map(|_, p| p.view().to_f64())?;
        let (grad, index) = (case.input()?.to_f64()?, reference::indices(self.index.view())?);
        let out = reference::adaptive_embedding(&self.embedding, &parameters, &index, &grad);
        let mut expected = vec![Expected::product(Quantity::Output, out.output)];
        if self.finite {
            expected.push(layer::gradients(out.grads.into_iter()));
        }
        Ok(expected)
    }

    /// Lookups, and the gradients of all parameters. Products are f32 everywhere.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (embedding, view, index) = (&self.embedding, self.parameters.view(), self.index.view());
        let out = embedding.forward(device, &view, index)?;
        let mut outcomes = vec![Outcome::new(Quantity::Output, "forward", out.view())?];
        let grads = embedding.backward(device, &view, index, case.input()?)?;
        if self.finite {
            let named = grads.into_named().into_iter();
            let named = named.map(|(_, grad)| grad);
            outcomes.push(layer::all_gradients(case.dtype, "backward", named)?);
        }
        Ok(outcomes)
    }
}

/// Rows of gradients, of which there may be many of one class.
fn shape(random: &mut Random) -> Vec<usize> {
    let rows = if random.one_in(20) { 2100 } else { random.below(80) };
    vec![rows, random.pick(&[1, 2, 3, 8, 17, 33, 130])]
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (shape[0], shape[1]);
    let classes = random.pick(&[2, 3, 40, 300, 70_000]);
    let mut cutoffs: Vec<usize> =
        (0..1 + random.below(4)).map(|_| 1 + random.below(classes - 1)).collect();
    cutoffs.sort_unstable();
    cutoffs.dedup();
    let widths: Vec<usize> = cutoffs.iter().map(|_| random.below(2 + features.min(20))).collect();
    let dtype_of_index = random.pick(&INDICES);
    let legal = if dtype_of_index == DType::U8 { classes.min(256) } else { classes };
    // Of few classes each comes often.
    let distinct = random.pick(&[1, 3, legal]).min(legal);
    let at = random.below(legal - distinct + 1);
    let index: Vec<f64> = (0..rows).map(|_| (at + random.below(distinct)) as f64).collect();
    let mut embedding = AdaptiveEmbedding::new(features, classes, &cutoffs).widths(Some(widths));
    if random.one_in(3) {
        let counts: Vec<u64> = (0..classes).map(|_| random.below(50) as u64).collect();
        embedding = embedding.class_order(Some(Arc::new(ClassOrder::from_counts(&counts)?)));
    }
    if random.one_in(3) {
        embedding = embedding.padding_idx(Some((at + random.below(distinct)) as i64));
    }
    let parameters =
        embedding.shapes()?.try_map(|_, shape| layer::parameter(random, dtype, shape, 0.4))?;
    Ok(Box::new(EmbeddingCall {
        embedding,
        parameters,
        index: typed::tensor(dtype_of_index, &[rows], &index)?,
        finite: values.finite(),
    }))
}
