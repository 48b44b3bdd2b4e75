//! Element types of logits, and how they are accessed.

/// Bytes of one vector access.
pub(crate) const PACK_BYTES: usize = 16;

/// Element types of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Data {
    F32,
    F16,
    BF16,
}

impl Data {
    pub(crate) const ALL: [Data; 3] = [Data::F32, Data::F16, Data::BF16];

    /// Elements of a pack.
    pub(crate) const fn lanes(self) -> usize {
        PACK_BYTES / self.size()
    }

    pub(crate) const fn size(self) -> usize {
        match self {
            Data::F32 => 4,
            Data::F16 | Data::BF16 => 2,
        }
    }

    /// The type's name in the kernels and in symbols.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Data::F32 => "f32",
            Data::F16 => "f16",
            Data::BF16 => "bf16",
        }
    }
}
