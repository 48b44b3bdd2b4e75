#!/usr/bin/env python3
"""Times adaptive log-softmax, forward and backward, beside PyTorch's module, in one run.

    pip install -r benches/peers/requirements.txt
    python benches/peers/adaptive.py                  # everything; writes benches/results/cpu-adaptive.*
    python benches/peers/adaptive.py --rounds 1 --dry # a quick look, nothing written
    python benches/peers/adaptive.py --table          # the table again, from the record
    python benches/peers/adaptive.py --counts FILE    # planned cutoffs as well, for these counts

1024 rows of 512 features, f32, Zipf targets (uniform in their logarithm). Both write the gradients
of the input and of every parameter; PyTorch's are set to none between runs, so that it need not add
to them. The engine's softmax over all classes is the same call with one class outside the head.
Planned cutoffs are set beside random ones of no less capacity (parameters), 1 to 4 clusters with
evenly distributed logarithms, all measured in one run of `warploss plan`.
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
SHAPES = {100_000: [2_000, 10_000, 50_000], 1_000_000: [2_000, 10_000, 100_000]}
SMALL = {5_000: [200, 1_000]}
# Of the softmax over all classes, the largest.
FULL = 1_000_000


def pytorch(classes, cutoffs, seconds):
    """Median seconds of forward and backward."""
    import torch

    torch.set_num_threads(peers.THREADS)
    torch.manual_seed(7)
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(HIDDEN, classes, cutoffs)
    x = torch.randn(ROWS, HIDDEN, requires_grad=True)
    y = (torch.rand(ROWS, dtype=torch.float64) * torch.log(torch.tensor(classes + 1.0))).exp() - 1
    y = y.long().clamp(max=classes - 1)
    times, start = [], time.perf_counter()
    while len(times) < 4 or time.perf_counter() - start < seconds:
        x.grad = None
        module.zero_grad(set_to_none=True)
        begin = time.perf_counter()
        module(x, y).loss.backward()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def warploss(classes, cutoffs, seconds):
    return json.loads(peers.run(
        [peers.WARPLOSS, "bench", "adaptive-log-softmax", "--pass", "forward-backward",
         "--rows", ROWS, "--hidden", HIDDEN, "--classes", classes,
         "--cutoffs", ",".join(map(str, cutoffs)), "--seconds", seconds, "--device", "cpu", "--json"]))


def measure(shapes, rounds, seconds):
    cases = []
    for classes, cutoffs in shapes.items():
        def theirs(env):
            return json.loads(peers.run(
                [sys.executable, __file__, "--pytorch", classes, *cutoffs, "--seconds", seconds], **env))

        case = peers.beside(lambda: warploss(classes, cutoffs, seconds), theirs, rounds)
        cases.append({"classes": classes, "cutoffs": cutoffs, **case})
        print(f"{classes}: {cases[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    return cases


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


def table(data):
    lines = [
        f"Adaptive log-softmax, {ROWS} × {HIDDEN}, f32, forward and backward, Zipf targets: warploss",
        f"beside PyTorch {data['versions']['pytorch']} (CPU).",
        "",
        "Ratios: median of rounds (least to most), as PyTorch comes, and with its freed memory kept",
        f"({peers.KEPT_BY}); the smaller one counts.",
        "",
        "| classes | cutoffs | warploss | GFLOP/s | PyTorch | ratio | memory kept | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in data["cases"]:
        ours, kept = case["warploss"], "not measured | not measured"
        if "kept" in case:
            kept = f"{case['kept']['median'] * 1e3:.1f} ms | {peers.spread(case['kept_ratios'], 2)}"
        lines.append(
            f"| {case['classes']} | {', '.join(map(str, case['cutoffs']))} "
            f"| {ours['median_s'] * 1e3:.1f} ms | {ours['gflop_per_s']:.0f} "
            f"| {case['pytorch']['median'] * 1e3:.1f} ms | {peers.spread(case['ratios'], 2)} | {kept} |")
    full = data.get("full")
    if full:
        adaptive = next(c for c in data["cases"] if c["classes"] == FULL)["warploss"]["median_s"]
        lines += [
            "",
            f"The engine's softmax over all {FULL} classes takes {full['median_s']:.1f} s "
            f"({full['gflop_per_s']:.0f} GFLOP/s), {full['median_s'] / adaptive:.0f} times as long.",
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
    lines += ["", peers.origin(data, "adaptive.py")]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per call and round")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that all runs")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--counts", help="safetensors file with the tensor `counts`: plan for it")
    parser.add_argument("--no-full", action="store_true", help="no softmax over all classes")
    parser.add_argument("--pytorch", nargs="+", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pytorch:
        return print(pytorch(options.pytorch[0], options.pytorch[1:], options.seconds))
    if options.table:
        return TABLE.write_text(table(json.loads(RECORD.read_text())))
    peers.build([])
    data = peers.origin_of(["pytorch"], options.rounds, options.seconds)
    data["cases"] = measure(SMALL if options.small else SHAPES, options.rounds, options.seconds)
    if not (options.small or options.no_full):
        data["full"] = warploss(FULL, [FULL - 1], 0)
        data["memory"] = [peak(512, 256, 10_000_000, cutoffs)
                          for cutoffs in ([2_000, 10_000, 100_000], [100_000, 1_000_000])]
    if options.counts:
        data["plans"] = plans(options.counts, 20)
    print(table(data))
    if not (options.dry or options.small):
        RECORD.write_text(json.dumps(data, indent=1) + "\n")
        TABLE.write_text(table(data))


if __name__ == "__main__":
    main()
