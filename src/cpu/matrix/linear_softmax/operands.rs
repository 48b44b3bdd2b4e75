//! What a softmax over products is called with.

use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::{Matrix, Panel};
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;

/// Rows times classes.
pub(crate) struct Softmax<'a> {
    pub(crate) cpu: &'a Cpu,
    /// `[rows, width]`.
    pub(crate) hidden: &'a [f32],
    pub(crate) stride: usize,
    /// `[classes, width]`.
    pub(crate) weight: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    /// The class of each row.
    pub(crate) targets: &'a [usize],
}

/// What a gradient is made of, and where it goes.
pub(crate) struct Backward<'a> {
    /// What multiplies p − [j = t], one a row.
    pub(crate) factors: &'a [f64],
    /// `[rows, width]`, overwritten.
    pub(crate) hidden: Option<&'a mut [f32]>,
    pub(crate) weight: Option<&'a Gradient<'a>>,
    /// One value a class, overwritten.
    pub(crate) bias: Option<&'a mut [f32]>,
}

/// Logits that are stored at most, beyond one row's.
pub(crate) const STORED: usize = 8 << 20;

impl Softmax<'_> {
    /// The hidden rows from one on.
    pub(crate) fn hidden_from(&self, row: usize) -> Panel {
        Panel::of(self.hidden.get(row * self.stride..).unwrap_or(&[]), self.stride)
    }
}

/// The groups' sums, in order.
pub(crate) fn add_up(cpu: &Cpu, groups: &[f32], out: &mut [f32]) {
    const PIECE: usize = 16 * 1024;
    let len = out.len();
    let to = SyncPtr(out.as_mut_ptr());
    cpu.share(len.div_ceil(PIECE), 1, &|task| {
        let piece = task * PIECE..((task + 1) * PIECE).min(len);
        // SAFETY: the piece of this task alone.
        let to = unsafe { std::slice::from_raw_parts_mut(to.get().add(piece.start), piece.len()) };
        to.fill(0.0);
        for group in groups.chunks_exact(len) {
            to.iter_mut().zip(&group[piece.clone()]).for_each(|(to, from)| *to += from);
        }
    });
}
