//! Every call that goes through rows: a new loss is a variant here and a line of [`CALLS`].

use crate::data::{Data, Input, Layout, close};
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, LogSoftmax, LogSumExp, Reduction, TensorMut, TensorRef,
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

pub(crate) const CALLS: [Call; 12] = [
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
];

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
        let (kernel, work) = match (loss, pass) {
            (Loss::CrossEntropy | Loss::CrossEntropyFull, Pass::Forward) => (loss, "Forward"),
            (Loss::CrossEntropy | Loss::CrossEntropyFull, Pass::Backward) => (loss, "FromLse"),
            (Loss::LogSumExp, Pass::Forward) => (loss, "Forward"),
            _ => (loss, "Fused"),
        };
        let kernel = match (kernel, pass, dtype) {
            (Loss::LogSoftmax, Pass::Forward, "f16" | "bf16") => "LogSoftmaxNarrow",
            (Loss::LogSoftmax | Loss::LogSoftmaxWide, Pass::Forward, _) => "LogSoftmax",
            (Loss::LogSoftmax, _, "f16" | "bf16") => "LogSoftmaxGradientNarrow",
            (Loss::LogSoftmax | Loss::LogSoftmaxWide, ..) => "LogSoftmaxGradient",
            (Loss::CrossEntropy, ..) => "CrossEntropy",
            (Loss::CrossEntropyFull, ..) => "CrossEntropyFull",
            (Loss::LogSumExp, ..) => "LogSumExp",
        };
        format!("{kernel} {dtype} {work}: ")
    }

    /// Whether an element is written for each that is read.
    pub(crate) fn writes_rows(self) -> bool {
        let Call(loss, pass) = self;
        pass != Pass::Forward || matches!(loss, Loss::LogSoftmax | Loss::LogSoftmaxWide)
    }

    /// Whether every thread reads its row's target.
    pub(crate) fn has_target(self) -> bool {
        matches!(self.0, Loss::CrossEntropy | Loss::CrossEntropyFull)
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
    ) -> Vec<f64> {
        let Call(loss, pass) = self;
        let layout = input.layout;
        let x = layout.view(input.x);
        let rows = [layout.rows];
        match loss {
            Loss::CrossEntropy | Loss::CrossEntropyFull => {
                let op = CrossEntropy::default().reduction(Reduction::None);
                let op = match loss {
                    Loss::CrossEntropyFull => op.label_smoothing(0.1).softcap(Some(30.0)),
                    _ => op.lse_square_scale(1e-3),
                };
                let target = TensorRef::new(input.target, &rows).unwrap();
                let g = TensorRef::new(input.per_row, &rows).unwrap();
                let (mut losses, mut lse) = (vec![0f32; rows[0]], vec![0f32; rows[0]]);
                let mut results =
                    CrossEntropyOut::loss(TensorMut::new(&mut losses, &rows).unwrap());
                results.lse = Some(TensorMut::new(&mut lse, &rows).unwrap());
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
                        op.forward_backward_in_place(device, logits, target, g, results).unwrap();
                    }
                }
                losses.iter().chain(&lse).map(|&l| l.into()).collect()
            }
            Loss::LogSoftmax => {
                let (op, y) = (LogSoftmax::dim(1), layout.view_mut(out));
                match pass {
                    Pass::Forward => op.forward_into(device, x, y).unwrap(),
                    _ => op.backward_into(device, x, layout.view(input.upstream), y).unwrap(),
                }
                Vec::new()
            }
            Loss::LogSoftmaxWide => {
                let op = LogSoftmax::dim(1);
                let contiguous = Layout { stride: layout.classes, ..layout };
                let g = layout.gather(input.upstream);
                let mut wide: Vec<f32> = g.into_iter().map(|g| g.f64() as f32).collect();
                match pass {
                    Pass::Forward => {
                        op.forward_into(device, x, contiguous.view_mut(&mut wide)).unwrap();
                        wide.into_iter().map(f64::from).collect()
                    }
                    _ => {
                        let (g, y) = (contiguous.view(&wide), layout.view_mut(out));
                        op.backward_into(device, x, g, y).unwrap();
                        Vec::new()
                    }
                }
            }
            Loss::LogSumExp => {
                let op = LogSumExp::dims(&[1]).unwrap();
                let mut lse = vec![0f32; rows[0]];
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
                lse.into_iter().map(f64::from).collect()
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
        let numbers = [self.run(device, input, got), self.run(cpu, input, expected)];
        close(&format!("{what}, numbers"), &numbers[0], &numbers[1], 2e-6);
        if self.writes_rows() && !(self == Call(Loss::LogSoftmaxWide, Pass::Forward)) {
            let f64s = |memory: &[T]| -> Vec<f64> {
                input.layout.gather(memory).into_iter().map(Data::f64).collect()
            };
            close(&what, &f64s(got), &f64s(expected), T::TOLERANCE);
        }
    }
}

/// Log-sum-exps for an [`Input`] that has none yet.
pub(crate) fn lse_of<T: Data>(call: Call, cpu: &Device, input: &Input<'_, T>) -> Vec<f32> {
    let losses = input.layout.rows;
    let forward = Call(call.0, Pass::Forward);
    match call.0 {
        Loss::CrossEntropy | Loss::CrossEntropyFull => {
            forward.run(cpu, input, &mut []).iter().skip(losses).map(|&l| l as f32).collect()
        }
        Loss::LogSumExp => forward.run(cpu, input, &mut []).iter().map(|&l| l as f32).collect(),
        Loss::LogSoftmax | Loss::LogSoftmaxWide => vec![0.0; losses],
    }
}
