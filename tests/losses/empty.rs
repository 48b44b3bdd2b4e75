//! Tensors of no elements or of no rows: none is empty, a sum is 0, a mean is NaN, on every device;
//! gradients are as empty as their tensors.

use crate::cross_entropy::{CrossEntropyCase, target_shape};
use crate::data::Data;
use crate::elementwise::{self, ElementwiseCase};
use crate::harness::{Case, check, devices};
use crate::js_div_logits::JsDivLogitsCase;
use crate::log_softmax::LogSoftmaxCase;
use crate::logprob_entropy::LogprobEntropyCase;
use crate::logsumexp::LogSumExpCase;
use crate::nll::NllCase;
use crate::soft_cross_entropy::SoftCrossEntropyCase;
use warploss::{DType, Reduction, information};

const SHAPES: [&[usize]; 5] = [&[0], &[0, 5], &[2, 0], &[2, 0, 3], &[2, 3, 0]];
const REDUCTIONS: [Reduction; 3] = [Reduction::None, Reduction::Sum, Reduction::Mean];

/// What every form on every device has for a loss; the reference has it too.
fn losses(case: &dyn Case) -> Vec<Vec<f64>> {
    check(case);
    let mut losses = Vec::new();
    for (_, device) in devices() {
        for (_, got) in case.forms(device) {
            let got = got.expect("a legal call");
            losses.extend(got.into_iter().filter(|g| g.name == "loss").map(|g| g.values));
        }
    }
    assert!(!losses.is_empty());
    losses
}

fn check_loss(case: &dyn Case, reduction: Reduction, rows: usize, what: &str) {
    for loss in losses(case) {
        let right = match reduction {
            Reduction::None => loss == vec![0.0; rows],
            Reduction::Sum => loss == [0.0],
            _ => loss.len() == 1 && loss[0].is_nan(),
        };
        assert!(right, "{what}, {reduction:?}: {loss:?}");
    }
}

#[test]
fn elementwise_losses_of_no_elements() {
    for shape in SHAPES {
        for loss in elementwise::losses() {
            let case = ElementwiseCase::new(loss, (shape, &[]), (shape, &[]));
            for reduction in REDUCTIONS {
                let case = ElementwiseCase { reduction, ..case.clone() };
                check_loss(&case, reduction, 0, &format!("{loss:?} of {shape:?}"));
            }
            if loss.of().batch_mean {
                let case = ElementwiseCase { reduction: Reduction::BatchMean, ..case };
                let none = shape[0] == 0;
                for loss in losses(&case) {
                    assert!(if none { loss[0].is_nan() } else { loss == [0.0] }, "{loss:?}");
                }
            }
        }
    }
}

#[test]
fn rows_of_no_classes_and_no_rows_at_all() {
    for shape in SHAPES {
        let row_shape = target_shape(shape);
        let rows: usize = row_shape.iter().product();
        for reduction in REDUCTIONS {
            let what = format!("{shape:?}");
            for beta in [0.0, 0.5, 1.0] {
                let case = JsDivLogitsCase {
                    beta,
                    reduction,
                    ..JsDivLogitsCase::new(DType::F32, shape, &[], &[])
                };
                check_loss(&case, reduction, rows, &what);
                // Rows that do not count are as many.
                let labels = Data::indices(DType::I64, &row_shape, &vec![-100; rows]);
                check_loss(
                    &JsDivLogitsCase { labels: Some(labels), ..case },
                    reduction,
                    rows,
                    &what,
                );
            }
            for teacher_scale in [None, Some(0.5)] {
                let case = SoftCrossEntropyCase {
                    teacher_scale,
                    reduction,
                    ..SoftCrossEntropyCase::new(DType::F32, shape, &[], &[])
                };
                check_loss(&case, reduction, rows, &what);
            }
            // Class indices: no class is one, so that no row is kept.
            let ignored = vec![-100; rows];
            let case =
                CrossEntropyCase { reduction, ..CrossEntropyCase::new(shape, &[], &ignored) };
            check_loss(&case, reduction, rows, &what);
            let case = NllCase { reduction, ..NllCase::new(shape, &[], &ignored) };
            check_loss(&case, reduction, rows, &what);
        }
        // Of no classes; of no rows there are none.
        let batch_mean = JsDivLogitsCase::new(DType::F32, shape, &[], &[]);
        for loss in losses(&batch_mean) {
            assert!(if rows == 0 { loss[0].is_nan() } else { loss == [0.0] }, "{shape:?} {loss:?}");
        }
        let case = CrossEntropyCase::new(shape, &[], &vec![-100; rows]);
        check(&LogprobEntropyCase::of(case, [1.0, 1.0]));
    }
}

#[test]
fn lines_of_no_elements() {
    for shape in SHAPES {
        let empty = || Data::floats(DType::F32, shape, &[]);
        for dim in 0..shape.len() {
            check(&LogSoftmaxCase { input: empty(), grad_output: empty(), dim: dim as isize });
            let mut kept = shape.to_vec();
            kept.remove(dim);
            let grad_output = Data::floats(DType::F32, &kept, &vec![1.0; kept.iter().product()]);
            check(&LogSumExpCase {
                input: empty(),
                grad_output,
                dims: vec![dim as isize],
                keepdim: false,
            });
        }
        let p = empty();
        for (name, device) in devices() {
            let rows: usize = target_shape(shape).iter().product();
            for got in [
                information::entropy(device, p.view()),
                information::cross_entropy(device, p.view(), p.view()),
                information::kl_divergence(device, p.view(), p.view()),
            ] {
                let got = got.expect("a legal call").view().to_f64().expect("numbers");
                assert_eq!(got, vec![0.0; rows], "{name} {shape:?}");
            }
        }
    }
}
