//! Short rows, which the CPU works on side by side: at the borders of tiles and vectors, however rows
//! lie, at every instruction set.

use crate::cross_entropy::{CrossEntropyCase, Ignored, Recipe, UpstreamKind, Weights};
use crate::data::{FLOATS, Logits, Rng};
use crate::harness::{self, Case};
use crate::lanes::levels;
use crate::log_softmax::LineRecipe;
use crate::ranks::RanksCase;
use crate::soft_cross_entropy::{Probabilities, SoftRecipe};
use warploss::{DType, Device, LogSoftmax, Reduction, TensorMut, TensorRef};

/// About vectors of 4, 8 and 16 elements, and about the longest row of a tile.
const CLASSES: [usize; 17] = [1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 33, 64, 100, 255, 257];

/// Rows about a tile's sixteen; images whose neighbours fill tiles, and that do not.
const OTHERS: [(usize, &[usize]); 9] = [
    (1, &[]),
    (15, &[]),
    (16, &[]),
    (17, &[]),
    (67, &[]),
    (2, &[40]),
    (3, &[5]),
    (1, &[16]),
    (2, &[3, 11]),
];

fn recipe(seed: u64, classes: usize, (first, inner): (usize, &[usize])) -> Recipe {
    let mut rng = Rng(seed);
    let of_weight =
        [Weights::None, Weights::Positive(true), Weights::Positive(false), Weights::Mixed];
    Recipe {
        seed,
        shape: [&[first, classes], inner].concat(),
        padding: rng.below(3) * rng.below(2),
        dtypes: (
            FLOATS[rng.below(3)],
            [DType::I64, DType::U8][usize::from(classes < 200 && rng.below(2) == 1)],
        ),
        logits: Logits::ALL[rng.below(Logits::ALL.len())],
        weights: of_weight[rng.below(4)],
        ignored: [Ignored::None, Ignored::Some, Ignored::Some, Ignored::All][rng.below(4)],
        upstream: [UpstreamKind::One, UpstreamKind::Number, UpstreamKind::Tensor(true)]
            [rng.below(3)],
        reduction: [Reduction::None, Reduction::Sum, Reduction::Mean][rng.below(3)],
        smoothing: [0.0, 0.0, 0.1, 1.0][rng.below(4)],
        extensions: [
            (0.0, 1.0, None),
            (0.0, 1.0, None),
            (1e-2, 1.0, None),
            (0.0, 0.6, None),
            (0.0, 1.7, Some(5.0)),
            (1e-4, 0.6, Some(30.0)),
        ][rng.below(6)],
    }
}

/// The same against probabilities or a teacher's logits.
fn soft_recipe(seed: u64, classes: usize, others: (usize, &[usize])) -> SoftRecipe {
    let mut rng = Rng(seed ^ 0x50f7);
    let target = match rng.below(5) {
        0 => Probabilities::Simplex,
        1 => Probabilities::OneHot,
        2 => Probabilities::Any,
        _ => Probabilities::Teacher(Logits::ALL[rng.below(Logits::ALL.len())]),
    };
    SoftRecipe {
        base: recipe(seed, classes, others),
        target,
        padding: rng.below(3) * rng.below(2),
        teacher_scale: [1.0, 0.5, 1.7][rng.below(3)],
    }
}

