//! Every call that goes through rows: a new loss is a variant here and a line of [`CALLS`].

use crate::schedules::data::{Data, Input, close};
use warploss::{
    CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, Device, LogSoftmax, LogSumExp,
    LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream, MultiMargin, Reduction, TensorMut,
    TensorRef, TopKOut,
};

/// A loss with options that matter to a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    CrossEntropy,
    /// With soft-cap and label smoothing.
    CrossEntropyFull,
    /// Log-softmax in the logits' type.
    LogSoftmax,
    /// Log-softmax whose output and upstream gradient are f32.
    LogSoftmaxWide,
    LogSumExp,
    LogprobEntropy,
    /// With argmax and the target's rank.
    CrossEntropyRanked,
    /// With log-probability and entropy, and gradients of both.
    CrossEntropyTokens,
    CrossEntropyTokensRanked,
    /// With the likeliest classes too.
    CrossEntropyTop,
    LogprobEntropyRanked,
    MultiMargin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    /// From what the forward pass saved, or its input.
    Backward,
    /// Forward and backward, in place.
    Fused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call(pub(crate) Loss, pub(crate) Pass);

pub(crate) const CALLS: [Call; 28] = [
    Call(Loss::CrossEntropy, Pass::Forward),
    Call(Loss::CrossEntropy, Pass::Backward),
    Call(Loss::CrossEntropy, Pass::Fused),
    Call(Loss::CrossEntropyFull, Pass::Forward),
    Call(Loss::CrossEntropyFull, Pass::Backward),
    Call(Loss::CrossEntropyFull, Pass::Fused),
    Call(Loss::LogSoftmax, Pass::Forward),
    Call(Loss::LogSoftmax, Pass::Backward),
    Call(Loss::LogSoftmaxWide, Pass::Forward),
    Call(Loss::LogSoftmaxWide, Pass::Backward),
    Call(Loss::LogSumExp, Pass::Forward),
    Call(Loss::LogSumExp, Pass::Backward),
    Call(Loss::LogprobEntropy, Pass::Forward),
    Call(Loss::LogprobEntropy, Pass::Backward),
    Call(Loss::LogprobEntropy, Pass::Fused),
    Call(Loss::CrossEntropyRanked, Pass::Forward),
    Call(Loss::CrossEntropyRanked, Pass::Fused),
    Call(Loss::CrossEntropyTokens, Pass::Forward),
    Call(Loss::CrossEntropyTokens, Pass::Fused),
    Call(Loss::CrossEntropyTokensRanked, Pass::Forward),
    Call(Loss::CrossEntropyTokensRanked, Pass::Fused),
    Call(Loss::CrossEntropyTop, Pass::Forward),
    Call(Loss::CrossEntropyTop, Pass::Fused),
    Call(Loss::LogprobEntropyRanked, Pass::Forward),
    Call(Loss::LogprobEntropyRanked, Pass::Fused),
    Call(Loss::MultiMargin, Pass::Forward),
    Call(Loss::MultiMargin, Pass::Backward),
    Call(Loss::MultiMargin, Pass::Fused),
];

/// What a call gives a row, besides what it writes element by element.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) numbers: Vec<f64>,
    /// Classes and ranks.
    exact: Vec<i64>,
}

impl From<Vec<f32>> for Answer {
    fn from(numbers: Vec<f32>) -> Answer {
        let numbers = numbers.into_iter().map(f64::from).collect();
        Answer { numbers, exact: Vec::new() }
    }
}

/// How often a call reads and writes tensors as large as the logits, in bytes an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) read: usize,
    pub(crate) written: usize,
}

impl Call {
    /// How [`Device::schedules`] begins its line about this call.
    pub(crate) fn note(self, dtype: &str) -> String {
        let Call(loss, pass) = self;
        let work = match pass {
            Pass::Forward if !self.as_if_writing() => "Forward",
            Pass::Backward if self.saves() => "FromLse",
            _ => "Fused",
        };
        let narrow = dtype != "f32";
        let kernel = match (loss, pass) {
            (Loss::LogSoftmax, Pass::Forward) if narrow => "LogSoftmaxNarrow".into(),
            (Loss::LogSoftmax, _) if narrow => "LogSoftmaxGradientNarrow".into(),
            (Loss::LogSoftmax | Loss::LogSoftmaxWide, Pass::Forward) => "LogSoftmax".into(),
            (Loss::LogSoftmax | Loss::LogSoftmaxWide, _) => "LogSoftmaxGradient".into(),
            _ => format!("{loss:?}"),
        };
        format!("{kernel} {dtype} {work}: ")
    }

