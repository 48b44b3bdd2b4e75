//! Byte models: what a pass must move, if every element goes over the memory bus once a use.

use crate::base::dtype::DType;

/// What of a loss is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The result.
    Forward,
    /// The gradient, from what the forward pass saved.
    Backward,
    /// Both; in place and fused where the loss has such a call.
    ForwardBackward,
}

impl Pass {
    /// Every pass.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::Backward, Pass::ForwardBackward];

    /// The name as the command line has it.
    pub const fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::ForwardBackward => "forward-backward",
        }
    }
}

/// How often each logit-sized tensor is read and written; what is only a row long is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Tensors read.
    pub reads: u64,
    /// Tensors written.
    pub writes: u64,
}

impl Traffic {
    /// Cross entropy: logits read; gradient written; the fused call reads and writes in place.
    pub const fn cross_entropy(pass: Pass) -> Traffic {
        match pass {
            Pass::Forward => Traffic { reads: 1, writes: 0 },
            Pass::Backward | Pass::ForwardBackward => Traffic { reads: 1, writes: 1 },
        }
    }

    /// Log-softmax: input read, output written; backward reads input and upstream gradient.
    pub const fn log_softmax(pass: Pass) -> Traffic {
        match pass {
            Pass::Forward => Traffic { reads: 1, writes: 1 },
            Pass::Backward => Traffic { reads: 2, writes: 1 },
            Pass::ForwardBackward => Traffic { reads: 3, writes: 2 },
        }
    }

    /// Log-sum-exp: input read; gradient written.
    pub const fn logsumexp(pass: Pass) -> Traffic {
        match pass {
            Pass::Forward => Traffic { reads: 1, writes: 0 },
            Pass::Backward => Traffic { reads: 1, writes: 1 },
            Pass::ForwardBackward => Traffic { reads: 2, writes: 1 },
        }
    }

    /// Negative log-likelihood: an element a row is not counted; gradient written.
    pub const fn nll(pass: Pass) -> Traffic {
        match pass {
            Pass::Forward => Traffic { reads: 0, writes: 0 },
            Pass::Backward | Pass::ForwardBackward => Traffic { reads: 0, writes: 1 },
        }
    }

    /// Cross entropy against a target of the logits' size: both read; gradient written.
    pub const fn soft_cross_entropy(pass: Pass) -> Traffic {
        match pass {
            Pass::Forward => Traffic { reads: 2, writes: 0 },
            Pass::Backward | Pass::ForwardBackward => Traffic { reads: 2, writes: 1 },
        }
    }

    /// Elementwise losses: input and target read; gradient written, in place where fused.
    pub const fn elementwise(pass: Pass) -> Traffic {
        match pass {
            Pass::Forward => Traffic { reads: 2, writes: 0 },
            Pass::Backward | Pass::ForwardBackward => Traffic { reads: 2, writes: 1 },
        }
    }

    /// Bytes for tensors of so many elements.
    pub const fn bytes(self, elements: u64, dtype: DType) -> u64 {
        (self.reads + self.writes) * elements * dtype.size() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_every_read_and_write() {
        let fused = Traffic::cross_entropy(Pass::ForwardBackward);
        assert_eq!(fused.bytes(1024 * 128_256, DType::F32), 2 * 4 * 1024 * 128_256);
        assert_eq!(Traffic::cross_entropy(Pass::Forward).bytes(10, DType::BF16), 20);
    }
}
