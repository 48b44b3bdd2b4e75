//! Class indices of a batch: how they are drawn, and which logits they leave unread.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::case::Case;
use crate::check::draw::INDICES;
use crate::check::random::Random;
use crate::check::{reference, typed};

/// A batch's targets, some of them ignored.
#[derive(Debug)]
pub(in crate::check) struct Targets {
    pub(in crate::check) indices: Tensor,
    pub(in crate::check) ignore_index: i64,
}

impl Targets {
    pub(in crate::check) fn draw(
        random: &mut Random,
        classes: usize,
        rows: &[usize],
    ) -> Result<Targets> {
        let index = random.pick(&INDICES);
        let ignore_index: i64 = match random.below(4) {
            0 => random.below(classes) as i64,
            1 => 255,
            _ => -100,
        };
        let fits = ignore_index >= 0 || matches!(index, DType::I64 | DType::I32);
        let legal = if index == DType::U8 { classes.min(256) } else { classes };
        let ignored_in = random.pick(&[1, 2, 5, 1000]);
        let target: Vec<f64> = (0..rows.iter().product())
            .map(|_| match fits && ignore_index < 256 && random.one_in(ignored_in) {
                true => ignore_index as f64,
                false => random.below(legal) as f64,
            })
            .collect();
        Ok(Targets { indices: typed::tensor(index, rows, &target)?, ignore_index })
    }
}

/// A batch's targets, none of them ignored; those of no classes name one all the same.
pub(in crate::check) fn of_classes(
    random: &mut Random,
    classes: usize,
    rows: &[usize],
) -> Result<Tensor> {
    let index = random.pick(&INDICES);
    let legal = if index == DType::U8 { classes.min(256) } else { classes };
    let target: Vec<f64> = (0..rows.iter().product()).map(|_| random.below(legal) as f64).collect();
    typed::tensor(index, rows, &target)
}

/// The logits of ignored rows: elements of the case's first tensor.
pub(in crate::check) fn unread(
    case: &Case,
    target: TensorRef<'_>,
    ignore_index: i64,
) -> Result<Vec<usize>> {
    let class_dim = usize::from(case.shape.len() > 1);
    let lines = reference::Lines::new(&case.shape, &[class_dim]);
    let target = reference::indices(target)?;
    let rows = lines.bases.iter().zip(&target);
    let ignored = rows.filter(|(_, t)| **t == ignore_index);
    Ok(ignored.flat_map(|(base, _)| lines.offsets.iter().map(move |o| base + o)).collect())
}
