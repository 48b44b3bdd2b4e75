//! What is refused, in words that name row and place; nothing is written then.

use super::{Data, ROWS, ids, some};
use crate::adaptive_log_softmax::{floats, values};
use crate::harness::devices;
use warploss::{
    ClassSubset, CrossEntropy, CrossEntropyOut, DType, Device, Error, LinearCrossEntropy,
    LinearGradOut, LinearInput, LinearPath, MissingTarget, Tensor,
};

const K: usize = 6;

/// An error's words, of a call that leaves all memory as it was.
#[track_caller]
fn refused(
    device: &Device,
    (loss, input): (&LinearCrossEntropy<'_>, &LinearInput<'_>),
    words: &[&str],
) {
    let mut one = floats(DType::F32, &[], &[77.0]);
    let w = input.linear_weight;
    let mut dw = floats(w.dtype(), &w.shape(), &vec![77.0; w.elements()]);
    let out = CrossEntropyOut::loss(one.view_mut());
    let gradients =
        LinearGradOut { linear_weight: Some(dw.view_mut()), ..LinearGradOut::default() };
    let result = loss.forward_backward_into(device, input, 1.0, gradients, out);
    let text = result.map_err(|error: Error| error.to_string()).expect_err(words[0]);
    for word in words {
        assert!(text.contains(word), "{text:?} has no {word:?}");
    }
    assert!(values(&one).iter().chain(&values(&dw)).all(|&v| v == 77.0), "{text}");
}

#[test]
fn lists_are_refused_with_row_and_place() {
    let data = Data::new(DType::F32);
    let loss = LinearCrossEntropy::default();
    let with = |changes: &[(usize, i64)]| {
        let mut list = some(K);
        changes.iter().for_each(|&(at, id)| list[at] = id);
        ids(list, &[ROWS, K])
    };
    let counts = |row: usize, count: i64| {
        let mut counts = vec![K as i64; ROWS];
        counts[row] = count;
        ids(counts, &[ROWS])
    };
    for (_, device) in devices() {
        let go = |ids: &Tensor, counts: Option<&Tensor>, words: &[&str]| {
            let subset = ClassSubset::per_row(ids.view(), counts.map(Tensor::view));
            refused(device, (&loss, &data.input().subset(subset)), words);
        };
        // The first of several, and not the one in the ignored row.
        let bad = with(&[(5 * K, 99), (9 * K + 2, 47), (9 * K + 4, -7), (12 * K, 1 << 40)]);
        go(&bad, None, &["ids", "[0, 47), or -1", "47 at row 9, place 2"]);
        let bad = with(&[(3 * K + 1, -2)]);
        go(&bad, None, &["ids", "-2 at row 3, place 1"]);
        let empty: Vec<(usize, i64)> = (0..K).map(|place| (7 * K + place, -1)).collect();
        go(&with(&empty), None, &["ids", "at least one class", "none at row 7"]);
        let target = (4 * 31 % 47) as i64;
        let list = some(K);
        let there = (0..K).filter(|place| list[4 * K + place] == target);
        let changes: Vec<_> = there.map(|place| (4 * K + place, -1)).collect();
        go(&with(&changes), None, &["target", "30 at row 4, which is not listed"]);
        go(&with(&[]), Some(&counts(8, 7)), &["counts", "[0, 6]", "7 at row 8"]);
        go(&with(&[]), Some(&counts(8, -1)), &["counts", "-1 at row 8"]);
        go(&with(&[]), Some(&counts(8, 0)), &["ids", "none at row 8"]);
    }
}

#[test]
fn shapes_dtypes_and_options_are_refused_by_name() {
    let data = Data::new(DType::F32);
    let (list, plain) = (ids(some(K), &[ROWS, K]), LinearCrossEntropy::default());
    let floats_of = floats(DType::F32, &[ROWS, K], &vec![0.0; ROWS * K]);
    let (flat, few) = (ids(vec![1; K], &[K]), ids(vec![1; K * 2], &[2, K]));
    let subset = ClassSubset::per_row(list.view(), None);
    for (_, device) in devices() {
        let go = |loss: &LinearCrossEntropy<'_>, subset: ClassSubset<'_>, words: &[&str]| {
            refused(device, (loss, &data.input().subset(subset)), words);
        };
        go(&plain, ClassSubset::per_row(floats_of.view(), None), &["ids", "i64", "f32"]);
        go(&plain, ClassSubset::per_row(flat.view(), None), &["ids", "[23, K]", "[6]"]);
        go(&plain, ClassSubset::per_row(few.view(), None), &["ids", "[23, K]", "[2, 6]"]);
        go(&plain, ClassSubset::shared(few.view()), &["ids", "[S] (one list", "[2, 6]"]);
        let counts = ids(vec![1; 3], &[3]);
        let counted = ClassSubset::per_row(list.view(), Some(counts.view()));
        go(&plain, counted, &["counts", "[23]", "[3]"]);
        let smooth = CrossEntropy::default().label_smoothing(0.1).into();
        go(&smooth, subset, &["label_smoothing", "0 (over lists of classes)", "0.1"]);
        let weight = floats(DType::F32, &[47], &[1.0; 47]);
        let both = CrossEntropy::default().lse_square_scale(0.5).weight(weight.view()).into();
        go(&both, subset, &["lse_square_scale", "beside class weights", "0.5"]);
        let six = floats(DType::F32, &[6], &[1.0; 6]);
        let short = CrossEntropy::default().weight(six.view()).into();
        go(&short, subset, &["weight", "[47]", "[6]"]);
        let tiled = LinearCrossEntropy::default().path(LinearPath::Tiled);
        go(&tiled, subset, &["path", "auto or chunked", "tiled on lists of classes"]);
        let soft = floats(DType::F32, &[ROWS, K + 1], &vec![0.1; ROWS * (K + 1)]);
        let input = LinearInput { target: soft.view(), ..data.input() };
        let q = floats(DType::F32, &[ROWS, K], &vec![0.1; ROWS * K]);
        let weighted: LinearCrossEntropy<'_> = CrossEntropy::default().weight(weight.view()).into();
        let of_soft = LinearInput { target: q.view(), ..data.input() }.subset(subset);
        refused(
            device,
            (&weighted, &of_soft),
            &["weight", "none (against probabilities of listed"],
        );
        let of = ClassSubset::per_row(list.view(), None).missing_target(MissingTarget::Append);
        refused(device, (&plain, &input.subset(of)), &["target", "[23, 6]", "[23, 7]"]);
    }
}
