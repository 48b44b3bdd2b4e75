"""Golden cases: PyTorch's answers, in float64, to inputs in the dtypes that warploss takes.

    pip install -r scripts/golden/requirements.txt
    python scripts/golden/make.py            # writes tests/golden/*.safetensors

One file a loss. A case `NAME` owns the tensors `NAME.logits`, `NAME.loss`, ...; its options
stand under `NAME` in the file's metadata, which is JSON. Inputs are rounded to their dtype first and then widened
exactly, so that the expected values know nothing of the dtype's rounding. Where PyTorch has no
such option (scale, soft-cap, z-loss), it is composed here from what it has. Cases in which
PyTorch and warploss are known to differ (ignored rows of NaN, 0 times infinity) are not here: they
are tests of their own.
"""

import importlib
import itertools
import json
import pathlib
import sys
import zlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import elementwise

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
INDICES = {"i64": torch.int64, "i32": torch.int32, "u32": torch.uint32, "u8": torch.uint8}
INF = float("inf")
OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"


class File:
    """The cases of one loss, written together."""

    def __init__(self, loss):
        self.loss, self.tensors, self.options = loss, {}, {}

    def add(self, name, options, tensors):
        assert name not in self.options, f"two cases named {name}"
        self.options[name] = options
        for key, tensor in tensors.items():
            if tensor is not None:
                self.tensors[f"{name}.{key}"] = tensor.detach().contiguous()

    def save(self):
        path = OUT / f"{self.loss}.safetensors"
        # One entry, as the order of several is not fixed: the same cases are the same bytes.
        golden = json.dumps({"torch": torch.__version__, "cases": self.options})
        save_file(self.tensors, path, metadata={"golden": golden})
        print(f"{path.name}: {len(self.options)} cases, {path.stat().st_size} bytes")