#[test]
fn short_rows_agree_with_the_reference_however_they_lie() {
    let levels = levels();
    for (i, classes) in CLASSES.into_iter().enumerate() {
        for (j, others) in OTHERS.into_iter().enumerate() {
            for turn in 0..6 {
                let seed = (i * 1000 + j * 10 + turn) as u64;
                let case = recipe(seed, classes, others).case();
                let cases: [Box<dyn Case>; 4] = [
                    Box::new(RanksCase(case.clone())),
                    Box::new(case),
                    Box::new(recipe(seed, classes, others).logprob_entropy()),
                    Box::new(soft_recipe(seed, classes, others).case()),
                ];
                for case in cases {
                    let expected = case.expected();
                    for (name, device) in &levels {
                        harness::check_on(name, device, &*case, &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn short_lines_agree_with_the_reference_however_they_lie() {
    let shapes: [(&[usize], &[usize]); 10] = [
        (&[37, 10], &[1]),
        (&[37, 17], &[1]),
        (&[100, 256], &[1]),
        (&[19, 257], &[1]),
        (&[21, 53], &[0]),
        (&[3, 5, 40], &[1]),
        (&[2, 33, 7, 5], &[1]),
        // Elements of a line that are not evenly spaced, lines beside one another.
        (&[3, 2, 4, 40], &[0, 2]),
        (&[16, 3, 11], &[0, 1]),
        (&[2, 3, 4], &[0, 1, 2]),
    ];
    for (i, (shape, dims)) in shapes.into_iter().enumerate() {
        for turn in 0..12 {
            let mut rng = Rng(turn);
            let recipe = LineRecipe {
                seed: i as u64 * 100 + turn,
                shape: shape.to_vec(),
                dims: dims.to_vec(),
                negative: turn % 2 == 0,
                padding: if dims.contains(&0) { 0 } else { rng.below(3) },
                dtypes: (FLOATS[rng.below(3)], rng.below(2) == 1),
                logits: Logits::ALL[rng.below(Logits::ALL.len())],
            };
            let logsumexp = recipe.logsumexp();
            let mut cases: Vec<Box<dyn Case>> = vec![Box::new(logsumexp)];
            if dims.len() == 1 {
                cases.push(Box::new(recipe.log_softmax()));
            }
            for case in cases {
                let expected = case.expected();
                for (name, device) in &levels() {
                    harness::check_on(name, device, &*case, &expected);
                }
            }
        }
    }
}

/// What is beside a row in its tile does not matter: any rows alone have the bits that they have among
/// others.
#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    let device = Device::cpu();
    for classes in [2, 10, 16, 100] {
        let (rows, dtype) = (37, DType::F32);
        let case = CrossEntropyCase::random(classes as u64, dtype, rows, classes, Logits::Normal);
        let options = case.options().reduction(Reduction::None);
        let all = options.forward(&device, case.logits.view(), case.target.view()).unwrap();
        let (loss, lse) = (all.loss.view().to_f64().unwrap(), all.lse.view().to_f64().unwrap());
        let (logits, target) = (case.logits.values(), case.target.values());
        for row in 0..rows {
            let own = &logits[row * classes..][..classes];
            let alone =
                CrossEntropyCase::with_dtype(dtype, &[1, classes], own, &[target[row] as i64]);
            let out = alone.options().reduction(Reduction::None);
            let out = out.forward(&device, alone.logits.view(), alone.target.view()).unwrap();
            assert_eq!(out.loss.view().to_f64().unwrap(), [loss[row]], "row {row} of {classes}");
            assert_eq!(out.lse.view().to_f64().unwrap(), [lse[row]], "row {row} of {classes}");
        }
    }
}

/// A row's loss and gradient do not depend on what stands in its neighbours, were it no number at all.
#[test]
fn a_broken_neighbour_changes_no_bit() {
    let device = Device::cpu();
    for classes in [2, 10, 24, 100] {
        let (rows, dtype) = (37, DType::F32);
        let case = CrossEntropyCase::random(classes as u64, dtype, rows, classes, Logits::Normal);
        let mut broken = case.logits.values();
        for (row, bad) in [(3, f64::NAN), (7, f64::INFINITY), (20, f64::NEG_INFINITY)] {
            broken[row * classes..][..classes].fill(bad);
        }
        let targets: Vec<i64> = case.target.values().iter().map(|&t| t as i64).collect();
        let broken = CrossEntropyCase::with_dtype(dtype, &[rows, classes], &broken, &targets);
        let of = |case: &CrossEntropyCase| {
            let options = case.options().reduction(Reduction::Sum);
            let (logits, target) = (case.logits.view(), case.target.view());
            let out = options.forward(&device, logits, target).unwrap();
            let grad = options.backward(&device, logits, target, out.lse.view(), 1.0).unwrap();
            (out.lse.view().to_f64().unwrap(), grad.view().to_f64().unwrap())
        };
        let ((lse, grad), (lse_beside, grad_beside)) = (of(&case), of(&broken));
        for row in (0..rows).filter(|row| ![3, 7, 20].contains(row)) {
            let own = row * classes..(row + 1) * classes;
            assert_eq!(lse[row], lse_beside[row], "row {row} of {classes}");
            assert_eq!(grad[own.clone()], grad_beside[own], "row {row} of {classes}");
        }
    }
}

/// Large results are stored past the caches, whatever shares a cache line with what: of every row, and every
/// pixel, the bits are those that it has among few.
#[test]
fn results_that_pass_the_caches_have_the_bits_of_few() {
    check_parts(&[33], 65_541, 1_021);
    check_parts(&[21, 224, 100], 5, 1);
}

/// Log-softmax of `all` rows or images against that of `few` at a time.
fn check_parts(own: &[usize], all: usize, few: usize) {
    let elements = own.iter().product::<usize>();
    let mut rng = Rng(33);
    let x: Vec<f32> = (0..all * elements + 1).map(|_| rng.normal() as f32).collect();
    for (name, device) in levels() {
        // From the second element on, so that nothing begins where a cache line does.
        let calls = |first: usize, n: usize, y: &mut [f32], grad: &mut [f32]| {
            let (shape, from) = ([&[n], own].concat(), first * elements);
            let part = TensorRef::new(&x[1 + from..][..n * elements], &shape).unwrap();
            let upstream = TensorRef::new(&x[from..][..n * elements], &shape).unwrap();
            let op = LogSoftmax::dim(1);
            let y = TensorMut::new(&mut y[1..][..n * elements], &shape).unwrap();
            op.forward_into(&device, part, y).unwrap();
            let grad = TensorMut::new(&mut grad[1..][..n * elements], &shape).unwrap();
            op.backward_into(&device, part, upstream, grad).unwrap();
        };
        let mut whole = [vec![0f32; x.len()], vec![0f32; x.len()]];
        let mut parts = [vec![0f32; few * elements + 1], vec![0f32; few * elements + 1]];
        let [y, grad] = &mut whole;
        calls(0, all, y, grad);
        for first in (0..all).step_by(few) {
            let n = few.min(all - first);
            let [y, grad] = &mut parts;
            calls(first, n, y, grad);
            for (whole, part) in whole.iter().zip(&parts) {
                let whole = &whole[1 + first * elements..][..n * elements];
                assert!(whole == &part[1..][..n * elements], "{name}: {own:?}, from {first}");
            }
        }
    }
}
