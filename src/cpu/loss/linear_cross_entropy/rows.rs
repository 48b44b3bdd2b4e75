//! The rows that count, and what is known of each: its temperature, weight and upstream gradients.

use crate::base::error::{Error, Result};
use crate::base::host::HostRef;
use crate::base::tensor::TensorRef;
use crate::cpu::batch::numbers::Upstream;
use crate::cpu::matrix::scratch::zeros;
use crate::cpu::processor::host_f32_ref;
use crate::spec::linear_cross_entropy::CheckedLinear;
use std::ops::Range;

/// The rows of a batch that are kept, and those that are not.
pub(in crate::cpu::loss) struct Rows {
    pub(in crate::cpu::loss) kept: Vec<usize>,
    pub(in crate::cpu::loss) ignored: Vec<usize>,
    /// Losses of a row, side by side: of kept rows all of them, whichever count.
    positions: usize,
    /// Which of all losses those of kept rows are, where a row has several.
    losses: Vec<usize>,
    /// 1/τ of each kept row.
    pub(in crate::cpu::loss) scales: Option<Vec<f32>>,
}

/// Upstream gradients of the kept rows with respect to results of logits over τ.
pub(in crate::cpu::loss) enum OfRows {
    Number(f32),
    Each(Vec<f32>),
}

impl Rows {
    /// # Errors
    /// A kept row's temperature or weight that is out of range.
    pub(in crate::cpu::loss) fn new(
        checked: &CheckedLinear<'_>,
        is_kept: impl Fn(usize) -> bool,
    ) -> Result<Rows> {
        let positions = checked.positions;
        let any = |row: &usize| (row * positions..(row + 1) * positions).any(&is_kept);
        let (kept, ignored): (Vec<usize>, Vec<usize>) = (0..checked.rows).partition(any);
        let losses = if positions == 1 { Vec::new() } else { of_rows(&kept, positions).collect() };
        let given = temperatures("temperature", checked.input.temperature, &kept)?;
        let scales = given.map(|given| kept.iter().map(|&row| 1.0 / given[row]).collect());
        weights(checked.input.row_weight, &kept)?;
        Ok(Rows { kept, ignored, positions, losses, scales })
    }

    /// Losses of the kept rows.
    pub(in crate::cpu::loss) fn losses(&self) -> &[usize] {
        if self.positions == 1 { &self.kept } else { &self.losses }
    }

    /// Those of the others.
    pub(in crate::cpu::loss) fn ignored_losses(&self) -> impl Iterator<Item = usize> {
        of_rows(&self.ignored, self.positions)
    }

    /// Which of [`Rows::losses`] some of the kept rows have.
    pub(in crate::cpu::loss) fn span(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.positions..rows.end * self.positions
    }

    /// What `upstream` and the rows' scales, and `weights`, make together.
    pub(in crate::cpu::loss) fn upstream(
        &self,
        upstream: &Upstream<'_>,
        weights: Option<&[f32]>,
    ) -> Result<OfRows> {
        self.upstream_over(self.scales.as_deref(), upstream, weights)
    }

    /// The same over these scales: none, of what temperatures do not divide.
    pub(in crate::cpu::loss) fn upstream_over(
        &self,
        scales: Option<&[f32]>,
        upstream: &Upstream<'_>,
        weights: Option<&[f32]>,
    ) -> Result<OfRows> {
        if let (Upstream::Number(number), None, None) = (upstream, scales, weights) {
            return Ok(OfRows::Number(*number));
        }
        let mut each = zeros("upstream gradients", self.losses().len())?;
        for (i, (to, &row)) in each.iter_mut().zip(self.losses()).enumerate() {
            let scale = scales.map_or(1.0, |scales| f64::from(scales[i / self.positions]));
            let weight = weights.map_or(1.0, |weights| f64::from(weights[row]));
            // What has no weight has no gradient, whatever the upstream one.
            let of = if weight == 0.0 { 0.0 } else { f64::from(upstream.of(row)) * weight };
            *to = (of * scale) as f32;
        }
        Ok(OfRows::Each(each))
    }
}

impl OfRows {
    /// Those of some of the kept rows.
    pub(in crate::cpu::loss) fn part(&self, rows: &Range<usize>) -> Upstream<'_> {
        match self {
            OfRows::Number(number) => Upstream::Number(*number),
            OfRows::Each(each) => Upstream::PerRow(HostRef::F32(&each[rows.clone()])),
        }
    }
}

/// Losses of so many positions a row.
fn of_rows(rows: &[usize], positions: usize) -> impl Iterator<Item = usize> {
    rows.iter().flat_map(move |&row| row * positions..(row + 1) * positions)
}

/// Temperatures of all rows, those of kept ones legal.
pub(in crate::cpu::loss) fn temperatures<'a>(
    argument: &'static str,
    tensor: Option<TensorRef<'a>>,
    kept: &[usize],
) -> Result<Option<&'a [f32]>> {
    let legal = |t: f32| t > 0.0 && t.is_finite() && (1.0 / t).is_finite();
    let given = tensor.map(|t| in_range(argument, t, kept, legal, "finite numbers > 0"));
    given.transpose()
}

/// Weights of all rows, those of kept ones legal.
pub(in crate::cpu::loss) fn weights<'a>(
    tensor: Option<TensorRef<'a>>,
    kept: &[usize],
) -> Result<Option<&'a [f32]>> {
    let legal = |u: f32| u >= 0.0 && u.is_finite();
    let given = tensor.map(|t| in_range("row_weight", t, kept, legal, "finite numbers ≥ 0"));
    given.transpose()
}

/// One f32 a row, each kept one's in its range.
fn in_range<'a>(
    argument: &'static str,
    tensor: TensorRef<'a>,
    kept: &[usize],
    legal: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<&'a [f32]> {
    let given = host_f32_ref(tensor, argument)?;
    match kept.iter().find(|&&row| !legal(given[row])) {
        None => Ok(given),
        Some(&row) => {
            let got = format!("{} at row {row}", given[row]);
            Err(Error::Value { argument, expected: expected.into(), got })
        }
    }
}
