//! Log-probability and entropy as a case: its options, its calls, its random cases.

use crate::cross_entropy::{CrossEntropyCase, Recipe, UpstreamKind};
use crate::data::{Data, Logits, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got, check, devices};
use crate::ranks::unwritten;
use warploss::check::reference::{self, LogprobEntropyReference};
use warploss::{
    DType, Device, GradOutput, LogprobEntropy, LogprobEntropyOut, LogprobEntropyOutput,
    LogprobEntropyUpstream, Result, TensorRef,
};

#[derive(Debug, Clone)]
pub(crate) struct LogprobEntropyCase {
    pub(crate) logits: Data,
    pub(crate) target: Data,
    /// One number, or one per row.
    pub(crate) grad_logprob: Data,
    pub(crate) grad_entropy: Data,
    pub(crate) ignore_index: i64,
    pub(crate) logit_scale: f32,
    pub(crate) softcap: Option<f32>,
}

fn number(g: f64) -> Data {
    Data::floats(DType::F32, &[], &[g])
}

impl LogprobEntropyCase {
    /// Logits and targets of a cross entropy, with numbers for upstream gradients.
    pub(crate) fn of(case: CrossEntropyCase, grads: [f64; 2]) -> Self {
        LogprobEntropyCase {
            grad_logprob: number(grads[0]),
            grad_entropy: number(grads[1]),
            logits: case.logits,
            target: case.target,
            ignore_index: case.ignore_index,
            logit_scale: case.logit_scale,
            softcap: case.softcap,
        }
    }

    pub(crate) fn random(
        seed: u64,
        dtype: DType,
        rows: usize,
        classes: usize,
        kind: Logits,
    ) -> Self {
        let case = CrossEntropyCase::random(seed, dtype, rows, classes, kind);
        LogprobEntropyCase::of(case, [-1.75, 0.5]).with_upstream_per_row(seed)
    }

    pub(crate) fn with_upstream_per_row(self, seed: u64) -> Self {
        let mut rng = Rng(seed ^ 0x70);
        let shape = self.target.shape().to_vec();
        let mut per_row =
            || Data::floats(DType::F32, &shape, &rng.normals(shape.iter().product(), 1.0));
        let (grad_logprob, grad_entropy) = (per_row(), per_row());
        LogprobEntropyCase { grad_logprob, grad_entropy, ..self }
    }

    pub(crate) fn options(&self) -> LogprobEntropy {
        LogprobEntropy::default()
            .ignore_index(self.ignore_index)
            .logit_scale(self.logit_scale)
            .softcap(self.softcap)
    }

    fn upstream(&self) -> LogprobEntropyUpstream<'_> {
        fn grad(data: &Data) -> GradOutput<'_> {
            match data.shape() {
                [] => GradOutput::Number(data.values()[0] as f32),
                _ => data.view().into(),
            }
        }
        LogprobEntropyUpstream {
            grad_logprob: grad(&self.grad_logprob),
            grad_entropy: grad(&self.grad_entropy),
        }
    }

    pub(crate) fn reference(&self, logits: &[f64]) -> LogprobEntropyReference {
        let target = reference::indices(self.target.view()).expect("indices");
        let (a, b) = (self.grad_logprob.values(), self.grad_entropy.values());
        let shape = self.logits.shape();
        reference::logprob_entropy(&self.options(), shape, logits, &target, [&a, &b])
    }

    pub(crate) fn golden(golden: &Golden<'_>) -> LogprobEntropyCase {
        let grad = |key, default| golden.data(key).unwrap_or_else(|| number(default));
        LogprobEntropyCase {
            logits: golden.data("logits").expect("logits").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target"),
            grad_logprob: grad("grad_logprob", 1.0),
            grad_entropy: grad("grad_entropy", 0.0),
            ignore_index: golden.options["ignore_index"].as_i64().expect("ignore_index"),
            logit_scale: golden.number("logit_scale") as f32,
            softcap: golden.options["softcap"].as_f64().map(|cap| cap as f32),
        }
    }
}

impl Recipe {
    /// The rows of the cross entropy, with upstream gradients by the same recipe.
    pub(crate) fn logprob_entropy(&self) -> LogprobEntropyCase {
        let case = LogprobEntropyCase::of(self.case(), [1.0, 0.0]);
        let mut rng = Rng(self.seed ^ 0x70);
        let target = reference::indices(case.target.view()).expect("indices");
        let mut grad = |default: f64| match self.upstream {
            UpstreamKind::One => number(default),
            UpstreamKind::Number => number(rng.normal()),
            UpstreamKind::Tensor(own) => {
                let dtype = if own { case.logits.dtype() } else { DType::F32 };
                // Now and then one that is 0 among others: rows that go the short way.
                let mut g = |&t: &i64| match rng.below(4) {
                    _ if t == case.ignore_index => f64::NAN,
                    0 => default,
                    _ => rng.normal(),
                };
                let g: Vec<f64> = target.iter().map(&mut g).collect();
                Data::floats(dtype, case.target.shape(), &g)
            }
        };
        let (grad_logprob, grad_entropy) = (grad(1.0), grad(0.0));
        LogprobEntropyCase { grad_logprob, grad_entropy, ..case }
    }
}