def generator(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def normal(shape, dtype, g, scale=3.0):
    return (torch.randn(shape, generator=g, dtype=torch.float64) * scale).to(DTYPES[dtype])


def widened(tensor):
    return tensor.to(torch.float64).requires_grad_()


def f32(value):
    """The float that a 32-bit option holds."""
    return torch.tensor(value, dtype=torch.float32).item()


def cross_entropy(file, name, shape, dtype="f32", index="i64", weighted=False, ignore_index=-100,
                  reduction="mean", smoothing=0.0, z_loss=0.0, scale=1.0, softcap=None,
                  upstream=None, ignored=True, edit=None):
    """One case; `edit(logits, target)` plants what random numbers would not hold."""
    g = generator(name)
    classes = shape[1] if len(shape) > 1 else shape[0]
    rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    logits = normal(shape, dtype, g)
    target = torch.randint(0, classes, rows, generator=g)
    if ignored and rows:
        # Every third row, the first one among them.
        target.view(-1)[::3] = ignore_index
    if edit:
        edit(logits, target)
    weight = None
    if weighted:
        weight = torch.rand(classes, generator=g, dtype=torch.float64).add(0.25).to(torch.float32)
    g_shape = rows if reduction == "none" else ()
    grad_output = None
    if upstream == "number":
        grad_output = torch.tensor(f32(-1.75))
    elif upstream == "tensor":
        grad_output = normal(g_shape, "f32", g, 1.0)

    x, scale = widened(logits), f32(scale)
    z = x * scale
    if softcap is not None:
        softcap = f32(softcap)
        z = softcap * torch.tanh(z / softcap)
    loss = F.cross_entropy(z, target, None if weight is None else weight.double(),
                           ignore_index=ignore_index, reduction=reduction,
                           label_smoothing=smoothing)
    kept = target != ignore_index
    lse = torch.logsumexp(z, 1 if len(shape) > 1 else 0)
    lse = torch.where(kept, lse, torch.zeros_like(lse))
    part = z_loss * lse * lse if z_loss else torch.zeros_like(lse).detach()
    if reduction == "sum":
        part = part.sum()
    elif reduction == "mean":
        part = part.sum() / (kept.sum() if z_loss else 1)
    loss = loss + part
    loss.backward(torch.ones_like(loss) if grad_output is None
                  else grad_output.double().expand_as(loss))

    options = dict(ignore_index=ignore_index, reduction=reduction, label_smoothing=smoothing,
                   lse_square_scale=z_loss, logit_scale=scale, softcap=softcap)
    file.add(name, options, dict(logits=logits, target=target.to(INDICES[index]), weight=weight,
                                 grad_output=grad_output, loss=loss, z_loss=part, lse=lse,
                                 grad_logits=x.grad))


def nll(file, name, shape, dtype="f32", index="i64", weighted=False, ignore_index=-100,
        reduction="mean", upstream=None, ignored=True):
    g = generator(f"nll {name}")
    classes = shape[1] if len(shape) > 1 else shape[0]
    rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    values = normal(shape, dtype, g)
    target = torch.randint(0, classes, rows, generator=g)
    if ignored and rows:
        target.view(-1)[::3] = ignore_index
    weight = None
    if weighted:
        weight = torch.rand(classes, generator=g, dtype=torch.float64).add(0.25).to(torch.float32)
    grad_output = None
    if upstream:
        grad_output = normal(rows if reduction == "none" else (), "f32", g, 1.0)
    x = widened(values)
    loss = F.nll_loss(x, target, None if weight is None else weight.double(),
                      ignore_index=ignore_index, reduction=reduction)
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    file.add(name, dict(ignore_index=ignore_index, reduction=reduction),
             dict(input=values, target=target.to(INDICES[index]), weight=weight,
                  grad_output=grad_output, loss=loss, grad_input=x.grad))


def nll_cases(file):
    layouts = {"c": (11,), "nc": (7, 33), "ncd": (3, 17, 5), "ncdd": (2, 9, 3, 4)}
    for (layout, shape), dtype, reduction in itertools.product(
            layouts.items(), DTYPES, ("none", "sum", "mean")):
        nll(file, f"layout_{layout}_{dtype}_{reduction}", shape, dtype, weighted=True,
            reduction=reduction, upstream=True)
    for reduction, weighted, label in itertools.product(
            ("none", "sum", "mean"), (False, True), (-100, 4)):
        nll(file, f"grid_{reduction}_{'w' if weighted else 'n'}_{label}", (6, 19),
            weighted=weighted, reduction=reduction, ignore_index=label)
    for index, label in (("i32", -100), ("u32", 255), ("u8", 255), ("u8", 3)):
        nll(file, f"index_{index}_{label}", (9, 12), index=index, ignore_index=label, weighted=True)


def soft_cross_entropy(file, name, shape, dtype="f32", weighted=False, reduction="mean",
                       smoothing=0.0, z_loss=0.0, scale=1.0, softcap=None, teacher=None,
                       upstream=True, edit=None):
    """Against probabilities, or against a teacher's logits times `teacher`."""
    g = generator(f"soft {name}")
    dim = 1 if len(shape) > 1 else 0
    classes = shape[dim]
    rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    logits = normal(shape, dtype, g)
    target = normal(shape, dtype, g)
    if teacher is None:
        # Neither of sign nor of sum 1; some exactly 0.
        target = (target.double().abs() / classes * (target.double() > -3)).to(DTYPES[dtype])
    if edit:
        edit(logits, target)
    weight = None
    if weighted:
        weight = torch.rand(classes, generator=g, dtype=torch.float64).add(0.25).to(torch.float32)
    grad_output = normal(rows if reduction == "none" else (), "f32", g, 1.0) if upstream else None
    x, y, scale = widened(logits), widened(target), f32(scale)
    z = x * scale
    if softcap is not None:
        softcap = f32(softcap)
        z = softcap * torch.tanh(z / softcap)
    q = y
    if teacher is not None:
        teacher = f32(teacher)
        q = torch.softmax(y * teacher, dim).detach()
    loss = F.cross_entropy(z, q, None if weight is None else weight.double(), reduction=reduction,
                           label_smoothing=smoothing)
    lse = torch.logsumexp(z, dim)
    part = z_loss * lse * lse if z_loss else torch.zeros_like(lse).detach()
    if reduction != "none":
        part = part.sum() if reduction == "sum" else part.mean()
    loss = loss + part
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output.double())
    options = dict(reduction=reduction, label_smoothing=smoothing, lse_square_scale=z_loss,
                   logit_scale=scale, softcap=softcap, teacher_scale=teacher)
    file.add(name, options, dict(logits=logits, target=target, weight=weight,
                                 grad_output=grad_output, loss=loss, z_loss=part, lse=lse,
                                 grad_logits=x.grad, grad_target=y.grad))


