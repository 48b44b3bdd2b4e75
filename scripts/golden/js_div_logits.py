"""Golden cases of the Jensen-Shannon divergence from logits; make.py calls this.

PyTorch has no such loss: it is composed of log_softmax and kl_div, in f64.
"""

import itertools
import math

import torch
import torch.nn.functional as F

INF = float("inf")


def case(make, file, name, shape=(4, 6), dtype="f32", beta=0.5, reduction="batchmean", scale=1.0,
         teacher=1.0, labelled=False, upstream=True, edit=None):
    g = make.generator(f"js {name}")
    dim = 1 if len(shape) > 1 else 0
    classes = shape[dim]
    rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    a, b = make.normal(shape, dtype, g), make.normal(shape, dtype, g)
    if edit:
        edit(a, b)
    labels = None
    if labelled:
        labels = torch.randint(0, classes, rows, generator=g)
        labels.view(-1)[::3] = -100
    beta, scale, teacher = make.f32(beta), make.f32(scale), make.f32(teacher)
    x, y = make.widened(a), make.widened(b)
    p, q = torch.log_softmax(teacher * y, dim), torch.log_softmax(scale * x, dim)
    divergence = lambda q, p: F.kl_div(q, p, reduction="none", log_target=True)
    if beta == 2.0:  # total variation
        loss = (p.exp() - q.exp()).abs() / 2
    elif beta == 0.0:
        loss = divergence(q, p)
    elif beta == 1.0:
        loss = divergence(p, q)
    else:
        mixture = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
        loss = beta * divergence(mixture, p) + (1 - beta) * divergence(mixture, q)
    loss = loss.sum(dim)
    kept = torch.ones(rows, dtype=torch.bool) if labels is None else labels != -100
    loss = torch.where(kept, loss, torch.zeros_like(loss))
    if reduction != "none":
        loss = loss.sum()
    if reduction in ("mean", "batchmean"):
        loss = loss / (kept.sum() * (classes if reduction == "mean" else 1))
    grad_output = make.normal(loss.shape, "f32", g, 1.0) if upstream else None
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    options = dict(beta=beta, reduction=reduction, logit_scale=scale, teacher_scale=teacher,
                   ignore_index=-100)
    file.add(name, options, dict(logits=a, target=b, labels=labels, grad_output=grad_output,
                                 loss=loss, grad_logits=x.grad, grad_target=y.grad))


def cases(make, file):
    reductions = ("none", "sum", "mean", "batchmean")
    for dtype, reduction, beta in itertools.product(make.DTYPES, reductions, (0.0, 0.5, 1.0)):
        case(make, file, f"{dtype}_{reduction}_{beta}", dtype=dtype, reduction=reduction, beta=beta)
    for dtype, reduction in itertools.product(make.DTYPES, reductions):
        case(make, file, f"labels_{dtype}_{reduction}", (5, 7), dtype=dtype, reduction=reduction,
             beta=0.1, labelled=True)
    for layout, shape in {"c": (9,), "ncd": (2, 5, 3), "one": (3, 1), "long": (2, 300)}.items():
        for reduction in reductions:
            case(make, file, f"{layout}_{reduction}", shape, reduction=reduction, scale=0.7,
                 teacher=1.5, beta=0.25)
    case(make, file, "all", (6, 11), beta=0.9, scale=2.0, teacher=0.25, labelled=True,
         upstream=False)

    for dtype, reduction in itertools.product(make.DTYPES, reductions):
        case(make, file, f"variation_{dtype}_{reduction}", (5, 9), dtype=dtype, reduction=reduction, beta=2.0,
             scale=0.7, teacher=1.5, labelled=reduction == "none")

    def near(a, b):
        b.copy_(a + 1e-3 * b)
    case(make, file, "near", edit=near, reduction="none")
    case(make, file, "near_variation", (4, 40), edit=near, reduction="none", beta=2.0)
    # A class that both exclude, and one that either does.
    def masked(a, b):
        a[0, :2], b[0, 1:3] = -INF, -INF
    case(make, file, "masked_variation", edit=masked, reduction="none", beta=2.0)

    def confident(a, b):
        a[:, 0] += 40.0
        b[:, 1] += 40.0
    case(make, file, "confident", edit=confident, reduction="none")
    case(make, file, "confident_variation", edit=confident, reduction="none", beta=2.0)
