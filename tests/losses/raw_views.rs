//! Memory that comes untyped and goes back: views of bytes and addresses, copies of what no view
//! can have, vectors lent and returned.

use crate::harness::devices;
use warploss::{CrossEntropy, DType, Device, Error, Tensor, TensorMut, TensorRef, bf16, f16};

/// Numbers at an address that every dtype can have.
#[repr(align(8))]
struct Aligned([u8; 96]);

fn counted() -> Aligned {
    Aligned(std::array::from_fn(|i| i as u8))
}

fn said<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
    refused.expect_err("refused").to_string()
}

#[test]
fn bytes_are_every_dtype() {
    let mut bytes = counted();
    for dtype in DType::ALL {
        let n = 96 / dtype.size();
        let lent = TensorRef::from_bytes(dtype, &bytes.0, &[n], None).expect("aligned");
        let copy = Tensor::copy_bytes(dtype, &bytes.0, &[n], None).expect("a copy");
        assert_eq!((lent.dtype(), lent.elements()), (dtype, n));
        let (lent, copy) = (lent.to_f64().expect("host"), copy.view().to_f64().expect("host"));
        // NaN has bits too.
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&lent), bits(&copy));
        let written = TensorMut::from_bytes(dtype, &mut bytes.0, &[n], None).expect("aligned");
        assert_eq!((written.dtype(), written.elements()), (dtype, n));
    }
    let bits = u32::from_ne_bytes([4, 5, 6, 7]);
    let view = TensorRef::from_bytes(DType::U32, &bytes.0, &[2], None).expect("aligned");
    assert_eq!(view.host::<u32>().map(|s| s[1]), Some(bits));
}

#[test]
fn bytes_that_are_too_few_or_not_aligned_are_refused() {
    let mut bytes = counted();
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.size() > 1) {
        let size = dtype.size();
        for offset in 1..size {
            let shifted = &mut bytes.0[offset..offset + 2 * size];
            let expected = format!("data: expected an address that is a multiple of {size}");
            let shared = said(TensorRef::from_bytes(dtype, shifted, &[2], None));
            assert!(shared.starts_with(&expected), "{shared}");
            assert!(shared.contains("copy_bytes"), "{shared}");
            let exclusive = said(TensorMut::from_bytes(dtype, shifted, &[2], None));
            assert_eq!(exclusive, shared);
            assert!(Tensor::copy_bytes(dtype, shifted, &[2], None).is_ok());
            // Of nothing every address is right.
            assert!(TensorRef::from_bytes(dtype, shifted, &[0, 2], None).is_ok());
            // SAFETY: no elements are named, and none is read where the address is refused.
            unsafe {
                assert!(TensorRef::from_raw_parts(dtype, shifted.as_ptr(), &[0], None).is_ok());
                assert!(TensorRef::from_raw_parts(dtype, shifted.as_ptr(), &[1], None).is_err());
            }
        }
        let short = &mut bytes.0[..3 * size - 1];
        let length = |error| matches!(error, Err(Error::Length { expected: 3, got: 2, .. }));
        assert!(length(TensorRef::from_bytes(dtype, short, &[3], None).map(|_| ())));
        assert!(length(TensorMut::from_bytes(dtype, short, &[3], None).map(|_| ())));
        let copy = said(Tensor::copy_bytes(dtype, short, &[3], None));
        assert!(copy.contains("elements 0 to 2 of shape [3] in the 2 given"), "{copy}");
    }
}

#[test]
fn nothing_may_lie_at_null() {
    let null = std::ptr::null_mut();
    for dtype in DType::ALL {
        for shape in [&[0][..], &[3, 0], &[0, 3], &[0, 1 << 40]] {
            // SAFETY: no elements are named.
            unsafe {
                let shared = TensorRef::from_raw_parts(dtype, null, shape, None);
                assert_eq!(shared.expect("empty").elements(), 0);
                let exclusive = TensorMut::from_raw_parts(dtype, null, shape, None);
                assert_eq!(exclusive.expect("empty").elements(), 0);
                assert!(Tensor::copy_raw_parts(dtype, null, shape, None).is_ok());
            }
        }
        for shape in [&[][..], &[1], &[2, 3]] {
            // SAFETY: null is refused.
            unsafe {
                assert!(said(TensorRef::from_raw_parts(dtype, null, shape, None)).contains("null"));
                assert!(said(TensorMut::from_raw_parts(dtype, null, shape, None)).contains("null"));
                assert!(said(Tensor::copy_raw_parts(dtype, null, shape, None)).contains("null"));
            }
        }
    }
}

/// Shape, strides, and the row stride that a view of them has, or none.
type Strides = (&'static [usize], &'static [isize], Option<usize>);

