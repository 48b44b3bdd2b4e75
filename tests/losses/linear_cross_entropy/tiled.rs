//! Results of logits that come a tile at a time are those of whole rows of logits, to the bit.

use super::same_bits::{Batch, ROWS};
use super::{Results, bits, floats, results};
use crate::harness::least_of;
use warploss::{
    CrossEntropy, DType, Device, LinearCrossEntropy, LinearInput, LinearPath, Reduction, Tensor,
};

/// More than a row of one block has, at and about the borders of blocks and of products.
const CLASSES: [(DType, usize); 6] = [
    (DType::F32, 257),
    (DType::BF16, 1025),
    (DType::F32, 2048),
    (DType::F16, 2049),
    (DType::F32, 3100),
    (DType::BF16, 4097),
];

#[track_caller]
fn assert_same(what: &str, got: &Results, expected: &Results) {
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        assert_eq!(bits(got), bits(expected), "{what}: {name}");
    }
}

fn on_cpu(path: LinearPath, loss: &LinearCrossEntropy<'_>, input: &LinearInput<'_>) -> Results {
    results(&Device::cpu(), &loss.clone().path(path), input, (true, 7))
}

#[test]
fn tiles_give_what_whole_rows_give() {
    for (dtype, classes) in CLASSES {
        let batch = Batch::new(dtype, classes);
        let input = batch.all();
        let capped = LinearCrossEntropy::from(
            CrossEntropy::default().logit_scale(1.5).softcap(Some(2.0)).reduction(Reduction::None),
        );
        for loss in [batch.loss(Reduction::None), capped] {
            let plan = loss.plan(&Device::cpu(), &input, false).unwrap();
            assert_eq!(plan.path, LinearPath::Tiled, "{classes} classes");
            let [tiled, chunked] =
                [LinearPath::Tiled, LinearPath::Chunked].map(|path| on_cpu(path, &loss, &input));
            assert_same(&format!("{dtype}, {classes} classes"), &tiled, &chunked);
        }
    }
}

#[test]
fn budgets_threads_and_other_rows_change_no_bit() {
    for (dtype, classes) in [(DType::F32, 3100), (DType::BF16, 2049)] {
        let batch = Batch::new(dtype, classes);
        let loss = batch.loss(Reduction::None).path(LinearPath::Tiled);
        let (input, cpu) = (batch.all(), Device::cpu());
        let whole = results(&cpu, &loss, &input, (true, 7));
        let error = loss.clone().max_workspace_bytes(1).plan(&cpu, &input, false).unwrap_err();
        let least = least_of(&error);
        let mut bands = Vec::new();
        for more in [0, 10_000, 100_000, 1_000_000, 4_000_000] {
            let loss = loss.clone().max_workspace_bytes(least + more);
            let plan = loss.plan(&cpu, &input, false).unwrap();
            assert!(plan.workspace_bytes <= least + more, "{plan:?}");
            bands.push(plan.chunk_rows);
            assert_same(&format!("{plan:?}"), &results(&cpu, &loss, &input, (true, 7)), &whole);
        }
        assert!(bands[0] == 1 && bands.iter().any(|rows| (2..ROWS).contains(rows)), "{bands:?}");
        for threads in [1, 5] {
            let device = Device::cpu_with_threads(threads).unwrap();
            let got = results(&device, &loss, &input, (true, 7));
            assert_same(&format!("{threads} threads"), &got, &whole);
        }
        for rows in [1, 2, 15, 64, 65, 129] {
            for (name, got) in results(&cpu, &loss, &batch.some(rows), (true, 7)) {
                let whole = &whole.iter().find(|(own, _)| *own == name).unwrap().1;
                let (got, whole) = (bits(&got), bits(whole));
                assert_eq!(got[..], whole[..got.len()], "{name} of {rows} rows");
            }
        }
    }
}

/// Whole numbers make many equal logits, and infinite weights what is not a number: ranks, likeliest classes and
/// undefined rows are as they are of whole rows.
#[test]
fn equal_infinite_and_undefined_logits_are_met_in_tiles_as_in_rows() {
    let (rows, features, classes) = (40, 3, 2300);
    let whole = |seed: usize, n: usize| -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + seed * 104729) % 65 % 5) as f64 - 2.0).collect()
    };
    let target = Tensor::from_vec((0..rows).map(|i| (i * 577 % classes) as i64).collect(), &[rows]);
    let target = target.unwrap();
    for dtype in [DType::F32, DType::BF16] {
        for infinite in [&[][..], &[5], &[2047, 2048], &[2299]] {
            for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
                let mut w = whole(2, classes * features);
                infinite.iter().for_each(|&class| w[class * features + 1] = number);
                let (x, w) = (
                    floats(dtype, &[rows, features], &whole(1, rows * features)),
                    floats(dtype, &[classes, features], &w),
                );
                let input = LinearInput::new(x.view(), w.view(), target.view());
                let loss = LinearCrossEntropy::from(
                    CrossEntropy::default().label_smoothing(0.1).reduction(Reduction::None),
                );
                let [tiled, chunked] = [LinearPath::Tiled, LinearPath::Chunked]
                    .map(|path| on_cpu(path, &loss, &input));
                assert_same(&format!("{dtype}, {number} at {infinite:?}"), &tiled, &chunked);
            }
        }
    }
}
