//! Arguments that can be cut into rows, as tensors come from the host block by block.

use super::kind::size;
use super::rows::{
    BesideArgs, CrossEntropyArgs, JsDivLogitsArgs, LabelArgs, LogSoftmaxArgs, LogSumExpArgs,
    LogprobEntropyArgs, LossOutputs, MultiMarginArgs, RankOutputs, RowArgument, ShardArgs,
    SoftCrossEntropyArgs, TokenArgs, TokenOutputs, UpstreamArgs,
};

/// Those that can be cut into rows, as x and y come from the host block by block.
pub(crate) trait PartArgument: RowArgument {
    /// Hands every address of something with an element a row to `visit`, and the bytes of that.
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize));
    /// The upstream gradient.
    fn upstream(&mut self) -> &mut UpstreamArgs;
    /// Rows beside x and y, where the loss has any.
    fn beside(&mut self) -> Option<&mut BesideArgs> {
        None
    }

    /// The same for `n` rows from row `first` on, but for x, y and those beside them, which stay.
    fn part(mut self, first: usize, n: usize) -> Self {
        self.each_row(&mut |address, bytes| {
            if *address != 0 {
                *address += (first * bytes) as u64;
            }
        });
        self.rows().count = n as i64;
        self
    }
}

impl UpstreamArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        visit(&mut self.values, self.stride as usize * size(self.kind));
    }
}

impl LabelArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        visit(&mut self.values, size(self.kind));
    }
}

impl LossOutputs {
    /// Where each row has something written, and how many bytes of it.
    fn written(&mut self) -> [(&mut u64, usize); 3] {
        let LossOutputs { loss, z_loss, lse, wide, whole: _ } = self;
        let losses = if *wide != 0 { size_of::<f64>() } else { size_of::<f32>() };
        [(loss, losses), (z_loss, losses), (lse, size_of::<f32>())]
    }

    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        self.written().into_iter().for_each(|(address, bytes)| visit(address, bytes));
    }
}

impl RankOutputs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let RankOutputs { argmax, rank } = self;
        visit(argmax, size_of::<i64>());
        visit(rank, size_of::<i64>());
    }
}

impl ShardArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        visit(&mut self.state, self.numbers as usize * size_of::<f32>());
    }
}

impl CrossEntropyArgs {
    /// Where each row has something written, how many bytes of it, and whether those name a class.
    pub(crate) fn written(&mut self) -> [(&mut u64, usize, bool); 9] {
        let [loss, z_loss, lse] =
            self.out.written().map(|(address, bytes)| (address, bytes, false));
        let RankOutputs { argmax, rank } = &mut self.ranks;
        let TokenArgs {
            of_logprob: _,
            of_entropy: _,
            logprob,
            entropy,
            top_classes,
            top_logprob,
            k,
            pad: _,
        } = &mut self.tokens;
        let (k, index, number) = (*k as usize, size_of::<i64>(), size_of::<f32>());
        [
            loss,
            z_loss,
            lse,
            (logprob, number, false),
            (entropy, number, false),
            (top_classes, k * index, true),
            (top_logprob, k * number, false),
            (argmax, index, true),
            (rank, index, true),
        ]
    }
}

// Each takes its fields apart by name, so that a new one has to say whether each row has its own.
impl PartArgument for CrossEntropyArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let CrossEntropyArgs {
            rows: _,
            schedule: _,
            upstream,
            logits: _,
            target,
            weight: _,
            options: _,
            out: _,
            ranks: _,
            tokens,
            shard,
            bias: _,
        } = self;
        upstream.each_row(visit);
        target.each_row(visit);
        tokens.of_logprob.each_row(visit);
        tokens.of_entropy.each_row(visit);
        shard.each_row(visit);
        self.written().into_iter().for_each(|(address, bytes, _)| visit(address, bytes));
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
}

impl PartArgument for LogprobEntropyArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let LogprobEntropyArgs {
            rows: _,
            schedule: _,
            upstream,
            of_entropy,
            logits: _,
            target,
            out: TokenOutputs { logprob, entropy, lse },
            ranks,
        } = self;
        upstream.each_row(visit);
        of_entropy.each_row(visit);
        target.each_row(visit);
        for address in [logprob, entropy, lse] {
            visit(address, size_of::<f32>());
        }
        ranks.each_row(visit);
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
}

impl PartArgument for LogSoftmaxArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let LogSoftmaxArgs { rows: _, schedule: _, upstream, bias: _ } = self;
        upstream.each_row(visit);
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
}

impl PartArgument for LogSumExpArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let LogSumExpArgs { rows: _, schedule: _, upstream, lse } = self;
        upstream.each_row(visit);
        visit(lse, size_of::<f32>());
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
}

impl PartArgument for SoftCrossEntropyArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let SoftCrossEntropyArgs {
            rows: _,
            schedule: _,
            upstream,
            logits: _,
            target: _,
            weight: _,
            options: _,
            out,
            teacher: _,
            pad: _,
        } = self;
        upstream.each_row(visit);
        out.each_row(visit);
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
    fn beside(&mut self) -> Option<&mut BesideArgs> {
        Some(&mut self.target)
    }
}

impl PartArgument for JsDivLogitsArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let JsDivLogitsArgs {
            rows: _,
            schedule: _,
            upstream,
            target: _,
            labels,
            loss,
            totals: _,
            scale: _,
            teacher: _,
            beta: _,
            share: _,
            mean: _,
            pad: _,
        } = self;
        upstream.each_row(visit);
        labels.each_row(visit);
        visit(loss, size_of::<f32>());
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
    fn beside(&mut self) -> Option<&mut BesideArgs> {
        Some(&mut self.target)
    }
}

impl PartArgument for MultiMarginArgs {
    fn each_row(&mut self, visit: &mut dyn FnMut(&mut u64, usize)) {
        let MultiMarginArgs {
            rows: _,
            schedule: _,
            upstream,
            target,
            weight: _,
            loss,
            totals: _,
            margin: _,
            square: _,
            mean: _,
            wide,
        } = self;
        upstream.each_row(visit);
        target.each_row(visit);
        visit(loss, if *wide != 0 { size_of::<f64>() } else { size_of::<f32>() });
    }
    fn upstream(&mut self) -> &mut UpstreamArgs {
        &mut self.upstream
    }
}
