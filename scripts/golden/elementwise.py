"""Golden cases of the elementwise losses; make.py calls this."""

import itertools
import math

import torch
import torch.nn.functional as F
import torchvision.ops

INF, NAN = float("inf"), float("nan")
# Shapes of input and target: equal, and broadcast either way.
EQUAL = {"s": (), "n": (7,), "nc": (3, 5), "ncd": (2, 3, 4), "empty": (0, 3)}
PAIRS = {
    "row": ((3, 4), (4,)), "column": ((3, 4), (3, 1)), "outer": ((1, 4), (3, 1)),
    "number": ((), (2, 3)), "ranks": ((2, 1, 3), (4, 1)), "one": ((1,), ()),
    "none": ((0, 3), (1, 3)), "no_column": ((3, 0), (3, 1)),
}


class Maker:
    """Adds the cases of one loss to a file; `make` is make.py, which has the common parts."""

    def __init__(self, make, file):
        self.make, self.file, self.loss = make, file, file.loss
        self.label = self.loss == "bce_with_logits"
        self.js = self.loss == "js_div"
        self.kl = self.loss in ("kl_div", "js_div")
        self.other = OTHERS.get(self.loss)
        self.label = self.label or self.loss in ("bce", "sigmoid_focal")
        self.reductions = ("none", "sum", "mean", *(("batchmean",) if self.kl else ()))

    def target(self, shape, dtype, g, log_target):
        values = self.make.normal(shape, dtype, g)
        if self.loss in ("soft_margin", "hinge_embedding"):
            return torch.where(values < 0, -1.0, 1.0).to(values.dtype)
        if self.loss == "poisson_nll":
            return values.abs().floor() + 1  # of 0 Stirling's terms leave NaN in PyTorch's gradient
        if self.js or self.kl and log_target:
            return -values.abs()
        if self.kl or self.label:
            return torch.rand(shape, generator=g, dtype=torch.float64).to(values.dtype)
        return values

    @staticmethod
    def named(option):
        return "_".join(f"{k}_{v}" for k, v in option.items()) or "plain"

    def apply(self, x, y, weight, pos_weight, reduction, option):
        if self.other:
            return self.other.apply(x, y, weight, reduction, **option)
        if self.loss == "mse":
            return F.mse_loss(x, y, reduction=reduction, weight=weight)
        if self.loss == "l1":
            return F.l1_loss(x, y, reduction=reduction, weight=weight)
        if self.loss == "huber":
            return F.huber_loss(x, y, reduction=reduction, delta=option, weight=weight)
        if self.label:
            return F.binary_cross_entropy_with_logits(
                x, y, weight=weight, reduction=reduction, pos_weight=pos_weight)
        if self.js:
            return self.jensen_shannon(x, y, reduction, option)
        if self.kl:
            return F.kl_div(x, y, reduction=reduction, log_target=option)
        if weight is None:
            return F.smooth_l1_loss(x, y, reduction=reduction, beta=option)
        # Composed: PyTorch's smooth_l1_loss has no weight.
        loss = weight * F.smooth_l1_loss(x, y, reduction="none", beta=option)
        if reduction == "mean":
            return loss.sum() / weight.sum()
        return loss.sum() if reduction == "sum" else loss

    def jensen_shannon(self, x, y, reduction, beta):
        """Composed of kl_div, which PyTorch has, by its definition."""
        divergence = lambda q, p: F.kl_div(q, p, reduction="none", log_target=True)
        x, y = torch.broadcast_tensors(x, y)
        if beta in (0.0, 1.0):
            loss = divergence(x, y) if beta == 0.0 else divergence(y, x)
        else:
            mixture = torch.logaddexp(y + math.log(beta), x + math.log1p(-beta))
            loss = beta * divergence(mixture, y) + (1 - beta) * divergence(mixture, x)
        if reduction == "none":
            return loss
        total = loss.sum()
        return total if reduction == "sum" else total / (
            loss.numel() if reduction == "mean" else self.batch)

    def case(self, name, shape, target_shape=None, dtype="f32", reduction="mean", option=None,
             weight=None, pos_weight=None, variance=None, upstream="tensor", edit=None):
        """`weight`, `pos_weight` and `variance` are shapes; `edit(x, y)`, or of three, plants what random numbers lack."""
        make = self.make
        g = make.generator(f"{self.loss} {name}")
        if self.other:
            option = {k: v if isinstance(v, bool) else make.f32(v) for k, v in option.items()}
        elif option is None:
            option = 0.5 if self.js else False if self.kl else 1.0
        elif self.js or not self.kl:
            option = make.f32(option)
        values = make.normal(shape, dtype, g)
        if self.kl:
            values = -values.abs()
        if self.other and self.other.probabilities:
            values = torch.sigmoid(values.double()).to(values.dtype)
        target_shape = shape if target_shape is None else target_shape
        labels = self.target(target_shape, dtype, g, option)
        variances = None if variance is None else (
            torch.rand(variance, generator=g, dtype=torch.float64).add(0.25).to(make.DTYPES[dtype]))
        if edit:
            edit(*(t for t in (values, labels, variances) if t is not None))
        positive = lambda s: None if s is None else (
            torch.rand(s, generator=g, dtype=torch.float64).add(0.25).to(torch.float32))
        weight, pos_weight = positive(weight), positive(pos_weight)
        x, y = make.widened(values), make.widened(labels)
        self.batch = x.shape[0] if x.dim() else 1
        double = lambda t: None if t is None else t.double()
        if variances is not None:
            option_of, option = option, option | dict(variance=make.widened(variances))
        loss = self.apply(x, y, double(weight), double(pos_weight), reduction, option)
        grad_variance = None
        grad_output = None
        if upstream == "number":
            grad_output = torch.tensor(make.f32(-1.75))
        elif upstream == "tensor":
            grad_output = make.normal(loss.shape, "f32", g, 1.0)
        loss.backward(torch.ones_like(loss) if grad_output is None
                      else grad_output.double().expand_as(loss))
        if variances is not None:
            grad_variance, option = option["variance"].grad, option_of
        options = dict(loss=self.loss, reduction=reduction)
        if self.other:
            options |= option
        elif self.js:
            options["beta"] = option
        elif self.kl:
            options["log_target"] = option
        elif self.loss in ("smooth_l1", "huber"):
            options["beta" if self.loss == "smooth_l1" else "delta"] = option
        self.file.add(name, options, dict(
            input=values, target=labels, weight=weight, pos_weight=pos_weight,
            grad_output=grad_output, loss=loss, grad_input=x.grad, grad_target=y.grad,
            variance=variances, grad_variance=grad_variance))


