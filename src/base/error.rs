//! The one error type: every variant names the argument, what was expected and what came.

use crate::base::dtype::DType;
use crate::base::shape::Shape;
use std::path::PathBuf;
use std::sync::Arc;

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, said about the argument that is to blame.
///
/// Whenever a call returns an error, nothing has been written to any of the caller's buffers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's shape is not the one that the other arguments ask for.
    #[error("{argument}: expected shape {expected}, got {got}")]
    Shape {
        /// The argument's name.
        argument: &'static str,
        /// The legal shape and where it comes from.
        expected: String,
        /// The shape that came.
        got: Shape,
    },
    /// A tensor has too few or too many dimensions.
    #[error("{argument}: expected {expected} {}, got {got}", dimensions(expected))]
    Rank {
        /// The argument's name.
        argument: &'static str,
        /// The legal numbers of dimensions.
        expected: String,
        /// The number of dimensions that came.
        got: usize,
    },
    /// A tensor's element type is not one that the argument takes.
    #[error("{argument}: expected dtype {expected}, got {got}")]
    Dtype {
        /// The argument's name.
        argument: &'static str,
        /// The legal dtypes and where they come from.
        expected: String,
        /// The dtype that came.
        got: DType,
    },
    /// A buffer holds fewer elements than its shape and stride reach.
    #[error(
        "{argument}: shape {shape} with row stride {row_stride} needs {}, got a buffer of {got}",
        Count(*expected, "element")
    )]
    Length {
        /// The argument's name.
        argument: &'static str,
        /// The shape asked for.
        shape: Shape,
        /// The distance between rows, in elements.
        row_stride: usize,
        /// Elements that shape and stride reach.
        expected: usize,
        /// Elements in the buffer.
        got: usize,
    },
    /// Rows would overlap, or the addressed size does not fit the address space.
    #[error("{argument}: expected {expected}, got row stride {got}")]
    Stride {
        /// The argument's name.
        argument: &'static str,
        /// The rule that was broken.
        expected: String,
        /// The row stride that came.
        got: usize,
    },
    /// A number is outside its legal range.
    #[error("{argument}: expected {expected}, got {got}")]
    Value {
        /// The argument's name.
        argument: &'static str,
        /// The legal range.
        expected: String,
        /// The value that came, as text.
        got: String,
    },
    /// A class weight is NaN or infinite.
    #[error("{argument}: expected finite values, got {got} at index {index}")]
    NotFinite {
        /// The argument's name.
        argument: &'static str,
        /// Index of the first offending element.
        index: usize,
        /// The value found there.
        got: f32,
    },
    /// A kept target names no class.
    #[error(
        "{argument}: expected a class in [0, {classes}) or ignore_index {ignore_index}, got {value} at row {row}"
    )]
    Target {
        /// The argument's name: `target`, or `labels` where rows are told by those.
        argument: &'static str,
        /// The first bad row, numbered row-major as in the target.
        row: usize,
        /// The value found there.
        value: i64,
        /// Number of classes.
        classes: usize,
        /// The label that marks a row as ignored.
        ignore_index: i64,
    },
    /// A tensor lives where the device cannot reach it.
    #[error("{argument}: expected {expected} memory, got {got} memory")]
    Place {
        /// The argument's name.
        argument: &'static str,
        /// Where the device computes.
        expected: &'static str,
        /// Where the tensor lives.
        got: &'static str,
    },
    /// An allocation failed; the engine is usable as before.
    #[error("{argument}: could not allocate {}{}", Count(*bytes, "byte"), Free(*free))]
    OutOfMemory {
        /// What the memory was for.
        argument: &'static str,
        /// Bytes asked for.
        bytes: usize,
        /// Bytes free on the device; `None` on the host.
        free: Option<usize>,
    },
    /// A file cannot be read or written.
    #[error("{argument}: expected {expected}, got {}", path.display())]
    Io {
        /// The argument's name.
        argument: &'static str,
        /// What the file has to be good for.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: IoError,
    },
    /// A device cannot be used.
    #[error("device: {reason}")]
    Device {
        /// The plain reason and, where something is missing, what to install.
        reason: String,
    },
}

