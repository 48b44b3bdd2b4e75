//! Cross entropy over lists of classes: the whole where all are listed, and otherwise as if the others were not;
//! what is not listed is neither read nor written.

mod distillation;
mod errors;
mod missing;
mod rest;
mod untouched;

use crate::adaptive_log_softmax::{floats, noise, values};
use crate::harness::{devices, least_of};
use crate::linear_cross_entropy::{Results, bits, everything};
use warploss::{
    ClassSubset, CrossEntropy, CrossEntropyUpstream, DType, LinearCrossEntropy, LinearInput,
    Reduction, Tensor,
};

const ROWS: usize = 23;
const FEATURES: usize = 6;
const CLASSES: usize = 47;

/// Hidden states and a classifier of whole numbers: no product is rounded, and many logits are equal.
pub(crate) struct Data {
    x: Tensor,
    w: Tensor,
    b: Tensor,
    target: Tensor,
    temperature: Tensor,
    row_weight: Tensor,
}

fn whole(seed: u64, n: usize) -> Vec<f64> {
    noise(seed, n).iter().map(|v| (3.0 * v).round()).collect()
}

impl Data {
    fn new(dtype: DType) -> Data {
        let target = (0..ROWS).map(|row| if row == 5 { -100 } else { (row * 31 % CLASSES) as i64 });
        let of = |seed, by: f64| -> Vec<f64> {
            noise(seed, ROWS).iter().map(|v| 2f64.powf((by * v).round())).collect()
        };
        Data {
            x: floats(dtype, &[ROWS, FEATURES], &whole(1, ROWS * FEATURES)),
            w: floats(dtype, &[CLASSES, FEATURES], &whole(2, CLASSES * FEATURES)),
            b: floats(dtype, &[CLASSES], &whole(3, CLASSES)),
            target: Tensor::from_vec(target.collect(), &[ROWS]).unwrap(),
            temperature: floats(DType::F32, &[ROWS], &of(4, 1.0)),
            row_weight: floats(DType::F32, &[ROWS], &of(5, 2.0)),
        }
    }

    fn input(&self) -> LinearInput<'_> {
        LinearInput::new(self.x.view(), self.w.view(), self.target.view())
            .linear_bias(self.b.view())
            .temperature(self.temperature.view())
            .row_weight(self.row_weight.view())
    }
}

fn upstream() -> CrossEntropyUpstream<'static> {
    CrossEntropyUpstream { grad_logprob: 0.3.into(), grad_entropy: (-0.2).into(), ..1.5.into() }
}

fn loss(reduction: Reduction) -> LinearCrossEntropy<'static> {
    CrossEntropy::default()
        .reduction(reduction)
        .logit_scale(0.25)
        .softcap(Some(2.0))
        .lse_square_scale(0.01)
        .into()
}

/// All classes, in an order of their own for each list.
fn shuffled(list: usize) -> Vec<i64> {
    let step = [5, 11, 13, 30][list % 4];
    (0..CLASSES).map(|at| ((at * step + list) % CLASSES) as i64).collect()
}

fn ids(data: Vec<i64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(data, shape).unwrap()
}

/// What a result is off by, of its own size, where it is rounded to this dtype.
fn off(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.0 / 128.0,
        DType::F16 => 1.0 / 1024.0,
        _ => 2e-6,
    }
}

#[track_caller]
fn near(what: &str, got: &Tensor, expected: &Tensor) {
    let largest = values(expected).iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    for (i, (got, wanted)) in values(got).into_iter().zip(values(expected)).enumerate() {
        let far = off(expected.dtype()) * (wanted.abs() + 0.5 * largest) + 1e-6;
        let same = got == wanted || (got.is_nan() && wanted.is_nan());
        assert!(same || (got - wanted).abs() <= far, "{what}[{i}]: {got}, not {wanted} ± {far}");
    }
}

#[test]
fn a_list_of_all_classes_is_the_whole() {
    let per_row = ids((0..ROWS).flat_map(shuffled).collect(), &[ROWS, CLASSES]);
    let shared = ids(shuffled(1), &[CLASSES]);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let data = Data::new(dtype);
        for (name, device) in devices() {
            for reduction in [Reduction::None, Reduction::Mean] {
                let (loss, of) = (loss(reduction), (reduction == Reduction::None, 9));
                let all = everything(device, &loss, &data.input(), upstream(), of);
                for subset in
                    [ClassSubset::per_row(per_row.view(), None), ClassSubset::shared(shared.view())]
                {
                    let input = data.input().subset(subset);
                    let got = everything(device, &loss, &input, upstream(), of);
                    for ((what, got), (_, all)) in got.iter().zip(&all) {
                        let what = format!("{name}, {dtype}, {reduction}: {what}");
                        match got.dtype() {
                            DType::I64 => assert_eq!(values(got), values(all), "{what}"),
                            _ => near(&what, got, all),
                        }
                    }
                }
            }
        }
    }
}

/// Lists of some classes, with the target at a place of its own.
pub(crate) fn some(k: usize) -> Vec<i64> {
    (0..ROWS)
        .flat_map(|row| {
            (0..k).map(move |place| match place == row % k {
                true => (row * 31 % CLASSES) as i64,
                false => ((row * 7 + place * 13) % CLASSES) as i64,
            })
        })
        .collect()
}

