//! Everything that one read gives: a cross entropy with log-probability, entropy, ranks, the likeliest classes
//! and the gradient of all of it.

use crate::cross_entropy::{CrossEntropyCase, Recipe};
use crate::data::{Data, FLOATS, Logits, Rng};
use crate::harness::{Case, Expected, Got, check, devices};
use crate::logprob_entropy::LogprobEntropyCase;
use crate::ranks::unwritten;
use warploss::check::reference;
use warploss::{
    CrossEntropyOut, CrossEntropyUpstream, DType, Device, Error, Result, TensorRef, TopKOut,
};

#[derive(Debug, Clone)]
pub(crate) struct TokensCase {
    rows: CrossEntropyCase,
    tokens: LogprobEntropyCase,
    k: usize,
}

impl TokensCase {
    /// With upstream gradients of its own for every row.
    pub(crate) fn of(rows: CrossEntropyCase, k: usize, seed: u64) -> TokensCase {
        let tokens = LogprobEntropyCase::of(rows.clone(), [-1.75, 0.5]);
        let classes = rows.logits.shape()[usize::from(rows.logits.shape().len() > 1)];
        TokensCase { rows, tokens: tokens.with_upstream_per_row(seed), k: k.min(classes) }
    }

    /// Of a random cross entropy, whatever its options.
    pub(crate) fn of_recipe(recipe: &Recipe) -> TokensCase {
        TokensCase::of(recipe.case(), [1, 3, 16, 100][recipe.seed as usize % 4], recipe.seed)
    }

    fn upstream(&self) -> CrossEntropyUpstream<'_> {
        CrossEntropyUpstream {
            grad_output: self.rows.grad_output(),
            grad_logprob: self.tokens.grad_logprob.view().into(),
            grad_entropy: self.tokens.grad_entropy.view().into(),
        }
    }

    fn memory(&self) -> Outputs {
        let rows = self.rows.target.shape();
        let top = [rows, &[self.k]].concat();
        let floats = |shape: &[usize]| Data::poison(DType::F32, shape);
        Outputs {
            loss: floats(self.rows.loss_shape()),
            lse: floats(rows),
            logprob: floats(rows),
            entropy: floats(rows),
            rank: unwritten(rows),
            classes: unwritten(&top),
            top: floats(&top),
        }
    }

    fn forward(&self, device: &Device, asked: Asked) -> Result<Vec<Got>> {
        let mut memory = self.memory();
        let (logits, target) = (self.rows.logits.view(), self.rows.target.view());
        self.rows.options().forward_into(device, logits, target, memory.out(asked))?;
        Ok(memory.got(asked))
    }

    fn fused(&self, device: &Device, asked: Asked) -> Result<Vec<Got>> {
        let (mut memory, mut logits) = (self.memory(), self.rows.logits.clone());
        self.rows.options().forward_backward_in_place(
            device,
            logits.view_mut(),
            self.rows.target.view(),
            self.upstream(),
            memory.out(asked),
        )?;
        logits.assert_padding_is_poison("grad_logits");
        let mut got = memory.got(asked);
        got.push(Got::new("grad_logits", logits.view()));
        Ok(got)
    }
}

/// Which outputs there is memory for, besides the loss.
#[derive(Debug, Clone, Copy)]
struct Asked {
    tokens: bool,
    rank: bool,
    top: bool,
}

const ALL: Asked = Asked { tokens: true, rank: true, top: true };
const NOTHING: Asked = Asked { tokens: false, rank: false, top: false };

struct Outputs {
    loss: Data,
    lse: Data,
    logprob: Data,
    entropy: Data,
    rank: Data,
    classes: Data,
    top: Data,
}

impl Outputs {
    fn out(&mut self, asked: Asked) -> CrossEntropyOut<'_> {
        let top = TopKOut { classes: self.classes.view_mut(), logprob: self.top.view_mut() };
        CrossEntropyOut {
            lse: Some(self.lse.view_mut()),
            rank: asked.rank.then(|| self.rank.view_mut()),
            logprob: asked.tokens.then(|| self.logprob.view_mut()),
            entropy: asked.tokens.then(|| self.entropy.view_mut()),
            top_k: asked.top.then_some(top),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        }
    }

    fn got(&self, asked: Asked) -> Vec<Got> {
        let mut got = vec![Got::new("loss", self.loss.view()), Got::new("lse", self.lse.view())];
        if asked.tokens {
            got.push(Got::new("logprob", self.logprob.view()));
            got.push(Got::new("entropy", self.entropy.view()));
        }
        if asked.rank {
            got.push(Got::new("rank", self.rank.view()));
        }
        if asked.top {
            got.push(Got::new("classes", self.classes.view()));
            got.push(Got::new("top", self.top.view()));
        }
        got
    }
}

