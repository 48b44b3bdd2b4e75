#!/usr/bin/env python3
"""Times the calls of the adaptive softmax beside PyTorch's module, in one run.

    pip install -r benches/peers/requirements.txt
    python benches/peers/adaptive.py                  # everything; writes benches/results/cpu-adaptive.*
    python benches/peers/adaptive.py --rounds 1 --dry # a quick look, nothing written
    python benches/peers/adaptive.py --table          # the table and the README again, from the record
    python benches/peers/adaptive.py --counts FILE    # planned cutoffs as well, for these counts

512 features, the same input and parameters for both, targets whose logarithms are even. Losses and
gradients: PyTorch's gradients are set to none between runs, so that it need not add to them; all other
calls are made without gradients. It has no top_k: the best ten are those of its log_prob. What both
answer is compared first. With a bias the head's best column is a cluster's in a part of the rows, as in a
model that was trained; so `predict` has to look into clusters.

The engine's softmax over all classes is the same call with one class outside the head. Planned cutoffs
are set beside random ones of no less capacity (parameters), 1 to 4 clusters with evenly distributed
logarithms, all measured in one run of `warploss plan`. What a run leaves out stays as the record has it,
with where it came from.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time

import run as peers

RECORD = peers.ROOT / "benches/results/cpu-adaptive.json"
TABLE = RECORD.with_suffix(".md")
ROWS, HIDDEN = 1024, 512
CUTOFFS = {
    100_000: [2_000, 10_000, 50_000],
    267_735: [20_000, 40_000, 200_000],
    1_000_000: [2_000, 10_000, 100_000],
    5_000: [200, 1_000],
}
CALLS = ["forward-backward", "forward", "log-prob", "predict", "top-k"]
CASES = [
    *((call, "f32", rows, 100_000) for rows in (1024, 32) for call in CALLS),
    *((call, "bf16", rows, 100_000) for rows in (1024, 32) for call in CALLS[:2]),
    *((CALLS[0], "f32", 1024, classes) for classes in (267_735, 1_000_000)),
]
SMALL = [(call, dtype, 32, 5_000) for dtype in ("f32", "bf16") for call in CALLS]
# Of the softmax over all classes, the largest.
FULL = 1_000_000
# The best classes that are asked for, and the bias of a cluster's column: as benches/adaptive_calls.rs has them.
BEST, CLUSTER_BIAS = 10, 5.0
# Largest relative difference of losses and sums; share of the classes found that may differ.
AGREES = {"f32": (1e-3, 0.01), "bf16": (5e-2, 0.5)}


def numbers(begin, shape, scale):
    """What benches/adaptive_calls.rs makes: multiples of 1/64 in [-1, 1] that look like chance."""
    import numpy

    count = int(numpy.prod(shape))
    bits = numpy.arange(begin, begin + count, dtype=numpy.uint64).astype(numpy.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ bits >> numpy.uint32(shift)) * numpy.uint32(factor)
    bits ^= bits >> numpy.uint32(16)
    return ((bits % numpy.uint32(129)).astype(numpy.float32) / 64 - 1).reshape(shape) * numpy.float32(scale)


def inverse_root(n):
    """The power of two that is nearest to 1/sqrt(n), of halves the lesser."""
    return 2.0 ** -math.floor(0.5 * math.log2(max(n, 1)) + 0.5)


def pytorch(call, dtype, rows, classes, seconds):
    import torch

    torch.set_num_threads(peers.THREADS)
    cutoffs, begin = CUTOFFS[classes], rows * HIDDEN
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(HIDDEN, classes, cutoffs, head_bias=True)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "head.bias":
                parameter.zero_()[cutoffs[0]:] = CLUSTER_BIAS
            else:
                scale = 4 * inverse_root(parameter.shape[1])
                parameter.copy_(torch.from_numpy(numbers(begin, parameter.shape, scale)))
            begin += parameter.numel()
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    module = module.to(kind)
    x = torch.from_numpy(numbers(0, (rows, HIDDEN), 2.0)).to(kind)
    y = torch.tensor([max(int(classes ** (row * 7919 % rows / rows)) - 1, 0) for row in range(rows)])
    x.requires_grad_(call == "forward-backward")

    def both():
        x.grad = None
        module.zero_grad(set_to_none=True)
        loss = module(x, y).loss
        loss.backward()
        return loss

    step = {
        "forward-backward": both,
        "forward": lambda: module(x, y).loss,
        "log-prob": lambda: module.log_prob(x),
        "predict": lambda: module.predict(x),
        "top-k": lambda: module.log_prob(x).topk(BEST, 1),
    }[call]
    with torch.set_grad_enabled(call == "forward-backward"):
        got = step()
        if call == "log-prob":
            answer = got.double().mean(1).tolist()
        elif call == "top-k":
            answer = got.indices.flatten().tolist()
        else:
            answer = got.flatten().double().tolist()
        if call == "forward-backward":
            of = [x, *module.parameters()]
            answer += [p.grad.double().abs().sum().item() if p.grad is not None else 0.0 for p in of]
        del got
        times, start = [], time.perf_counter()
        while len(times) < 4 or time.perf_counter() - start < seconds:
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)
    return {"answer": answer, "median_s": statistics.median(times)}


def difference(call, dtype, ours, theirs):
    """How far two answers are from each other; too far ends the run."""
    sums, classes = AGREES[dtype]
    if call in ("predict", "top-k"):
        far, legal = sum(a != b for a, b in zip(ours, theirs)) / len(ours), classes
    else:
        far, legal = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(ours, theirs)), sums
    if len(ours) != len(theirs) or not far <= legal:
        sys.exit(f"{call} {dtype}: the answers differ by {far}: {ours[:5]}, {theirs[:5]}")
    return far


def build():
    """The bench of calls as cargo builds it."""
    peers.build([])
    lines = peers.run(
        ["cargo", "bench", "--locked", "--bench", "adaptive_calls", "--no-run", "--message-format=json"])
    found = [m["executable"] for m in map(json.loads, lines.splitlines())
             if m.get("executable") and m["target"]["name"] == "adaptive_calls"]
    return found[-1]


def warploss(classes, cutoffs, seconds):
    return json.loads(peers.run(
        [peers.WARPLOSS, "bench", "adaptive-log-softmax", "--pass", "forward-backward",
         "--rows", ROWS, "--hidden", HIDDEN, "--classes", classes,
         "--cutoffs", ",".join(map(str, cutoffs)), "--seconds", seconds, "--device", "cpu", "--json"]))


def measure(bench, cases, through, rounds, seconds):
    found = []
    for call, dtype, rows, classes in cases:
        cutoffs, answers = CUTOFFS[classes], {}

        def ours():
            line = [*through, bench, call, dtype, rows, HIDDEN, classes, ",".join(map(str, cutoffs)), seconds]
            got = json.loads(peers.run(line))
            answers["ours"] = got["answer"]
            median, operations = statistics.median(got["seconds"]), got["operations"]
            backward = 3 if call == "forward-backward" else 1
            # Of the other calls the products depend on the input.
            known = call in ("forward", "forward-backward")
            return {"median_s": median, "gflop_per_s": backward * operations / median / 1e9 if known else None}

        def theirs(env):
            line = [*through, sys.executable, __file__, "--pytorch", call, dtype, rows, classes]
            got = json.loads(peers.run([*line, "--seconds", seconds], **env))
            answers["theirs"] = got["answer"]
            return got["median_s"]

        case = peers.beside(ours, theirs, rounds)
        far = difference(call, dtype, answers["ours"], answers["theirs"])
        sizes = {"call": call, "dtype": dtype, "rows": rows, "classes": classes, "cutoffs": cutoffs}
        found.append({**sizes, "difference": far, **case})
        print(f"{call} {dtype} {rows} {classes}: {case['ratio']:.2f}, "
              f"{statistics.median(case['kept_ratios']):.2f}", file=sys.stderr, flush=True)
    return found


def peak(rows, hidden, classes, cutoffs):
    """Peak memory of a process that runs forward and backward, beside what it must hold."""
    line = ["bench", "adaptive-log-softmax", "--rows", rows, "--hidden", hidden, "--classes", classes,
            "--cutoffs", ",".join(map(str, cutoffs)), "--seconds", 1, "--device", "cpu", "--json"]
    child = subprocess.Popen([str(a) for a in [peers.WARPLOSS, *line]], stdout=subprocess.PIPE)
    result = json.loads(child.stdout.read())
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{line}: status {child.returncode}")
    return {"rows": rows, "hidden": hidden, "classes": classes, "cutoffs": cutoffs,
            "median_s": result["median_s"], "peak_bytes": usage.ru_maxrss * 1024,
            "held_bytes": 2 * 4 * capacity(hidden, classes, cutoffs)}


def capacity(hidden, classes, cutoffs):
    """Parameters of PyTorch's module with the default div_value and no bias."""
    ends = [*cutoffs[1:], classes]
    widths = [hidden // 4 ** (i + 1) for i in range(len(cutoffs))]
    tails = sum(h * (hidden + end - begin) for h, begin, end in zip(widths, cutoffs, ends))
    return hidden * (cutoffs[0] + len(cutoffs)) + tails


def plans(counts, number):
    """A plan's time beside that of others."""
    def plan(beside):
        line = [peers.WARPLOSS, "plan", "--counts", counts, "--hidden", HIDDEN, "--batch", ROWS,
                "--device", "cpu", "--json"]
        for cutoffs in beside:
            line += ["--beside", ",".join(map(str, cutoffs))]
        return [json.loads(text) for text in peers.run(line).splitlines()]

    first = plan([])
    all_classes = first[-1]["cutoffs"][0] + 1
    # A second fit may ask for a little more.
    least, generator, others = 1.1 * first[0]["parameters"], random.Random(7), []
    while len(others) < number:
        cuts = range(generator.randint(1, 4))
        cutoffs = sorted({int(math.exp(generator.uniform(0, math.log(all_classes)))) for _ in cuts})
        if cutoffs[-1] < all_classes and capacity(HIDDEN, all_classes, cutoffs) >= least:
            others.append(cutoffs)
    return {"classes": all_classes, "rows": plan(others)}


def plan_lines(data):
    rows = data["rows"]
    best, others = rows[0], [row for row in rows if row["plan"] == "beside"]
    ratios = sorted(row["measured_s"] / best["measured_s"] for row in others)
    smallest = min(row["parameters"] for row in others)
    lines = [
        "",
        f"Planned for the counts of {data['classes']} classes: cutoffs "
        f"{', '.join(map(str, best['cutoffs']))}, widths {', '.join(map(str, best['widths']))},",
        f"{best['parameters']} parameters; {best['predicted_s'] * 1e3:.0f} ms predicted, "
        f"{best['measured_s'] * 1e3:.0f} ms measured. {len(others)} random plans of at least",
        f"{smallest} parameters take {ratios[0]:.2f} to {ratios[-1]:.2f} times as long, "
        f"median {statistics.median(ratios):.2f}.",
        "",
        "| cutoffs | parameters | rows | predicted | measured | against the plan |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows[1:]:
        if row["plan"] == "beside":
            continue
        ratio = row["measured_s"] / best["measured_s"] * best["rows"] / row["rows"]
        cutoffs = ", ".join(map(str, row["cutoffs"])) if row["plan"] != "all classes" else "—"
        lines.append(
            f"| {row['plan']}: {cutoffs} | {row['parameters']} | {row['rows']} "
            f"| {row['predicted_s'] * 1e3:.0f} ms | {row['measured_s'] * 1e3:.0f} ms | {ratio:.1f} |")
    return lines


def milliseconds(seconds):
    return f"{seconds * 1e3:.{1 if seconds >= 0.01 else 2}f} ms"


def case_table(data):
    """The calls beside PyTorch: what the README shows."""
    lines = [
        f"Adaptive softmax, {HIDDEN} features: warploss beside PyTorch {data['versions']['pytorch']} (CPU).",
        "",
        "Ratios: median of rounds (least to most), as PyTorch comes, and with its freed memory kept",
        f"({peers.KEPT_BY}); the smaller one counts.",
        "",
        "| call | dtype | rows | classes: cutoffs | warploss | GFLOP/s | PyTorch | ratio | memory kept | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in data["cases"]:
        ours, cutoffs = case["warploss"], ", ".join(map(str, case["cutoffs"]))
        rate = ours["gflop_per_s"]
        lines.append(
            f"| {case['call']} | {case['dtype']} | {case['rows']} | {case['classes']}: {cutoffs} "
            f"| {milliseconds(ours['median_s'])} | {f'{rate:.0f}' if rate else ''} "
            f"| {milliseconds(case['pytorch']['median'])} | {peers.spread(case['ratios'], 2)} "
            f"| {milliseconds(case['kept']['median'])} | {peers.spread(case['kept_ratios'], 2)} |")
    lines += ["", peers.origin(data, "adaptive.py")]
    return "\n".join(lines) + "\n"


def table(data):
    return case_table(data) + "".join("\n".join(more_lines(part)) + "\n" for part in data.get("more", []))


def publish(data):
    peers.publish(data, case_table, TABLE, "adaptive")
    TABLE.write_text(table(data))


def more_lines(data):
    """The softmax over all classes, memory and plans, of one run."""
    lines = []
    if "full" in data:
        full, adaptive = data["full"], data["adaptive"]["median_s"]
        lines += [
            "",
            f"The engine's softmax over all {FULL} classes takes {full['median_s']:.1f} s "
            f"({full['gflop_per_s']:.0f} GFLOP/s), {full['median_s'] / adaptive:.0f} times as long as the adaptive one.",
        ]
    for held in data.get("memory", []):
        over = (held["peak_bytes"] - held["held_bytes"]) / 2**20
        lines += [
            "",
            f"{held['rows']} × {held['hidden']}, {held['classes']} classes, cutoffs "
            f"{', '.join(map(str, held['cutoffs']))}: {held['median_s']:.2f} s; the process's peak is",
            f"{held['peak_bytes'] / 2**20:.0f} MiB, parameters and their gradients "
            f"{held['held_bytes'] / 2**20:.0f} MiB, {over:.0f} MiB beside them.",
        ]
    if "plans" in data:
        lines += plan_lines(data["plans"])
    return [*lines, "", peers.origin(data, "adaptive.py")]


def more(options):
    """What is not set beside PyTorch, of this run, and of earlier ones what this one leaves out."""
    of = peers.origin_of(["pytorch"], 1, options.seconds)
    new = {}
    if not options.no_full:
        new["full"] = warploss(FULL, [FULL - 1], 0)
        new["adaptive"] = warploss(FULL, CUTOFFS[FULL], options.seconds)
    if not options.no_memory:
        new["memory"] = [peak(512, 256, 10_000_000, cutoffs)
                         for cutoffs in ([2_000, 10_000, 100_000], [100_000, 1_000_000])]
    if options.counts:
        new["plans"] = plans(options.counts, 20)
    kept = []
    for part in json.loads(RECORD.read_text()).get("more", []) if RECORD.exists() else []:
        left = {name: value for name, value in part.items() if name not in new}
        if {"full", "memory", "plans"} & set(left):
            kept.append(left)
    return [{**of, **new}] * bool(new) + kept


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="per call and round")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that all runs")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--through", nargs="*", default=[],
                        help="a command that runs each measured one, on a machine that others use too")
    parser.add_argument("--counts", help="safetensors file with the tensor `counts`: plan for it")
    parser.add_argument("--no-full", action="store_true", help="no softmax over all classes")
    parser.add_argument("--no-memory", action="store_true", help="no ten million classes")
    parser.add_argument("--pytorch", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pytorch:
        call, dtype, *sizes = options.pytorch
        return print(json.dumps(pytorch(call, dtype, *map(int, sizes), options.seconds)))
    if options.table:
        return publish(json.loads(RECORD.read_text()))
    bench = build()
    data = peers.origin_of(["pytorch"], options.rounds, options.seconds)
    cases = SMALL if options.small else CASES
    data["cases"] = measure(bench, cases, options.through, options.rounds, options.seconds)
    if not options.small:
        data["more"] = more(options)
    print(table(data))
    if not (options.dry or options.small):
        RECORD.write_text(json.dumps(data, indent=1) + "\n")
        publish(data)


if __name__ == "__main__":
    main()