    /// Whether an element is written for each that is read.
    pub(crate) fn writes_rows(self) -> bool {
        let Call(loss, pass) = self;
        pass != Pass::Forward || matches!(loss, Loss::LogSoftmax | Loss::LogSoftmaxWide)
    }

    /// Whether its kernels are those that write rows, if only numbers with them.
    pub(crate) fn as_if_writing(self) -> bool {
        self.writes_rows() || self.0 == Loss::CrossEntropyTop
    }

    /// How often a row that does not stay on chip is read for its numbers.
    pub(crate) fn visits(self) -> usize {
        if self.0 == Loss::CrossEntropyTop { 2 } else { 1 }
    }

    /// Whether every thread reads its row's target.
    pub(crate) fn has_target(self) -> bool {
        !matches!(self.0, Loss::LogSoftmax | Loss::LogSoftmaxWide | Loss::LogSumExp)
    }

    /// Whether its backward pass is given a sum that the forward pass saved.
    pub(crate) fn saves(self) -> bool {
        self.has_target() && self.0 != Loss::MultiMargin
    }

    /// Bytes that must be moved for each element of `size` bytes, where a row is read once.
    pub(crate) fn traffic(self, size: usize) -> Traffic {
        let Call(loss, pass) = self;
        let other = if loss == Loss::LogSoftmaxWide { 4 } else { size };
        match (loss, pass) {
            (Loss::LogSoftmax | Loss::LogSoftmaxWide, Pass::Forward) => {
                Traffic { read: size, written: other }
            }
            (Loss::LogSoftmax | Loss::LogSoftmaxWide, _) => {
                Traffic { read: size + other, written: size }
            }
            (_, Pass::Forward) => Traffic { read: size, written: 0 },
            _ => Traffic { read: size, written: size },
        }
    }

