//! Checks that every loss makes, each naming the argument that is to blame.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::{Element as _, Float, HostRef};
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;

/// Where all numbers of a tensor have to lie; NaN may be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// From 0 on.
    NotNegative,
    /// From 0 to 1.
    Probability,
}

impl Range {
    /// The largest of its numbers; the least is 0.
    pub(crate) fn largest(self) -> f32 {
        match self {
            Range::NotNegative => f32::INFINITY,
            Range::Probability => 1.0,
        }
    }

    fn lacks(self, v: f32) -> bool {
        v < 0.0 || v > self.largest()
    }

    /// The error of a number outside, counted row-major.
    pub(crate) fn error(self, argument: &'static str, value: f32, index: usize) -> Error {
        let expected = match self {
            Range::NotNegative => "numbers that are not negative",
            Range::Probability => "numbers in [0, 1]",
        };
        Error::Value { argument, expected: expected.into(), got: format!("{value} at {index}") }
    }
}

/// No element of a host tensor lies outside; what lies on a device is looked at there.
pub(crate) fn within(argument: &'static str, tensor: &TensorRef<'_>, range: Range) -> Result<()> {
    let Some(host) = tensor.host_data() else { return Ok(()) };
    let row: usize = tensor.shape().iter().skip(1).product();
    let rows = tensor.shape().first().copied().unwrap_or(1);
    let first = match host {
        HostRef::F32(data) => first_outside(data, (rows, row), tensor.row_stride(), range),
        HostRef::F16(data) => first_outside(data, (rows, row), tensor.row_stride(), range),
        HostRef::BF16(data) => first_outside(data, (rows, row), tensor.row_stride(), range),
        HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_) => None,
    };
    first.map_or(Ok(()), |(i, value)| Err(range.error(argument, value, i)))
}

fn first_outside<T: Float>(
    data: &[T],
    (rows, row): (usize, usize),
    stride: usize,
    range: Range,
) -> Option<(usize, f32)> {
    // All of some elements are compared before any is looked for: that is what vectors can do.
    const TOGETHER: usize = 1024;
    (0..rows).find_map(|r| {
        let row_of = data.get(r * stride..r * stride + row)?;
        row_of.chunks(TOGETHER).enumerate().find_map(|(c, chunk)| {
            let any = chunk.iter().fold(false, |any, v| any | range.lacks(v.to_f32()));
            let i = any.then(|| chunk.iter().position(|v| range.lacks(v.to_f32())))??;
            Some((r * row + c * TOGETHER + i, chunk[i].to_f32()))
        })
    })
}

/// The input is floating-point.
pub(crate) fn float(argument: &'static str, tensor: &TensorRef<'_>) -> Result<()> {
    if tensor.dtype().is_float() {
        return Ok(());
    }
    Err(Error::Dtype { argument, expected: "f32, f16 or bf16".into(), got: tensor.dtype() })
}

/// Class indices are integers; [`ClassIndices`](super::ClassIndices) are what losses take.
pub(crate) fn index(argument: &'static str, tensor: &TensorRef<'_>) -> Result<()> {
    if tensor.dtype().is_index() {
        return Ok(());
    }
    Err(Error::Dtype {
        argument,
        expected: "i64, i32, u32 or u8 (class indices)".into(),
        got: tensor.dtype(),
    })
}

/// The tensor has the shape that `owner` gives it.
pub(crate) fn shape(
    argument: &'static str,
    tensor: &TensorRef<'_>,
    expected: Shape,
    owner: impl std::fmt::Display,
) -> Result<()> {
    if tensor.shape() == expected {
        return Ok(());
    }
    Err(Error::Shape { argument, expected: format!("{expected} ({owner})"), got: tensor.shape() })
}

/// The tensor, which is a gradient of `of`, has its shape and dtype.
pub(crate) fn like(
    argument: &'static str,
    tensor: &TensorRef<'_>,
    of: &TensorRef<'_>,
    owner: &str,
) -> Result<()> {
    shape(argument, tensor, of.shape(), owner)?;
    dtype(argument, tensor, &[of.dtype()], owner)
}

/// The tensor has one of two dtypes: its own, or the one that `owner` gives it.
pub(crate) fn dtype(
    argument: &'static str,
    tensor: &TensorRef<'_>,
    expected: &[DType],
    owner: impl std::fmt::Display,
) -> Result<()> {
    if expected.contains(&tensor.dtype()) {
        return Ok(());
    }
    let mut names: Vec<_> = expected.iter().map(|d| d.name()).collect();
    names.dedup();
    Err(Error::Dtype {
        argument,
        expected: format!("{} ({owner})", names.join(" or ")),
        got: tensor.dtype(),
    })
}