impl Error {
    /// The argument that is to blame, by its name in the call; `None` where a device is.
    ///
    /// ```
    /// use warploss::{Error, TensorRef};
    ///
    /// let error: Error = TensorRef::new(&[0f32; 5], &[2, 3]).expect_err("five numbers of six");
    /// assert_eq!(error.argument(), Some("shape"));
    /// ```
    pub fn argument(&self) -> Option<&'static str> {
        match self {
            Error::Shape { argument, .. }
            | Error::Rank { argument, .. }
            | Error::Dtype { argument, .. }
            | Error::Length { argument, .. }
            | Error::Stride { argument, .. }
            | Error::Value { argument, .. }
            | Error::NotFinite { argument, .. }
            | Error::Target { argument, .. }
            | Error::Place { argument, .. }
            | Error::OutOfMemory { argument, .. }
            | Error::Io { argument, .. } => Some(argument),
            Error::Device { .. } => None,
        }
    }

    /// Host memory that could not be had.
    pub(crate) fn no_memory(argument: &'static str, bytes: usize) -> Error {
        Error::OutOfMemory { argument, bytes, free: None }
    }
}

/// An error of the system's, which [`Error::Io`] has as its source; it derefs to that.
///
/// Two are equal where they are of a kind and say the same.
///
/// ```
/// use std::error::Error as _;
/// use warploss::{Error, IoError};
///
/// let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
/// let error = Error::Io {
///     argument: "path",
///     expected: "a file that can be read",
///     path: "weights.safetensors".into(),
///     source: IoError::from(missing),
/// };
/// let system = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
/// assert_eq!(system.map(|e| e.kind()), Some(std::io::ErrorKind::NotFound));
/// ```
#[derive(Debug, Clone)]
pub struct IoError(Arc<std::io::Error>);

impl From<std::io::Error> for IoError {
    fn from(error: std::io::Error) -> IoError {
        IoError(Arc::new(error))
    }
}

// No `Error` itself, so that the source of an `Error::Io` is the `std::io::Error` inside, which a
// caller can downcast to.
impl std::ops::Deref for IoError {
    type Target = std::io::Error;
    fn deref(&self) -> &std::io::Error {
        &self.0
    }
}

impl PartialEq for IoError {
    fn eq(&self, other: &IoError) -> bool {
        (self.kind(), self.to_string()) == (other.kind(), other.to_string())
    }
}

/// A number of things that are called `.1` one by one: `1 row`, `2 rows`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count<N>(pub(crate) N, pub(crate) &'static str);

impl<N: std::fmt::Display + PartialEq + From<u8>> std::fmt::Display for Count<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Count(n, one) = self;
        match (*n == N::from(1), one.strip_suffix('s')) {
            (true, _) => write!(f, "{n} {one}"),
            (false, Some(_)) => write!(f, "{n} {one}es"),
            (false, None) => write!(f, "{n} {one}s"),
        }
    }
}

/// What follows numbers of dimensions, as `at least 1`, `1 or 2`.
fn dimensions(expected: &str) -> &'static str {
    let one = expected.split(' ').next_back() == Some("1") && !expected.contains(" or ");
    if one { "dimension" } else { "dimensions" }
}

/// Free bytes, as an ending of a sentence.
struct Free(Option<usize>);

impl std::fmt::Display for Free {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(free) => write!(f, ", {free} are free"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_error_keeps_what_the_system_says() {
        use std::error::Error as _;
        let error = |kind: std::io::ErrorKind| Error::Io {
            argument: "path",
            expected: "a file that can be read",
            path: "/none".into(),
            source: std::io::Error::from(kind).into(),
        };
        let missing = error(std::io::ErrorKind::NotFound);
        assert_eq!(missing.to_string(), "path: expected a file that can be read, got /none");
        assert_eq!(missing.argument(), Some("path"));
        let source = missing.source().and_then(|e| e.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(|e| e.kind()), Some(std::io::ErrorKind::NotFound));
        assert_eq!(missing, missing.clone());
        assert_ne!(missing, error(std::io::ErrorKind::PermissionDenied));
        assert!(Error::no_memory("loss", 1).source().is_none());
        assert_eq!(Error::Device { reason: "none".into() }.argument(), None);
    }

    #[test]
    fn one_is_singular() {
        let said = |expected: &str| {
            let error = Error::Rank { argument: "x", expected: expected.into(), got: 3 };
            error.to_string()
        };
        assert_eq!(said("1"), "x: expected 1 dimension, got 3");
        assert_eq!(said("at least 1"), "x: expected at least 1 dimension, got 3");
        assert_eq!(said("0 or 1"), "x: expected 0 or 1 dimensions, got 3");
        assert_eq!(said("at most 8"), "x: expected at most 8 dimensions, got 3");
        assert_eq!(said("at most 11"), "x: expected at most 11 dimensions, got 3");
        let counts = [(0, "row"), (1, "row"), (2, "class"), (1, "class")];
        let counts = counts.map(|(n, one)| Count(n, one).to_string());
        assert_eq!(counts, ["0 rows", "1 row", "2 classes", "1 class"]);
        let error = Error::no_memory("loss", 1);
        assert_eq!(error.to_string(), "loss: could not allocate 1 byte");
    }
}
