//! Adaptive embeddings, lookup by lookup.

use super::products::WithSizes;
use crate::spec::adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters};

/// What lookups should give.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingReference {
    /// A row a lookup.
    pub output: WithSizes,
    /// In the parameters' order, one after another.
    pub grads: Vec<WithSizes>,
}

/// The embeddings of classes, and the gradients of the parameters for that of the output.
///
/// # Panics
/// Where the engine returns an error for shapes or classes, this may panic.
pub fn adaptive_embedding(
    options: &AdaptiveEmbedding,
    parameters: &AdaptiveEmbeddingParameters<Vec<f64>>,
    index: &[i64],
    grad_output: &[f64],
) -> EmbeddingReference {
    let (cut, features) = (&options.cut, options.features());
    let (mut output, mut shortlist) =
        (WithSizes::default(), WithSizes::zeros(parameters.shortlist.len()));
    let mut tails: Vec<[WithSizes; 2]> = (parameters.tails.iter())
        .map(|tail| [&tail.projection, &tail.weight].map(|p| WithSizes::zeros(p.len())))
        .collect();
    for (row, &class) in index.iter().enumerate() {
        let grad = &grad_output[row * features..][..features];
        let counts = options.padding_idx != Some(class);
        let place = options.place(class).expect("a class");
        let Some(i) = (0..cut.clusters()).find(|&i| cut.cluster(i).contains(&place)) else {
            for (d, &g) in grad.iter().enumerate() {
                let at = place * features + d;
                output.push(parameters.shortlist[at], parameters.shortlist[at].abs());
                if counts {
                    shortlist.add(at, g, g.abs());
                }
            }
            continue;
        };
        let (width, first) = (cut.width(i), (place - cut.cluster(i).start) * cut.width(i));
        let (tail, [d_projection, d_weight]) = (&parameters.tails[i], &mut tails[i]);
        for (d, &g) in grad.iter().enumerate() {
            let (mut sum, mut size) = (0.0, 0.0);
            for k in 0..width {
                let (e, p) = (tail.weight[first + k], tail.projection[k * features + d]);
                (sum, size) = (sum + e * p, size + (e * p).abs());
                if counts {
                    d_projection.add(k * features + d, e * g, (e * g).abs());
                    d_weight.add(first + k, p * g, (p * g).abs());
                }
            }
            output.push(sum, size);
        }
    }
    let grads = std::iter::once(shortlist).chain(tails.into_iter().flatten()).collect();
    EmbeddingReference { output, grads }
}
