//! Targets that are not listed.

use super::{CLASSES, Data, ROWS, ids, loss, near, some, upstream};
use crate::adaptive_log_softmax::values;
use crate::harness::devices;
use crate::linear_cross_entropy::{bits, everything};
use warploss::{ClassSubset, DType, LinearInput, MissingTarget, Reduction, Tensor};

const K: usize = 8;

/// Lists of which every other has not got its row's target.
fn without() -> Vec<i64> {
    let mut list = some(K);
    for (row, ids) in list.chunks_exact_mut(K).enumerate().filter(|(row, _)| row % 2 == 1) {
        let target = (row * 31 % CLASSES) as i64;
        ids.iter_mut()
            .filter(|id| **id == target)
            .for_each(|id| *id = (target + 1) % CLASSES as i64);
    }
    list
}

#[test]
fn what_is_not_listed_is_appended() {
    let data = Data::new(DType::F32);
    let short = ids(without(), &[ROWS, K]);
    let longer = without()
        .chunks_exact(K)
        .enumerate()
        .flat_map(|(row, list)| [list, &[(row * 31 % CLASSES) as i64]].concat())
        .collect();
    let longer = ids(longer, &[ROWS, K + 1]);
    for (name, device) in devices() {
        let go = |ids: &Tensor, missing| {
            let subset = ClassSubset::per_row(ids.view(), None).missing_target(missing);
            let input = data.input().subset(subset);
            everything(device, &loss(Reduction::Mean), &input, upstream(), (false, 5))
        };
        let expected = go(&longer, MissingTarget::Error);
        for ((what, got), (_, expected)) in go(&short, MissingTarget::Append).iter().zip(&expected)
        {
            assert_eq!(bits(got), bits(expected), "{name}: {what}");
        }
    }
}

#[test]
fn a_row_without_its_target_is_ignored_where_that_is_asked_for() {
    let data = Data::new(DType::BF16);
    let short = ids(without(), &[ROWS, K]);
    let odd =
        |row: usize| if row % 2 == 1 || row == 5 { -100 } else { (row * 31 % CLASSES) as i64 };
    let ignored = ids((0..ROWS).map(odd).collect(), &[ROWS]);
    for (name, device) in devices() {
        let go = |input: LinearInput<'_>, missing| {
            let subset = ClassSubset::per_row(short.view(), None).missing_target(missing);
            let input = input.subset(subset);
            everything(device, &loss(Reduction::Mean), &input, upstream(), (false, 5))
        };
        let marked = LinearInput { target: ignored.view(), ..data.input() };
        let expected = go(marked, MissingTarget::Error);
        let got = go(data.input(), MissingTarget::Ignore);
        for ((what, got), (_, expected)) in got.iter().zip(&expected) {
            assert_eq!(bits(got), bits(expected), "{name}: {what}");
        }
        let lse = &got.iter().find(|(what, _)| *what == "lse").unwrap().1;
        assert_eq!(values(lse)[1], 0.0, "{name}");
    }
}

#[test]
fn one_class_is_certain_and_nothing_is_left_of_a_batch_that_is_ignored() {
    let data = Data::new(DType::F32);
    let none = ids(vec![-1; ROWS * 2], &[ROWS, 2]);
    for (name, device) in devices() {
        let go = |missing| {
            let subset = ClassSubset::per_row(none.view(), None).missing_target(missing);
            let input = LinearInput::new(data.x.view(), data.w.view(), data.target.view());
            let loss: warploss::LinearCrossEntropy<'_> = warploss::CrossEntropy::default().into();
            loss.forward_backward(device, &input.subset(subset), 1.0).unwrap()
        };
        let alone = go(MissingTarget::Append);
        assert_eq!(alone.output.loss.item().unwrap(), 0.0, "{name}");
        near(name, &alone.input, &Tensor::from_vec(vec![0f32; ROWS * 6], &[ROWS, 6]).unwrap());
        let ignored = go(MissingTarget::Ignore);
        assert!(ignored.output.loss.item().unwrap().is_nan(), "{name}");
        assert!(values(&ignored.linear_weight).iter().all(|&v| v == 0.0), "{name}");
    }
}
