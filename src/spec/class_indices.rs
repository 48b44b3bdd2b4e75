//! Class indices: what a loss that reads them takes, and nothing else.

use crate::base::error::{Error, Result};
use crate::base::host::IndexRef;
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::validate;

/// A tensor of class indices: integers, without padding. Only the functions here make one, and
/// nothing that reads indices, on any device, takes anything else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassIndices<'a> {
    argument: &'static str,
    tensor: TensorRef<'a>,
}

impl<'a> ClassIndices<'a> {
    /// Of any shape.
    pub(crate) fn new(argument: &'static str, tensor: &TensorRef<'a>) -> Result<Self> {
        validate::index(argument, tensor)?;
        validate::contiguous(argument, tensor)?;
        Ok(ClassIndices { argument, tensor: *tensor })
    }

    /// One for each position, `owner` says of what: of the shape `rows`, or `[1]` for a single one.
    pub(crate) fn of_rows(
        argument: &'static str,
        tensor: &TensorRef<'a>,
        rows: Shape,
        owner: impl std::fmt::Display,
    ) -> Result<Self> {
        validate::index(argument, tensor)?;
        let single = rows == Shape::SCALAR && *tensor.shape() == [1];
        if !single {
            validate::shape(argument, tensor, rows, owner)?;
        }
        ClassIndices::new(argument, tensor)
    }

    /// As [`ClassIndices::of_rows`], beside a tensor whose dimension 1 is classes, which `owner` says
    /// without them.
    pub(crate) fn beside(
        argument: &'static str,
        tensor: &TensorRef<'a>,
        rows: Shape,
        (classified, owner): (Shape, impl std::fmt::Display),
    ) -> Result<Self> {
        let hint = ClassesLast { classified, target: tensor.shape() };
        ClassIndices::of_rows(argument, tensor, rows, format_args!("{owner}{hint}"))
    }

    /// What the caller calls them.
    pub(crate) fn argument(&self) -> &'static str {
        self.argument
    }

    pub(crate) fn tensor(&self) -> TensorRef<'a> {
        self.tensor
    }

    pub(crate) fn shape(&self) -> Shape {
        self.tensor.shape()
    }

    pub(crate) fn len(&self) -> usize {
        self.tensor.elements()
    }

    /// The integers themselves.
    ///
    /// # Errors
    /// They do not lie on the host.
    pub(crate) fn on_host(&self) -> Result<IndexRef<'a>> {
        self.tensor.host_data().and_then(|host| host.indices()).ok_or(Error::Place {
            argument: self.argument,
            expected: "host",
            got: self.tensor.place(),
        })
    }
}

/// What to do about `[B, T, V]` with targets `[B, T]`, as language models have them; of other
/// shapes nothing is said.
struct ClassesLast {
    classified: Shape,
    target: Shape,
}

impl std::fmt::Display for ClassesLast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.classified.split_last() {
            Some((classes, positions)) if positions.len() > 1 && positions == &*self.target => {
                let rows: usize = positions.iter().product();
                write!(f, ", dimension 1; where classes come last, ")?;
                write!(f, "view both as [{rows}, {classes}] and [{rows}]")
            }
            _ => Ok(()),
        }
    }
}
