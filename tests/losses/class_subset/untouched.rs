//! Rows of the classifier, and logits, that nobody lists.

use super::{CLASSES, Data, FEATURES, ROWS, ids, loss, near, upstream};
use crate::adaptive_log_softmax::{floats, values};
use crate::harness::devices;
use warploss::{
    ClassSubset, CrossEntropy, CrossEntropyOut, DType, LinearGradOut, LinearInput, Reduction,
    SubsetCrossEntropy, SubsetInput, Tensor,
};

/// Every third class, which all targets are.
fn listed() -> Vec<i64> {
    (0..CLASSES as i64).step_by(3).collect()
}

fn targets() -> Tensor {
    let listed = listed();
    ids((0..ROWS).map(|row| listed[row * 5 % listed.len()]).collect(), &[ROWS])
}

/// The same with NaN in what is not listed.
fn broken(of: &Tensor, each: usize) -> Tensor {
    let mut all = values(of);
    for (class, row) in all.chunks_exact_mut(each).enumerate() {
        if class % 3 != 0 {
            row.fill(f64::NAN);
        }
    }
    floats(of.dtype(), &of.shape(), &all)
}

#[test]
fn rows_of_the_classifier_that_nobody_lists_are_neither_read_nor_written() {
    let (lists, target) = (ids(listed(), &[listed().len()]), targets());
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let data = Data::new(dtype);
        let (w, b) = (broken(&data.w, FEATURES), broken(&data.b, 1));
        for (name, device) in devices() {
            let go = |w: &Tensor, b: &Tensor, accumulate: bool, before: f64| {
                let input = LinearInput::new(data.x.view(), w.view(), target.view())
                    .linear_bias(b.view())
                    .subset(ClassSubset::shared(lists.view()));
                let full = |of: &Tensor| {
                    let n = of.view().elements();
                    floats(dtype, &of.shape(), &vec![before; n])
                };
                let [mut dx, mut dw, mut db] = [full(&data.x), full(w), full(b)];
                let mut one = floats(DType::F32, &[], &[0.0]);
                let gradients = LinearGradOut {
                    input: Some(dx.view_mut()),
                    linear_weight: Some(dw.view_mut()),
                    linear_bias: Some(db.view_mut()),
                    accumulate,
                    ..LinearGradOut::default()
                };
                let out = CrossEntropyOut::loss(one.view_mut());
                loss(Reduction::Mean)
                    .forward_backward_into(device, &input, upstream(), gradients, out)
                    .unwrap();
                [one, dx, dw, db]
            };
            let sound = go(&data.w, &data.b, false, 7.0);
            for (got, sound) in go(&w, &b, false, 7.0).iter().zip(&sound) {
                assert_eq!(values(got), values(sound), "{name}, {dtype}");
            }
            // A number that nothing but memory could give back.
            let grown = go(&w, &b, true, 0.40625);
            for ((grown, of), each) in grown[2..].iter().zip(&sound[2..]).zip([FEATURES, 1]) {
                for (class, (grown, of)) in
                    values(grown).chunks(each).zip(values(of).chunks(each)).enumerate()
                {
                    if class % 3 != 0 {
                        assert!(of.iter().all(|&v| v == 0.0), "{name}, {dtype}: {of:?}");
                        assert!(grown.iter().all(|&v| v == 0.40625), "{name}, {dtype}: {grown:?}");
                    }
                }
                let sums: Vec<f64> = values(of).iter().map(|v| v + 0.40625).collect();
                near(name, grown, &floats(dtype, &of.shape(), &sums));
            }
        }
    }
}

#[test]
fn logits_that_nobody_lists_are_not_read_and_have_no_gradient() {
    let (lists, target) = (ids(listed(), &[listed().len()]), targets());
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let all: Vec<f64> = super::whole(9, ROWS * CLASSES);
        let sound = floats(dtype, &[ROWS, CLASSES], &all);
        let few: Vec<f64> =
            all.chunks(CLASSES).flat_map(|row| row.iter().copied().step_by(3)).collect();
        let few = floats(dtype, &[ROWS, listed().len()], &few);
        let turned: Vec<f64> = all
            .iter()
            .enumerate()
            .map(|(i, v)| if (i % CLASSES).is_multiple_of(3) { *v } else { f64::NAN })
            .collect();
        let with_nan = floats(dtype, &[ROWS, CLASSES], &turned);
        let options = CrossEntropy::default().logit_scale(0.5).lse_square_scale(0.01);
        for (name, device) in devices() {
            let go = |logits: &Tensor| {
                let subset = ClassSubset::shared(lists.view());
                let input = SubsetInput::new(logits.view(), target.view(), subset);
                let loss = SubsetCrossEntropy::from(options.clone());
                loss.forward_backward(device, &input, 1.5).unwrap()
            };
            let (got, expected) = (go(&with_nan), go(&sound));
            assert_eq!(values(&got.output.loss), values(&expected.output.loss), "{name}, {dtype}");
            assert_eq!(values(&got.logits), values(&expected.logits), "{name}, {dtype}");
            // The loss over logits that are the listed ones alone.
            let places = ids(values(&target).iter().map(|&t| t as i64 / 3).collect(), &[ROWS]);
            let of_few = options.forward_backward(device, few.clone(), places.view(), 1.5).unwrap();
            near(name, &got.output.loss, &of_few.output.loss);
            let mut wide = vec![0.0; ROWS * CLASSES];
            for (row, few) in values(&of_few.grad_logits).chunks(listed().len()).enumerate() {
                few.iter().enumerate().for_each(|(i, g)| wide[row * CLASSES + 3 * i] = *g);
            }
            near(name, &got.logits, &floats(dtype, &[ROWS, CLASSES], &wide));
            let zeros = values(&got.logits)
                .into_iter()
                .enumerate()
                .filter(|(i, _)| !(i % CLASSES).is_multiple_of(3));
            zeros.for_each(|(i, v)| assert_eq!(v, 0.0, "{name}, {dtype}: {i}"));
        }
    }
}
