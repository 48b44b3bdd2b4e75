"""Golden cases of the multi-class margin loss."""

import itertools

import torch
import torch.nn.functional as F


def case(make, file, name, shape, dtype="f32", index="i64", weighted=False, p=1, margin=1.0,
         reduction="mean", upstream=None, edit=None):
    g = make.generator(f"multi margin {name}")
    classes, rows = shape[-1], shape[:-1]
    values = make.normal(shape, dtype, g)
    target = torch.randint(0, classes, rows, generator=g)
    if edit:
        edit(values, target)
    weight = None
    if weighted:
        weight = torch.rand(classes, generator=g, dtype=torch.float64).add(0.25).to(torch.float32)
    grad_output = None
    if upstream:
        grad_output = make.normal(rows if reduction == "none" else (), "f32", g, 1.0)
    x, margin = make.widened(values), make.f32(margin)
    loss = F.multi_margin_loss(x, target, p=p, margin=margin, reduction=reduction,
                               weight=None if weight is None else weight.double())
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    file.add(name, dict(p=p, margin=margin, reduction=reduction),
             dict(input=values, target=target.to(make.INDICES[index]), weight=weight,
                  grad_output=grad_output, loss=loss, grad_input=x.grad))


def cases(make, file):
    reductions = ("none", "sum", "mean")
    for (layout, shape), dtype, reduction, p in itertools.product(
            {"c": (11,), "nc": (7, 33)}.items(), make.DTYPES, reductions, (1, 2)):
        case(make, file, f"layout_{layout}_{dtype}_{reduction}_{p}", shape, dtype, weighted=True, p=p,
             margin=0.3, reduction=reduction, upstream=True)
    for reduction, weighted, p, margin in itertools.product(reductions, (False, True), (1, 2), (1.0, 0.0, 2.5)):
        case(make, file, f"grid_{reduction}_{'w' if weighted else 'n'}_{p}_{margin}", (6, 19),
             weighted=weighted, p=p, margin=margin, reduction=reduction)
    for index in make.INDICES:
        case(make, file, f"index_{index}", (9, 12), index=index, weighted=True)

    def planted(x, t):
        # At the margin, beyond it by little, and what is no number: above nothing.
        x[:] = torch.tensor([[1.0, 0.0, 0.0009765625], [make.INF, 0.5, 0.25], [0.5, make.INF, 0.25], [0.5, -make.INF, 0.75],
                             [-make.INF, 0.5, 2.0], [float("nan"), 0.5, 0.25], [0.5, float("nan"), 0.25], [make.INF, make.INF, 0.0]])
        t[:] = 0

    for dtype, p in itertools.product(make.DTYPES, (1, 2)):
        case(make, file, f"planted_{dtype}_{p}", (8, 3), dtype, p=p, reduction="none", edit=planted)
