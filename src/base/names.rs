//! Dtypes and reductions from text.

use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use std::str::FromStr;

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
        called.ok_or_else(|| unnamed("dtype", &DType::ALL.map(DType::name), text))
    }
}

/// By [`Reduction::name`].
///
/// ```
/// use warploss::Reduction;
///
/// assert_eq!("batchmean".parse(), Ok(Reduction::BatchMean));
/// let said = "average".parse::<Reduction>().expect_err("none of PyTorch's").to_string();
/// assert_eq!(said, "reduction: expected none, sum, mean or batchmean, got average");
/// ```
impl FromStr for Reduction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reduction, Error> {
        let named = Reduction::ALL.into_iter().find(|reduction| reduction.name() == text);
        named.ok_or_else(|| unnamed("reduction", &Reduction::ALL.map(Reduction::name), text))
    }
}

/// Text that is none of the names.
fn unnamed(argument: &'static str, names: &[&str], got: &str) -> Error {
    let expected = match names {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    };
    Error::Value { argument, expected, got: got.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtypes_are_read_as_they_are_written_and_as_pytorch_calls_them() {
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

    #[test]
    fn reductions_are_read_as_they_are_written() {
        for reduction in Reduction::ALL {
            assert_eq!(reduction.name().parse(), Ok(reduction));
        }
        for wrong in ["", "Mean", "batch_mean", "elementwise_mean"] {
            assert!(wrong.parse::<Reduction>().is_err(), "{wrong}");
        }
    }
}
