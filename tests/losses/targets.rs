//! Every public call that takes a target is handed the wrong ones: another kind, shape, dtype or
//! stride, on the host and on a device. A new call is a row here.

use crate::data::{Data, FLOATS, Rng, on_device};
use crate::harness::{RESIDENT, devices};
use crate::ranks::unwritten;
use warploss::balance::{BalancedSampler, SamplerOptions};
use warploss::{
    AdaptiveEmbedding, AdaptiveLogSoftmax, BceWithLogits, CrossEntropy, CrossEntropyGradients,
    CrossEntropyOut, DType, Device, ElementwiseGradOut, GradOutput, Huber, JsDiv, JsDivLogits,
    JsDivLogitsGradOut, KlDiv, L1, LayerGradOut, LayerOut, LogprobEntropy, LogprobEntropyOut,
    LogprobEntropyUpstream, Mse, NegativeSampler, Nll, OutputLayer, Reduction, Result,
    SampledSoftmax, SmoothL1, Tensor, TensorRef, Wrt, information, topk_accuracy,
};

const FEATURES: usize = 4;
const CLASSES: usize = 3;
const LAYER_CLASSES: usize = 10;

/// What calls read and write besides their target: two rows of three classes.
struct Buffers {
    x: Data,
    y: Data,
    lse: Data,
    hidden: Data,
    grad: Data,
    grad_target: Data,
    loss: Data,
    elements: Data,
    z_loss: Data,
    new_lse: Data,
    argmax: Data,
    rank: Data,
    embedded: Data,
}

fn f32s(shape: &[usize]) -> Data {
    Data::floats(DType::F32, shape, &Rng(3).normals(shape.iter().product(), 1.0))
}

impl Buffers {
    fn new() -> Buffers {
        let poison = |shape: &[usize]| Data::poison(DType::F32, shape);
        Buffers {
            x: f32s(&[2, CLASSES]).padded(1),
            y: f32s(&[2, CLASSES]),
            lse: f32s(&[2]),
            hidden: f32s(&[2, FEATURES]),
            grad: poison(&[2, CLASSES]).padded(2),
            grad_target: poison(&[2, CLASSES]),
            loss: poison(&[2]),
            elements: poison(&[2, CLASSES]),
            z_loss: poison(&[2]),
            new_lse: poison(&[2]),
            argmax: unwritten(&[2]),
            rank: unwritten(&[2]),
            embedded: poison(&[2, FEATURES]),
        }
    }

    /// Everything that a call may write; what it holds on the host is not asked for on a device.
    fn bits(&self) -> Vec<Vec<u64>> {
        let floats = [&self.x, &self.grad, &self.grad_target, &self.loss, &self.elements];
        let more = [&self.z_loss, &self.new_lse, &self.embedded, &self.hidden];
        floats.into_iter().chain(more).map(Data::bits).collect()
    }

    fn out(&mut self) -> CrossEntropyOut<'_> {
        CrossEntropyOut {
            loss: self.loss.view_mut(),
            lse: Some(self.new_lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            argmax: None,
            rank: None,
        }
    }
}

/// What the argument holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    /// Class indices, `[2]`.
    Indices,
    /// The same, of any shape.
    AnyIndices,
    /// The same, `[2]`, with rows of any stride; on the host alone.
    HostIndices,
    /// Class indices `[2]`, or probabilities `[2, 3]`.
    Either,
    /// Floats of `[2, 3]`.
    Floats,
    /// The same, or what broadcasts.
    Broadcast,
}