    /// Makes the call. What is a number a row comes back as such; what is written element by
    /// element goes to `out`, laid out as the input (but for f32 beside a narrower type, which is
    /// contiguous and comes back too).
    pub(crate) fn run<T: Data>(
        self,
        device: &Device,
        input: &Input<'_, T>,
        out: &mut [T],
    ) -> Answer {
        let Call(loss, pass) = self;
        let layout = input.layout;
        let x = layout.view(input.x);
        let rows = layout.batch();
        match loss {
            Loss::CrossEntropy
            | Loss::CrossEntropyFull
            | Loss::CrossEntropyRanked
            | Loss::CrossEntropyTokens
            | Loss::CrossEntropyTokensRanked
            | Loss::CrossEntropyTop => {
                let op = CrossEntropy::default().reduction(Reduction::None);
                let op = match loss {
                    Loss::CrossEntropyFull | Loss::CrossEntropyTokens => {
                        op.label_smoothing(0.1).softcap(Some(30.0))
                    }
                    _ => op.lse_square_scale(1e-3),
                };
                let target = TensorRef::new(input.target, &rows).unwrap();
                let g = TensorRef::new(input.per_row, &rows).unwrap();
                let mut kept = Kept::new(&rows);
                let mut tokens = Tokens::new(&rows, layout.classes);
                let [first, lse, argmax, rank] = kept.views();
                let mut results = CrossEntropyOut::loss(first);
                results.lse = Some(lse);
                if matches!(loss, Loss::CrossEntropyRanked | Loss::CrossEntropyTokensRanked) {
                    (results.argmax, results.rank) = (Some(argmax), Some(rank));
                }
                let mut upstream = CrossEntropyUpstream::from(g);
                if !matches!(
                    loss,
                    Loss::CrossEntropy | Loss::CrossEntropyFull | Loss::CrossEntropyRanked
                ) {
                    (upstream.grad_logprob, upstream.grad_entropy) = (0.3.into(), g.into());
                    tokens.ask(&mut results, loss == Loss::CrossEntropyTop);
                }
                match pass {
                    Pass::Forward => op.forward_into(device, x, target, results).unwrap(),
                    Pass::Backward => {
                        let lse = TensorRef::new(input.lse, &rows).unwrap();
                        let grad = layout.view_mut(out);
                        op.backward_into(device, x, (target, lse), g, grad).unwrap();
                    }
                    Pass::Fused => {
                        layout.scatter(&layout.gather(input.x), out);
                        let logits = layout.view_mut(out);
                        op.forward_backward_in_place(device, logits, target, upstream, results)
                            .unwrap();
                    }
                }
                tokens.answer(kept)
            }
            Loss::LogprobEntropy | Loss::LogprobEntropyRanked => {
                let op = LogprobEntropy::default().softcap(Some(30.0));
                let target = TensorRef::new(input.target, &rows).unwrap();
                let g = TensorRef::new(input.per_row, &rows).unwrap();
                // A saved log-sum-exp serves where the entropy has no part in the gradient.
                let grad_entropy = if pass == Pass::Backward { 0.0 } else { 0.4 };
                let upstream = LogprobEntropyUpstream {
                    grad_logprob: g.into(),
                    grad_entropy: grad_entropy.into(),
                };
                let (mut kept, mut entropy) = (Kept::new(&rows), vec![0f32; layout.rows]);
                let [first, lse, argmax, rank] = kept.views();
                let entropies = TensorMut::new(&mut entropy, &rows).unwrap();
                let mut results = LogprobEntropyOut::new(first, entropies);
                results.lse = Some(lse);
                if loss == Loss::LogprobEntropyRanked {
                    (results.argmax, results.rank) = (Some(argmax), Some(rank));
                }
                match pass {
                    Pass::Forward => op.forward_into(device, x, target, results).unwrap(),
                    Pass::Backward => {
                        let lse = TensorRef::new(input.lse, &rows).unwrap();
                        let grad = layout.view_mut(out);
                        op.backward_into(device, x, (target, lse), upstream, grad).unwrap();
                    }
                    Pass::Fused => {
                        layout.scatter(&layout.gather(input.x), out);
                        let logits = layout.view_mut(out);
                        op.forward_backward_in_place(device, logits, target, upstream, results)
                            .unwrap();
                    }
                }
                kept.answer(&entropy)
            }
            Loss::MultiMargin => {
                let op = MultiMargin::default().p(2).reduction(Reduction::None);
                // It ignores no row.
                let classes: Vec<i64> = input.target.iter().map(|&t| t.max(0)).collect();
                let target = TensorRef::new(&classes, &rows).unwrap();
                let g = TensorRef::new(input.per_row, &rows).unwrap();
                let mut losses = vec![0f32; layout.rows];
                let first = TensorMut::new(&mut losses, &rows).unwrap();
                match pass {
                    Pass::Forward => op.forward_into(device, x, target, first).unwrap(),
                    Pass::Backward => {
                        op.backward_into(device, x, target, g, layout.view_mut(out)).unwrap();
                    }
                    Pass::Fused => {
                        layout.scatter(&layout.gather(input.x), out);
                        let scores = layout.view_mut(out);
                        op.forward_backward_in_place(device, scores, target, g, first).unwrap();
                    }
                }
                losses.into()
            }
            Loss::LogSoftmax => {
                let (op, y) = (LogSoftmax::dim(1), layout.view_mut(out));
                match pass {
                    Pass::Forward => op.forward_into(device, x, y).unwrap(),
                    _ => op.backward_into(device, x, layout.view(input.upstream), y).unwrap(),
                }
                Answer::default()
            }
            Loss::LogSoftmaxWide => {
                let op = LogSoftmax::dim(1);
                let contiguous = layout.dense();
                let g = layout.gather(input.upstream);
                let mut wide: Vec<f32> = g.into_iter().map(|g| g.f64() as f32).collect();
                match pass {
                    Pass::Forward => {
                        op.forward_into(device, x, contiguous.view_mut(&mut wide)).unwrap();
                        wide.into()
                    }
                    _ => {
                        let (g, y) = (contiguous.view(&wide), layout.view_mut(out));
                        op.backward_into(device, x, g, y).unwrap();
                        Answer::default()
                    }
                }
            }
            Loss::LogSumExp => {
                let op = LogSumExp::dims(&[1]).unwrap();
                let mut lse = vec![0f32; layout.rows];
                match pass {
                    Pass::Forward => op
                        .forward_into(device, x, TensorMut::new(&mut lse, &rows).unwrap())
                        .unwrap(),
                    _ => {
                        let saved = TensorRef::new(input.lse, &rows).unwrap();
                        let g = TensorRef::new(input.per_row, &rows).unwrap();
                        op.backward_into(device, x, saved, g, layout.view_mut(out)).unwrap();
                    }
                }
                lse.into()
            }
        }
    }

