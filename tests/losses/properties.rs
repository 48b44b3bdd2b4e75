//! Random cases against the reference, and sizes that matter one by one.

use crate::cross_entropy::{self, CrossEntropyCase, Upstream};
use crate::data::{Data, FLOATS, Logits, Rng};
use crate::elementwise::{self, ElementwiseCase};
use crate::harness::check;
use crate::log_softmax::{LogSoftmaxCase, line_recipes};
use crate::logprob_entropy::LogprobEntropyCase;
use crate::logsumexp::LogSumExpCase;
use crate::ranks::RanksCase;
use crate::soft_cross_entropy;
use crate::tokens::TokensCase;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use warploss::{DType, Reduction};

/// Runs `test` on `cases` random values, the same ones every time: a failure repeats.
fn for_all<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn cross_entropy_agrees_with_the_reference() {
    for_all(350, cross_entropy::recipes(), |recipe| check(&recipe.case()));
}

#[test]
fn logprob_entropy_agrees_with_the_reference() {
    for_all(250, cross_entropy::recipes(), |recipe| check(&recipe.logprob_entropy()));
}

#[test]
fn ranks_of_cross_entropy_agree_with_the_reference() {
    for_all(300, cross_entropy::recipes(), |recipe| check(&RanksCase(recipe.case())));
}

#[test]
fn everything_from_one_read_agrees_with_the_reference() {
    for_all(150, cross_entropy::recipes(), |recipe| check(&TokensCase::of_recipe(&recipe)));
}

#[test]
fn nll_agrees_with_the_reference() {
    for_all(300, cross_entropy::recipes(), |recipe| check(&recipe.nll()));
}

#[test]
fn soft_cross_entropy_agrees_with_the_reference() {
    for_all(350, soft_cross_entropy::recipes(), |recipe| check(&recipe.case()));
}

#[test]
fn elementwise_losses_agree_with_the_reference() {
    for loss in elementwise::losses() {
        for_all(150, proptest::num::u64::ANY, |seed| check(&ElementwiseCase::random(loss, seed)));
    }
}

#[test]
fn log_softmax_agrees_with_the_reference() {
    for_all(300, line_recipes(1..=1), |recipe| check(&recipe.log_softmax()));
}

#[test]
fn logsumexp_agrees_with_the_reference() {
    for_all(300, line_recipes(1..=4), |recipe| check(&recipe.logsumexp()));
}

/// Every remainder of every vector width, and both sides of a block's edge.
#[test]
fn every_small_row_length_and_block_edge_agrees() {
    let edges = [255, 256, 257, 2047, 2048, 2049, 2055, 4095, 4096, 4097, 4103];
    for classes in (1..=70).chain(edges) {
        for dtype in FLOATS {
            for logits in [Logits::Normal, Logits::Masked] {
                check(&CrossEntropyCase {
                    label_smoothing: 0.1,
                    ..CrossEntropyCase::random(classes as u64, dtype, 2, classes, logits)
                });
                check(&LogprobEntropyCase::random(classes as u64, dtype, 2, classes, logits));
            }
        }
    }
}

/// Vocabularies as they are, rows long enough to be shared among threads.
#[test]
fn real_vocabularies_agree() {
    let sizes = [(3, 50_257, 47), (2, 128_256, 0), (1, 262_144, 0)];
    for (i, (rows, classes, padding)) in sizes.into_iter().enumerate() {
        for dtype in FLOATS {
            for logits in [Logits::Normal, Logits::Offset(1e4), Logits::MaskedFront] {
                let case = CrossEntropyCase::random(i as u64, dtype, rows, classes, logits);
                check(&CrossEntropyCase { logits: case.logits.clone().padded(padding), ..case });
                check(&LogprobEntropyCase::random(i as u64, dtype, rows, classes, logits));
            }
            let mut rng = Rng(i as u64);
            let case = CrossEntropyCase::random(7, dtype, rows, classes, Logits::Confident);
            let weights: Vec<f64> = (0..classes).map(|_| 0.1 + rng.unit()).collect();
            check(&CrossEntropyCase {
                weight: Some(Data::floats(DType::F32, &[classes], &weights)),
                label_smoothing: 0.1,
                lse_square_scale: 1e-4,
                softcap: Some(30.0),
                reduction: Reduction::None,
                upstream: Upstream::Tensor(Data::floats(
                    DType::F32,
                    &[rows],
                    &rng.normals(rows, 1.0),
                )),
                ..case
            });
        }
    }
}

#[test]
fn long_lines_agree_along_either_dimension() {
    for (shape, dim) in [([2, 70_001], 1), ([70_001, 3], 0)] {
        for dtype in FLOATS {
            let mut rng = Rng(3);
            let input = Data::floats(dtype, &shape, &rng.normals(shape.iter().product(), 3.0));
            let grad_output =
                Data::floats(DType::F32, &shape, &rng.normals(shape.iter().product(), 1.0));
            let lines = shape[1 - dim];
            check(&LogSumExpCase {
                input: input.clone(),
                grad_output: Data::floats(DType::F32, &[lines], &rng.normals(lines, 1.0)),
                dims: vec![dim as isize],
                keepdim: false,
            });
            check(&LogSoftmaxCase { input, grad_output, dim: dim as isize });
        }
    }
}
