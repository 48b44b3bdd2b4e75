//! A tile: some hundreds of indices, whose elements are read where they lie, or brought together.

use crate::base::host::HostRef;
use crate::cpu::elementwise::pass::{Losses, Pass, TILE};
use crate::cpu::row::softmax::{LargestOf, Sum};
use crate::cpu::simd::{Lanes, Level};
use crate::spec::elementwise::{Formula, Operand, Space};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Indices are summed in at most this many chunks, whatever the number of threads.
pub(super) const CHUNKS: usize = 256;
/// Fewest elements of a chunk: about 10 µs of work.
pub(super) const CHUNK_ELEMENTS: usize = 16 * 1024;

/// A tile's elements as f32.
type Buffer = [MaybeUninit<f32>; TILE];

const EMPTY: Buffer = [MaybeUninit::uninit(); TILE];

/// Memory, layout and scale of a call: what is null, or `None`, is absent.
pub(super) struct Job<'a, T> {
    pub(super) level: Level,
    pub(super) formula: Formula,
    pub(super) losses: Losses<T>,
    pub(super) space: Space,
    pub(super) x: *const T,
    pub(super) y: *const T,
    pub(super) weight: Option<HostRef<'a>>,
    pub(super) third: Option<HostRef<'a>>,
    pub(super) upstream: Option<HostRef<'a>>,
    /// Multiplies every weight: a power of two.
    pub(super) weight_scale: f32,
    /// Multiplies every gradient.
    pub(super) scale: f32,
    pub(super) value: *mut f32,
    pub(super) grad_x: *mut T,
    pub(super) grad_y: *mut T,
    pub(super) grad_third: *mut T,
}

// SAFETY: its pointers are used by unsafe methods alone, whose callers keep chunks disjoint.
unsafe impl<T> Send for Job<'_, T> {}
// SAFETY: all that a shared `Job` allows is unsafe methods, whose callers keep chunks disjoint.
unsafe impl<T> Sync for Job<'_, T> {}

/// What one tile writes instead of what the job names: a gradient as f32, to be summed.
#[derive(Clone, Copy)]
pub(super) enum Only {
    GradX(*mut f32),
    GradY(*mut f32),
    GradThird(*mut f32),
}

