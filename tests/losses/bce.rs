//! What the input of binary cross entropy has to be: probabilities.

use crate::data::FLOATS;
use crate::harness::devices;
use warploss::{
    Bce, DType, ElementwiseGradOut, Reduction, Tensor, TensorMut, TensorRef, bf16, f16,
};

/// On emulated cards several blocks of host memory.
const SHAPE: [usize; 2] = [7, 4999];

fn of_type(dtype: DType, values: &[f32]) -> Tensor {
    match dtype {
        DType::F16 => {
            let values = values.iter().map(|&v| f16::from_f32(v)).collect();
            Tensor::from_vec::<f16>(values, &SHAPE)
        }
        DType::BF16 => {
            let values = values.iter().map(|&v| bf16::from_f32(v)).collect();
            Tensor::from_vec::<bf16>(values, &SHAPE)
        }
        _ => Tensor::from_vec(values.to_vec(), &SHAPE),
    }
    .unwrap()
}

/// Probabilities, 0 and 1 among them.
fn probabilities() -> Vec<f32> {
    (0..SHAPE.iter().product::<usize>()).map(|i| (i % 9) as f32 / 8.0).collect()
}

#[test]
fn an_input_outside_of_0_and_1_is_named_and_nothing_is_written() {
    let target = probabilities();
    for (name, device) in devices() {
        for (dtype, outside, first) in
            [(FLOATS[0], -0.25, 17_003), (FLOATS[1], 1.5, 0), (FLOATS[2], f32::INFINITY, 30_001)]
        {
            let mut input = probabilities();
            input[first] = outside;
            if let Some(later) = input.get_mut(first + 4000) {
                *later = -2.0;
            }
            let (input, target) = (of_type(dtype, &input), of_type(dtype, &target));
            let says = format!("input: expected numbers in [0, 1], got {outside} at {first}");
            let (mut value, mut grad) = ([7f32], of_type(dtype, &vec![7.0; SHAPE[0] * SHAPE[1]]));
            let loss = Bce::default();
            let out = TensorMut::new(&mut value, &[]).unwrap();
            let error = loss.forward_into(device, input.view(), target.view(), out).unwrap_err();
            assert_eq!(error.to_string(), says, "{name}");
            let grads =
                ElementwiseGradOut { grad_input: Some(grad.view_mut()), ..Default::default() };
            let call = loss.backward_into(device, input.view(), target.view(), 1.0, grads);
            assert_eq!(call.unwrap_err().to_string(), says, "{name}");
            let mut consumed = input.clone();
            let out = TensorMut::new(&mut value, &[]).unwrap();
            let view = consumed.view_mut();
            let call = loss.forward_backward_in_place(device, view, target.view(), 1.0, out);
            assert_eq!(call.unwrap_err().to_string(), says, "{name}");
            assert_eq!((value, &consumed), ([7.0], &input), "{name}");
            assert!(grad.view().to_f64().unwrap().iter().all(|&g| g == 7.0), "{name}");

            // On the device nobody waits: the error comes where the result is read, once.
            if name.starts_with("cpu") {
                continue;
            }
            let [x, y] = [&input, &target].map(|t| device.upload(t.view()).unwrap());
            let value = loss.forward(device, x.view(), y.view()).unwrap();
            assert_eq!(value.to_host().unwrap_err().to_string(), says, "{name}, resident");
            let mut x = x;
            let mut value = device.upload(TensorRef::new(&[7f32], &[]).unwrap()).unwrap();
            let (view, out) = (x.view_mut(), value.view_mut());
            loss.forward_backward_in_place(device, view, y.view(), 1.0, out).unwrap();
            assert_eq!(x.to_host().unwrap_err().to_string(), says, "{name}, resident in place");
            let fine = loss.forward(device, y.view(), y.view()).unwrap();
            assert!(fine.to_host().is_ok(), "{name}");
        }
    }
}

#[test]
fn nan_makes_nan_of_its_own_element_alone() {
    for (name, device) in devices() {
        let loss = Bce::default().reduction(Reduction::None);
        let (input, target) = ([0.5f32, f32::NAN, 1.0, -0.0], [1.0f32, 1.0, 1.0, 0.0]);
        let [x, t] = [&input, &target].map(|data| TensorRef::new(data, &[4]).unwrap());
        let got = loss.forward(device, x, t).unwrap().view().to_f64().unwrap();
        let nan: Vec<bool> = got.iter().map(|v| v.is_nan()).collect();
        assert_eq!(nan, [false, true, false, false], "{name}: {got:?}");
    }
}