def soft_cross_entropy_cases(file):
    layouts = {"c": (11,), "nc": (5, 33), "ncd": (2, 9, 5), "ncdd": (2, 7, 3, 2)}
    for (layout, shape), dtype, reduction in itertools.product(
            layouts.items(), DTYPES, ("none", "sum", "mean")):
        soft_cross_entropy(file, f"layout_{layout}_{dtype}_{reduction}", shape, dtype,
                           weighted=True, reduction=reduction, smoothing=0.1)
        soft_cross_entropy(file, f"teacher_{layout}_{dtype}_{reduction}", shape, dtype,
                           weighted=layout == "ncd", reduction=reduction, teacher=0.5)
    for reduction, weighted, smoothing, teacher in itertools.product(
            ("none", "sum", "mean"), (False, True), (0.0, 0.1, 1.0), (None, 1.7)):
        name = f"grid_{reduction}_{'w' if weighted else 'n'}_{smoothing}_{teacher}"
        soft_cross_entropy(file, name, (3, 19), weighted=weighted, reduction=reduction,
                           smoothing=smoothing, teacher=teacher)
    extensions = {
        "scale": dict(scale=0.6), "softcap": dict(softcap=5.0), "z": dict(z_loss=1e-2),
        "all": dict(scale=0.6, softcap=5.0, z_loss=1e-2, smoothing=0.1, weighted=True),
    }
    for (extension, options), reduction, teacher in itertools.product(
            extensions.items(), ("none", "sum", "mean"), (None, 0.5)):
        soft_cross_entropy(file, f"{extension}_{reduction}_{teacher}", (4, 23),
                           reduction=reduction, teacher=teacher, **options)
    for classes in (1, 2, 7, 9, 31, 33, 1025):
        soft_cross_entropy(file, f"classes_{classes}", (2, classes), upstream=False)

    def masked(logits, target):
        plant(target, [(0, 0), (0, 20), (1, 5)], -INF)

    soft_cross_entropy(file, "teacher_masked", (3, 40), teacher=1.0, edit=masked)


def plant(logits, places, value):
    for place in places:
        logits[place] = value


def cross_entropy_cases(file):
    layouts = {"c": (11,), "nc": (7, 33), "ncd": (3, 17, 5), "ncdd": (2, 9, 3, 4)}
    # Layouts by dtypes, with everything on that they have in common.
    for (layout, shape), dtype in itertools.product(layouts.items(), DTYPES):
        for reduction in ("none", "sum", "mean"):
            cross_entropy(file, f"layout_{layout}_{dtype}_{reduction}", shape, dtype,
                          weighted=True, reduction=reduction, smoothing=0.1, upstream="tensor")
    # The grid of PyTorch's own options.
    for reduction, weighted, label, smoothing in itertools.product(
            ("none", "sum", "mean"), (False, True), (-100, 4), (0.0, 0.1, 1.0)):
        name = f"grid_{reduction}_{'w' if weighted else 'n'}_{label}_{smoothing}"
        cross_entropy(file, name, (6, 19), weighted=weighted, reduction=reduction,
                      ignore_index=label, smoothing=smoothing, upstream="tensor")
    # The extensions, alone and together.
    extensions = {
        "scale": dict(scale=0.6), "softcap": dict(softcap=5.0), "z": dict(z_loss=1e-2),
        "scale_softcap": dict(scale=1.7, softcap=4.0),
        "all": dict(scale=0.6, softcap=5.0, z_loss=1e-2, smoothing=0.1, weighted=True),
    }
    for (extension, options), reduction, dtype in itertools.product(
            extensions.items(), ("none", "sum", "mean"), DTYPES):
        cross_entropy(file, f"{extension}_{reduction}_{dtype}", (5, 23), dtype,
                      reduction=reduction, upstream="number", **options)
    # Index dtypes; an unsigned one cannot hold −100.
    for index, label in (("i32", -100), ("u32", 255), ("u8", 255), ("u8", 3)):
        cross_entropy(file, f"index_{index}_{label}", (9, 12), index=index, ignore_index=label,
                      weighted=True)
    # Sizes about the widths of vectors and blocks.
    for classes in (1, 2, 7, 8, 9, 31, 33, 1025, 2049):
        cross_entropy(file, f"classes_{classes}", (3, classes), ignored=False, upstream="number")
    # What PyTorch and warploss say alike about infinities and offsets.
    def off_target(logits, target):
        plant(logits, [(0, 0), (0, 20), (1, 5), (2, slice(1, 40))], -INF)
        target[:] = torch.tensor([7, 39, 0])

    def at_target(logits, target):
        plant(logits, [(0, 0), (1, 39), (2, slice(0, 20))], -INF)
        target[:] = torch.tensor([0, 39, 30])

    def broken(logits, target):
        plant(logits, [(0, slice(None))], -INF)
        plant(logits, [(1, 3)], INF)

    def offset(logits, target):
        logits.add_(1e4)

    def confident(logits, target):
        logits[:] = torch.tensor([[7.0, 0.0]])
        target[:] = 0

    for dtype in DTYPES:
        rest = dict(dtype=dtype, ignored=False, reduction="none")
        cross_entropy(file, f"minus_inf_off_target_{dtype}", (3, 40), edit=off_target, **rest)
        cross_entropy(file, f"minus_inf_at_target_{dtype}", (3, 40), edit=at_target, **rest)
        cross_entropy(file, f"undefined_rows_{dtype}", (3, 40), edit=broken, **rest)
        cross_entropy(file, f"confident_{dtype}", (1, 2), edit=confident, **rest)
    cross_entropy(file, "offset_1e4", (4, 50), ignored=False, edit=offset)
    cross_entropy(file, "minus_inf_at_target_mean", (3, 40), ignored=False, edit=at_target)
    cross_entropy(file, "all_ignored", (4, 6), edit=lambda _, t: t.fill_(-100), upstream="number")