impl<T: Lanes> Job<'_, T> {
    /// Values and gradients of the indices `range`; Σ v·ℓ, or 0 if no value is wanted.
    ///
    /// # Safety
    /// Every pointer is good for its strides over the space (those of gradients and values for
    /// writing); what is written is the input itself, or lies apart from all that is read, and
    /// nobody else touches it.
    pub(super) unsafe fn run(&self, wanted: bool, range: Range<usize>) -> f64 {
        let mut sum = 0.0;
        each_tile(&self.space, range, |tile| {
            // SAFETY: the pointers are good for their strides over the space, which the caller
            // promises, and the tile is a part of `range`.
            sum += unsafe { self.tile(wanted, &tile) };
        });
        sum
    }

    /// # Safety
    /// As for [`Job::run`].
    unsafe fn tile(&self, wanted: bool, tile: &Range<usize>) -> f64 {
        let at = |operand, absent: bool| match absent {
            true => Some(0),
            false => self.space.direct(operand, tile),
        };
        let (gx, gy, gz) = (self.grad_x, self.grad_y, self.grad_third);
        let places = (
            at(Operand::Input, false),
            at(Operand::Target, false),
            at(Operand::GradInput, gx.is_null()),
            at(Operand::GradTarget, gy.is_null()),
            at(Operand::GradThird, gz.is_null()),
        );
        let (mut v, mut r, mut g) = (EMPTY, EMPTY, EMPTY);
        let value = at(Operand::Loss, self.value.is_null()).unwrap_or(0);
        // SAFETY: the caller's contract; offsets come from the space that the pointers belong to.
        // A null pointer is offset by 0.
        unsafe {
            let weight = self.floats(Operand::Weight, self.weight, tile, &mut v);
            let third = self.floats(Operand::Third, self.third, tile, &mut r);
            let upstream = self.floats(Operand::Upstream, self.upstream, tile, &mut g);
            let (scale, value, len) = (self.scale, self.value.add(value), tile.len());
            let weight_scale = self.weight_scale;
            if let (Some(x), Some(y), Some(dx), Some(dy), Some(dz)) = places {
                return (self.losses.in_place)(
                    self.level,
                    self.formula,
                    Pass {
                        wanted,
                        x: self.x.add(x),
                        y: self.y.add(y),
                        weight,
                        third,
                        upstream,
                        weight_scale,
                        scale,
                        value,
                        grad_x: gx.add(dx),
                        grad_y: gy.add(dy),
                        grad_third: gz.add(dz),
                        len,
                    },
                );
            }
            let (mut x, mut y) = (EMPTY, EMPTY);
            let (mut dx, mut dy, mut dz) = (EMPTY, EMPTY, EMPTY);
            let buffer = |p: *mut T, buffer: &mut Buffer| match p.is_null() {
                true => std::ptr::null_mut(),
                false => buffer.as_mut_ptr().cast::<f32>(),
            };
            let (grad_x, grad_y) = (buffer(gx, &mut dx), buffer(gy, &mut dy));
            let grad_third = buffer(gz, &mut dz);
            let sum = (self.losses.gathered)(
                self.level,
                self.formula,
                Pass {
                    wanted,
                    x: self.elements(Operand::Input, self.x, tile, &mut x),
                    y: self.elements(Operand::Target, self.y, tile, &mut y),
                    weight,
                    third,
                    upstream,
                    weight_scale,
                    scale,
                    value,
                    grad_x,
                    grad_y,
                    grad_third,
                    len,
                },
            );
            self.scatter(Operand::GradInput, grad_x, gx, tile);
            self.scatter(Operand::GradTarget, grad_y, gy, tile);
            self.scatter(Operand::GradThird, grad_third, gz, tile);
            sum
        }
    }

    /// One gradient of a tile, as f32.
    ///
    /// # Safety
    /// As for [`Job::run`], of what is read; the pointer in `only` is good for the tile.
    pub(super) unsafe fn gradient(&self, only: Only, tile: &Range<usize>) {
        let (mut v, mut r, mut g) = (EMPTY, EMPTY, EMPTY);
        let (mut x, mut y) = (EMPTY, EMPTY);
        let none = std::ptr::null_mut;
        let [grad_x, grad_y, grad_third] = match only {
            Only::GradX(p) => [p, none(), none()],
            Only::GradY(p) => [none(), p, none()],
            Only::GradThird(p) => [none(), none(), p],
        };
        // SAFETY: what is read is good for its strides over the space, and the pointer in `only`
        // for the tile: the caller's promise.
        unsafe {
            (self.losses.gathered)(
                self.level,
                self.formula,
                Pass {
                    wanted: false,
                    x: self.elements(Operand::Input, self.x, tile, &mut x),
                    y: self.elements(Operand::Target, self.y, tile, &mut y),
                    weight: self.floats(Operand::Weight, self.weight, tile, &mut v),
                    third: self.floats(Operand::Third, self.third, tile, &mut r),
                    upstream: self.floats(Operand::Upstream, self.upstream, tile, &mut g),
                    weight_scale: self.weight_scale,
                    scale: self.scale,
                    value: std::ptr::null_mut(),
                    grad_x,
                    grad_y,
                    grad_third,
                    len: tile.len(),
                },
            );
        }
    }

    /// Σ of the weights of the indices `range`; the largest raises `largest`, as bits.
    ///
    /// # Safety
    /// As for [`Job::run`], of the weights.
    pub(super) unsafe fn sum_of_weights(&self, range: Range<usize>, largest: &AtomicU32) -> f64 {
        let (mut sum, mut most) = (0.0, 0f32);
        each_tile(&self.space, range, |tile| {
            let mut buffer = EMPTY;
            // SAFETY: the weights have the operand's layout: the checks of the call's shapes gave
            // it, says the caller.
            let x = unsafe { self.floats(Operand::Weight, self.weight, &tile, &mut buffer) };
            if !x.is_null() {
                let len = tile.len();
                let own = self.level.run(Sum { x, len });
                // SAFETY: `floats` gives null or as many elements as the tile has, in the tensor or
                // in `buffer`.
                let weights = unsafe { std::slice::from_raw_parts(x, len) };
                sum += match own.is_finite() {
                    true => f64::from(own),
                    false => weights.iter().map(|&w| f64::from(w)).sum(),
                };
                most = most.max(self.level.run(LargestOf { x, len }));
            }
        });
        // Bits of floats from 0 on are in the floats' order.
        largest.fetch_max(most.to_bits(), Ordering::Relaxed);
        sum
    }

    /// A tile of a tensor of f32, or of another float type; null where it is absent.
    ///
    /// # Safety
    /// The tensor has the operand's layout.
    unsafe fn floats(
        &self,
        operand: Operand,
        data: Option<HostRef<'_>>,
        tile: &Range<usize>,
        buffer: &mut Buffer,
    ) -> *const f32 {
        // SAFETY: the tensor has the operand's layout, as `elements` asks; the caller's promise.
        unsafe {
            match data {
                Some(HostRef::F32(s)) => self.elements(operand, s.as_ptr(), tile, buffer),
                Some(HostRef::F16(s)) => self.elements(operand, s.as_ptr(), tile, buffer),
                Some(HostRef::BF16(s)) => self.elements(operand, s.as_ptr(), tile, buffer),
                // The checks rule out an index dtype.
                Some(HostRef::I64(_) | HostRef::I32(_) | HostRef::U32(_) | HostRef::U8(_))
                | None => std::ptr::null(),
            }
        }
    }

    /// A tile of a tensor as f32: where it lies, or brought together in `buffer`.
    ///
    /// # Safety
    /// `base` has the operand's layout.
    unsafe fn elements<U: Lanes>(
        &self,
        operand: Operand,
        base: *const U,
        tile: &Range<usize>,
        buffer: &mut Buffer,
    ) -> *const f32 {
        if U::DTYPE == crate::base::dtype::DType::F32
            && let Some(offset) = self.space.direct(operand, tile)
        {
            // SAFETY: the operand's own offset; U is f32.
            return unsafe { base.add(offset).cast() };
        }
        self.space.runs(operand, tile.clone(), |offset, stretch, stride| {
            let into = &mut buffer[stretch];
            if stride == 0 {
                // SAFETY: the operand's own offset.
                into.fill(MaybeUninit::new(unsafe { base.add(offset).read() }.to_f32()));
                return;
            }
            for (j, slot) in into.iter_mut().enumerate() {
                // SAFETY: offset and stride are the operand's own, and the stretch lies in its
                // space.
                slot.write(unsafe { base.add(offset + j * stride).read() }.to_f32());
            }
        });
        buffer.as_ptr().cast()
    }

    /// The way back of [`Job::elements`], with one rounding; nothing where `base` is null.
    ///
    /// # Safety
    /// `base` has the operand's layout and is writable, `from` holds the tile.
    unsafe fn scatter(
        &self,
        operand: Operand,
        from: *const f32,
        base: *mut T,
        tile: &Range<usize>,
    ) {
        if base.is_null() {
            return;
        }
        self.space.runs(operand, tile.clone(), |offset, stretch, stride| {
            for (j, i) in stretch.enumerate() {
                // SAFETY: `base` has the operand's layout and is writable, and `from` holds the
                // tile: the caller's promise.
                unsafe { base.add(offset + j * stride).write(T::from_f32(from.add(i).read())) };
            }
        });
    }
}

/// Cuts `range` into tiles. Where the innermost dimension is long, none reaches from one of its
/// stretches into the next, so that each is read where it lies if its elements are neighbours.
pub(super) fn each_tile(space: &Space, range: Range<usize>, mut each: impl FnMut(Range<usize>)) {
    /// A stretch of this many elements is a tile by itself: shorter ones are brought together.
    const LONG: usize = TILE / 4;
    let inner = space.inner();
    let mut at = range.start;
    while at < range.end {
        let mut end = (at + TILE).min(range.end);
        if inner >= LONG {
            end = end.min(at - at % inner + inner);
        }
        each(at..end);
        at = end;
    }
}
