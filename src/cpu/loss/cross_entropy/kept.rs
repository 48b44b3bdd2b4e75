//! Logits that are kept while their gradient goes elsewhere: rows of f32 are copied there, and worked on in place.

use crate::base::dtype::DType;
use crate::cpu::batch::lines::Line;
use crate::cpu::loss::cross_entropy::call::Call;
use crate::cpu::row::logit::Transform;
use crate::cpu::simd::Lanes;
use crate::cpu::threads::{Spread, SyncRef, share};

/// Elements that a thread copies at once.
const PIECE: usize = 1 << 15;

/// Whether the row is f32, with its gradient elsewhere, and would be worked on in place if it were there.
pub(super) fn brings<X: Lanes, A, Y: Lanes>(call: &Call<'_>, line: &Line<X, A, Y>) -> bool {
    let f32_both = X::DTYPE == DType::F32 && Y::DTYPE == DType::F32;
    let apart = !line.y.is_null() && line.x.cast::<Y>() != line.y.cast_const();
    f32_both && apart && matches!(call.batch.transform, Transform::Linear(_))
}

/// Such a row where its gradient goes: it is read from memory once, and comes to the bits that it has in place.
///
/// # Safety
/// As for `LineOp::line`, of a row that [`brings`] is for.
pub(super) unsafe fn brought<X: Lanes, A, Y: Lanes>(line: Line<X, A, Y>) -> Line<X, A, Y> {
    let copy = |at: usize, n: usize| {
        // SAFETY: both have these elements, which are f32 and do not overlap, and nobody else touches the row's
        // gradient: the caller's promise.
        unsafe { line.x.add(at).copy_to_nonoverlapping(line.y.add(at).cast(), n) };
    };
    match line.spread {
        Spread::Alone => copy(0, line.len),
        Spread::Shared => {
            // SAFETY: pieces of a row are disjoint.
            let copy = unsafe { SyncRef::new(&copy) };
            share(line.len.div_ceil(PIECE), 1, &|piece| {
                let at = piece * PIECE;
                copy.get()(at, PIECE.min(line.len - at));
            });
        }
    }
    line.at_output()
}