impl Case for TokensCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let logits = self.rows.logits.values();
        let (one, other) = (self.rows.reference(&logits), self.tokens.reference(&logits));
        let target = reference::indices(self.rows.target.view()).expect("indices");
        let (options, shape) = (self.rows.options(), self.rows.logits.shape());
        let [classes, top] = reference::top_k(&options, shape, &logits, &target, self.k);
        let [_, rank] = reference::ranks(shape, &logits, &target, self.rows.ignore_index);
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        vec![
            Expected::loss("loss", one.loss, one.loss_size),
            Expected::term("lse", one.lse),
            Expected::term("logprob", other.logprob),
            Expected::term("entropy", other.entropy),
            Expected::term("rank", rank),
            Expected::term("classes", classes),
            Expected::term("top", top),
            Expected::summed_gradient(
                "grad_logits",
                sum(&one.grad_logits, &other.grad_logits),
                sum(&one.grad_logits_size, &other.grad_logits_size),
            ),
        ]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        let tokens = Asked { rank: false, top: false, ..ALL };
        vec![
            ("forward, all", self.forward(device, ALL)),
            ("forward, tokens", self.forward(device, tokens)),
            ("fused, all", self.fused(device, ALL)),
            ("fused, ranks and tokens", self.fused(device, Asked { top: false, ..ALL })),
            ("fused, top", self.fused(device, Asked { top: true, ..NOTHING })),
            ("fused, loss alone", self.fused(device, NOTHING)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        self.rows.variables()
    }

    fn objective(&self, gradient: &str, values: &[f64]) -> f64 {
        self.rows.objective(gradient, values) + self.tokens.objective(gradient, values)
    }
}

/// Ties, infinities, NaN and zeros of both signs, more of one than there is room for, at every length.
#[test]
fn the_likeliest_classes_are_those_of_a_sort_whatever_the_row_holds() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let pool = [0.0, -0.0, 1.5, 1.5, -2.0, -2.0, inf, -inf, nan];
    let mut rng = Rng(17);
    for dtype in FLOATS {
        for classes in [1, 2, 5, 16, 17, 33, 100, 700, 4500] {
            let rows = 14;
            // The first rows are tame, the later ones anything; the last: rising, all −∞, all NaN, and few
            // that are not masked.
            let values: Vec<f64> = (0..rows * classes)
                .map(|i| match i / classes {
                    10 => (i % classes) as f64 / 8.0,
                    11 => -inf,
                    12 => nan,
                    13 => [-inf, 1.0][usize::from(i % 97 == 5)],
                    row => pool[rng.below(if row < 6 { 6 } else { pool.len() })],
                })
                .collect();
            let target: Vec<i64> = (0..rows).map(|_| rng.below(classes) as i64).collect();
            let case = CrossEntropyCase::with_dtype(dtype, &[rows, classes], &values, &target);
            let case = CrossEntropyCase { logits: case.logits.clone().padded(3), ..case };
            // More than 16 are found by a launch of their own.
            let many: &[usize] = match classes {
                17 | 33 => &[17],
                700 => &[17, 128],
                4500 if dtype == DType::BF16 => &[128],
                _ => &[],
            };
            for &k in [1, 7, 16].iter().chain(many) {
                check(&TokensCase::of(case.clone(), k, 5));
            }
        }
    }
}

/// A common offset, confident rows and nearly certain ones: digits of what is small stay.
#[test]
fn all_of_it_keeps_its_digits_wherever_the_row_lies() {
    for dtype in FLOATS {
        for kind in [Logits::Confident, Logits::Normal, Logits::Masked, Logits::Ties] {
            for (rows, classes) in [(5, 7), (4, 300), (3, 5000)] {
                let case = CrossEntropyCase::random(3, dtype, rows, classes, kind);
                check(&TokensCase::of(case.clone(), 5, 1));
                let options =
                    CrossEntropyCase { label_smoothing: 0.1, softcap: Some(20.0), ..case };
                check(&TokensCase::of(
                    CrossEntropyCase { lse_square_scale: 1e-3, ..options },
                    5,
                    2,
                ));
            }
        }
    }
}