/// A named parameter, or its gradient, has the shape of the options and `owner`'s dtype.
pub(crate) fn parameter(
    argument: &'static str,
    (key, tensor): (&str, &TensorRef<'_>),
    shape: Shape,
    (dtype, owner): (DType, &str),
) -> Result<()> {
    if tensor.shape() == shape && tensor.dtype() == dtype {
        return row(argument, tensor);
    }
    Err(Error::Value {
        argument,
        expected: format!("`{key}` {shape} of {dtype} ({owner})"),
        got: format!("{} of {}", tensor.shape(), tensor.dtype()),
    })
}

/// An output of f32 values, contiguous, of the given shape.
pub(crate) fn f32_output(
    argument: &'static str,
    tensor: &TensorRef<'_>,
    expected: Shape,
    owner: &str,
) -> Result<()> {
    shape(argument, tensor, expected, owner)?;
    dtype(argument, tensor, &[f32::DTYPE], "results are f32")?;
    contiguous(argument, tensor)
}

/// An output of class indices or counts of classes, contiguous, of the given shape.
pub(crate) fn i64_output(
    argument: &'static str,
    tensor: &TensorRef<'_>,
    expected: Shape,
    owner: &str,
) -> Result<()> {
    shape(argument, tensor, expected, owner)?;
    dtype(argument, tensor, &[i64::DTYPE], "classes and ranks are i64")?;
    contiguous(argument, tensor)
}

/// Rows follow one another without padding.
pub(crate) fn contiguous(argument: &'static str, tensor: &TensorRef<'_>) -> Result<()> {
    let row: usize = tensor.shape().iter().skip(1).product();
    if tensor.row_stride() == row || tensor.elements() <= 1 {
        return Ok(());
    }
    Err(Error::Stride {
        argument,
        expected: format!("rows without padding, row stride {row}"),
        got: tensor.row_stride(),
    })
}

/// Elements of a row are neighbours, also where it is the only one: a tensor of one dimension.
pub(crate) fn row(argument: &'static str, tensor: &TensorRef<'_>) -> Result<()> {
    if tensor.rank() == 1 { contiguous(argument, tensor) } else { Ok(()) }
}

/// The dimension of classes, and the shape of what has one value for each position: classes are
/// dimension 1, or the only one.
pub(crate) fn classes(argument: &'static str, shape: Shape) -> Result<(usize, Shape)> {
    match shape.len() {
        0 => Err(Error::Rank { argument, expected: "at least 1".into(), got: 0 }),
        1 => Ok((0, Shape::SCALAR)),
        _ => Ok((1, shape.without(1))),
    }
}

/// One weight for each class, f32 or of the input's dtype.
pub(crate) fn class_weight(
    weight: Option<&TensorRef<'_>>,
    classes: usize,
    (dtype, owner): (DType, &str),
) -> Result<()> {
    let Some(weight) = weight else {
        return Ok(());
    };
    let expected = Shape::new(&[classes]).unwrap_or(Shape::SCALAR);
    shape("weight", weight, expected, "one weight per class")?;
    self::dtype("weight", weight, &[f32::DTYPE, dtype], owner)?;
    contiguous("weight", weight)
}

/// An option lies in its range; `legal` is false for NaN. It is told in its own type, as an f32
/// that is widened has digits that nobody gave.
pub(crate) fn value(
    argument: &'static str,
    value: impl std::fmt::Display,
    legal: bool,
    expected: &'static str,
) -> Result<()> {
    if legal {
        return Ok(());
    }
    Err(Error::Value { argument, expected: expected.into(), got: value.to_string() })
}

/// What multiplies logits: log2(e) times it, which exponentials are made with, is an f32.
pub(crate) fn scale(argument: &'static str, scale: f32) -> Result<()> {
    value(argument, scale, scale > 0.0 && scale.is_finite(), "a finite number > 0")?;
    value(argument, scale, scale <= 2e38, "a number up to 2e38")
}

/// The reduction is one that every loss has; the divergences have `batchmean` too.
pub(crate) fn reduction(reduction: Reduction) -> Result<()> {
    match reduction {
        Reduction::None | Reduction::Sum | Reduction::Mean => Ok(()),
        Reduction::BatchMean => Err(Error::Value {
            argument: "reduction",
            expected: "none, sum or mean".into(),
            got: reduction.name().into(),
        }),
    }
}

/// Resolves a dimension by PyTorch's rule: negative counts from the end, 0-d counts as 1-d.
pub(crate) fn dim(dim: isize, rank: usize) -> Result<usize> {
    let n = rank.max(1) as isize;
    if (-n..n).contains(&dim) {
        return Ok(dim.rem_euclid(n) as usize);
    }
    Err(Error::Value {
        argument: "dim",
        expected: format!("a dimension in [{}, {}]", -n, n - 1),
        got: dim.to_string(),
    })
}
