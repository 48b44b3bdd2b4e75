//! The rows of a batch that count, and their losses: what output layers have in common.

use crate::base::reduction::Reduction;
use crate::cpu::batch::numbers::Upstream;

/// The kept rows.
#[derive(Debug, Default)]
pub(crate) struct KeptRows {
    /// Which of the batch's rows, rising.
    pub(crate) rows: Vec<usize>,
    /// The weight of each.
    weights: Vec<f64>,
    /// Σ of the weights.
    weight: f64,
}

impl KeptRows {
    pub(crate) fn with_capacity(rows: usize) -> KeptRows {
        KeptRows { rows: Vec::with_capacity(rows), weights: Vec::with_capacity(rows), weight: 0.0 }
    }

    pub(crate) fn push(&mut self, row: usize, weight: f64) {
        self.rows.push(row);
        self.weights.push(weight);
        self.weight += weight;
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Writes all rows' outputs and the loss, from the log-probabilities of the kept ones; `rows` are all.
    pub(crate) fn write(
        &self,
        (reduction, rows): (Reduction, usize),
        output: &[f64],
        [out, loss]: [&mut [f32]; 2],
    ) {
        // The buffers may go on behind the rows.
        out[..rows].fill(0.0);
        let mut sum = 0.0;
        if reduction == Reduction::None {
            loss[..rows].fill(0.0);
        }
        for ((&row, &weight), &output) in self.rows.iter().zip(&self.weights).zip(output) {
            out[row] = output as f32;
            // A weight of 0 silences an infinite loss.
            let of_row = if weight == 0.0 { 0.0 } else { -weight * output };
            sum += of_row;
            if reduction == Reduction::None {
                loss[row] = of_row as f32;
            }
        }
        match reduction {
            Reduction::None => {}
            Reduction::Sum => loss[0] = sum as f32,
            Reduction::Mean | Reduction::BatchMean => {
                loss[0] = if self.weight == 0.0 { f32::NAN } else { (sum / self.weight) as f32 };
            }
        }
    }

    /// Upstream gradients of the kept rows' −output.
    pub(crate) fn factors(&self, reduction: Reduction, upstream: &Upstream<'_>) -> Vec<f64> {
        let divisor = match reduction {
            Reduction::None | Reduction::Sum => 1.0,
            Reduction::Mean | Reduction::BatchMean if self.weight == 0.0 => f64::NAN,
            Reduction::Mean | Reduction::BatchMean => self.weight,
        };
        (self.rows.iter().zip(&self.weights))
            .map(|(&row, weight)| f64::from(upstream.of(row)) * weight / divisor)
            .collect()
    }
}