#[test]
fn outputs_of_rows_name_what_is_wrong_and_write_nothing() {
    let case = CrossEntropyCase::random(3, DType::F32, 4, 9, Logits::Normal);
    let (f32s, i64s) = (|s: &[usize]| Data::poison(DType::F32, s), |s: &[usize]| unwritten(s));
    // What is wrong: shapes of classes and their log-probabilities, and the argument that says so.
    let bad = [
        (i64s(&[4, 0]), f32s(&[4, 0]), "top_k.classes"),
        (i64s(&[4, 17]), f32s(&[4, 17]), "top_k.classes"),
        (i64s(&[4, 10]), f32s(&[4, 10]), "top_k.classes"),
        (i64s(&[4, 129]), f32s(&[4, 129]), "top_k.classes"),
        (i64s(&[5, 2]), f32s(&[5, 2]), "top_k.classes"),
        (i64s(&[2]), f32s(&[2]), "top_k.classes"),
        (f32s(&[4, 2]), f32s(&[4, 2]), "top_k.classes"),
        (i64s(&[4, 2]), f32s(&[4, 3]), "top_k.logprob"),
        (i64s(&[4, 2]), i64s(&[4, 2]), "top_k.logprob"),
    ];
    for (name, device) in devices() {
        for (classes, top, argument) in &bad {
            let (mut classes, mut top) = (classes.clone(), top.clone());
            let mut loss = Data::poison(DType::F32, &[]);
            let before = [loss.bits(), classes.bits(), top.bits()];
            let top_k = Some(TopKOut { classes: classes.view_mut(), logprob: top.view_mut() });
            let out = CrossEntropyOut { top_k, ..CrossEntropyOut::loss(loss.view_mut()) };
            let (logits, target) = (case.logits.view(), case.target.view());
            let said = case.options().forward_into(device, logits, target, out);
            let said = said.expect_err("what is wrong").to_string();
            assert!(said.starts_with(argument), "{name}: {said}");
            assert!(before == [loss.bits(), classes.bits(), top.bits()], "{name}: {said}");
        }
        let mut logits = case.logits.clone();
        let before = logits.bits();
        let mut loss = Data::poison(DType::F32, &[]);
        let few = [1f32; 3];
        let upstream = CrossEntropyUpstream {
            grad_entropy: TensorRef::new(&few, &[3]).expect("a view").into(),
            ..1.0.into()
        };
        let out = CrossEntropyOut::loss(loss.view_mut());
        let (view, target) = (logits.view_mut(), case.target.view());
        let said = case.options().forward_backward_in_place(device, view, target, upstream, out);
        let said = said.expect_err("three for four rows").to_string();
        assert!(said.starts_with("grad_entropy") && said.contains("[4]"), "{name}: {said}");
        assert!(before == logits.bits(), "{name}");
    }
}

/// Probabilities have no class to ask about.
#[test]
fn probabilities_have_no_outputs_of_a_target() {
    let logits = Data::floats(DType::F32, &[2, 3], &[0.5, 1.0, 2.0, 0.0, 0.0, 1.0]);
    let probabilities = Data::floats(DType::F32, &[2, 3], &[0.2, 0.3, 0.5, 1.0, 0.0, 0.0]);
    for (name, device) in devices() {
        let (mut loss, mut entropy) =
            (Data::poison(DType::F32, &[]), Data::poison(DType::F32, &[2]));
        let out = CrossEntropyOut {
            entropy: Some(entropy.view_mut()),
            ..CrossEntropyOut::loss(loss.view_mut())
        };
        let options = warploss::CrossEntropy::default();
        let said = options.forward_into(device, logits.view(), probabilities.view(), out);
        let said = said.expect_err("no class");
        assert!(matches!(said, Error::Value { argument: "entropy", .. }), "{name}: {said}");
        let mut memory = logits.clone();
        let upstream = CrossEntropyUpstream { grad_logprob: 0.5.into(), ..1.0.into() };
        let out = CrossEntropyOut::loss(loss.view_mut());
        let (view, target) = (memory.view_mut(), probabilities.view());
        let said = options.forward_backward_in_place(device, view, target, upstream, out);
        let said = said.expect_err("no class");
        assert!(matches!(said, Error::Value { argument: "grad_logprob", .. }), "{name}: {said}");
    }
}
