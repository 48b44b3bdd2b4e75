#!/usr/bin/env python3
"""Times nll and cross entropy against probabilities, forward and backward, beside PyTorch.

    cargo build --release && python benches/peers/rows.py [--rows 4096] [--classes 32000]
                                                          [--rounds 3] [--seconds 3]

Rounds alternate, so that drift of the machine meets both; a ratio is the median over rounds of
PyTorch / warploss. `warploss bench` compares its answers with a plain f64 computation before it
prints a time. warploss overwrites its input with the gradient; PyTorch allocates one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WARPLOSS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/warploss"
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def pytorch(op, rows, classes, seconds):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(THREADS)
    x = torch.randn(rows, classes).requires_grad_(True)
    if op == "nll":
        target, loss = torch.arange(rows) * 7919 % classes, F.nll_loss
    else:
        target, loss = torch.randn(rows, classes), F.cross_entropy
        if op == "distillation":
            loss = lambda x, y: F.cross_entropy(x, torch.softmax(y, 1))
    times, start = [], time.perf_counter()
    while len(times) < 2 or time.perf_counter() - start < seconds:
        x.grad = None
        run = time.perf_counter()
        loss(x, target).backward()
        times.append(time.perf_counter() - run)
    return statistics.median(times[1:])


def warploss(op, rows, classes, seconds):
    done = subprocess.run(
        [WARPLOSS, "bench", op, "--pass", "forward-backward", "--rows", str(rows), "--classes",
         str(classes), "--seconds", str(seconds), "--device", "cpu", "--json"],
        env={**os.environ, "RAYON_NUM_THREADS": str(THREADS)}, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"warploss bench {op}: {done.returncode}")
    return json.loads(done.stdout)["median_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=32000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    case = options.rows, options.classes, options.seconds
    print("| call, f32 | warploss | PyTorch | ratio, median of rounds (least to most) |")
    print("|---|---|---|---|")
    for op in ("nll", "soft-cross-entropy", "distillation"):
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(warploss(op, *case))
            theirs.append(pytorch(op, *case))
        ratios = sorted(t / o for t, o in zip(theirs, ours))
        print(f"| {op} {options.rows} × {options.classes} | {statistics.median(ours):.3f} s "
              f"| {statistics.median(theirs):.3f} s | {statistics.median(ratios):.1f} "
              f"({ratios[0]:.1f} to {ratios[-1]:.1f}) |", flush=True)


if __name__ == "__main__":
    main()
