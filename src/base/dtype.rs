//! Element types: three floating-point types for data, four integer types for class indices.

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Signed 64-bit index.
    I64,
    /// Signed 32-bit index.
    I32,
    /// Unsigned 32-bit index.
    U32,
    /// Unsigned 8-bit index.
    U8,
}

impl DType {
    /// Every dtype, floats first.
    pub const ALL: [DType; 7] =
        [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// Whether elements are floating-point data (f32, f16, bf16).
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Whether elements are class indices (i64, i32, u32, u8).
    pub const fn is_index(self) -> bool {
        !self.is_float()
    }

    /// The name as PyTorch abbreviates it: `f32`, `bf16`, `i64`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
