"""Golden cases of linear cross entropy; make.py calls this."""

import torch
import torch.nn.functional as F

INF = float("inf")


def case(make, file, name, rows=9, features=7, classes=11, dtype="f32", index="i64", bias=False, soft=False,
         weighted=False, reduction="mean", ignore_index=-100, smoothing=0.0, ignored=True, upstream=None,
         temperature=False, row_weight=False, peaked=1.0, inner=(), edit=None):
    """PyTorch's function in f64 on the values that the dtype holds.

    What it lacks (temperatures and weights of rows) is composed of cross entropy over all logits.
    """
    g = make.generator(f"linear {name}")
    dt = make.DTYPES[dtype]

    def normal(*shape, scale=1.0):
        return (torch.randn(shape, generator=g, dtype=torch.float64) * scale).to(dt)

    shape = () if rows is None else (rows,)
    x, w = normal(*shape, features, scale=peaked), normal(classes, *inner, features)
    b = normal(classes, *inner) if bias else None
    of_classes = len(shape)
    if soft:
        target = torch.rand((*shape, classes, *inner), generator=g, dtype=torch.float64)
        target = (target / target.sum(of_classes, keepdim=True)).to(dt)
    else:
        target = torch.randint(classes, (*shape, *inner), generator=g)
        if ignored and rows is not None:
            target[::4] = ignore_index
    tau = torch.rand(shape, generator=g, dtype=torch.float64).add(0.5).to(torch.float32) if temperature else None
    u = torch.rand(shape, generator=g, dtype=torch.float64).to(torch.float32) if row_weight else None
    class_weight = torch.rand(classes, generator=g, dtype=torch.float64).to(torch.float32) if weighted else None
    if edit:
        edit(x, w, target)

    wide = [t if t is None else t.double().requires_grad_() for t in (x, w, b)]
    probabilities = target.double().requires_grad_() if soft else target
    options = dict(weight=None if class_weight is None else class_weight.double(), label_smoothing=smoothing)
    if not soft:
        options["ignore_index"] = ignore_index
    if temperature or row_weight:
        logits = F.linear(*wide)
        if temperature:
            logits = logits / tau.double().unsqueeze(-1)
        loss = F.cross_entropy(logits, probabilities, reduction="none", **options)
        each = torch.ones(shape, dtype=torch.float64) if u is None else u.double()
        loss = loss * each
        if reduction == "sum":
            loss = loss.sum()
        elif reduction == "mean":
            kept = each
            if not soft:
                of_class = options["weight"][target.clamp(min=0)] if weighted else torch.ones_like(each)
                kept = each * of_class * (target != ignore_index)
            loss = loss.sum() / kept.sum()
    else:
        loss = F.linear_cross_entropy(wide[0], wide[1], probabilities, linear_bias=wide[2], reduction=reduction,
                                      **options)
    grad_output = None
    if upstream:
        grad_output = torch.randn(loss.shape, generator=g, dtype=torch.float64).to(torch.float32)
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    tensors = dict(input=x, linear_weight=w, linear_bias=b, temperature=tau, row_weight=u, weight=class_weight,
                   grad_output=grad_output, loss=loss, grad_input=wide[0].grad, grad_linear_weight=wide[1].grad,
                   target=target if soft else target.to(make.INDICES[index]))
    if bias:
        tensors["grad_linear_bias"] = wide[2].grad
    if soft:
        tensors["grad_target"] = probabilities.grad
    file.add(name, dict(reduction=reduction, ignore_index=ignore_index, label_smoothing=smoothing), tensors)


def cases(make, file):
    def one(name, **options):
        case(make, file, name, **options)

    for dtype in make.DTYPES:
        ragged = (193, 70, 517) if dtype == "f32" else (67, 35, 131)
        one(f"ragged_{dtype}", **dict(zip(("rows", "features", "classes"), ragged)), dtype=dtype, bias=True)
        one(f"features_{dtype}", rows=5, features=123, classes=40, dtype=dtype)
        one(f"one_class_{dtype}", classes=1, dtype=dtype, bias=True)
        one(f"soft_{dtype}", dtype=dtype, soft=True, bias=True)
        one(f"peaked_{dtype}", rows=33, features=19, classes=130, dtype=dtype, peaked=12.0)
        one(f"single_{dtype}", rows=None, dtype=dtype, bias=True)
        one(f"temperature_{dtype}", dtype=dtype, temperature=True, bias=True)
        one(f"row_weight_{dtype}", dtype=dtype, row_weight=True)
    for reduction in ("none", "sum", "mean"):
        for upstream in (False, True):
            for soft in (False, True):
                one(f"{reduction}_{upstream}_{soft}", reduction=reduction, upstream=upstream, soft=soft, bias=True)
                one(f"all_{reduction}_{upstream}_{soft}", rows=17, classes=33, reduction=reduction, soft=soft,
                    upstream=upstream, bias=True, weighted=True, smoothing=0.1, temperature=True, row_weight=True)
        one(f"smoothing_{reduction}", reduction=reduction, smoothing=0.2, weighted=True)
    for index, label in (("i32", -100), ("u32", 255), ("u8", 255), ("u8", 3)):
        one(f"index_{index}_{label}", index=index, ignore_index=label)
    # A classifier for each of several positions, some of whose targets are ignored.
    def some_ignored(x, w, target):
        if not target.is_floating_point():
            target.view(len(target), -1)[1::3, 0] = -100

    for soft in (False, True):
        for reduction in ("none", "sum", "mean"):
            one(f"positions_{reduction}_{soft}", inner=(3,), soft=soft, reduction=reduction, upstream=True, bias=True,
                weighted=True, smoothing=0.1, edit=some_ignored)
        for dtype in make.DTYPES:
            one(f"positions_{dtype}_{soft}", rows=13, features=9, classes=37, inner=(2, 3), dtype=dtype, soft=soft,
                bias=True, edit=some_ignored)
            if dtype != "f16":
                one(f"positions_long_{dtype}_{soft}", rows=3, features=2, classes=1031, inner=(2,), dtype=dtype, soft=soft)
    for classes in (2, 7, 8, 9, 31, 33, 1025, 2049):
        one(f"classes_{classes}", rows=4, features=5, classes=classes, bias=True)
    one("all_ignored", ignored=False, bias=True, edit=lambda x, w, t: t.fill_(-100), reduction="sum")
    one("no_rows", rows=0, reduction="sum", ignored=False)