/// The buffers of a forward pass, poisoned.
struct Out {
    logprob: Data,
    entropy: Data,
    lse: Data,
    argmax: Data,
    rank: Data,
}

impl Out {
    fn new(case: &LogprobEntropyCase) -> Out {
        let f32s = || Data::poison(DType::F32, case.target.shape());
        let i64s = || unwritten(case.target.shape());
        Out { logprob: f32s(), entropy: f32s(), lse: f32s(), argmax: i64s(), rank: i64s() }
    }

    fn all(&mut self) -> LogprobEntropyOut<'_> {
        LogprobEntropyOut {
            logprob: self.logprob.view_mut(),
            entropy: self.entropy.view_mut(),
            lse: Some(self.lse.view_mut()),
            argmax: Some(self.argmax.view_mut()),
            rank: Some(self.rank.view_mut()),
        }
    }

    fn plain(&mut self) -> LogprobEntropyOut<'_> {
        LogprobEntropyOut {
            lse: Some(self.lse.view_mut()),
            ..LogprobEntropyOut::new(self.logprob.view_mut(), self.entropy.view_mut())
        }
    }

    fn got(&self, grad: &Data) -> Vec<Got> {
        grad.assert_padding_is_poison("grad_logits");
        vec![
            Got::new("logprob", self.logprob.view()),
            Got::new("entropy", self.entropy.view()),
            Got::new("lse", self.lse.view()),
            Got::new("grad_logits", grad.view()),
        ]
    }

    fn ranks(&self) -> [Got; 2] {
        [Got::new("argmax", self.argmax.view()), Got::new("rank", self.rank.view())]
    }
}

fn results(output: &LogprobEntropyOutput) -> Vec<Got> {
    vec![
        Got::new("logprob", output.logprob.view()),
        Got::new("entropy", output.entropy.view()),
        Got::new("lse", output.lse.view()),
    ]
}

impl LogprobEntropyCase {
    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let (logits, target) = (self.logits.view(), self.target.view());
        let (out, ranks) = self.options().forward_with_ranks(device, logits, target)?;
        let lse = out.lse.view();
        let grad = self.options().backward(device, logits, target, lse, self.upstream())?;
        let mut all = results(&out);
        all.push(Got::new("grad_logits", grad.view()));
        all.push(Got::new("argmax", ranks.argmax.view()));
        all.push(Got::new("rank", ranks.rank.view()));
        Ok(all)
    }

    fn into(&self, device: &Device) -> Result<Vec<Got>> {
        let (logits, target) = (self.logits.view(), self.target.view());
        let mut out = Out::new(self);
        self.options().forward_into(device, logits, target, out.plain())?;
        let mut grad = Data::poison(self.logits.dtype(), self.logits.shape()).padded(3);
        let saved = (target, out.lse.view());
        self.options().backward_into(device, logits, saved, self.upstream(), grad.view_mut())?;
        Ok(out.got(&grad))
    }

    fn in_place(&self, device: &Device) -> Result<Vec<Got>> {
        let mut out = Out::new(self);
        let mut logits = self.logits.clone();
        let target = self.target.view();
        self.options().forward_into(device, logits.view(), target, out.plain())?;
        let (lse, g) = (out.lse.view(), self.upstream());
        self.options().backward_in_place(device, logits.view_mut(), target, lse, g)?;
        Ok(out.got(&logits))
    }

    fn fused(&self, device: &Device) -> Result<Vec<Got>> {
        let mut out = Out::new(self);
        let mut logits = self.logits.clone();
        let (target, g) = (self.target.view(), self.upstream());
        let options = self.options();
        options.forward_backward_in_place(device, logits.view_mut(), target, g, out.plain())?;
        Ok(out.got(&logits))
    }

    fn fused_with_ranks(&self, device: &Device) -> Result<Vec<Got>> {
        let mut out = Out::new(self);
        let mut logits = self.logits.clone();
        let (target, g) = (self.target.view(), self.upstream());
        let options = self.options();
        options.forward_backward_in_place(device, logits.view_mut(), target, g, out.all())?;
        let mut all = out.got(&logits);
        all.extend(out.ranks());
        Ok(all)
    }

    fn consuming(&self, device: &Device) -> Result<Vec<Got>> {
        let target = self.target.view();
        let logits = self.logits.tensor();
        let done = self.options().forward_backward(device, logits, target, self.upstream())?;
        let mut all = results(&done.output);
        all.push(Got::new("grad_logits", done.grad_logits.view()));
        Ok(all)
    }
}

