//! Views: what a buffer must hold, and that a view may begin anywhere in it.

use crate::cross_entropy::CrossEntropyCase;
use crate::data::Logits;
use crate::harness::{Case, devices};
use warploss::{CrossEntropyOut, DType, Error, Tensor, TensorMut, TensorRef, f16};

#[test]
fn rows_that_would_overlap_are_refused() {
    let mut data = [0f32; 100];
    for stride in 0..4 {
        let shared = TensorRef::with_row_stride(&data, &[3, 4], stride);
        let said = shared.expect_err("rows of 4 overlap").to_string();
        assert!(said.contains("row_stride") && said.contains("at least 4"), "{said}");
        assert!(matches!(
            TensorMut::with_row_stride(&mut data, &[3, 4], stride),
            Err(Error::Stride { got, .. }) if got == stride
        ));
    }
}

#[test]
fn a_buffer_too_short_is_refused_by_its_numbers() {
    let mut data = [0f32; 21];
    assert!(TensorRef::with_row_stride(&data, &[3, 5], 8).is_ok(), "the last row needs no padding");
    let said = TensorRef::with_row_stride(&data[..20], &[3, 5], 8).expect_err("short").to_string();
    for part in ["[3, 5]", "stride 8", "21", "20"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(matches!(
        TensorMut::new(&mut data, &[2, 11]),
        Err(Error::Length { expected: 22, got: 21, .. })
    ));
    assert!(TensorRef::new::<i64>(&[], &[]).is_err(), "a number needs an element");
}

#[test]
fn sizes_beyond_the_address_space_are_refused() {
    let data = [0f32; 4];
    let huge = usize::MAX / 2 + 1;
    for shape in [&[huge, 2][..], &[2, huge], &[huge, huge], &[1 << 32, 1 << 32, 1 << 32]] {
        assert!(TensorRef::new(&data, shape).is_err(), "{shape:?}");
        // Nothing times a huge size is nothing, or refused; never a panic.
        let _ = TensorRef::new(&data, &[shape, &[0]].concat());
        let _ = TensorRef::new(&data, &[&[0], shape].concat());
    }
    assert!(TensorRef::with_row_stride(&data, &[3, 1], huge).is_err());
    assert!(matches!(TensorRef::new(&data, &[1; 9]), Err(Error::Rank { got: 9, .. })));
}

#[test]
fn an_owned_tensor_has_exactly_its_elements() {
    for n in [0, 5, 7] {
        let said = Tensor::from_vec(vec![1f32; n], &[2, 3]).expect_err("6 elements").to_string();
        assert!(said.contains("[2, 3]"), "{said}");
    }
    assert!(Tensor::from_vec(vec![1f32; 2], &[2]).expect("two").item().is_err());
    assert!(Tensor::from_vec(vec![1i64], &[1]).expect("one").item().is_err());
}

/// Sub-batches begin where they begin: vectors must not count on an alignment.
#[test]
fn a_row_may_begin_at_any_element() {
    let (rows, classes) = (3, 100);
    for (_, device) in devices() {
        for start in 0..20 {
            let case = CrossEntropyCase::random(1, DType::F16, rows, classes, Logits::Normal);
            let expected = case.expected();
            let mut buffer = vec![f16::from_bits(0x7e5a); start + rows * classes + 20];
            for (slot, value) in buffer[start..].iter_mut().zip(case.logits.values()) {
                *slot = f16::from_f64(value);
            }
            let mut loss = [f32::NAN];
            let logits = TensorMut::new(&mut buffer[start..], &[rows, classes]).expect("a view");
            let out = CrossEntropyOut::loss(TensorMut::new(&mut loss, &[]).expect("a number"));
            let (options, target) = (case.options(), case.target.view());
            options.forward_backward_in_place(device, logits, target, 1.0, out).expect("legal");

            let grad = &buffer[start..start + rows * classes];
            let grad: Vec<f64> = grad.iter().map(|g| g.to_f64()).collect();
            for e in &expected {
                let worst = match e.name {
                    "loss" => e.compare(DType::F32, &[loss[0].into()]),
                    "grad_logits" => e.compare(DType::F16, &grad),
                    _ => continue,
                };
                assert!(worst.agrees(), "{} from element {start}: {worst}", e.name);
            }
            let around = buffer[..start].iter().chain(&buffer[start + rows * classes..]);
            assert!(around.into_iter().all(|x| x.to_bits() == 0x7e5a), "written around the rows");
        }
    }
}
