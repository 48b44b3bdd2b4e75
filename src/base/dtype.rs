//! Element types: three floating-point types for data, four integer types for class indices.

use crate::base::error::Error;
use std::str::FromStr;

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

/// By [`DType::name`], or as PyTorch calls it: `float32`, `torch.bfloat16`, `long`, …
///
/// ```
/// use warploss::DType;
///
/// assert_eq!("bf16".parse(), Ok(DType::BF16));
/// assert_eq!("torch.int64".parse(), Ok(DType::I64));
/// let said = "float64".parse::<DType>().expect_err("no loss takes it").to_string();
/// assert_eq!(said, "dtype: expected f32, f16, bf16, i64, i32, u32 or u8, got float64");
/// ```
impl FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<DType, Error> {
        let called = match text.strip_prefix("torch.").unwrap_or(text) {
            "float32" | "float" => Some(DType::F32),
            "float16" | "half" => Some(DType::F16),
            "bfloat16" => Some(DType::BF16),
            "int64" | "long" => Some(DType::I64),
            "int32" | "int" => Some(DType::I32),
            "uint32" => Some(DType::U32),
            "uint8" => Some(DType::U8),
            _ => DType::ALL.into_iter().find(|dtype| dtype.name() == text),
        };
        called.ok_or_else(|| Error::unnamed("dtype", &DType::ALL.map(DType::name), text))
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_as_pytorch_has_them() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
        }
        let torch = ["float32", "float16", "bfloat16", "int64", "int32", "uint32", "uint8"];
        for (dtype, name) in DType::ALL.into_iter().zip(torch) {
            assert_eq!(name.parse(), Ok(dtype));
            assert_eq!(format!("torch.{name}").parse(), Ok(dtype));
        }
        let short = ["float", "half", "long", "int"].map(|name| name.parse());
        assert_eq!(short, [DType::F32, DType::F16, DType::I64, DType::I32].map(Ok));
        for wrong in ["", "torch.", "torch.f32", "F32", "bool", "i8", "f64", " f32"] {
            let said = wrong.parse::<DType>().unwrap_err().to_string();
            let expected = "dtype: expected f32, f16, bf16, i64, i32, u32 or u8, got";
            assert_eq!(said, format!("{expected} {wrong}"));
        }
    }
}
