"""Golden cases of adaptive log-softmax; make.py calls this."""

import torch
from torch import nn

INF = float("inf")


def case(make, file, name, rows=7, features=16, classes=40, cutoffs=(8, 20), dtype="f32",
         index="i64", bias=False, div_value=4.0, reduction="mean", ignore_index=None, weighted=False,
         upstream=None, of=None, edit=None):
    """PyTorch's module in f64 on the values that the dtype holds; `of`: the targets' range.

    What the module lacks (other reductions, ignored rows, row weights) is composed of its output.
    """
    g = make.generator(f"adaptive {name}")
    dt = make.DTYPES[dtype]
    module = nn.AdaptiveLogSoftmaxWithLoss(features, classes, list(cutoffs), div_value, bias).double()
    state = module.state_dict()
    for key, parameter in state.items():
        parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64).to(dt).double())
    shape = (features,) if rows is None else (rows, features)
    x = torch.randn(shape, generator=g, dtype=torch.float64).to(dt)
    target = torch.randint(*(of or (0, classes)), shape[:-1], generator=g)
    kept = torch.ones(shape[:-1], dtype=torch.bool)
    if ignore_index is not None:
        target.view(-1)[::3] = ignore_index
        kept = target != ignore_index
    if edit:
        edit(x, target)
    weight = torch.ones(shape[:-1], dtype=torch.float64)
    if weighted:
        weight = torch.rand(shape[:-1], generator=g, dtype=torch.float64).to(torch.float32).double()
    wide = x.double().requires_grad_()
    output = torch.zeros(shape[:-1], dtype=torch.float64)
    if rows is None:
        output = module(wide, target).output
    elif kept.any():
        output = torch.zeros_like(weight).masked_scatter(kept, module(wide[kept], target[kept]).output)
    loss = -weight * output
    if reduction == "sum":
        loss = loss.sum()
    elif reduction == "mean":
        loss = loss.sum() / (weight * kept).sum()
    grad_output = None
    if upstream:
        grad_output = torch.randn(loss.shape, generator=g, dtype=torch.float64).to(torch.float32)
    if loss.requires_grad:
        loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    with torch.no_grad():
        two_d = wide.view(-1, features)
        log_prob = module.log_prob(two_d).view(*shape[:-1], classes)
        # PyTorch's predict compares the head's columns as this one does, but refuses no rows.
        predict = log_prob.argmax(-1) if two_d.shape[0] else torch.zeros(shape[:-1], dtype=torch.int64)
        if two_d.shape[0]:
            assert torch.equal(predict.view(-1), module.predict(two_d)), name
    zero = torch.zeros_like
    tensors = dict(input=x, target=target.to(make.INDICES[index]), grad_output=grad_output,
                   row_weight=weight.to(torch.float32) if weighted else None,
                   output=output, loss=loss, log_prob=log_prob, predict=predict,
                   grad_input=zero(wide) if wide.grad is None else wide.grad)
    for key, parameter in module.named_parameters():
        tensors[key] = parameter.data.to(dt)
        tensors[f"grad_{key}"] = zero(parameter) if parameter.grad is None else parameter.grad
    options = dict(in_features=features, classes=classes, cutoffs=list(cutoffs), head_bias=bias,
                   div_value=div_value, ignore_index=ignore_index, reduction=reduction)
    file.add(name, options, tensors)


def cases(make, file):
    for dtype in make.DTYPES:
        for reduction in ("none", "sum", "mean"):
            case(make, file, f"{dtype}_{reduction}", dtype=dtype, reduction=reduction, upstream=True)
        case(make, file, f"{dtype}_bias", dtype=dtype, bias=True, div_value=2.0)
        case(make, file, f"{dtype}_all", dtype=dtype, rows=11, bias=True, div_value=2.0,
             reduction="none", ignore_index=-100, weighted=True, upstream=True)
    for index in make.INDICES:
        case(make, file, f"index_{index}", index=index, rows=3)
    case(make, file, "one_dimension", rows=None)
    case(make, file, "one_dimension_none", rows=None, bias=True, reduction="none", of=(20, 40))
    case(make, file, "no_rows", rows=0)
    case(make, file, "no_rows_sum", rows=0, reduction="sum")
    case(make, file, "width_0", div_value=32.0, bias=True)
    case(make, file, "width_grows", features=4, div_value=0.5)
    case(make, file, "div_value_fraction", features=10, div_value=0.1, classes=12, cutoffs=(3,))
    case(make, file, "shortlist_alone", of=(0, 8))
    case(make, file, "last_cluster_alone", of=(20, 40), bias=True)
    case(make, file, "one_cluster", cutoffs=(39,))
    case(make, file, "four_clusters", features=64, div_value=2.0, cutoffs=(1, 2, 20, 39), rows=9)
    case(make, file, "ignored", ignore_index=-100)
    case(make, file, "ignored_class", ignore_index=9, reduction="sum")
    case(make, file, "all_ignored_sum", ignore_index=3, of=(3, 4), reduction="sum")
    case(make, file, "weighted_mean", weighted=True, reduction="mean", upstream=True)

    def far(x, target):
        x.mul_(30.0)
    case(make, file, "large_logits", edit=far, reduction="none")
