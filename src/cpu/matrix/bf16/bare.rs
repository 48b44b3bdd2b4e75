//! Bare products, for benchmarks.

use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::matrix::bf16;
use crate::cpu::matrix::bf16::{Factor, Parts, Unit};
use crate::cpu::matrix::product::{self, Panel};
use crate::device::Device;

impl Device {
    /// The instructions by which the CPU multiplies bf16 matrices, the best last.
    #[doc(hidden)]
    pub fn cpu_bf16_units() -> Vec<&'static str> {
        Unit::available().into_iter().map(Unit::name).collect()
    }

    /// `out = a·b` by the calling thread, of either factor's transpose if it is `turned`. In f32, or with
    /// `b` in bf16 by one of the units, an f32 `a` in one or two parts. `false`: nobody makes such a product.
    #[doc(hidden)]
    pub fn cpu_product(
        unit: usize,
        parts: usize,
        factors: [TensorRef<'_>; 2],
        turned: [bool; 2],
        out: TensorMut<'_>,
    ) -> bool {
        fn matrix<T>(data: &[T], of: &TensorRef<'_>, turned: bool) -> Panel<T> {
            let panel = Panel::of(data, of.row_stride());
            if turned { panel.transposed() } else { panel }
        }
        let sizes = |i: usize| match (&factors[i].shape()[..], turned[i]) {
            (&[rows, columns], false) => Some([rows, columns]),
            (&[rows, columns], true) => Some([columns, rows]),
            _ => None,
        };
        let (Some([m, k]), Some([depth, n])) = (sizes(0), sizes(1)) else { return false };
        let stride = out.as_ref().row_stride();
        if k != depth || *out.as_ref().shape() != [m, n] {
            return false;
        }
        let Some(out) = out.into_host::<f32>() else { return false };
        let out = Panel::of_mut(out, stride);
        let [a, b] = factors;
        let parts = if parts == 1 { Parts::One } else { Parts::Two };
        let a_wide = a.host::<f32>().map(|data| matrix(data, &a, turned[0]));
        let left = match a.host::<half::bf16>() {
            Some(data) => Some(Factor::Bf16(matrix(data, &a, turned[0]))),
            None => a_wide.map(|a| Factor::F32(a, parts)),
        };
        // SAFETY: tensors have the elements of their shapes, which were compared; `out` is borrowed
        // exclusively.
        unsafe {
            if let (Some(a), Some(b)) = (a_wide, b.host::<f32>()) {
                product::product(false, out, [a, matrix(b, &factors[1], turned[1])], [m, n, k]);
                return true;
            }
            let unit = Unit::available().get(unit).copied();
            let (Some(unit), Some(a), Some(data)) = (unit, left, b.host::<half::bf16>()) else {
                return false;
            };
            let b = matrix(data, &b, turned[1]);
            bf16::product(unit, false, out, (a, b), [m, n, k]);
        }
        true
    }
}
