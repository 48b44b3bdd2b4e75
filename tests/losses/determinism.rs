//! The same input gives the same bits: on every run, on any number of threads.

use crate::cross_entropy::{CrossEntropyCase, Upstream};
use crate::data::{Data, Logits, Rng};
use crate::elementwise::{self, ElementwiseCase};
use crate::harness::{Case, bits, check};
use crate::log_softmax::LogSoftmaxCase;
use crate::logprob_entropy::LogprobEntropyCase;
use crate::logsumexp::LogSumExpCase;
use crate::nll::NllCase;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use warploss::{DType, Device, Reduction};

fn check_threads(case: &dyn Case) {
    let device = |n| Device::cpu_with_threads(n).expect("threads");
    let one = bits(case, &device(1));
    for threads in [1, 2, 3, 5] {
        for ((what, a), (_, b)) in one.iter().zip(bits(case, &device(threads))) {
            let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
            assert!(*a == b, "{what}: {differing} of {} on {threads} threads\n", a.len());
        }
    }
}

fn random(dtype: DType, rows: usize, classes: usize) -> CrossEntropyCase {
    CrossEntropyCase {
        label_smoothing: 0.1,
        lse_square_scale: 1e-3,
        ..CrossEntropyCase::random(rows as u64, dtype, rows, classes, Logits::Normal)
    }
}

#[test]
fn few_long_rows_give_the_same_bits_on_any_number_of_threads() {
    for dtype in [DType::F32, DType::BF16] {
        check_threads(&random(dtype, 1, 300_001));
        check_threads(&random(dtype, 3, 140_000));
        check_threads(&LogprobEntropyCase::random(3, dtype, 3, 140_000, Logits::Normal));
    }
}

#[test]
fn many_short_rows_give_the_same_bits_on_any_number_of_threads() {
    for dtype in [DType::F32, DType::F16] {
        check_threads(&random(dtype, 3001, 33));
        check_threads(&LogprobEntropyCase::random(4, dtype, 3001, 33, Logits::Ties));
        // Enough rows that the targets are counted by several threads.
        check_threads(&random(dtype, 40_000, 3));
    }
}

#[test]
fn strided_positions_give_the_same_bits_on_any_number_of_threads() {
    let (n, classes, positions) = (2, 70, 300);
    let mut rng = Rng(4);
    let logits = rng.normals(n * classes * positions, 3.0);
    let target: Vec<i64> = (0..n * positions).map(|_| rng.below(classes) as i64).collect();
    check_threads(&CrossEntropyCase::new(&[n, classes, positions], &logits, &target));
}

#[test]
fn soft_targets_give_the_same_bits_on_any_number_of_threads() {
    for (rows, classes) in [(2, 140_000), (2001, 33)] {
        for teacher_scale in [None, Some(0.5)] {
            let case = SoftCrossEntropyCase {
                teacher_scale,
                label_smoothing: 0.1,
                ..SoftCrossEntropyCase::random(8, DType::F32, (rows, classes), Logits::Normal)
            };
            check_threads(&case);
        }
    }
}

#[test]
fn picked_elements_give_the_same_bits_on_any_number_of_threads() {
    for shape in [vec![40_000, 3], vec![2, 3, 20_000], vec![2, 70_000], vec![3, 2000, 9]] {
        let mut rng = Rng(9);
        let input = rng.normals(shape.iter().product(), 3.0);
        let rows = input.len() / shape[1];
        let target: Vec<i64> = (0..rows)
            .map(|row| if row % 5 == 1 { -100 } else { rng.below(shape[1]) as i64 })
            .collect();
        let case = NllCase::new(&shape, &input, &target);
        check_threads(&case);
        check(&case);
    }
}

#[test]
fn lines_give_the_same_bits_on_any_number_of_threads() {
    for (shape, dim) in [([2, 150_000], 1), ([150_000, 2], 0), ([2000, 40], 1)] {
        let mut rng = Rng(5);
        let n = shape[0] * shape[1];
        let input = Data::floats(DType::F32, &shape, &rng.normals(n, 3.0));
        let grad_output = Data::floats(DType::F32, &shape, &rng.normals(n, 1.0));
        let lines = n / shape[dim];
        check_threads(&LogSumExpCase {
            input: input.clone(),
            grad_output: Data::floats(DType::F32, &[lines], &rng.normals(lines, 1.0)),
            dims: vec![dim as isize],
            keepdim: false,
        });
        check_threads(&LogSoftmaxCase { input, grad_output, dim: dim as isize });
    }
}

/// More than the sum of few: each loss differs, so that a lost or doubled row shows.
#[test]
fn sums_over_many_rows_lose_none() {
    let rows = 20_000;
    check(&CrossEntropyCase { reduction: Reduction::Sum, ..random(DType::F32, rows, 5) });
    let g = Rng(6).normals(rows, 1.0);
    check(&CrossEntropyCase {
        reduction: Reduction::None,
        upstream: Upstream::Tensor(Data::floats(DType::F32, &[rows], &g)),
        ..random(DType::F32, rows, 5)
    });
}

#[test]
fn elementwise_losses_give_the_same_bits_on_any_number_of_threads() {
    // Equal shapes; what is summed back over rows, over columns, and over everything.
    let pairs: [(&[usize], &[usize]); 4] =
        [(&[70_001], &[70_001]), (&[20_000, 9], &[9]), (&[900, 130], &[900, 1]), (&[50_000], &[])];
    for (x, y) in pairs {
        for loss in elementwise::losses().into_iter().step_by(2) {
            if loss.of().broadcasts || x == y {
                check_threads(&ElementwiseCase::plain(loss, x, y));
            }
        }
    }
}
