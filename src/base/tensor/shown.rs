//! Tensors as `{:?}` has them: dtype, shape and the first values, whatever the size.

use crate::base::host::{HostRef, each_dtype};
use crate::base::tensor::memory::Shared;
use crate::base::tensor::owned::Tensor;
use crate::base::tensor::view::{TensorMut, TensorRef};
use std::fmt;

/// How many values are shown.
const VALUES: usize = 8;

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("Tensor", self.view(), f)
    }
}

impl fmt::Debug for TensorRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("TensorRef", *self, f)
    }
}

impl fmt::Debug for TensorMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("TensorMut", self.as_ref(), f)
    }
}

fn show(name: &str, tensor: TensorRef<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut fields = f.debug_struct(name);
    fields.field("dtype", &format_args!("{}", tensor.dtype()));
    fields.field("shape", &tensor.shape());
    if tensor.row_stride() != tensor.layout.row() {
        fields.field("row_stride", &tensor.row_stride());
    }
    match tensor.memory {
        Shared::Host(host) => fields.field("values", &Values { host, tensor }),
        // To read it would be to wait for the device.
        Shared::Device(_) => fields.field("values", &format_args!("in device memory")),
    };
    fields.finish()
}

/// The first values in order, padding left out.
struct Values<'a> {
    host: HostRef<'a>,
    tensor: TensorRef<'a>,
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Values { host, tensor } = self;
        let (row, all) = (tensor.layout.row().max(1), tensor.elements());
        let at = |i: usize| (i / row) * tensor.row_stride() + i % row;
        let mut values = f.debug_list();
        let shown = 0..all.min(VALUES);
        each_dtype!(HostRef, host, s => values.entries(shown.map(|i| &s[at(i)])));
        if all > VALUES {
            values.entry(&format_args!("… {} more", all - VALUES));
        }
        values.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_shows_its_shape_and_a_few_values() {
        let said = |tensor: &dyn fmt::Debug| format!("{tensor:?}");
        let large = Tensor::from_vec((0..1000).collect::<Vec<i32>>(), &[10, 100]).unwrap();
        assert_eq!(
            said(&large),
            "Tensor { dtype: i32, shape: [10, 100], \
             values: [0, 1, 2, 3, 4, 5, 6, 7, … 992 more] }"
        );
        let mut padded = [1.5f32, f32::NAN, 9.0, f32::INFINITY, 2.0];
        let view = TensorRef::with_row_stride(&padded, &[2, 2], 3).unwrap();
        let values = "{ dtype: f32, shape: [2, 2], row_stride: 3, values: [1.5, NaN, inf, 2.0] }";
        assert_eq!(said(&view), format!("TensorRef {values}"));
        let view = TensorMut::with_row_stride(&mut padded, &[2, 2], 3).unwrap();
        assert_eq!(said(&view), format!("TensorMut {values}"));
        assert_eq!(
            said(&TensorRef::scalar(&3u8)),
            "TensorRef { dtype: u8, shape: [], values: [3] }"
        );
        let none: [f32; 0] = [];
        let empty = TensorRef::new(&none, &[7, 0]).unwrap();
        assert_eq!(said(&empty), "TensorRef { dtype: f32, shape: [7, 0], values: [] }");
    }
}
