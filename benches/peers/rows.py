#!/usr/bin/env python3
"""Times the losses besides cross entropy, forward and backward, beside PyTorch, in one run.

    pip install -r benches/peers/requirements.txt
    python benches/peers/rows.py                  # everything; writes benches/results/cpu-losses.*
    python benches/peers/rows.py --rounds 1 --dry # a quick look, nothing written
    python benches/peers/rows.py --table          # the table and the README again, from the record

Elementwise losses on 2^26 elements of f32, losses over rows on 4096 x 32000. Rounds alternate, so
that drift of the machine meets both; a ratio is the median over rounds of PyTorch / warploss.
`warploss bench` compares its answers with a plain f64 computation before it prints a time. warploss
overwrites its input with the gradient; PyTorch allocates one, and keeps its memory from run to run.
"""

import argparse
import json
import statistics
import sys
import time

import run as peers

ROOT = peers.ROOT
RECORD = ROOT / "benches/results/cpu-losses.json"
TABLE = RECORD.with_suffix(".md")
ELEMENTS = 1 << 26
ROWS = (4096, 32000)
ELEMENTWISE = ["mse", "l1", "smooth-l1", "huber", "kl-div", "bce-with-logits", "js-div"]
OPS = ELEMENTWISE + ["nll", "soft-cross-entropy", "distillation", "js-div-logits"]
COMPOSED = "composed of kl_div and logaddexp"
NOTES = {
    "js-div": COMPOSED,
    "js-div-logits": f"log_softmax, then {COMPOSED}",
    "distillation": "softmax of the teacher, then cross_entropy",
}


def pytorch(op, small, seconds):
    """Median seconds of forward and backward."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(peers.THREADS)

    def divergence(x, y):
        mixture = torch.logaddexp(x, y) - 0.6931471805599453
        one = lambda p: F.kl_div(mixture, p, reduction="batchmean", log_target=True)
        return 0.5 * (one(y) + one(x))

    if op in ELEMENTWISE:
        n = ELEMENTS >> 10 if small else ELEMENTS
        x, y = torch.randn(n), torch.randn(n)
        if op in ("kl-div", "js-div"):
            x = -x.abs()
        if op in ("kl-div", "bce-with-logits"):
            y = torch.rand(n)
        if op == "js-div":
            y = -y.abs()
        loss = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth-l1": F.smooth_l1_loss,
                "huber": F.huber_loss, "bce-with-logits": F.binary_cross_entropy_with_logits,
                "kl-div": lambda x, y: F.kl_div(x, y, reduction="batchmean"),
                "js-div": divergence}[op]
    else:
        rows, classes = (8, 1000) if small else ROWS
        x, y = torch.randn(rows, classes), torch.randn(rows, classes)
        if op == "nll":
            y = torch.arange(rows) * 7919 % classes
        loss = {"nll": F.nll_loss, "soft-cross-entropy": F.cross_entropy,
                "distillation": lambda x, y: F.cross_entropy(x, torch.softmax(y, 1)),
                "js-div-logits": lambda x, y: divergence(torch.log_softmax(x, 1),
                                                         torch.log_softmax(y, 1))}[op]
    x.requires_grad_(True)
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        x.grad = None
        begin = time.perf_counter()
        loss(x, y).backward()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def warploss(op, small, seconds):
    if op in ELEMENTWISE:
        size = ["--elements", ELEMENTS >> 10 if small else ELEMENTS]
    else:
        rows, classes = (8, 1000) if small else ROWS
        size = ["--rows", rows, "--classes", classes]
    return json.loads(peers.run(
        [peers.WARPLOSS, "bench", op, "--pass", "forward-backward", *size, "--seconds", seconds,
         "--device", "cpu", "--json"]))


def measure(small, rounds, seconds):
    cases = []
    for op in OPS:
        def theirs(env):
            # In a process of its own, so that its memory goes back.
            return json.loads(peers.run([sys.executable, __file__, "--pytorch", op, "--seconds", seconds]
                                        + ["--small"] * small, **env))

        size = [1, ELEMENTS] if op in ELEMENTWISE else list(ROWS)
        case = peers.beside(lambda: warploss(op, small, seconds), theirs, rounds)
        cases.append({"op": op, "size": size, **case})
        print(f"{op}: {case['ratio']:.1f}, {statistics.median(case['kept_ratios']):.1f}", file=sys.stderr, flush=True)
    return cases


def table(data):
    torch = data["versions"]["pytorch"]
    lines = [
        f"Other losses, f32, forward and backward: warploss beside PyTorch {torch}, and the share of",
        "the copy bandwidth of the same run by the byte model (two tensors read, or one of them for",
        "nll; the gradient written). Ratios: median of rounds (least to most), as PyTorch comes, and with",
        "its freed memory kept, as above; the smaller one counts.",
        "",
        "| loss | size | warploss | of copy | PyTorch | ratio | memory kept | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in data["cases"]:
        size = "2^26" if case["size"][0] == 1 else "{} × {}".format(*case["size"])
        ours, star = case["warploss"], " *" if case["op"] in NOTES else ""
        kept = "not measured | not measured"
        if "kept" in case:
            kept = f"{case['kept']['median']:.3f} s{star} | {peers.spread(case['kept_ratios'])}"
        lines.append(
            f"| {case['op']} | {size} | {ours['median_s']:.4f} s | {100 * ours['share_of_copy']:.0f} % "
            f"({ours['copy_gb_per_s']:.1f} GB/s) | {case['pytorch']['median']:.3f} s{star} "
            f"| {peers.spread(case['ratios'])} | {kept} |")
    lines += [
        "",
        "\\* PyTorch has no such call: " + "; ".join(f"{op}: {note}" for op, note in NOTES.items()) + ".",
        "",
        peers.origin(data, "rows.py"),
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="per call and round")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that all runs")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--pytorch", choices=OPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pytorch:
        return print(pytorch(options.pytorch, options.small, options.seconds))
    if options.table:
        return peers.publish(json.loads(RECORD.read_text()), table, TABLE, "losses")
    peers.build([])
    data = peers.origin_of(["pytorch"], options.rounds, options.seconds)
    data["cases"] = measure(options.small, options.rounds, options.seconds)
    print(table(data))
    if not (options.dry or options.small):
        RECORD.write_text(json.dumps(data, indent=1) + "\n")
        peers.publish(data, table, TABLE, "losses")


if __name__ == "__main__":
    main()