def line_cases(file, forward):
    """Cases of a loss along dimensions; `forward(x, dims, keepdim)`."""
    several = file.loss == "logsumexp"
    shapes = {"s": (), "c": (9,), "nc": (5, 33), "ncd": (3, 7, 5), "ncdd": (2, 3, 4, 6)}
    for (layout, shape), dtype in itertools.product(shapes.items(), DTYPES):
        rank = max(len(shape), 1)
        choices = [(d,) for d in range(rank)] + [(-1,)]
        if several and rank > 1:
            choices += [(0, -1), tuple(range(rank))]
        for dims, keepdim in itertools.product(choices, (False, True) if several else (False,)):
            name = f"{layout}_{dtype}_{'_'.join(map(str, dims))}{'_keep' if keepdim else ''}"
            line_case(file, name, forward, shape, dtype, dims, keepdim)

    def infinities(x):
        plant(x, [(0, 0), (0, 3), (1, slice(1, None)), (2, slice(None))], -INF)
        plant(x, [(3, 4)], INF)
        plant(x, [(4, 2)], float("nan"))

    for dtype, dim in itertools.product(DTYPES, (0, 1)):
        line_case(file, f"infinities_{dtype}_{dim}", forward, (6, 9), dtype, (dim,), False,
                  infinities)
    line_case(file, "offset_1e4", forward, (3, 50), "f32", (1,), False, lambda x: x.add_(1e4))


def line_case(file, name, forward, shape, dtype, dims, keepdim, edit=None):
    g = generator(f"{file.loss} {name}")
    values = normal(shape, dtype, g)
    if edit:
        edit(values)
    x = widened(values)
    output = forward(x, dims, keepdim)
    grad_output = normal(output.shape, "f32", g, 1.0)
    output.backward(grad_output.double())
    file.add(name, dict(dims=dims, keepdim=keepdim),
             dict(input=values, grad_output=grad_output, output=output, grad_input=x.grad))


def logprob_entropy(file, name, shape, dtype="f32", index="i64", ignore_index=-100, scale=1.0,
                    softcap=None, upstream="tensor", edit=None):
    """Composed: PyTorch has no such function. Ignored rows are left out by selection."""
    g = generator(f"logprob_entropy {name}")
    dim = 1 if len(shape) > 1 else 0
    classes = shape[dim]
    rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    logits = normal(shape, dtype, g)
    target = torch.randint(0, classes, rows, generator=g)
    if rows and not edit:
        target.view(-1)[::3] = ignore_index
    if edit:
        edit(logits, target)
    grads = {}
    if upstream == "tensor":
        grads = {key: normal(rows, "f32", g, 1.0) for key in ("grad_logprob", "grad_entropy")}
    elif upstream == "entropy":
        grads = dict(grad_logprob=torch.tensor(0.0), grad_entropy=torch.tensor(f32(0.3)))

    x, scale = widened(logits), f32(scale)
    z = x * scale
    if softcap is not None:
        softcap = f32(softcap)
        z = softcap * torch.tanh(z / softcap)
    kept = target != ignore_index
    log_p = torch.log_softmax(z, dim)
    lse = torch.logsumexp(z, dim)
    at = torch.where(kept, target, 0).unsqueeze(dim)
    logprob = log_p.gather(dim, at).squeeze(dim)
    # A masked class has p = 0 and adds 0: in the product and in its gradient.
    finite = torch.where(log_p == -INF, torch.zeros_like(log_p), log_p)
    entropy = -(log_p.exp() * finite).sum(dim)
    zero = torch.zeros_like(lse)
    logprob, entropy, lse = (torch.where(kept, t, zero) for t in (logprob, entropy, lse))
    a = grads.get("grad_logprob", torch.tensor(1.0)).double()
    b = grads.get("grad_entropy", torch.tensor(0.0)).double()
    (a * logprob + b * entropy).sum().backward()

    # NaN first, equals by their index: what the order promises.
    order = torch.sort(logits.double(), dim=dim, descending=True, stable=True).indices
    rank = (order == at).double().argmax(dim)
    best = logits.double().argmax(dim)
    minus = torch.full_like(rank, -1)
    rank, best = (torch.where(kept, t, minus).double() for t in (rank, best))
    file.add(name, dict(ignore_index=ignore_index, logit_scale=scale, softcap=softcap),
             dict(logits=logits, target=target.to(INDICES[index]), logprob=logprob,
                  entropy=entropy, lse=lse, grad_logits=x.grad, argmax=best, rank=rank, **grads))