class Other:
    """A loss by a function of PyTorch's and nothing else."""

    def __init__(self, apply, options=({},), planted=(), probabilities=False, weighted=False):
        self.apply, self.options, self.planted = apply, options, planted
        self.probabilities, self.weighted = probabilities, weighted


def soft_margin(x, y, weight, reduction):
    """PyTorch has no gradient of the target; the formula has."""
    x, y = torch.broadcast_tensors(x, y)
    loss = F.soft_margin_loss(x, y.detach(), reduction=reduction)
    of_target = torch.logaddexp(torch.zeros((), dtype=y.dtype), -x.detach() * y)
    of_target = {"none": of_target, "sum": of_target.sum(), "mean": of_target.mean()}[reduction]
    return loss + (of_target - of_target.detach())


def hinge_embedding(x, y, weight, reduction, margin):
    """The target only chooses; 0 times it gives the gradient that is not there."""
    x, y = torch.broadcast_tensors(x, y)
    loss = F.hinge_embedding_loss(x, y.detach(), margin=margin, reduction=reduction)
    return loss + 0.0 * torch.nan_to_num(y).sum()


def poisson_nll(x, y, weight, reduction, rate_input, full, eps):
    return F.poisson_nll_loss(x, y, log_input=not rate_input, full=full, eps=eps, reduction=reduction)


def sigmoid_focal(x, y, weight, reduction, alpha, gamma):
    return torchvision.ops.sigmoid_focal_loss(x, y, alpha=alpha, gamma=gamma, reduction=reduction)


def gaussian_nll(x, y, weight, reduction, full, eps, variance=None):
    """PyTorch wants the variance in the input's shape, or without its last dimension; ones are none."""
    x, y = torch.broadcast_tensors(x, y)
    if variance is None:
        variance = torch.ones_like(x)
    elif variance.shape != x.shape[:-1]:
        variance = variance.expand(x.shape)
    return F.gaussian_nll_loss(x, y, variance, full=full, eps=eps, reduction=reduction)


def bce(x, y, weight, reduction):
    return F.binary_cross_entropy(x, y, weight=weight, reduction=reduction)