const STRIDES: &[Strides] = &[
    (&[], &[], Some(1)),
    (&[4], &[1], Some(1)),
    (&[4], &[5], Some(5)),
    (&[3, 4], &[4, 1], Some(4)),
    (&[3, 4], &[7, 1], Some(7)),
    (&[2, 3, 2], &[10, 2, 1], Some(10)),
    // Where there is one index, its distance means nothing.
    (&[1, 4], &[-9, 1], Some(4)),
    (&[3, 1], &[2, 0], Some(2)),
    (&[2, 1, 4], &[4, 77, 1], Some(4)),
    // Where there are no elements, no distance does.
    (&[0, 4], &[-1, 0], Some(4)),
    (&[3, 0], &[0, -7], Some(0)),
    // Rows that overlap, repeat, or go backwards; elements of a row that lie apart.
    (&[3, 4], &[3, 1], None),
    (&[3, 4], &[0, 1], None),
    (&[4], &[0], None),
    (&[3, 4], &[-4, 1], None),
    (&[4], &[-1], None),
    (&[3, 4], &[1, 3], None),
    (&[3, 4], &[8, 2], None),
    (&[3, 4], &[4, 0], None),
    (&[3, 4], &[4, -1], None),
    (&[2, 2, 3], &[9, 4, 1], None),
];

#[test]
fn a_view_has_rows_in_one_piece_and_a_copy_has_any() {
    let mut data: Vec<f32> = (0..64).map(|i| i as f32).collect();
    for &(shape, strides, row_stride) in STRIDES {
        let case = format!("{shape:?} {strides:?}");
        let shared = TensorRef::with_strides(&data, shape, strides).map(|view| view.row_stride());
        // SAFETY: no element of these layouts lies beyond 32 elements from the middle, and the
        // views end before `data` is used otherwise.
        let raw = unsafe {
            let middle = data.as_ptr().add(32).cast();
            TensorRef::from_raw_parts(DType::F32, middle, shape, Some(strides))
                .map(|view| view.row_stride())
        };
        let exclusive =
            TensorMut::with_strides(&mut data, shape, strides).map(|view| view.row_stride());
        assert_eq!((&shared, &shared), (&exclusive, &raw), "{case}");
        match row_stride {
            Some(_) => assert_eq!(shared.ok(), row_stride, "{case}"),
            None => {
                let said = said(shared);
                assert!(said.starts_with("strides: expected ["), "{said}");
                assert!(said.ends_with(&format!("got {strides:?}")), "{said}");
                assert!(said.contains("copy_strided"), "{said}");
            }
        }

        let expected = gathered(32, shape, strides);
        // SAFETY: as above.
        let copy = unsafe {
            let middle = data.as_ptr().add(32).cast();
            Tensor::copy_raw_parts(DType::F32, middle, shape, Some(strides)).expect("a copy")
        };
        assert_eq!((&*copy.shape(), copy.as_slice()), (shape, Some(&expected[..])), "{case}");
        let backwards = strides.iter().zip(shape).any(|(&stride, &n)| stride < 0 && n > 1);
        let safe = Tensor::copy_strided(&data[32..], shape, strides);
        match backwards && !shape.contains(&0) {
            true => assert!(said(safe).contains("elements -"), "{case}"),
            false => assert_eq!(safe, Ok(copy), "{case}"),
        }
    }
}

/// The numbers of `0, 1, 2, …` that a layout names from `first` on.
fn gathered(first: isize, shape: &[usize], strides: &[isize]) -> Vec<f32> {
    let offsets = shape.iter().zip(strides).fold(vec![first], |offsets, (&n, &stride)| {
        let steps = |offset: isize| (0..n as isize).map(move |i| offset + i * stride);
        offsets.into_iter().flat_map(steps).collect()
    });
    offsets.into_iter().map(|offset| offset as f32).collect()
}

#[test]
fn copies_of_unaligned_elements_have_their_bits() {
    let bytes = counted();
    for start in 0..8 {
        let copy = Tensor::copy_bytes(DType::F16, &bytes.0[start..], &[3, 2], Some(&[1, 4]));
        let copy = copy.expect("12 bytes and more").into_vec::<f16>().expect("f16");
        let bits: Vec<u16> = copy.iter().map(|v| v.to_bits()).collect();
        let at = |i: usize| u16::from_ne_bytes([(start + 2 * i) as u8, (start + 2 * i + 1) as u8]);
        assert_eq!(bits, [0, 4, 1, 5, 2, 6].map(at));
    }
}

