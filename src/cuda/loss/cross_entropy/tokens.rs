//! What else a pass with losses gives of rows, and what gradients that has.

use crate::base::error::{Error, Result};
use crate::base::tensor::TensorMut;
use crate::code::args::{MOST_LISTED, TokenArgs};
use crate::code::variants::Loss;
use crate::cuda::loss::ranks::MOST_CLASSES;
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::spec::cross_entropy::{CrossEntropyUpstream, TopKOut};

/// The outputs, where they were asked for, and the upstream gradients.
pub(super) struct Tokens<'a, 'p> {
    logprob: Option<Output<'a, 'p>>,
    entropy: Option<Output<'a, 'p>>,
    top: Option<TopK<'a, 'p>>,
    of_logprob: Upstream<'p>,
    of_entropy: Upstream<'p>,
    /// Whether those are anything.
    upstream: bool,
}

struct TopK<'a, 'p> {
    k: u32,
    classes: Output<'a, 'p>,
    logprob: Output<'a, 'p>,
}

/// Log-probabilities, entropies and likeliest classes of rows.
type Outputs<'a> = (Option<TensorMut<'a>>, Option<TensorMut<'a>>, Option<TopKOut<'a>>);

impl<'a, 'p: 'a> Tokens<'a, 'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        classes: usize,
        upstream: &CrossEntropyUpstream<'p>,
        (logprob, entropy, top_k): Outputs<'a>,
    ) -> Result<Self> {
        if top_k.is_some() && classes > MOST_CLASSES {
            return Err(Error::Value {
                argument: "logits",
                expected: format!("at most {MOST_CLASSES} classes where top_k is asked for"),
                got: classes.to_string(),
            });
        }
        let top = |top: TopKOut<'a>| {
            Ok(TopK {
                k: top.k() as u32,
                classes: cuda.output("top_k.classes", top.classes, false)?,
                logprob: cuda.output("top_k.logprob", top.logprob, false)?,
            })
        };
        Ok(Tokens {
            logprob: logprob.map(|t| cuda.output("logprob", t, false)).transpose()?,
            entropy: entropy.map(|t| cuda.output("entropy", t, false)).transpose()?,
            top: top_k.map(top).transpose()?,
            of_logprob: Upstream::new(cuda, "grad_logprob", &upstream.grad_logprob)?,
            of_entropy: Upstream::new(cuda, "grad_entropy", &upstream.grad_entropy)?,
            upstream: upstream.of_tokens(),
        })
    }

    /// The kernels that give all of it; `None` where nothing was asked for.
    pub(super) fn loss(&self, ranks: bool) -> Option<Loss> {
        let numbers = self.logprob.is_some() || self.entropy.is_some() || self.upstream;
        // More of them have a kernel of their own (`RowArgument::take_top`).
        let few = self.top.as_ref().is_some_and(|top| top.k <= MOST_LISTED);
        match (few, numbers, ranks) {
            (true, ..) => Some(Loss::CrossEntropyTop),
            (false, true, true) => Some(Loss::CrossEntropyTokensRanked),
            (false, true, false) => Some(Loss::CrossEntropyTokens),
            (false, false, _) => None,
        }
    }

    pub(super) fn args(&self) -> TokenArgs {
        let address = |output: &Option<Output<'_, '_>>| output.as_ref().map_or(0, |t| t.address);
        let mut args = TokenArgs {
            of_logprob: self.of_logprob.args(),
            of_entropy: self.of_entropy.args(),
            logprob: address(&self.logprob),
            entropy: address(&self.entropy),
            ..TokenArgs::default()
        };
        if let Some(TopK { k, classes, logprob }) = &self.top {
            (args.k, args.top_classes, args.top_logprob) = (*k, classes.address, logprob.address);
        }
        args
    }

    /// The outputs to be read back.
    pub(super) fn outputs(self) -> impl Iterator<Item = Option<Output<'a, 'p>>> {
        let top = self.top.map(|top| [Some(top.classes), Some(top.logprob)]);
        [self.logprob, self.entropy].into_iter().chain(top.into_iter().flatten())
    }
}