COUNTS = [dict(rate_input=rate, full=full, eps=1e-8) for rate in (False, True) for full in (False, True)]
OTHERS = {
    "soft_margin": Other(soft_margin, planted=[
        (0.0, 1.0), (30.0, 1.0), (-30.0, 1.0), (NAN, 1.0), (0.5, NAN), (2.0, 0.25), (1e-6, -1.0)]),
    "hinge_embedding": Other(hinge_embedding, [dict(margin=m) for m in (0.3, 1.0, 4.0)], [
        (INF, 1.0), (-INF, 1.0), (INF, -1.0), (-INF, -1.0), (1.0, -1.0), (0.0, 0.0), (2.0, 0.5), (0.5, NAN)]),
    "bce": Other(bce, planted=[
        (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.5), (1e-5, 0.5), (0.5, 0.5), (0.75, 0.0)],
        probabilities=True, weighted=True),
    "poisson_nll": Other(poisson_nll, COUNTS, [
        (-1.0, 1.0), (1.0, 1.0), (2.0, 1.5), (0.25, 2.0), (NAN, 1.0), (3.0, 1000.0)]),
    "sigmoid_focal": Other(sigmoid_focal,
        [dict(alpha=a, gamma=g) for a, g in ((0.25, 2.0), (0.25, 0.0), (0.25, 1.5), (-1.0, 2.0), (0.75, 1.0), (-1.0, 3.0))],
        [(0.0, 0.0), (0.0, 1.0), (20.0, 1.0), (-20.0, 1.0), (20.0, 0.0), (NAN, 1.0), (1.5, 0.25), (-2.0, 0.75),
         (-1.0, 1.5), (2.0, 1.5), (2.0, -0.5)]),
    "gaussian_nll": Other(gaussian_nll, [dict(full=f, eps=e) for f, e in ((False, 1e-6), (True, 1e-6), (False, 0.5))],
        [(0.0, 0.0), (INF, 0.0), (0.0, -INF), (NAN, 1.0), (0.5, NAN), (1e4, -1e4), (INF, INF)]),
}
# Input, target, variance.
VARIANCES = [(1.0, 1.0, 0.0), (1.0, 3.0, 0.0), (1.0, 3.0, 1e-7), (1.0, 3.0, INF), (1.0, 3.0, NAN), (2.0, 0.0, 4.0),
             (INF, 0.0, 2.0), (INF, 0.0, INF), (NAN, 0.0, 1.0), (1e4, 0.0, 3.0), (0.0, 1.0, 0.25)]


def cases(make, file):
    m = Maker(make, file)
    if m.other:
        return others(make, m)
    options = {"smooth_l1": (0.0, 0.3, 1.0, 4.0), "huber": (0.05, 1.0, 4.0),
               "kl_div": (False, True), "js_div": (0.0, 1.0, 0.1, 0.5)}.get(m.loss, (None,))
    for (layout, shape), dtype, reduction, option in itertools.product(
            EQUAL.items(), make.DTYPES, m.reductions, options):
        m.case(f"{layout}_{dtype}_{reduction}_{option}", shape, dtype=dtype, reduction=reduction,
               option=option)
    if not m.label:
        for (layout, (shape, other)), dtype, reduction, option in itertools.product(
                PAIRS.items(), make.DTYPES, m.reductions, options[-2:]):
            if dtype != "f32" and layout not in ("row", "outer"):
                continue
            m.case(f"{layout}_{dtype}_{reduction}_{option}", shape, other, dtype, reduction, option)
    for upstream, reduction in itertools.product((None, "number"), m.reductions):
        m.case(f"upstream_{upstream}_{reduction}", (4, 6), reduction=reduction, upstream=upstream)
    if not m.kl:
        shapes = {"same": (3, 5)}
        if m.label:
            shapes |= {"row": (5,), "column": (3, 1), "number": ()}
        for (layout, shape), dtype, reduction in itertools.product(
                shapes.items(), make.DTYPES, m.reductions):
            m.case(f"weight_{layout}_{dtype}_{reduction}", (3, 5), dtype=dtype,
                   reduction=reduction, weight=shape)
            if m.label:
                m.case(f"pos_weight_{layout}_{dtype}_{reduction}", (3, 5), dtype=dtype,
                       reduction=reduction, pos_weight=shape)
                m.case(f"both_{layout}_{dtype}_{reduction}", (3, 5), dtype=dtype,
                       reduction=reduction, weight=(3, 1), pos_weight=shape)

    def pairs(rows):
        """Plants pairs of x and y."""
        def edit(x, y):
            x[:] = torch.tensor([row[0] for row in rows], dtype=torch.float64)
            y[:] = torch.tensor([row[1] for row in rows], dtype=torch.float64)
        return edit

    # What PyTorch and warploss say alike about numbers that are not finite, and about edges.
    if m.label:
        planted = [(INF, 0.0), (NAN, 0.5), (0.5, NAN), (90.0, 1.0), (-90.0, 0.0),
                   (1e4, 0.25), (-1e4, 0.25), (2.0, 1.5), (-2.0, -0.5), (0.0, 0.0), (1e-6, 0.5)]
        tried = [None]
    elif m.js:
        planted, tried = [(-1.0, -1.0), (-0.5, -80.0), (-90.0, -0.1), (-2.0, -2.0000002), (NAN, -1.0), (-1.0, NAN)], (0.5, 0.9)
    elif m.kl:
        planted = [(-1.0, 0.0), (-INF, 0.5), (NAN, 0.5), (0.5, NAN), (-1.0, -0.25), (1.0, 3.0),
                   (-1e4, 0.5), (-0.5, 1e-7), (0.0, 1.0)]
        tried = [False]
    else:
        planted = [(INF, 0.0), (0.0, INF), (-INF, 1.0), (NAN, 0.0), (0.0, NAN), (INF, INF),
                   (INF, -INF), (1.0, 0.0), (0.0, 1.0), (0.3, 0.0), (0.0, 0.0), (1e4, -1e4),
                   (2.0, 2.0)]
        tried = options
    for dtype, option in itertools.product(make.DTYPES, tried):
        m.case(f"planted_{dtype}_{option}", (len(planted),), dtype=dtype, reduction="none",
               option=option, edit=pairs(planted))
    if m.kl and not m.js:
        logs = [(-INF, -1.0), (NAN, -1.0), (-1.0, NAN), (-1e4, -2.0), (-0.5, -80.0), (2.0, 3.0)]
        for dtype in make.DTYPES:
            m.case(f"planted_{dtype}_True", (len(logs),), dtype=dtype, reduction="none",
                   option=True, edit=pairs(logs))


