#!/usr/bin/env python3
"""Times the losses on an NVIDIA GPU beside PyTorch and Liger, and runs the kernels under
compute-sanitizer: one command.

    pip install -r benches/peers/gpu-requirements.txt
    python benches/peers/gpu.py             # everything; writes benches/results/gpu-CARD.json and .md
    python benches/peers/gpu.py --seconds 1 --only bf16

Needs a driver, PyTorch with CUDA, and a Rust toolchain. Where there is no GPU it says `not measured`
and ends well. Ours come from `warploss bench --device cuda`, which checks its answers, keeps all
tensors on the card and takes its times from events of the stream; the peers run in a process each and
take theirs from events too. Medians after warm-up. Tensors are many times the L2 cache, so that no run
finds in it what the last one left. Fused forward and backward overwrites the logits here and in Liger;
PyTorch allocates a gradient. A peer that has no memory left, or is not installed, is named as that.
"""

import argparse, datetime, json, math, os, pathlib, re, shutil, statistics, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benches/results"
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/warploss"
PEERS = {"eager": "PyTorch eager", "compile": "torch.compile", "liger": "Liger"}
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# pass, rows, classes, dtype
CASES = [
    *(("forward-backward", 8192, classes, dtype) for classes in (32_000, 128_256, 262_144) for dtype in ("bf16", "f32")),
    *(("forward", 8192, classes, "bf16") for classes in (16_384, 32_768, 65_536, 131_072, 262_144)),
    ("forward", 64, 4_000_000, "f32"),
    ("forward-backward", 64, 4_000_000, "f32"),
]
# The other losses: elementwise on 2^28 bytes a tensor, those of rows on 8192 x 128256.
ELEMENTWISE = ("mse", "l1", "smooth-l1", "huber", "bce-with-logits", "kl-div", "js-div")
ROWS = ("nll", "logprob-entropy", "soft-cross-entropy", "distillation", "js-div-logits")
OTHERS = [(op, work, dtype) for dtype in ("bf16", "f32") for op in ELEMENTWISE + ROWS
          for work in ("forward", "forward-backward")]
# Adaptive log-softmax, forward and backward of 8192 x 1024, Zipf targets: classes and cutoffs.
ADAPTIVE = [(267_735, (20_000, 40_000, 200_000)), (1_000_000, (2_000, 10_000, 100_000))]
# What a call must move, in tensors as large as the logits.
MOVES = {"forward": 1, "forward-backward": 2}


def not_measured(why):
    print(f"not measured: {why}")
    record = RESULTS / "gpu.md"
    if not list(RESULTS.glob("gpu-*.json")):
        record.write_text(f"# On a GPU\n\nNot measured: {why}.\n`python benches/peers/gpu.py` on a machine with one makes "
                          "this record.\n")
    sys.exit(0)


def find_gpu():
    """torch, if it sees a GPU."""
    if not shutil.which("nvidia-smi"):
        not_measured("there is no NVIDIA driver (nvidia-smi)")
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing: pip install -r benches/peers/gpu-requirements.txt")
    if not torch.cuda.is_available():
        not_measured("PyTorch sees no CUDA device")
    return torch


def medians(torch, step, seconds, prepare=lambda: None):
    """Milliseconds of a step by events, in the middle of many."""
    for _ in range(3):
        prepare()
        step()
    torch.cuda.synchronize()
    times, total = [], 0.0
    while len(times) < 5 or total < seconds * 1e3:
        prepare()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
        total += times[-1]
    return statistics.median(times), len(times)


def copy_rate(torch, seconds):
    """GB/s of a copy between buffers of 2 GiB, reads and writes."""
    a, b = (torch.ones(1 << 29, device="cuda") for _ in range(2))
    ms, _ = medians(torch, lambda: b.copy_(a), seconds)
    return 2 * a.numel() * 4 / ms / 1e6