    /// Makes the call on two devices and compares. `outs` are as long as the input reaches.
    pub(crate) fn compare<T: Data>(
        self,
        what: &str,
        (device, cpu): (&Device, &Device),
        input: &Input<'_, T>,
        outs: [&mut [T]; 2],
    ) {
        let what = format!("{what}: {self:?} {}", T::DTYPE);
        let [got, expected] = outs;
        let answers = [self.run(device, input, got), self.run(cpu, input, expected)];
        close(&format!("{what}, numbers"), &answers[0].numbers, &answers[1].numbers, 2e-6);
        assert_eq!(answers[0].exact, answers[1].exact, "{what}");
        if self.writes_rows() && !(self == Call(Loss::LogSoftmaxWide, Pass::Forward)) {
            let f64s = |memory: &[T]| -> Vec<f64> {
                input.layout.gather(memory).into_iter().map(Data::f64).collect()
            };
            close(&what, &f64s(got), &f64s(expected), T::TOLERANCE);
        }
    }
}

/// Results of a row that most calls have.
struct Kept {
    first: Vec<f32>,
    lse: Vec<f32>,
    argmax: Vec<i64>,
    rank: Vec<i64>,
    shape: Vec<usize>,
}

impl Kept {
    fn new(shape: &[usize]) -> Kept {
        let rows = shape.iter().product();
        let (zeros, none) = (vec![0f32; rows], vec![-7i64; rows]);
        let (first, lse, argmax, rank) = (zeros.clone(), zeros, none.clone(), none);
        Kept { first, lse, argmax, rank, shape: shape.to_vec() }
    }

    fn views(&mut self) -> [TensorMut<'_>; 4] {
        let rows = &self.shape;
        [
            TensorMut::new(&mut self.first, rows).unwrap(),
            TensorMut::new(&mut self.lse, rows).unwrap(),
            TensorMut::new(&mut self.argmax, rows).unwrap(),
            TensorMut::new(&mut self.rank, rows).unwrap(),
        ]
    }

    fn answer(self, more: &[f32]) -> Answer {
        let numbers = self.first.iter().chain(&self.lse).chain(more);
        let exact = self.argmax.into_iter().chain(self.rank).collect();
        Answer { numbers: numbers.map(|&n| n.into()).collect(), exact }
    }
}

/// What a cross entropy may give of rows besides.
struct Tokens {
    logprob: Vec<f32>,
    entropy: Vec<f32>,
    top: Vec<f32>,
    classes: Vec<i64>,
    k: usize,
    shape: Vec<usize>,
}

impl Tokens {
    /// Of so few classes that all of them take less memory than the logits.
    fn new(shape: &[usize], classes: usize) -> Tokens {
        let rows: usize = shape.iter().product();
        let (zeros, k) = (|n| vec![0f32; n], classes.min(3));
        let (logprob, entropy, top) = (zeros(rows), zeros(rows), zeros(rows * k));
        Tokens { logprob, entropy, top, classes: vec![-7; rows * k], k, shape: shape.to_vec() }
    }

    fn ask<'a>(&'a mut self, results: &mut CrossEntropyOut<'a>, top: bool) {
        let rows = &self.shape[..];
        let top_shape = [self.logprob.len(), self.k];
        results.logprob = Some(TensorMut::new(&mut self.logprob, rows).unwrap());
        results.entropy = Some(TensorMut::new(&mut self.entropy, rows).unwrap());
        results.top_k = top.then(|| TopKOut {
            classes: TensorMut::new(&mut self.classes, &top_shape).unwrap(),
            logprob: TensorMut::new(&mut self.top, &top_shape).unwrap(),
        });
    }

    fn answer(self, kept: Kept) -> Answer {
        let mut answer = kept.answer(&[&self.logprob[..], &self.entropy, &self.top].concat());
        answer.exact.extend(self.classes);
        answer
    }
}

/// Log-sum-exps for an [`Input`] that has none yet.
pub(crate) fn lse_of<T: Data>(call: Call, cpu: &Device, input: &Input<'_, T>) -> Vec<f32> {
    let rows = input.layout.rows;
    let from = match call.0 {
        Loss::LogSoftmax | Loss::LogSoftmaxWide | Loss::MultiMargin => return vec![0.0; rows],
        Loss::LogSumExp => 0,
        _ => rows,
    };
    let Answer { numbers, .. } = Call(call.0, Pass::Forward).run(cpu, input, &mut []);
    numbers[from..from + rows].iter().map(|&l| l as f32).collect()
}
