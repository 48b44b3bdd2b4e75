//! Likeliest classes of rows, where more are asked for than the rows' own kernels keep.

use super::rows::{CrossEntropyArgs, TokenArgs, TopArgs};

/// The most likeliest classes that a thread keeps (`WL_MOST_TOP`).
pub(crate) const MOST_LISTED: u32 = 16;

impl CrossEntropyArgs {
    pub(super) fn has_many_likeliest(&self) -> bool {
        self.tokens.k > MOST_LISTED
    }

    pub(super) fn many_likeliest(&mut self) -> Option<TopArgs> {
        if !self.has_many_likeliest() {
            return None;
        }
        let TokenArgs { k, top_classes, top_logprob, .. } = self.tokens;
        self.tokens.k = 0;
        Some(TopArgs {
            logits: self.logits,
            target: self.target,
            x: self.rows.x,
            top_classes,
            top_logprob,
            n: self.rows.count,
            classes: self.rows.classes,
            stride: self.rows.x_stride,
            k: k.into(),
            ..TopArgs::default()
        })
    }
}
