#!/usr/bin/env python3
"""Times rows of few classes, and images of them, beside PyTorch and JAX, in one run.

    pip install -r benches/peers/requirements.txt jax
    python benches/peers/short.py                  # everything; writes benches/results/cpu-short.*
    python benches/peers/short.py --rounds 1 --dry # a quick look, nothing written
    python benches/peers/short.py --table          # the table and the README again, from the record

Cross entropy (mean) forward and backward, fused in place; log-softmax forward, and backward from an
upstream gradient. PyTorch runs twice: as it comes, and with an allocator that keeps the memory that was
freed (run.py). JAX, where it is installed, is compiled by XLA: value and gradient in one function. The plain
loop is twenty lines of scalar Rust, on one thread (benches/shapes.rs). Each
runs in a process of its own; the answers are compared first; rounds alternate. A ratio is the median
over rounds of peer / warploss.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import statistics
import sys
import time

import run as peers

RECORD = peers.ROOT / "benches/results/cpu-short.json"
TABLE = RECORD.with_suffix(".md")
ROWS = [(1, 10), (1, 1000), (32, 10), (4096, 2), (4096, 10), (4096, 100), (65536, 10), (65536, 100), (65536, 512)]
IMAGES = [(8, 21, 128, 128), (4, 150, 64, 64), (2, 19, 512, 1024)]
LOOP = "plain loop"
CASES = [
    *(("cross-entropy", dtype, shape) for dtype in ("f32", "bf16") for shape in ROWS + IMAGES),
    *(("log-softmax", "f32", shape) for shape in [(4096, 100), (65536, 10), (65536, 100), IMAGES[0]]),
]
# Loss or largest output, and sum of gradients' sizes: largest relative difference that is agreement.
AGREES = {"f32": 1e-4, "bf16": 3e-2}


def inputs(shape):
    """What benches/shapes.rs makes: multiples of 1/16 in [-4, 4], and classes."""
    import numpy

    count = numpy.prod(shape, dtype=numpy.uint64)
    index = numpy.arange(count, dtype=numpy.uint64)
    x = ((index * 2654435761 & 0xFFFFFFFF) >> 16) % 129
    x = (x.astype(numpy.float32) / 16 - 4).reshape(shape)
    rows = int(count) // shape[1]
    target = (numpy.arange(rows) * 7919 % shape[1]).reshape(shape[:1] + shape[2:])
    return x, target


def timed(step, seconds):
    """Seconds of each run. A short one is repeated between two looks at the clock."""
    step()
    begin = time.perf_counter()
    step()
    repeats = int(50e-6 / (time.perf_counter() - begin)) + 1
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        for _ in range(repeats):
            step()
        times.append((time.perf_counter() - begin) / repeats)
    return times


def pytorch(op, dtype, shape, seconds):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(peers.THREADS)
    x, target = map(torch.from_numpy, inputs(shape))
    x = x.to({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    upstream = x.flatten().flip(0).view(shape).contiguous()
    x.requires_grad_(True)

    def step():
        x.grad = None
        if op == "cross-entropy":
            y = F.cross_entropy(x, target)
            y.backward()
        else:
            y = F.log_softmax(x, 1)
            y.backward(upstream)
        return y

    answer = step().max().item()
    return {"answer": answer, "grad_abs": x.grad.double().abs().sum().item(), "seconds": timed(step, seconds)}


def jax(op, dtype, shape, seconds):
    import jax
    import jax.numpy as jnp

    x, target = inputs(shape)
    x = jnp.asarray(x, {"f32": jnp.float32, "bf16": jnp.bfloat16}[dtype])
    target = jnp.asarray(target)
    upstream = jnp.flip(x.reshape(-1)).reshape(shape)

    def loss(x):
        y = jax.nn.log_softmax(x.astype(jnp.float32), axis=1)
        return -jnp.mean(jnp.take_along_axis(y, jnp.expand_dims(target, 1), axis=1))

    def both(x, upstream):
        if op == "cross-entropy":
            return jax.value_and_grad(loss)(x)
        y, back = jax.vjp(lambda x: jax.nn.log_softmax(x, axis=1), x)
        return y, back(upstream)[0]

    compiled = jax.jit(both)
    y, grad = compiled(x, upstream)
    step = lambda: jax.block_until_ready(compiled(x, upstream))
    return {"answer": float(jnp.max(y)), "grad_abs": float(jnp.sum(jnp.abs(grad.astype(jnp.float32)))),
            "seconds": timed(step, seconds)}


def build():
    """The bench as cargo builds it."""
    lines = peers.run(["cargo", "bench", "--locked", "--bench", "shapes", "--no-run", "--message-format=json"])
    found = [m["executable"] for m in map(json.loads, lines.splitlines())
             if m.get("executable") and m["target"]["name"] == "shapes"]
    return found[-1]


def measure(bench, peers_of_all, rounds, seconds):
    cases = []
    for op, dtype, shape in CASES:
        others = peers_of_all + [LOOP] * (op == "cross-entropy" and len(shape) == 2)
        sizes = ",".join(map(str, shape))

        def once(name):
            if name == "warploss":
                return json.loads(peers.run([bench, op, dtype, sizes, seconds]))
            if name == LOOP:
                return json.loads(peers.run([bench, "plain-loop", dtype, sizes, seconds]))
            kept = peers.KEEPING if name.endswith(peers.KEPT) else {}
            peer = name.removesuffix(peers.KEPT)
            return json.loads(peers.run([sys.executable, __file__, "--peer", peer, op, dtype, sizes,
                                         "--seconds", seconds], **kept))

        times = {name: [] for name in ["warploss", *others]}
        for _ in range(rounds):
            answers = {}
            for name in times:
                answers[name] = once(name)
                times[name].append(statistics.median(answers[name]["seconds"]))
        ours = answers["warploss"]
        for name, got in answers.items():
            distance = max(abs(got[key] - ours[key]) / max(abs(ours[key]), 1e-3) for key in ("answer", "grad_abs"))
            if distance > AGREES[dtype]:
                sys.exit(f"{name}, {op} {dtype} {sizes}: {got['answer']}, {got['grad_abs']}; "
                         f"warploss {ours['answer']}, {ours['grad_abs']}")
        ratio = {name: [p / w for p, w in zip(times[name], times["warploss"])] for name in others}
        cases.append({"op": op, "dtype": dtype, "shape": shape,
                      "seconds": {name: peers.summary(t) for name, t in times.items()}, "ratio": ratio})
        said = ", ".join(f"{name} {statistics.median(r):.1f}" for name, r in ratio.items())
        print(f"{op} {dtype} {sizes}: {times['warploss'][-1] * 1e6:.1f} us; {said}", file=sys.stderr, flush=True)
    return cases


def table(data):
    versions = data["versions"]
    names = {"pytorch": f"PyTorch {versions['pytorch']}", "pytorch" + peers.KEPT: "PyTorch, memory kept",
             "jax": f"JAX {versions.get('jax')}", LOOP: "plain loop, one thread"}
    others = [name for name in names if name in data["cases"][0]["ratio"]]
    lines = [
        "Few classes, forward and backward: how many times warploss's the peers take, median of rounds",
        "(least to most). The memory kept: " + peers.KEPT_BY + ".",
        "",
        "| loss | tensor | dtype | warploss | " + " | ".join(names[name] for name in others) + " |",
        "|---|---|---|---|" + "---|" * len(others),
    ]
    for case in data["cases"]:
        shape = " × ".join(map(str, case["shape"])) if len(case["shape"]) == 2 else str(case["shape"])
        cells = [peers.spread(case["ratio"][name]) if name in case["ratio"] else "" for name in others]
        us = case["seconds"]["warploss"]["median"] * 1e6
        time_ = f"{us:.3g} µs" if us < 1000 else f"{us / 1e3:.3g} ms"
        lines.append(f"| {case['op']} | {shape} | {case['dtype']} | {time_} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", peers.origin(data, "short.py")]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="per call and round")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--peer", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        name, op, dtype, sizes = options.peer
        call = {"pytorch": pytorch, "jax": jax}[name]
        return print(json.dumps(call(op, dtype, tuple(map(int, sizes.split(","))), options.seconds)))
    if options.table:
        return peers.publish(json.loads(RECORD.read_text()), table, TABLE, "short")
    others = ["pytorch", "pytorch" + peers.KEPT] + ["jax"] * bool(importlib.util.find_spec("jax"))
    data = peers.origin_of(["pytorch"], options.rounds, options.seconds)
    if "jax" in others:
        data["versions"]["jax"] = importlib.metadata.version("jax")
    data["cases"] = measure(build(), others, options.rounds, options.seconds)
    print(table(data))
    if not options.dry:
        RECORD.write_text(json.dumps(data, indent=1) + "\n")
        peers.publish(data, table, TABLE, "short")


if __name__ == "__main__":
    main()