def logprob_entropy_cases(file):
    layouts = {"c": (11,), "nc": (7, 33), "ncd": (3, 17, 5), "ncdd": (2, 9, 3, 4)}
    extensions = {"plain": {}, "scale": dict(scale=0.6), "softcap": dict(softcap=5.0),
                  "both": dict(scale=1.7, softcap=4.0)}
    for (layout, shape), dtype, (extension, options) in itertools.product(
            layouts.items(), DTYPES, extensions.items()):
        logprob_entropy(file, f"{layout}_{dtype}_{extension}", shape, dtype, **options)
    for upstream in (None, "entropy"):
        logprob_entropy(file, f"upstream_{upstream}", (6, 21), upstream=upstream)
    for index, label in (("i32", -100), ("u32", 255), ("u8", 255), ("u8", 3)):
        logprob_entropy(file, f"index_{index}_{label}", (9, 12), index=index, ignore_index=label)
    for classes in (1, 2, 7, 8, 9, 31, 33, 1025, 2049):
        logprob_entropy(file, f"classes_{classes}", (4, classes))

    def ties(logits, target):
        logits.copy_((logits.double() / 3).round().to(logits.dtype))

    def masked(logits, target):
        plant(logits, [(0, 0), (0, 20), (1, 5), (2, slice(1, 40))], -INF)
        target[:] = torch.tensor([7, 39, 0])

    def broken(logits, target):
        plant(logits, [(0, slice(None))], -INF)
        plant(logits, [(1, 3)], INF)
        plant(logits, [(2, 9), (2, 30)], float("nan"))
        target[:] = torch.tensor([7, 39, 12])

    def equal(logits, target):
        logits.fill_(-3.5)

    for dtype in DTYPES:
        logprob_entropy(file, f"ties_{dtype}", (5, 40), dtype, edit=ties)
        logprob_entropy(file, f"equal_{dtype}", (3, 40), dtype, edit=equal)
        logprob_entropy(file, f"masked_{dtype}", (3, 40), dtype, edit=masked)
        logprob_entropy(file, f"broken_{dtype}", (3, 40), dtype, edit=broken)
    logprob_entropy(file, "offset_1e4", (4, 50), edit=lambda x, _: x.add_(1e4))
    logprob_entropy(file, "all_ignored", (4, 6), edit=lambda _, t: t.fill_(-100))


ELEMENTWISE = ("mse", "l1", "smooth_l1", "huber", "bce_with_logits", "kl_div", "js_div", "soft_margin",
               "hinge_embedding", "bce", "poisson_nll", "sigmoid_focal", "gaussian_nll")
# Losses whose cases are a file of their name.
OF_THEIR_OWN = ("multi_margin", "js_div_logits", "linear_cross_entropy", "linear_distillation", "linear_logprob_entropy",
                "adaptive_log_softmax")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for loss, cases in (
        ("cross_entropy", cross_entropy_cases),
        ("soft_cross_entropy", soft_cross_entropy_cases),
        ("nll", nll_cases),
        ("log_softmax", lambda f: line_cases(f, lambda x, d, _: torch.log_softmax(x, d[0]))),
        ("logsumexp", lambda f: line_cases(f, lambda x, d, k: torch.logsumexp(x, d, k))),
        ("logprob_entropy", logprob_entropy_cases),
        *((loss, lambda f, loss=loss: importlib.import_module(loss).cases(sys.modules[__name__], f))
          for loss in OF_THEIR_OWN),
        *((loss, lambda f: elementwise.cases(sys.modules[__name__], f)) for loss in ELEMENTWISE),
    ):
        file = File(loss)
        cases(file)
        file.save()


if __name__ == "__main__":
    main()