def peer(name, work, rows, classes, dtype, seconds):
    """One case of one peer, in a process of its own: a line of JSON."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    logits = torch.empty(rows, classes, device="cuda", dtype=kind).normal_(0, 2.5)
    target = torch.randint(classes, (rows,), device="cuda")
    some = logits[:64].float().detach().clone()
    expected = F.cross_entropy(some.double(), target[:64]).item()
    if name == "liger":
        from liger_kernel.transformers import LigerCrossEntropyLoss

        loss = LigerCrossEntropyLoss()
    else:
        loss = F.cross_entropy if name == "eager" else torch.compile(F.cross_entropy)
    got = loss(some.to(kind), target[:64]).item()
    if abs(got - expected) > 1e-2 * abs(expected):
        raise SystemExit(f"wrong answer: {got}, expected {expected}")
    if work == "forward":
        def step():
            with torch.no_grad():
                loss(logits, target)
    else:
        logits.requires_grad_(True)

        def step():
            logits.grad = None
            loss(logits, target).backward()

    ms, runs = medians(torch, step, seconds)
    print(json.dumps({"ms": ms, "runs": runs, "peak_mib": torch.cuda.max_memory_allocated() >> 20}))


def run_peer(name, case, seconds):
    command = [sys.executable, __file__, "--peer", name, *map(str, case), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    said = (done.stderr or done.stdout).strip()
    if "OutOfMemory" in said:
        return {"failed": "out of memory"}
    if "No module named" in said:
        return {"failed": "not installed"}
    return {"failed": said.splitlines()[-1] if said else f"exit {done.returncode}"}


def ours(case, seconds):
    work, rows, classes, dtype = map(str, case)
    command = [BINARY, "bench", "cross-entropy", "--pass", work, "--rows", rows, "--classes", classes, "--dtype", dtype,
               "--device", "cuda", "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip()}
    line = json.loads(done.stdout)
    return {"ms": line["median_s"] * 1e3, "runs": line["runs"], "copy_gb_per_s": line["copy_gb_per_s"]}


def other(case, seconds):
    """A loss besides cross entropy: its time, and its share of the copy bandwidth of its own run."""
    op, work, dtype = case
    size = (["--elements", str((1 << 28) // {"bf16": 2, "f32": 4}[dtype])] if op in ELEMENTWISE
            else ["--rows", "8192", "--classes", "128256"])
    command = [BINARY, "bench", op, "--pass", work, *size, "--dtype", dtype, "--device", "cuda",
               "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"case": case, "failed": done.stderr.strip()}
    line = json.loads(done.stdout)
    return {"case": case, "ms": line["median_s"] * 1e3, "share_of_copy": line["share_of_copy"]}


def adaptive_peer(classes, cutoffs, dtype, seconds):
    """PyTorch's module, in a process of its own: a line of JSON."""
    import torch

    torch.manual_seed(0)
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(1024, classes, list(cutoffs)).to("cuda", kind)
    x = torch.randn(8192, 1024, device="cuda", dtype=kind, requires_grad=True)
    y = (torch.rand(8192, dtype=torch.float64) * math.log(classes + 1)).exp() - 1
    y = y.long().clamp(max=classes - 1).cuda()

    def step():
        x.grad = None
        module.zero_grad(set_to_none=True)
        module(x, y).loss.backward()

    ms, runs = medians(torch, step, seconds)
    print(json.dumps({"ms": ms, "runs": runs, "peak_mib": torch.cuda.max_memory_allocated() >> 20}))


