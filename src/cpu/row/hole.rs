//! The target's column, which a row is summed without.

/// The target's column, taken out of its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hole {
    pub(crate) column: usize,
    /// The target's logit as given.
    pub(crate) logit: f32,
    /// The target's logit as a reference.
    pub(crate) reference: f32,
    /// z at the target, and dz/dx there.
    pub(crate) z: f64,
    pub(crate) slope: f64,
    /// The target's smoothing weight, over the batch's unit; 0 without smoothing.
    pub(crate) weight: f64,
}

impl Hole {
    /// What the target's gradient is made of besides the row: dz/dx and the smoothing weight.
    pub(crate) fn own(&self) -> (f64, f64) {
        (self.slope, self.weight)
    }
}
