//! A line of `bench`: what is to be measured, and what came of it.

use crate::base::dtype::DType;
use crate::cli::bench::ops::BenchOp;
use crate::measure::{Pass, Timing};

/// One line to measure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) op: BenchOp,
    pub(super) pass: Pass,
    pub(super) dtype: DType,
    pub(super) rows: usize,
    pub(super) classes: usize,
    /// Features of the input; 0 where the input is logits.
    pub(super) hidden: usize,
    /// Classes that each row lists; 0: all count.
    pub(super) subset: usize,
    /// Whether each row has a temperature.
    pub(super) rows_temperature: bool,
    /// The bound below which pieces of rows have no gradient.
    pub(super) filter: Option<f32>,
    pub(super) cutoffs: Vec<usize>,
    pub(super) capacities: Option<Vec<usize>>,
}

/// One line, measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) line: Line,
    pub(super) timing: Timing,
    pub(super) bytes: u64,
    /// Multiplications and additions, of an op that products decide.
    pub(super) operations: Option<f64>,
    /// Seconds of the kernels that go through rows, where a device has such; the median run.
    pub(super) row_kernels: Option<f64>,
}

impl Line {
    /// A line whose input is logits.
    pub(super) fn of_rows(
        op: BenchOp,
        pass: Pass,
        dtype: DType,
        rows: usize,
        classes: usize,
    ) -> Line {
        let (hidden, subset, filter, cutoffs, capacities) = (0, 0, None, Vec::new(), None);
        let rows_temperature = false;
        Line {
            op,
            pass,
            dtype,
            rows,
            classes,
            hidden,
            subset,
            rows_temperature,
            filter,
            cutoffs,
            capacities,
        }
    }

    pub(super) fn describe(&self) -> String {
        let Line { op, pass, dtype, rows, classes, .. } = self;
        let hidden = if self.hidden > 0 { format!(" × {}", self.hidden) } else { String::new() };
        let subset = match self.subset {
            0 => String::new(),
            k => format!(", {k} of them a row"),
        };
        let tempered = if self.rows_temperature { ", a temperature each" } else { "" };
        let filter = match self.filter {
            None => String::new(),
            Some(bound) => format!(", filtered by {bound}"),
        };
        format!(
            "{} {} {dtype} {rows}{hidden} × {classes}{subset}{tempered}{filter}",
            op.parts().0,
            pass.name()
        )
    }
}