type Run = Box<dyn Fn(&Device, TensorRef<'_>, &mut Buffers) -> Result<()>>;

struct Call {
    name: String,
    argument: &'static str,
    takes: Takes,
    run: Run,
}

fn call(
    name: impl Into<String>,
    (argument, takes): (&'static str, Takes),
    run: impl Fn(&Device, TensorRef<'_>, &mut Buffers) -> Result<()> + 'static,
) -> Call {
    Call { name: name.into(), argument, takes, run: Box::new(run) }
}

fn cross_entropy() -> Vec<Call> {
    let takes = ("target", Takes::Either);
    let loss = || CrossEntropy::default().reduction(Reduction::None);
    vec![
        call("cross entropy forward", takes, move |on, t, b| {
            loss().forward(on, b.x.view(), t).map(drop)
        }),
        call("cross entropy ranks", takes, move |on, t, b| {
            loss().forward_with_ranks(on, b.x.view(), t).map(drop)
        }),
        call("cross entropy forward_into", takes, move |on, t, b| {
            let x = f32s(&[2, CLASSES]);
            loss().forward_into(on, x.view(), t, b.out())
        }),
        call("cross entropy backward", takes, move |on, t, b| {
            loss().backward(on, b.x.view(), t, b.lse.view(), 1.0).map(drop)
        }),
        call("cross entropy backward_into", takes, move |on, t, b| {
            let saved = (t, b.lse.view());
            loss().backward_into(on, b.x.view(), saved, 1.0, b.grad.view_mut())
        }),
        call("cross entropy backward_in_place", takes, move |on, t, b| {
            loss().backward_in_place(on, b.x.view_mut(), t, b.lse.view(), 1.0)
        }),
        call("cross entropy forward_backward_in_place", takes, move |on, t, b| {
            let mut x = b.x.clone();
            let done = loss().forward_backward_in_place(on, x.view_mut(), t, 1.0, b.out());
            b.x = x;
            done
        }),
        call("cross entropy forward_backward", takes, move |on, t, b| {
            loss().forward_backward(on, b.x.tensor(), t, 1.0).map(drop)
        }),
        call("distillation", ("target", Takes::Floats), move |on, t, b| {
            let gradients = CrossEntropyGradients { logits: b.grad.view_mut(), target: None };
            let loss = loss().teacher_scale(Some(1.0));
            loss.backward_into(on, b.x.view(), (t, b.lse.view()), 1.0, gradients)
        }),
    ]
}

fn nll() -> Vec<Call> {
    let takes = ("target", Takes::Indices);
    let nll = || Nll::default().reduction(Reduction::None);
    vec![
        call("nll forward", takes, move |on, t, b| nll().forward(on, b.x.view(), t).map(drop)),
        call("nll forward_into", takes, move |on, t, b| {
            nll().forward_into(on, b.x.view(), t, b.loss.view_mut())
        }),
        call("nll backward", takes, move |on, t, b| {
            nll().backward(on, b.x.view(), t, 1.0).map(drop)
        }),
        call("nll backward_into", takes, move |on, t, b| {
            nll().backward_into(on, t, 1.0, b.grad.view_mut())
        }),
        call("nll forward_backward_in_place", takes, move |on, t, b| {
            let (x, loss) = (b.x.view_mut(), b.loss.view_mut());
            nll().forward_backward_in_place(on, x, t, 1.0, loss)
        }),
        call("nll forward_backward", takes, move |on, t, b| {
            nll().forward_backward(on, b.x.tensor(), t, 1.0).map(drop)
        }),
    ]
}

fn logprob_entropy() -> Vec<Call> {
    let takes = ("target", Takes::Indices);
    let op = LogprobEntropy::default;
    let upstream = LogprobEntropyUpstream::default;
    fn out(b: &mut Buffers) -> LogprobEntropyOut<'_> {
        LogprobEntropyOut {
            lse: Some(b.new_lse.view_mut()),
            argmax: Some(b.argmax.view_mut()),
            rank: Some(b.rank.view_mut()),
            ..LogprobEntropyOut::new(b.loss.view_mut(), b.z_loss.view_mut())
        }
    }
    vec![
        call("logprob_entropy forward", takes, move |on, t, b| {
            op().forward(on, b.x.view(), t).map(drop)
        }),
        call("logprob_entropy, every label a class", takes, move |on, t, b| {
            op().ignore_index(-1).forward(on, b.x.view(), t).map(drop)
        }),
        call("logprob_entropy, some class ignored", takes, move |on, t, b| {
            op().ignore_index(1).forward(on, b.x.view(), t).map(drop)
        }),
        call("logprob_entropy ranks", takes, move |on, t, b| {
            op().forward_with_ranks(on, b.x.view(), t).map(drop)
        }),
        call("logprob_entropy forward_into", takes, move |on, t, b| {
            let x = f32s(&[2, CLASSES]);
            op().forward_into(on, x.view(), t, out(b))
        }),
        call("logprob_entropy backward", takes, move |on, t, b| {
            op().backward(on, b.x.view(), t, b.lse.view(), upstream()).map(drop)
        }),
        call("logprob_entropy backward_into", takes, move |on, t, b| {
            let (saved, grad) = ((t, b.lse.view()), b.grad.view_mut());
            op().backward_into(on, b.x.view(), saved, upstream(), grad)
        }),
        call("logprob_entropy backward_in_place", takes, move |on, t, b| {
            op().backward_in_place(on, b.x.view_mut(), t, b.lse.view(), upstream())
        }),
        call("logprob_entropy forward_backward_in_place", takes, move |on, t, b| {
            let mut x = b.x.clone();
            let done = op().forward_backward_in_place(on, x.view_mut(), t, upstream(), out(b));
            b.x = x;
            done
        }),
        call("logprob_entropy forward_backward", takes, move |on, t, b| {
            op().forward_backward(on, b.x.tensor(), t, upstream()).map(drop)
        }),
    ]
}

fn js_div_logits() -> Vec<Call> {
    let (labels, target) = (("labels", Takes::Indices), ("target", Takes::Floats));
    let js = || JsDivLogits::default().reduction(Reduction::None);
    vec![
        call("js labels forward", labels, move |on, t, b| {
            js().labels(t).forward(on, b.x.view(), b.y.view()).map(drop)
        }),
        call("js labels forward_into", labels, move |on, t, b| {
            js().labels(t).forward_into(on, b.x.view(), b.y.view(), b.loss.view_mut())
        }),
        call("js labels backward", labels, move |on, t, b| {
            js().labels(t).backward(on, b.x.view(), b.y.view(), 1.0).map(drop)
        }),
        call("js labels backward_into", labels, move |on, t, b| {
            let target = Some(b.grad_target.view_mut());
            let out = JsDivLogitsGradOut { logits: b.grad.view_mut(), target };
            js().labels(t).backward_into(on, b.x.view(), b.y.view(), 1.0, out)
        }),
        call("js labels in place", labels, move |on, t, b| {
            let (x, loss) = (b.x.view_mut(), b.loss.view_mut());
            js().labels(t).forward_backward_in_place(on, x, b.y.view(), 1.0, loss)
        }),
        call("js labels forward_backward", labels, move |on, t, b| {
            js().labels(t).forward_backward(on, b.x.tensor(), b.y.view(), 1.0).map(drop)
        }),
        call("js teacher forward", target, move |on, t, b| {
            js().forward(on, b.x.view(), t).map(drop)
        }),
        call("js teacher backward_into", target, move |on, t, b| {
            js().backward_into(on, b.x.view(), t, 1.0, b.grad.view_mut())
        }),
        call("js teacher in place", target, move |on, t, b| {
            let (x, loss) = (b.x.view_mut(), b.loss.view_mut());
            js().forward_backward_in_place(on, x, t, 1.0, loss)
        }),
    ]
}

/// Parameters where the data is.
fn held(device: &Device, tensor: &Tensor) -> Tensor {
    let resident = f32s(&[1]).view().host::<f32>().is_none();
    if resident { device.upload(tensor.view()).expect("an upload") } else { tensor.clone() }
}

/// A layer in all its forms; `hold` brings parameters to where the data is.
fn layer<L: OutputLayer + Clone + 'static>(
    name: &str,
    layer: L,
    hold: fn(&Device, L::Parameters<Tensor>) -> L::Parameters<Tensor>,
) -> Vec<Call> {
    let takes = ("target", Takes::Indices);
    let (forward, both) = (layer.clone(), layer);
    let parameters =
        move |layer: &L, on: &Device| hold(on, layer.init(DType::F32, 7).expect("new"));
    vec![
        call(format!("{name} forward_into"), takes, move |on, t, b| {
            let given = parameters(&forward, on);
            let out = LayerOut { output: b.z_loss.view_mut(), loss: b.loss.view_mut() };
            forward.forward_into(on, &L::views(&given), (b.hidden.view(), t), out)
        }),
        call(format!("{name} forward_backward_into"), takes, move |on, t, b| {
            let given = parameters(&both, on);
            let out = LayerOut { output: b.z_loss.view_mut(), loss: b.loss.view_mut() };
            let (input, accumulate) = (Some(b.embedded.view_mut()), false);
            let gradients = LayerGradOut { input, parameters: None, accumulate };
            let data = (b.hidden.view(), t);
            let g = GradOutput::default();
            both.forward_backward_into(on, &L::views(&given), data, g, (out, gradients))
        }),
    ]
}

fn layers() -> Vec<Call> {
    let takes = ("target", Takes::Indices);
    let adaptive = AdaptiveLogSoftmax::new(FEATURES, LAYER_CLASSES, &[2, 6]);
    let adaptive = adaptive.reduction(Reduction::None);
    let sampled = NegativeSampler::log_uniform(LAYER_CLASSES, 3).expect("a sampler");
    let all = NegativeSampler::all(LAYER_CLASSES).expect("a sampler");
    let [sampled, all] =
        [sampled, all].map(|s| SampledSoftmax::new(FEATURES, s).reduction(Reduction::None));
    let hold_adaptive = |on: &Device, given: warploss::AdaptiveParameters<Tensor>| {
        given.try_map(|_, t| Ok::<_, warploss::Error>(held(on, t))).expect("parameters")
    };
    let hold_sampled = |on: &Device, given: warploss::SampledParameters<Tensor>| {
        given.try_map(|_, t| Ok::<_, warploss::Error>(held(on, t))).expect("parameters")
    };
    let mut calls = layer("adaptive", adaptive.clone(), hold_adaptive);
    calls.extend(layer("sampled", sampled.clone(), hold_sampled));
    calls.extend(layer("all classes", all, hold_sampled));
    let (a, ab) = (adaptive.clone(), adaptive.clone());
    calls.push(call("adaptive forward", takes, move |on, t, b| {
        let given = hold_adaptive(on, a.init(DType::F32, 7)?);
        a.forward(on, &given.view(), b.hidden.view(), t).map(drop)
    }));
    calls.push(call("adaptive forward_backward", takes, move |on, t, b| {
        let given = hold_adaptive(on, ab.init(DType::F32, 7)?);
        ab.forward_backward(on, &given.view(), b.hidden.view(), t, 1.0).map(drop)
    }));
    let (s, sb) = (sampled.clone(), sampled);
    calls.push(call("sampled forward", takes, move |on, t, b| {
        let given = hold_sampled(on, s.init(DType::F32, 7)?);
        s.forward(on, &given.view(), b.hidden.view(), t).map(drop)
    }));
    calls.push(call("sampled forward_backward", takes, move |on, t, b| {
        let given = hold_sampled(on, sb.init(DType::F32, 7)?);
        sb.forward_backward(on, &given.view(), b.hidden.view(), t, 1.0).map(drop)
    }));
    let (embedding, index) = (AdaptiveEmbedding::of(&adaptive), ("index", Takes::AnyIndices));
    for (name, form) in [("forward", 0), ("forward_into", 1), ("backward", 2)] {
        let e = embedding.clone();
        calls.push(call(format!("embedding {name}"), index, move |on, t, b| {
            let given = e.init(DType::F32, 7)?.try_map(|_, t| Ok(held(on, t)))?;
            let out = match form {
                0 => return e.forward(on, &given.view(), t).map(drop),
                1 => return e.forward_into(on, &given.view(), t, b.embedded.view_mut()),
                _ => b.hidden.view(),
            };
            e.backward(on, &given.view(), t, out).map(drop)
        }));
    }
    calls
}

/// Every form of an elementwise loss.
macro_rules! elementwise {
    ($calls:ident, $takes:expr, $($loss:ident)*) => {$(
        let name = stringify!($loss);
        let op = || $loss::default().reduction(Reduction::None);
        let takes = ("target", $takes);
        $calls.push(call(format!("{name} forward"), takes, move |on, t, b| {
            op().forward(on, b.x.view(), t).map(drop)
        }));
        $calls.push(call(format!("{name} forward_into"), takes, move |on, t, b| {
            op().forward_into(on, b.x.view(), t, b.elements.view_mut())
        }));
        $calls.push(call(format!("{name} backward"), takes, move |on, t, b| {
            op().backward(on, b.x.view(), t, 1.0, Wrt::Both).map(drop)
        }));
        $calls.push(call(format!("{name} backward_into"), takes, move |on, t, b| {
            let grad_target = Some(b.grad_target.view_mut());
            let grads = ElementwiseGradOut { grad_input: Some(b.grad.view_mut()), grad_target };
            op().backward_into(on, b.x.view(), t, 1.0, grads)
        }));
        $calls.push(call(format!("{name} forward_backward"), takes, move |on, t, b| {
            op().forward_backward(on, b.x.view(), t, 1.0, Wrt::Both).map(drop)
        }));
        $calls.push(call(format!("{name} forward_backward_into"), takes, move |on, t, b| {
            let grads = ElementwiseGradOut { grad_input: Some(b.grad.view_mut()), grad_target: None };
            let out = (b.elements.view_mut(), grads);
            op().forward_backward_into(on, b.x.view(), t, 1.0, out)
        }));
        $calls.push(call(format!("{name} in place"), takes, move |on, t, b| {
            let (x, loss) = (b.x.view_mut(), b.elements.view_mut());
            op().forward_backward_in_place(on, x, t, 1.0, loss)
        }));
    )*};
}

fn others() -> Vec<Call> {
    let mut calls = Vec::new();
    elementwise!(calls, Takes::Broadcast, Mse L1 SmoothL1 Huber KlDiv JsDiv);
    elementwise!(calls, Takes::Floats, BceWithLogits);
    calls.push(call("information cross_entropy", ("q", Takes::Floats), |on, t, b| {
        information::cross_entropy(on, b.x.view(), t).map(drop)
    }));
    calls.push(call("information kl_divergence", ("q", Takes::Floats), |on, t, b| {
        information::kl_divergence(on, b.x.view(), t).map(drop)
    }));
    calls.push(call("balanced sampler", ("labels", Takes::HostIndices), |_, t, _| {
        BalancedSampler::new(t, &SamplerOptions::new(1)).map(drop)
    }));
    calls
}

/// A target that is refused, and what the error must say besides the argument.
type Wrong = (String, Data, Vec<String>);

fn wrong(takes: Takes) -> Vec<Wrong> {
    let integers = [DType::I64, DType::I32, DType::U32, DType::U8];
    let floats =
        |dtype, shape: &[usize]| Data::floats(dtype, shape, &vec![1.0; shape.iter().product()]);
    let indices =
        |dtype, shape: &[usize]| Data::indices(dtype, shape, &vec![1; shape.iter().product()]);
    let mut all: Vec<Wrong> = Vec::new();
    let mut add = |data: Data, says: &[&str]| {
        let (dtype, shape) = (data.dtype(), data.shape());
        let name = format!("{dtype} {shape:?} stride {}", data.view().row_stride());
        all.push((name, data, says.iter().map(|&s| s.to_owned()).collect()));
    };
    // Of the rows' shape, the logits', the hidden rows', and others.
    let shapes: [&[usize]; 8] =
        [&[2], &[2, CLASSES], &[2, FEATURES], &[], &[3], &[2, 1], &[1, 2, CLASSES], &[0]];
    let known = "i64, i32, u32 or u8";
    match takes {
        Takes::Indices | Takes::AnyIndices | Takes::HostIndices => {
            for (dtype, shape) in FLOATS.iter().flat_map(|&d| shapes.map(|s| (d, s))) {
                add(floats(dtype, shape), &[known, "class indices", dtype.name()]);
            }
        }
        Takes::Either => {
            for dtype in FLOATS {
                add(floats(dtype, &[2]), &[known, "class indices", dtype.name()]);
                add(floats(dtype, &[3]), &["expected shape [2, 3]", "got [3]"]);
                add(floats(dtype, &[2, FEATURES]), &["expected shape [2, 3]", "got [2, 4]"]);
                if dtype != DType::F32 {
                    add(floats(dtype, &[2, CLASSES]), &["expected dtype f32", dtype.name()]);
                }
            }
            for dtype in integers {
                add(indices(dtype, &[2, CLASSES]), &["probabilities", "f32", dtype.name()]);
            }
        }
        Takes::Floats | Takes::Broadcast => {
            for dtype in [DType::F16, DType::BF16].into_iter() {
                add(floats(dtype, &[2, CLASSES]), &["expected dtype f32", dtype.name()]);
            }
            for dtype in integers {
                add(indices(dtype, &[2, CLASSES]), &["f32", dtype.name()]);
            }
            add(f32s(&[2, FEATURES]), &["[2, 3]", "[2, 4]"]);
            if takes == Takes::Floats {
                for shape in [&[2usize] as &[usize], &[1, CLASSES], &[], &[CLASSES, 2]] {
                    add(f32s(shape), &["[2, 3]", &format!("{shape:?}")]);
                }
            }
        }
    }
    if matches!(takes, Takes::Indices | Takes::Either) {
        for (dtype, shape) in integers.iter().flat_map(|&d| shapes.map(|s| (d, s))) {
            let soft = takes == Takes::Either && *shape == [2, CLASSES];
            if *shape != [2] && !soft {
                let got = format!("got {shape:?}");
                add(indices(dtype, shape), &["expected shape [2]", &got]);
            }
        }
    }
    if takes == Takes::HostIndices {
        add(indices(DType::I64, &[2, 1]), &["expected 1 dimension,", "got 2"]);
    }
    all
}

fn calls() -> Vec<Call> {
    let all = [cross_entropy(), nll(), logprob_entropy(), js_div_logits(), layers(), others()];
    all.into_iter().flatten().collect()
}

/// A target that every row of `calls` takes.
fn right(takes: Takes) -> Data {
    match takes {
        Takes::Floats | Takes::Broadcast => f32s(&[2, CLASSES]),
        _ => Data::indices(DType::I64, &[2], &[0, 2]),
    }
}

fn check(at: &str, device: &Device, resident: bool) {
    for call in calls() {
        let mut buffers = Buffers::new();
        let at = format!("{}, {at}", call.name);
        let refuses_place = resident && call.takes == Takes::HostIndices;
        let done = (call.run)(device, right(call.takes).view(), &mut buffers);
        match done {
            Err(error) if !refuses_place => panic!("the right target: {error}: {at}"),
            _ => device.check().expect("a legal call"),
        }
        for (what, data, says) in wrong(call.takes) {
            let mut buffers = Buffers::new();
            let before = buffers.bits();
            let Err(error) = (call.run)(device, data.view(), &mut buffers) else {
                panic!("{what} was taken: {at}")
            };
            let said = error.to_string();
            let argument = said.split(':').next();
            assert_eq!(argument, Some(call.argument), "{said:?} for {what}: {at}");
            for part in &says {
                assert!(said.contains(part), "{part:?} is not in {said:?} for {what}: {at}");
            }
            assert!(before == buffers.bits(), "something was written for {what}: {at}");
        }
    }
}

#[test]
fn the_wrong_target_is_refused_by_every_call_on_every_device() {
    for (name, device) in devices() {
        check(name, device, false);
    }
}

#[test]
fn the_wrong_target_is_refused_by_every_call_on_tensors_that_are_there() {
    for (name, device) in devices().iter().filter(|(name, _)| *name == RESIDENT) {
        on_device(device, || check(&format!("data on the {name}"), device, true));
    }
}

/// Classes that are none are told of the tensor that they came in, as every device has it.
#[test]
fn a_class_that_is_none_is_told_of_its_tensor() {
    for (name, device) in devices() {
        for call in calls().iter().filter(|call| {
            !matches!(call.takes, Takes::Floats | Takes::Broadcast | Takes::HostIndices)
        }) {
            for bad in [LAYER_CLASSES as i64, -7, i64::MAX, i64::MIN] {
                let mut buffers = Buffers::new();
                let before = buffers.bits();
                let target = Data::indices(DType::I64, &[2], &[0, bad]);
                let error = (call.run)(device, target.view(), &mut buffers).expect_err("no class");
                let said = error.to_string();
                let at = format!("{}, {name}", call.name);
                assert!(said.starts_with(&format!("{}: ", call.argument)), "{said}: {at}");
                assert!(said.contains(&format!("got {bad} at")), "{said}: {at}");
                assert!(before == buffers.bits(), "something was written: {at}");
            }
        }
    }
}

/// Ranks that are no ranks.
#[test]
fn top_k_accuracy_takes_ranks_alone() {
    for (_, device) in devices() {
        for wrong in [f32s(&[2]), Data::indices(DType::I32, &[2], &[0, 1])] {
            let said = topk_accuracy(device, wrong.view(), &[1]).expect_err("no ranks").to_string();
            assert!(said.starts_with("rank: expected dtype i64"), "{said}");
        }
    }
}
