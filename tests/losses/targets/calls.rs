//! The calls: a new one is a row here.

use super::*;
use warploss::check::catalogue;
use warploss::check::elementwise::{Calls, Description, Given};

pub(super) fn calls() -> Vec<Call> {
    let all = [
        cross_entropy(),
        nll(),
        multi_margin(),
        logprob_entropy(),
        js_div_logits(),
        layers(),
        elementwise(),
        others(),
    ];
    all.into_iter().flatten().collect()
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

fn multi_margin() -> Vec<Call> {
    let takes = ("target", Takes::Indices);
    let op = || MultiMargin::default().reduction(Reduction::None);
    vec![
        call("multi margin forward", takes, move |on, t, b| {
            op().forward(on, b.x.view(), t).map(drop)
        }),
        call("multi margin forward_into", takes, move |on, t, b| {
            op().forward_into(on, b.x.view(), t, b.loss.view_mut())
        }),
        call("multi margin backward", takes, move |on, t, b| {
            op().backward(on, b.x.view(), t, 1.0).map(drop)
        }),
        call("multi margin backward_into", takes, move |on, t, b| {
            op().backward_into(on, b.x.view(), t, 1.0, b.grad.view_mut())
        }),
        call("multi margin forward_backward_in_place", takes, move |on, t, b| {
            let (x, loss) = (b.x.view_mut(), b.loss.view_mut());
            op().forward_backward_in_place(on, x, t, 1.0, loss)
        }),
        call("multi margin forward_backward", takes, move |on, t, b| {
            op().forward_backward(on, b.x.tensor(), t, 1.0).map(drop)
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

/// A form of an elementwise loss's call.
type Form = fn(&dyn Calls, &Device, TensorRef<'_>, &mut Buffers) -> Result<()>;

/// Every form of them.
const FORMS: [(&str, Form); 7] = [
    ("forward", |op, on, t, b| op.forward(on, b.x.view(), t).map(drop)),
    ("forward_into", |op, on, t, b| op.forward_into(on, b.x.view(), t, b.elements.view_mut())),
    ("backward", |op, on, t, b| op.backward(on, b.x.view(), t, 1.0.into(), Wrt::Both).map(drop)),
    ("backward_into", |op, on, t, b| {
        let grad_target = Some(b.grad_target.view_mut());
        let grads = ElementwiseGradOut {
            grad_input: Some(b.grad.view_mut()),
            grad_target,
            grad_variance: None,
        };
        op.backward_into(on, b.x.view(), t, 1.0.into(), grads)
    }),
    ("forward_backward", |op, on, t, b| {
        op.forward_backward(on, b.x.view(), t, 1.0.into(), Wrt::Both).map(drop)
    }),
    ("forward_backward_into", |op, on, t, b| {
        let grads =
            ElementwiseGradOut { grad_input: Some(b.grad.view_mut()), ..Default::default() };
        let out = (b.elements.view_mut(), grads);
        op.forward_backward_into(on, b.x.view(), t, 1.0.into(), out)
    }),
    ("forward_backward_in_place", |op, on, t, b| {
        let (x, loss) = (b.x.view_mut(), b.elements.view_mut());
        op.forward_backward_in_place(on, x, t, 1.0.into(), loss)
    }),
];

/// Every form of every elementwise loss.
fn elementwise() -> Vec<Call> {
    let each = |of: &'static Description| {
        let takes = if of.broadcasts { Takes::Broadcast } else { Takes::Floats };
        FORMS.map(|(form, run)| {
            call(format!("{} {form}", of.name), ("target", takes), move |on, t, b| {
                let given = Given { weight: None, third: None, reduction: Reduction::None };
                run(&*of.with(&[]).make(given), on, t, b)
            })
        })
    };
    catalogue::elementwise().flat_map(each).collect()
}

fn others() -> Vec<Call> {
    let mut calls = Vec::new();
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