def others(make, m):
    """The same of a loss that is one function."""
    of = m.other
    for (layout, shape), dtype, reduction, option in itertools.product(
            EQUAL.items(), make.DTYPES, m.reductions, of.options):
        m.case(f"{layout}_{dtype}_{reduction}_{m.named(option)}", shape, dtype=dtype, reduction=reduction,
               option=option)
    if not m.label:
        for (layout, (shape, other)), dtype, reduction, option in itertools.product(
                PAIRS.items(), make.DTYPES, m.reductions, of.options[-2:]):
            if dtype == "f32" or layout in ("row", "outer"):
                m.case(f"{layout}_{dtype}_{reduction}_{m.named(option)}", shape, other, dtype, reduction, option)
    for upstream, reduction in itertools.product((None, "number"), m.reductions):
        m.case(f"upstream_{upstream}_{reduction}", (4, 6), reduction=reduction, upstream=upstream,
               option=of.options[0])
    for (layout, shape), dtype, reduction in itertools.product(
            {"same": (3, 5), "row": (5,), "column": (3, 1), "number": ()}.items() if of.weighted else (),
            make.DTYPES, m.reductions):
        m.case(f"weight_{layout}_{dtype}_{reduction}", (3, 5), dtype=dtype, reduction=reduction, weight=shape,
               option=of.options[0])

    def plant(*tensors, rows=of.planted):
        for i, tensor in enumerate(tensors):
            tensor[:] = torch.tensor([row[i] for row in rows], dtype=torch.float64)

    for dtype, option in itertools.product(make.DTYPES, of.options):
        m.case(f"planted_{dtype}_{m.named(option)}", (len(of.planted),), dtype=dtype, reduction="none",
               option=option, edit=plant)
    if m.loss != "gaussian_nll":
        return
    shapes = {"same": (3, 5), "row": (5,), "column": (3, 1), "without": (3,), "number": ()}
    for (layout, shape), dtype, reduction, option in itertools.product(
            shapes.items(), make.DTYPES, m.reductions, of.options):
        m.case(f"variance_{layout}_{dtype}_{reduction}_{m.named(option)}", (3, 5), dtype=dtype, reduction=reduction,
               option=option, variance=shape)
    for (layout, (shape, other)), reduction in itertools.product(
            {"outer": ((1, 4), (3, 1)), "row": ((3, 4), (4,))}.items(), m.reductions):
        m.case(f"variance_of_{layout}_{reduction}", shape, other, reduction=reduction, option=of.options[1],
               variance=(3, 1))
    for dtype, option in itertools.product(make.DTYPES, of.options):
        m.case(f"variance_planted_{dtype}_{m.named(option)}", (len(VARIANCES),), dtype=dtype, reduction="none",
               option=option, variance=(len(VARIANCES),), edit=lambda *three: plant(*three, rows=VARIANCES))
