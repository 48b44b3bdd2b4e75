//! Argmax, rank and top-k accuracy: cross entropy's as a case, and their own behaviours.

use crate::cross_entropy::CrossEntropyCase;
use crate::data::{Data, FLOATS, Logits, Rng};
use crate::harness::{Case, Expected, Got, check, devices};
use warploss::check::reference;
use warploss::{CrossEntropyOut, DType, Device, Result, TensorRef, topk_accuracy};

/// A buffer for i64 results, holding what no result is.
pub(crate) fn unwritten(shape: &[usize]) -> Data {
    Data::indices(DType::I64, shape, &vec![-77; shape.iter().product()])
}

/// What the reference says.
pub(crate) fn expected(logits: &Data, target: &Data, ignore_index: i64) -> [Expected; 2] {
    let target = reference::indices(target.view()).expect("indices");
    let [argmax, rank] = reference::ranks(logits.shape(), &logits.values(), &target, ignore_index);
    [Expected::term("argmax", argmax), Expected::term("rank", rank)]
}

/// A cross entropy whose argmax and ranks are asked for.
#[derive(Debug, Clone)]
pub(crate) struct RanksCase(pub(crate) CrossEntropyCase);

impl RanksCase {
    fn forward(&self, device: &Device) -> Result<Vec<Got>> {
        let (logits, target) = (self.0.logits.view(), self.0.target.view());
        let (out, ranks) = self.0.options().forward_with_ranks(device, logits, target)?;
        Ok(vec![
            Got::new("loss", out.loss.view()),
            Got::new("lse", out.lse.view()),
            Got::new("argmax", ranks.argmax.view()),
            Got::new("rank", ranks.rank.view()),
        ])
    }

    /// Fused, with only one of the two.
    fn fused(&self, device: &Device, argmax: bool) -> Result<Vec<Got>> {
        let mut loss = Data::poison(DType::F32, self.0.loss_shape());
        let mut ranks = unwritten(self.0.target.shape());
        let mut logits = self.0.logits.clone();
        let mut out = CrossEntropyOut::loss(loss.view_mut());
        let (name, slot) = match argmax {
            true => ("argmax", &mut out.argmax),
            false => ("rank", &mut out.rank),
        };
        *slot = Some(ranks.view_mut());
        let (target, g) = (self.0.target.view(), self.0.grad_output());
        let options = self.0.options();
        options.forward_backward_in_place(device, logits.view_mut(), target, g, out)?;
        logits.assert_padding_is_poison("grad_logits");
        Ok(vec![
            Got::new("loss", loss.view()),
            Got::new("grad_logits", logits.view()),
            Got::new(name, ranks.view()),
        ])
    }
}

impl Case for RanksCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let mut all = self.0.expected();
        all.extend(expected(&self.0.logits, &self.0.target, self.0.ignore_index));
        all
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("forward", self.forward(device)),
            ("fused, argmax", self.fused(device, true)),
            ("fused, rank", self.fused(device, false)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        self.0.variables()
    }

    fn objective(&self, gradient: &str, values: &[f64]) -> f64 {
        self.0.objective(gradient, values)
    }
}

/// Ties, infinities, NaN and zeros of both signs, at every place, on both sides of the target.
#[test]
fn ties_go_to_the_lowest_class_and_nan_is_the_largest() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let pool = [0.0, -0.0, 1.5, 1.5, -2.0, -2.0, inf, -inf, nan];
    let mut rng = Rng(9);
    for dtype in FLOATS {
        for classes in [1, 2, 3, 5, 17, 33, 100, 700, 4500] {
            let rows = 24;
            // The first rows are tame, the later ones anything; the last two all −∞ and all NaN.
            let values: Vec<f64> = (0..rows * classes)
                .map(|i| match i / classes {
                    22 => -inf,
                    23 => nan,
                    row => pool[rng.below(if row < 10 { 6 } else { pool.len() })],
                })
                .collect();
            let target: Vec<i64> = (0..rows).map(|_| rng.below(classes) as i64).collect();
            let case = CrossEntropyCase::with_dtype(dtype, &[rows, classes], &values, &target);
            check(&RanksCase(CrossEntropyCase { logits: case.logits.clone().padded(3), ..case }));
        }
    }
}

/// The order is that of the logits as given: a cap that makes equals of them changes no rank.
#[test]
fn a_scale_or_a_cap_changes_no_rank() {
    let case = CrossEntropyCase::random(5, DType::F32, 7, 300, Logits::Confident);
    check(&RanksCase(CrossEntropyCase { softcap: Some(1e-3), logit_scale: 0.5, ..case }));
}

#[test]
fn topk_accuracy_counts_kept_rows_below_each_k() {
    let case = CrossEntropyCase::random(3, DType::F32, 200, 11, Logits::Ties);
    let mut target = reference::indices(case.target.view()).expect("indices");
    target.iter_mut().step_by(3).for_each(|t| *t = -100);
    let target = Data::indices(DType::I64, &[200], &target);
    let case = CrossEntropyCase { target, ..case };
    let [_, rank] = expected(&case.logits, &case.target, -100);
    let ks = [1, 2, 5, 11, usize::MAX];
    for (name, device) in devices() {
        let (logits, target) = (case.logits.view(), case.target.view());
        let (_, ranks) = case.options().forward_with_ranks(device, logits, target).expect("legal");
        let top = topk_accuracy(device, ranks.rank.view(), &ks).expect("ranks");
        let below = |k: f64| rank.values.iter().filter(|&&r| r >= 0.0 && r < k).count() as u64;
        assert_eq!(top.kept, below(f64::INFINITY), "{name}");
        let correct: Vec<u64> = ks.iter().map(|&k| below(k as f64)).collect();
        assert_eq!(top.correct, correct, "{name}");
        assert_eq!(top.accuracy(0).unwrap(), correct[0] as f64 / top.kept as f64);
        assert!(correct[0] > 0 && correct[0] < correct[1], "no test of anything: {correct:?}");
    }
}

#[test]
fn topk_accuracy_of_no_row_is_nan_and_bad_arguments_are_named() {
    for (_, device) in devices() {
        let ignored = [-1i64; 5];
        let rank = TensorRef::new(&ignored, &[5]).expect("a view");
        let top = topk_accuracy(device, rank, &[1]).expect("ranks");
        assert_eq!((top.kept, &top.correct[..]), (0, &[0][..]));
        assert!(top.accuracy(0).unwrap().is_nan());
        let said = topk_accuracy(device, rank, &[1, 0]).expect_err("a k of 0").to_string();
        assert!(said.starts_with("ks") && said.contains("≥ 1"), "{said}");
        let floats = Data::floats(DType::F32, &[2], &[0.0, 1.0]);
        let said = topk_accuracy(device, floats.view(), &[1]).expect_err("floats").to_string();
        assert!(said.starts_with("rank") && said.contains("i64") && said.contains("f32"), "{said}");
        let none = TensorRef::new(&ignored[..0], &[0]).expect("a view");
        assert_eq!(topk_accuracy(device, none, &[]).expect("nothing").kept, 0);
    }
}