impl Case for LogprobEntropyCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let out = self.reference(&self.logits.values());
        let [argmax, rank] = crate::ranks::expected(&self.logits, &self.target, self.ignore_index);
        vec![
            Expected::term("logprob", out.logprob),
            Expected::term("entropy", out.entropy),
            Expected::term("lse", out.lse),
            Expected::gradient("grad_logits", out.grad_logits),
            argmax,
            rank,
        ]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("allocating, with ranks", self.allocating(device)),
            ("into", self.into(device)),
            ("in place", self.in_place(device)),
            ("fused", self.fused(device)),
            ("fused, with ranks", self.fused_with_ranks(device)),
            ("consuming", self.consuming(device)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_logits", self.logits.values())]
    }

    fn objective(&self, _: &str, input: &[f64]) -> f64 {
        let out = self.reference(input);
        let (a, b) = (self.grad_logprob.values(), self.grad_entropy.values());
        let of = |g: &[f64], row: usize| g[if g.len() == 1 { 0 } else { row }];
        let rows = out.logprob.iter().zip(&out.entropy).enumerate();
        rows.map(|(row, (logp, h))| of(&a, row) * logp + of(&b, row) * h).sum()
    }
}

/// Every class alike: the entropy is ln V and has no slope, whatever the offset.
#[test]
fn a_row_with_nan_is_nan_wherever_it_stands() {
    for (classes, at) in [(1, 0), (2, 0), (2, 1), (9, 3), (300, 299), (5000, 17)] {
        for target in [0, at as i64, classes as i64 - 1] {
            let mut logits: Vec<f32> = (0..2 * classes).map(|i| (i % 7) as f32).collect();
            logits[at] = f32::NAN;
            for (name, device) in devices() {
                let input = TensorRef::new(&logits, &[2, classes]).unwrap();
                let target = [target; 2];
                let target = TensorRef::new(&target, &[2]).unwrap();
                let out = LogprobEntropy::default().forward(device, input, target).unwrap();
                for result in [&out.lse, &out.logprob, &out.entropy] {
                    let values = result.as_slice::<f32>().unwrap();
                    assert!(values[0].is_nan() && values[1].is_finite(), "{name}: {values:?}");
                }
            }
        }
    }
}

#[test]
fn equal_logits_have_the_entropy_of_the_uniform_distribution_and_no_slope() {
    for (dtype, offset) in [(DType::F32, 1e4), (DType::F32, -1e30), (DType::BF16, 300.0)] {
        for classes in [1, 2, 50, 3000] {
            let case = CrossEntropyCase::with_dtype(
                dtype,
                &[1, classes],
                &vec![offset; classes],
                &[classes as i64 - 1],
            );
            let case = LogprobEntropyCase::of(case, [0.0, 1.0]);
            check(&case);
            let out =
                case.options().forward(&Device::cpu(), case.logits.view(), case.target.view());
            let entropy = out.expect("a legal call").entropy.item().expect("one row");
            let expected = (classes as f64).ln();
            assert!((f64::from(entropy) - expected).abs() <= 1e-6 * expected, "{entropy}");
        }
    }
}

/// A common offset is taken off before anything is added: as exact as without it.
#[test]
fn a_common_offset_costs_entropy_and_gradient_no_digits() {
    let device = Device::cpu();
    // Steps of 1/8 are exact at 1e4.
    let step = |i: usize| ((i * 7919) % 97) as f64 / 8.0;
    let values: Vec<f64> = (0..3 * 1000).map(step).collect();
    let run = |offset: f64| {
        let shifted: Vec<f64> = values.iter().map(|v| v + offset).collect();
        let case = CrossEntropyCase::new(&[3, 1000], &shifted, &[0, 500, 999]);
        let case = LogprobEntropyCase::of(case, [0.0, 1.0]);
        let forms = case.forms(&device);
        let (_, fused) = forms.into_iter().find(|(name, _)| *name == "fused").expect("a form");
        let mut got = fused.expect("a legal call");
        got.retain(|g| g.name != "lse");
        got.into_iter().map(|g| (g.name, g.values)).collect::<Vec<_>>()
    };
    assert_eq!(run(0.0), run(1e4));
}

/// p so near 1 that 1 − p is nothing in f32: the slopes of the others, and of the best class
/// itself, are sums of what is small and no differences of what is large.
#[test]
fn a_confident_row_keeps_the_digits_of_its_small_entropy_gradient() {
    for target in 0..3 {
        let logits = [30.0, 0.5, -1.0];
        let case = CrossEntropyCase::new(&[1, 3], &logits, &[target]);
        check(&LogprobEntropyCase::of(case, [0.0, 1.0]));
    }
}

#[test]
fn ignored_rows_give_exact_zeros_and_minus_one_whatever_they_hold() {
    let nan = f64::NAN;
    let case = CrossEntropyCase::new(&[3, 2], &[nan, nan, 1.0, 2.0, nan, nan], &[-100, 0, -100]);
    let case = LogprobEntropyCase::of(case, [1.0, 1.0]);
    let case = LogprobEntropyCase {
        grad_logprob: Data::floats(DType::F32, &[3], &[nan, 1.0, nan]),
        ..case
    };
    check(&case);
    let (_, got) = case.forms(&Device::cpu()).swap_remove(4);
    for got in got.expect("a legal call") {
        let zero = if matches!(got.name, "argmax" | "rank") { -1.0 } else { 0.0 };
        let per_row = got.values.len() / 3;
        let ignored = got.values[..per_row].iter().chain(&got.values[2 * per_row..]);
        assert!(ignored.copied().all(|v| v == zero), "{}: {:?}", got.name, got.values);
    }
}