#[test]
fn strides_beyond_the_address_space_are_refused() {
    let mut data = [0f32; 4];
    let address = data.as_mut_ptr().cast::<u8>();
    let most = isize::MAX;
    let cases: &[(&[usize], &[isize])] = &[
        (&[3, 1], &[most, 1]),
        (&[2, 1], &[most, 1]),
        (&[2, 1], &[most / 4, 1]),
        (&[2, 2], &[isize::MIN, 1]),
        (&[usize::MAX, 1], &[1, 1]),
        (&[1 << 61], &[1]),
        (&[1 << 32, 1 << 32], &[1, 1]),
        (&[2, 2, 2], &[most / 8, most / 8, most / 8]),
        (&[1 << 40, 1 << 40, 0], &[0, 0, 0]),
        (&[2], &[1, 1]),
        (&[2, 2], &[]),
        (&[1; 9], &[1; 9]),
    ];
    for &(shape, strides) in cases {
        assert!(TensorRef::with_strides(&data, shape, strides).is_err(), "{shape:?} {strides:?}");
        assert!(TensorMut::with_strides(&mut data, shape, strides).is_err());
        assert!(Tensor::copy_strided(&data, shape, strides).is_err());
        // SAFETY: all of these are refused before any memory is looked at.
        unsafe {
            assert!(TensorRef::from_raw_parts(DType::F32, address, shape, Some(strides)).is_err());
            assert!(TensorMut::from_raw_parts(DType::F32, address, shape, Some(strides)).is_err());
            assert!(Tensor::copy_raw_parts(DType::F32, address, shape, Some(strides)).is_err());
        }
    }
    // A number repeated more often than memory has room for.
    let repeated = Tensor::copy_strided(&data, &[1 << 61], &[0]);
    assert!(matches!(repeated, Err(Error::OutOfMemory { .. })), "{repeated:?}");
}

#[test]
fn zeros_are_zeros_and_too_many_are_refused() {
    for dtype in DType::ALL {
        let mut zeros = Tensor::zeros(dtype, &[2, 3]).expect("six numbers");
        assert_eq!((zeros.dtype(), &*zeros.shape()), (dtype, &[2, 3][..]));
        assert_eq!(zeros.view().to_f64(), Ok(vec![0.0; 6]));
        assert_eq!(TensorRef::from(&zeros), zeros.view());
        assert_eq!(TensorMut::from(&mut zeros).elements(), 6);
        assert_eq!(Tensor::zeros(dtype, &[0, 3]).map(|t| t.view().elements()), Ok(0));
    }
    for huge in [&[usize::MAX][..], &[1 << 40, 1 << 40], &[isize::MAX as usize]] {
        let refused = Tensor::zeros(DType::F32, huge);
        assert!(matches!(refused, Err(Error::OutOfMemory { .. })), "{refused:?}");
    }
    assert!(matches!(Tensor::zeros(DType::F32, &[1; 9]), Err(Error::Rank { got: 9, .. })));
}

#[test]
fn memory_given_comes_back() {
    let logits = vec![2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0];
    let address = logits.as_ptr();
    let logits = Tensor::from_vec(logits, &[2, 3]).expect("six numbers");
    let target = TensorRef::new(&[0i64, 1], &[2]).expect("two rows");
    let result = CrossEntropy::default().forward_backward(&Device::cpu(), logits, target, 1.0);
    let mut grad = result.expect("legal").grad_logits;
    assert_eq!(grad.as_mut_slice::<f32>().map(|grad| grad.as_ptr()), Some(address));
    assert_eq!(grad.as_mut_slice::<bf16>(), None);
    let grad = grad.into_vec::<f32>().expect("the logits' memory");
    assert_eq!((grad.as_ptr(), grad.len()), (address, 6));
}

#[test]
fn a_tensor_elsewhere_or_of_another_type_is_no_vector_and_is_not_lost() {
    let labels = Tensor::from_vec(vec![3i64, 1], &[2]).expect("two");
    let wrong = said(labels.clone().into_vec::<i32>());
    assert_eq!(wrong, "tensor: expected dtype i32 (as asked for), got i64");
    let labels = Vec::<f32>::try_from(labels).expect_err("they are i64");
    assert_eq!(Vec::try_from(labels), Ok(vec![3i64, 1]));
    for (_, device) in devices() {
        let view = TensorRef::new(&[1.0f32, 2.0], &[2]).expect("two");
        let mut uploaded = device.upload(view).expect("memory");
        if uploaded.is_on_device() {
            assert_eq!(uploaded.as_mut_slice::<f32>(), None);
            assert!(format!("{uploaded:?}").ends_with("values: in device memory }"));
            let refused = said(uploaded.clone().into_vec::<f32>());
            assert_eq!(refused, "tensor: expected host memory, got device memory");
            uploaded = Vec::<f32>::try_from(uploaded).expect_err("not on the host");
            uploaded = uploaded.to_host().expect("a copy");
        }
        assert_eq!(uploaded.into_vec(), Ok(vec![1.0f32, 2.0]));
    }
}

#[test]
fn a_number_is_a_tensor() {
    let (logits, target) = ([2.0f32, 1.0, 0.1], 1i64);
    let logits = TensorRef::new(&logits, &[3]).expect("three");
    let (mut loss, device) = (f32::NAN, Device::cpu());
    let out = warploss::CrossEntropyOut::loss(TensorMut::scalar(&mut loss));
    let options = CrossEntropy::default();
    options.forward_into(&device, logits, TensorRef::scalar(&target), out).expect("legal");
    let allocated = options.forward(&device, logits, TensorRef::scalar(&target)).expect("legal");
    assert_eq!(allocated.loss.item(), Ok(loss));
    assert_eq!(TensorRef::scalar(&loss), TensorRef::new(std::slice::from_ref(&loss), &[]).unwrap());
}
