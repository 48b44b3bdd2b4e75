"""Golden cases of log-probability and entropy of hidden states times a classifier; make.py calls this."""

import torch
import torch.nn.functional as F


def case(make, file, name, rows=9, features=7, classes=11, dtype="f32", index="i64", bias=False, ignore_index=-100,
         ignored=True, upstream="tensor", temperature=False, scale=1.0, softcap=None, peaked=1.0, edit=None):
    """Composed in f64 of log_softmax over all logits, on the values that the dtype holds."""
    g = make.generator(f"linear logprob {name}")
    dt = make.DTYPES[dtype]

    def normal(*shape, scale=1.0):
        return (torch.randn(shape, generator=g, dtype=torch.float64) * scale).to(dt)

    shape = () if rows is None else (rows,)
    x, w = normal(*shape, features, scale=peaked), normal(classes, features)
    b = normal(classes) if bias else None
    target = torch.randint(classes, shape, generator=g)
    if ignored and rows is not None:
        target[::4] = ignore_index
    tau = torch.rand(shape, generator=g, dtype=torch.float64).add(0.5).to(torch.float32) if temperature else None
    if edit:
        edit(x, w, target)
    worth = [torch.randn(shape, generator=g, dtype=torch.float64).to(torch.float32) for _ in range(2)]

    wide = [t if t is None else t.double().requires_grad_() for t in (x, w, b)]
    z = F.linear(*wide)
    if temperature:
        z = z / tau.double().unsqueeze(-1)
    z = z * make.f32(scale)
    if softcap is not None:
        z = make.f32(softcap) * torch.tanh(z / make.f32(softcap))
    log_p = torch.log_softmax(z, -1)
    kept = target != ignore_index
    logprob = log_p.gather(-1, target.clamp(min=0, max=classes - 1).unsqueeze(-1)).squeeze(-1)
    results = [torch.where(kept, of, torch.zeros_like(of)) for of in (logprob, -(log_p.exp() * log_p).sum(-1))]
    (a, e) = [of.double() for of in worth] if upstream == "tensor" else (1.0, 0.0)
    (a * results[0] + e * results[1]).sum().backward()
    tensors = dict(input=x, linear_weight=w, linear_bias=b, temperature=tau, target=target.to(make.INDICES[index]),
                   logprob=results[0], entropy=results[1], grad_input=wide[0].grad, grad_linear_weight=wide[1].grad)
    if upstream == "tensor":
        tensors.update(grad_logprob=worth[0], grad_entropy=worth[1])
    if bias:
        tensors["grad_linear_bias"] = wide[2].grad
    file.add(name, dict(ignore_index=ignore_index, logit_scale=scale, softcap=softcap), tensors)


def cases(make, file):
    def one(name, **options):
        case(make, file, name, **options)

    for dtype in make.DTYPES:
        one(f"ragged_{dtype}", rows=67, features=35, classes=131, dtype=dtype, bias=True)
        one(f"temperature_{dtype}", dtype=dtype, temperature=True, bias=True)
        one(f"scale_{dtype}", dtype=dtype, scale=0.7, temperature=True)
        one(f"softcap_{dtype}", dtype=dtype, softcap=5.0, temperature=True, bias=True)
        one(f"peaked_{dtype}", rows=33, features=19, classes=130, dtype=dtype, peaked=12.0)
        one(f"one_class_{dtype}", classes=1, dtype=dtype, bias=True)
        one(f"single_{dtype}", rows=None, dtype=dtype, bias=True)
        one(f"default_{dtype}", dtype=dtype, upstream=None)
    for index, label in (("i32", -100), ("u32", 255), ("u8", 255), ("u8", 3)):
        one(f"index_{index}_{label}", index=index, ignore_index=label)
    for classes in (2, 8, 33, 1025):
        one(f"classes_{classes}", rows=4, features=5, classes=classes, bias=True, temperature=True)
    one("all_ignored", bias=True, edit=lambda x, w, t: t.fill_(-100))
    one("no_rows", rows=0, ignored=False)
