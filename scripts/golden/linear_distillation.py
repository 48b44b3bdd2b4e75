"""Golden cases of distillation from hidden states; make.py calls this.

PyTorch has no such loss: it is composed of linear, log_softmax and kl_div, in f64.
"""

import math

import torch
import torch.nn.functional as F


def divergence(kind, q, p, beta):
    """Of log-probabilities: the model's q, the teacher's p."""
    kl = lambda q, p: F.kl_div(q, p, reduction="none", log_target=True)
    if kind == "kl":
        return kl(q, p).sum(-1)
    if kind == "reverse-kl":
        return kl(p, q).sum(-1)
    if kind == "tv":
        return (p.exp() - q.exp()).abs().sum(-1) / 2
    mixture = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
    return (beta * kl(mixture, p) + (1 - beta) * kl(mixture, q)).sum(-1)


def case(make, file, name, kind="kl", rows=9, classes=11, features=7, of_teacher=5, dtype="f32", other=None, beta=0.5,
         reduction="batchmean", bias=False, temperature=False, row_weight=False, labelled=False, scale=1.0, teacher=1.0,
         upstream=True):
    g = make.generator(f"linear distillation {name}")

    def normal(dtype, *shape):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(make.DTYPES[dtype])

    def positive(*shape):
        return torch.rand(shape, generator=g, dtype=torch.float64).add(0.5).to(torch.float32)

    def side(dtype, features):
        return dict(input=normal(dtype, *shape, features), weight=normal(dtype, classes, features),
                    bias=normal(dtype, classes) if bias else None,
                    temperature=positive(*shape) if temperature else None)

    shape = () if rows is None else (rows,)
    sides = [side(dtype, features), side(other or dtype, of_teacher)]
    u = positive(*shape) if row_weight else None
    labels = None
    if labelled:
        labels = torch.randint(0, classes, shape, generator=g)
        labels[::3] = -100
    logs, wide = [], []
    scale, teacher, beta = make.f32(scale), make.f32(teacher), make.f32(beta)
    for of, by in zip(sides, (scale, teacher)):
        own = [None if of[key] is None else of[key].double().requires_grad_() for key in ("input", "weight", "bias")]
        z = F.linear(*own)
        if temperature:
            z = z / of["temperature"].double().unsqueeze(-1)
        wide.append(own)
        logs.append(torch.log_softmax(by * z, -1))
    each = torch.ones(shape, dtype=torch.float64) if u is None else u.double()
    if labelled:
        each = torch.where(labels != -100, each, torch.zeros_like(each))
    loss = divergence(kind, logs[0], logs[1], beta) * each
    if reduction != "none":
        loss = loss.sum()
    if reduction in ("mean", "batchmean"):
        loss = loss / (each.sum() * (classes if reduction == "mean" else 1))
    grad_output = make.normal(loss.shape, "f32", g, 1.0) if upstream else None
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    tensors = dict(row_weight=u, labels=labels, grad_output=grad_output, loss=loss)
    for of, own, names in zip(sides, wide, (("", "linear_"), ("teacher_", "teacher_"))):
        keys = [f"{names[0]}input", f"{names[1]}weight", f"{names[1]}bias"]
        tensors.update({key: of[part] for key, part in zip(keys, ("input", "weight", "bias"))})
        tensors[f"{names[0]}temperature"] = of["temperature"]
        tensors.update({f"grad_{key}": t.grad for key, t in zip(keys, own) if t is not None})
    file.add(name, dict(divergence=kind, beta=beta, reduction=reduction, logit_scale=scale, teacher_scale=teacher,
                        ignore_index=-100), tensors)


def cases(make, file):
    for kind in ("kl", "reverse-kl", "js", "tv"):
        for dtype in make.DTYPES:
            case(make, file, f"{kind}_{dtype}", kind, dtype=dtype, bias=True)
        for reduction in ("none", "sum", "mean", "batchmean"):
            case(make, file, f"{kind}_{reduction}", kind, reduction=reduction, bias=True, temperature=True,
                 row_weight=True, labelled=True, beta=0.1, scale=0.7, teacher=1.5)
        case(make, file, f"{kind}_mixed", kind, dtype="f32", other="bf16", temperature=True)
        case(make, file, f"{kind}_one_class", kind, classes=1)
        case(make, file, f"{kind}_single", kind, rows=None, bias=True)
    case(make, file, "ragged", rows=37, classes=131, features=35, of_teacher=70, bias=True, row_weight=True)
    case(make, file, "no_rows", rows=0, reduction="sum")