def adaptive(classes, cutoffs, dtype, seconds):
    """Ours, with room in each cluster for a quarter more rows than are expected, and PyTorch's."""
    ends = [*cutoffs[1:], classes]
    mass = (math.log((end + 1) / (begin + 1)) / math.log(classes + 1) for begin, end in zip(cutoffs, ends))
    capacities = ",".join(str(min(8192, int(8192 * share * 1.25) + 64)) for share in mass)
    listed = ",".join(map(str, cutoffs))
    command = [BINARY, "bench", "adaptive-log-softmax", "--rows", "8192", "--hidden", "1024", "--classes", str(classes),
               "--cutoffs", listed, "--capacities", capacities, "--dtype", dtype, "--device", "cuda", "--seconds",
               str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    mine = {"failed": done.stderr.strip()} if done.returncode else {"ms": json.loads(done.stdout)["median_s"] * 1e3}
    command = [sys.executable, __file__, "--adaptive-peer", str(classes), listed, dtype, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    said = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
    theirs = {"failed": said[-1]} if done.returncode else json.loads(done.stdout.strip().splitlines()[-1])
    return {"classes": classes, "cutoffs": cutoffs, "dtype": dtype, "capacities": capacities, "warploss": mine,
            "pytorch": theirs}


def sanitize(cases):
    """What the sanitizer's tools say of `warploss check`, and of an adaptive softmax, which checks its answer."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not pathlib.Path(program).exists():
        return {tool: "not run: compute-sanitizer was not found" for tool in TOOLS}
    adaptive = ["bench", "adaptive-log-softmax", "--rows", "300", "--hidden", "64", "--classes", "20000", "--cutoffs",
                "200,2000", "--dtype", "bf16", "--seconds", "0"]
    runs = {"check": ["check", "--cases", str(cases)], "adaptive-log-softmax": adaptive}
    said = {}
    for tool in TOOLS:
        for name, arguments in runs.items():
            command = [program, "--tool", tool, "--error-exitcode", "9", BINARY, *arguments, "--device", "cuda"]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = re.findall(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", done.stdout + done.stderr)
            said[f"{tool}, {name}"] = f"exit {done.returncode}; {lines[-1] if lines else 'no summary'}"
            print(f"compute-sanitizer {tool}, {name}: {said[f'{tool}, {name}']}", flush=True)
    return said


def git(*command):
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def table(record):
    """The record in words."""
    def cell(result, bytes_moved):
        if "failed" in result:
            return result["failed"].replace("|", "/")
        rate = bytes_moved / result["ms"] / 1e6
        return f"{result['ms']:.3f} ms ({rate / record['copy_gb_per_s']:.0%})"

    lines = [
        f"# On a GPU: {record['card']}", "",
        f"Driver {record['driver']}, PyTorch {record['torch']}; {record['date']}, commit {record['commit']}. Made by",
        "`benches/peers/gpu.py`. Median times; in brackets the bytes that must be moved, a second, as a share of the copy",
        f"of the same run ({record['copy_gb_per_s']:.0f} GB/s).", "",
        "| pass | rows × classes | dtype | warploss | " + " | ".join(PEERS.values()) + " | fastest peer / warploss |",
        "|---|---|---|---|" + "---|" * (len(PEERS) + 1),
    ]
    for entry in record["cases"]:
        work, rows, classes, dtype = entry["case"]
        moved = MOVES[work] * rows * classes * {"bf16": 2, "f32": 4}[dtype]
        cells = [cell(entry[name], moved) for name in ("warploss", *PEERS)]
        times = [entry[name]["ms"] for name in PEERS if "ms" in entry[name]]
        mine = entry["warploss"].get("ms")
        ratio = f"{min(times) / mine:.2f}" if times and mine else ""
        lines.append(f"| {work} | {rows} × {classes} | {dtype} | " + " | ".join(cells) + f" | {ratio} |")
    lines += ["", "The other losses: elementwise on 2^28 bytes a tensor, those of rows on 8192 × 128256.", "",
              "| loss | pass | dtype | median | of copy |", "|---|---|---|---|---|"]
    for entry in record["others"]:
        figures = ([f"{entry['ms']:.3f} ms", f"{entry['share_of_copy']:.0%}"] if "ms" in entry
                   else [entry["failed"].replace("|", "/"), ""])
        lines.append("| " + " | ".join([*entry["case"], *figures]) + " |")
    lines += ["", "Adaptive log-softmax, forward and backward, 8192 × 1024, Zipf targets.", "",
              "| classes | cutoffs | dtype | warploss | PyTorch | PyTorch / warploss |", "|---|---|---|---|---|---|"]
    for entry in record["adaptive"]:
        mine, theirs = entry["warploss"], entry["pytorch"]
        cells = [f"{of['ms']:.3f} ms" if "ms" in of else of["failed"].replace("|", "/") for of in (mine, theirs)]
        ratio = f"{theirs['ms'] / mine['ms']:.2f}" if "ms" in mine and "ms" in theirs else ""
        cutoffs = ", ".join(map(str, entry["cutoffs"]))
        lines.append("| " + " | ".join([str(entry["classes"]), cutoffs, entry["dtype"], *cells, ratio]) + " |")
    lines += ["", "`compute-sanitizer`:", "",
              *(f"- {tool}: {said}" for tool, said in record["sanitizer"].items()), ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--only", choices=["bf16", "f32"], help="one dtype")
    parser.add_argument("--check-cases", type=int, default=20, help="for each op under each sanitizer")
    parser.add_argument("--peer", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--adaptive-peer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        name, work, rows, classes, dtype = options.peer
        return peer(name, work, int(rows), int(classes), dtype, options.seconds)

    if options.adaptive_peer:
        classes, cutoffs, dtype = options.adaptive_peer
        return adaptive_peer(int(classes), tuple(map(int, cutoffs.split(","))), dtype, options.seconds)

    torch = find_gpu()
    card = torch.cuda.get_device_name()
    subprocess.run(["cargo", "build", "--release", "--features", "cuda"], cwd=ROOT, check=True)
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                            capture_output=True, text=True).stdout.splitlines()
    record = {
        "card": card, "driver": driver[0] if driver else "unknown", "torch": torch.__version__,
        "date": datetime.date.today().isoformat(), "commit": git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(git("status", "--porcelain")), "copy_gb_per_s": copy_rate(torch, options.seconds), "cases": [],
    }
    torch.cuda.empty_cache()
    for case in CASES:
        if options.only not in (None, case[3]):
            continue
        entry = {"case": case, "warploss": ours(case, options.seconds)}
        entry.update({name: run_peer(name, case, options.seconds) for name in PEERS})
        print(json.dumps(entry), flush=True)
        record["cases"].append(entry)
    record["others"] = [other(case, options.seconds) for case in OTHERS if options.only in (None, case[2])]
    record["adaptive"] = [adaptive(*case, dtype, options.seconds) for dtype in ("bf16", "f32") for case in ADAPTIVE
                          if options.only in (None, dtype)]
    record["sanitizer"] = sanitize(options.check_cases)
    name = "gpu-" + re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(table(record))
    (RESULTS / "gpu.md").unlink(missing_ok=True)
    print(f"wrote benches/results/{name}.json and .md")


if __name__ == "__main__":
    main()
