//! `--classes V`: the first V columns of each row as a view, the rest as padding left alone.

use crate::base::error::Error;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::check::typed;
use crate::cli::failure::Failure;
use crate::cli::file::Input;

/// A tensor's shape with and without padding.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// As in the file.
    pub(super) stored: Vec<usize>,
    /// With only the classes.
    pub(super) used: Vec<usize>,
}

impl Columns {
    /// The class dimension is 1, or 0 of a single row.
    pub(super) fn new(input: &Input<'_>, classes: Option<usize>) -> Result<Columns, Failure> {
        let stored = input.shape().to_vec();
        let mut used = stored.clone();
        if let Some(classes) = classes {
            let name = input.name();
            let dim = usize::from(stored.len() > 1);
            let Some(columns) = used.get_mut(dim) else {
                return Err(Failure::input(format!(
                    "--classes: expected {name} with a dimension of classes, got shape []"
                )));
            };
            if !(1..=*columns).contains(&classes) {
                return Err(Failure::input(format!(
                    "--classes: expected 1 to {columns} (columns of {name}, shape {stored:?}), got {classes}"
                )));
            }
            *columns = classes;
        }
        Ok(Columns { stored, used })
    }

    /// Columns of a row, padding included.
    pub(super) fn classes_stored(&self) -> usize {
        self.stored.get(usize::from(self.stored.len() > 1)).copied().unwrap_or(1)
    }

    /// Whether there is padding.
    pub(super) fn padded(&self) -> bool {
        self.stored != self.used
    }

    /// The classes of a tensor of the file that has the stored shape.
    pub(super) fn of<'a>(&self, input: &'a Input<'_>) -> Result<TensorRef<'a>, Failure> {
        input.view_as(&self.used)
    }

    /// The classes of an owned tensor of the stored shape.
    pub(super) fn of_mut<'a>(&self, tensor: &'a mut Tensor) -> Result<TensorMut<'a>, Error> {
        let stride = tensor.view().row_stride();
        typed::strided_mut(tensor, &self.used, stride)
    }
}