#[test]
fn neither_order_nor_repetition_of_ids_changes_a_bit() {
    let (k, data) = (12, Data::new(DType::F32));
    let list = some(k);
    let rows = || list.chunks_exact(k);
    let plain = ids(rows().flat_map(|row| [row, &[-1; 4]].concat()).collect(), &[ROWS, k + 4]);
    let turned = ids(
        rows()
            .flat_map(|row| row.iter().rev().chain(&row[3..7]).copied().collect::<Vec<_>>())
            .collect(),
        &[ROWS, k + 4],
    );
    let mixed = ids(
        rows()
            .flat_map(|row| [&[-1, row[2]], &row[6..], &[-1], &row[..6], &[row[8]]].concat())
            .collect(),
        &[ROWS, k + 4],
    );
    let counted =
        ids(rows().flat_map(|row| [row, &[1 << 40; 4]].concat()).collect(), &[ROWS, k + 4]);
    let counts = ids(vec![k as i64; ROWS], &[ROWS]);
    for (name, device) in devices() {
        let go = |ids: &Tensor, counts: Option<&Tensor>| -> Results {
            let subset = ClassSubset::per_row(ids.view(), counts.map(Tensor::view));
            let input = data.input().subset(subset);
            everything(device, &loss(Reduction::Mean), &input, upstream(), (false, 5))
        };
        let first = go(&plain, None);
        for (ids, counts) in [(&turned, None), (&mixed, None), (&counted, Some(&counts))] {
            for ((what, got), (_, first)) in go(ids, counts).iter().zip(&first) {
                assert_eq!(bits(got), bits(first), "{name}: {what}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others_nor_on_threads() {
    let (k, data) = (9, Data::new(DType::BF16));
    let all = ids(some(k), &[ROWS, k]);
    let one = |of: &Tensor, row: usize| -> Vec<u64> {
        let each = of.view().elements() / ROWS;
        bits(of)[row * each..(row + 1) * each].to_vec()
    };
    let per_row = ["loss", "lse", "logprob", "entropy", "rank", "top_k.classes", "grad_input"];
    let mut first: Option<Results> = None;
    for (name, device) in devices() {
        let input = data.input().subset(ClassSubset::per_row(all.view(), None));
        let got = everything(device, &loss(Reduction::None), &input, upstream(), (true, 5));
        for row in [0, 7, ROWS - 1] {
            let cut = |of: &Tensor, each: usize| {
                let values = values(of)[row * each..][..each].to_vec();
                let shape = if of.shape().len() == 1 { vec![1] } else { vec![1, each] };
                match of.dtype() {
                    DType::I64 => ids(values.iter().map(|&v| v as i64).collect(), &shape),
                    dtype => floats(dtype, &shape, &values),
                }
            };
            let parts = [
                cut(&data.x, FEATURES),
                cut(&data.target, 1),
                cut(&data.temperature, 1),
                cut(&data.row_weight, 1),
                cut(&all, k),
            ];
            let [x, target, temperature, weight, list] = parts.each_ref().map(Tensor::view);
            let alone = LinearInput::new(x, data.w.view(), target)
                .linear_bias(data.b.view())
                .temperature(temperature)
                .row_weight(weight)
                .subset(ClassSubset::per_row(list, None));
            let alone = everything(device, &loss(Reduction::None), &alone, upstream(), (true, 5));
            for ((what, alone), (_, got)) in
                alone.iter().zip(&got).filter(|((what, _), _)| per_row.contains(what))
            {
                assert_eq!(bits(alone), one(got, row), "{name}: {what} of row {row}");
            }
        }
        if name.starts_with("cpu") {
            let first = first.get_or_insert_with(|| got.clone());
            for ((what, got), (_, first)) in got.iter().zip(first.iter()) {
                assert_eq!(bits(got), bits(first), "{name}: {what}");
            }
        }
    }
}

/// A call's budget is an error if it is too small, and the least that is named does.
#[test]
fn the_least_budget_does() {
    let (k, data) = (9, Data::new(DType::F32));
    let all = ids(some(k), &[ROWS, k]);
    let input = data.input().subset(ClassSubset::per_row(all.view(), None));
    for (name, device) in devices() {
        let go = |bytes| {
            let loss = loss(Reduction::Mean).max_workspace_bytes(bytes);
            loss.forward_backward(device, &input, 1.0).map(|_| loss)
        };
        let least = least_of(&go(100).unwrap_err());
        assert!(go(least - 1).is_err(), "{name}");
        let loss = go(least).unwrap_or_else(|error| panic!("{name}: {error}"));
        let plan = loss.plan(device, &input, true).unwrap();
        assert!(plan.workspace_bytes <= least && plan.chunk_rows == ROWS, "{name}: {plan:?}");
    }
}

#[cfg(feature = "emulator")]
#[test]
fn a_card_takes_no_more_than_was_said() {
    use warploss::emulator::Description;
    let (k, data) = (40, Data::new(DType::BF16));
    let lists = ids(some(k), &[ROWS, k]);
    let device = warploss::Device::emulated(Description::h100(), Some(3)).unwrap();
    let up = |tensor: &Tensor| device.upload(tensor.view()).unwrap();
    let [x, w, target, lists] = [&data.x, &data.w, &data.target, &lists].map(up);
    let subset = ClassSubset::per_row(lists.view(), None);
    let input = LinearInput::new(x.view(), w.view(), target.view()).subset(subset);
    let loss = loss(Reduction::Mean);
    device.trim();
    loss.forward_backward(&device, &input, 1.0).unwrap();
    let (taken, plan) = (device.trim(), loss.plan(&device, &input, true).unwrap());
    assert!(taken > 0 && taken <= plan.workspace_bytes, "{taken} of {plan:?}");
}
