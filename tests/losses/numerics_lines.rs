//! Log-softmax and log-sum-exp of what is not finite, and of nothing.

use crate::data::{Data, FLOATS, Rng};
use crate::harness::check;
use crate::log_softmax::LogSoftmaxCase;
use crate::logsumexp::LogSumExpCase;
use crate::numerics::check_and;
use warploss::DType;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

#[test]
fn log_softmax_of_infinities_follows_the_table() {
    let input = [0.0, -INF, 1.0, -INF, -INF, -INF, 0.0, INF, 1.0, 0.0, NAN, -INF];
    for dtype in FLOATS {
        let case = LogSoftmaxCase {
            input: Data::floats(dtype, &[4, 3], &input),
            grad_output: Data::floats(DType::F32, &[4, 3], &Rng(1).normals(12, 1.0)),
            dim: 1,
        };
        check_and(&case, "output", |y| {
            assert!(y[0].is_finite() && y[1] == -INF && y[2].is_finite());
            assert!(y[3..].iter().all(|y| y.is_nan()));
        });
        let g = case.grad_output.values()[1];
        check_and(&case, "grad_input", |grad| {
            assert!(
                (grad[1] - g).abs() <= 2f64.powi(-7) * g.abs(),
                "the output's gradient as it is"
            );
            assert!(grad[3..].iter().all(|g| g.is_nan()));
        });
    }
}

#[test]
fn logsumexp_of_infinities_follows_the_table() {
    let input = [0.0, -INF, 1.0, -INF, -INF, -INF, 0.0, INF, 1.0, 0.0, NAN, INF];
    for dtype in FLOATS {
        let case = LogSumExpCase {
            input: Data::floats(dtype, &[4, 3], &input),
            grad_output: Data::floats(DType::F32, &[4], &[1.0, 2.0, 3.0, 4.0]),
            dims: vec![1],
            keepdim: false,
        };
        check_and(&case, "output", |y| {
            assert!(y[0].is_finite() && y[1] == -INF && y[2] == INF && y[3].is_nan());
        });
        check_and(&case, "grad_input", |grad| {
            assert!(grad[1] == 0.0 && grad[3..6].iter().all(|g| g.is_nan()));
            assert!(grad[6] == 0.0 && grad[7].is_nan() && grad[8] == 0.0);
            assert!(grad[9..].iter().all(|g| g.is_nan()));
        });
    }
}

#[test]
fn empty_lines_have_an_lse_of_minus_infinity() {
    let case = LogSumExpCase {
        input: Data::floats(DType::F32, &[3, 0], &[]),
        grad_output: Data::floats(DType::F32, &[3], &[1.0, 2.0, 3.0]),
        dims: vec![1],
        keepdim: false,
    };
    check_and(&case, "output", |y| assert_eq!(y, [-INF; 3]));
    for dim in [0, 1] {
        let empty = Data::floats(DType::F32, &[3, 0], &[]);
        check(&LogSoftmaxCase { input: empty.clone(), grad_output: empty, dim });
    }
}
