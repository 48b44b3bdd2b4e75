#!/usr/bin/env python3
"""Times cross entropy forward and backward beside its peers, on the same cores in one run.

    pip install -r benches/peers/requirements.txt
    python benches/peers/run.py                  # everything; writes benches/results/cpu-peers.*
    python benches/peers/run.py --rounds 1 --dry # a quick look, nothing written
    python benches/peers/run.py --table          # the table and the README again, from the record

Peers: PyTorch (eager), candle and burn (Rust, package `rust/`, built for this very CPU). Each runs
in a process of its own with all cores, first on a small case whose loss and gradient are compared
(in f32 they must agree; in bf16 a peer that does not is marked), then in rounds (warploss, PyTorch, candle, burn, warploss, ...), so that drift of the machine meets
all alike. A ratio is the median over rounds of peer / warploss. warploss overwrites the logits with
their gradient, which is its normal use; the peers allocate theirs, which is theirs.
"""

import argparse
import array
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORD = ROOT / "benches/results/cpu-peers.json"
TABLE = RECORD.with_suffix(".md")
SHAPES = [(1024, 128256), (4096, 32000), (1024, 32000)]
DTYPES = ["f32", "bf16"]
PEERS = ["pytorch", "candle", "burn"]
# Calls of warploss alone, that say how far it is from the memory's bandwidth.
OWN = [
    ("forward-backward", 1024, 128256, "f32"),
    ("forward-backward", 4, 1000000, "f32"),
    ("forward", 1024, 128256, "f32"),
    ("forward", 1024, 128256, "bf16"),
    ("backward", 1024, 128256, "f32"),
]
# The bandwidth that bounds each pass.
PLAINEST = {"forward": "read", "backward": "copy", "forward-backward": "scale"}
CHECK_ROWS = 4
# Largest relative difference of the loss, or of the sum of |gradient|, that counts as agreement.
AGREES = {"f32": 5e-3, "bf16": 3e-2}
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WARPLOSS = TARGET / "release/warploss"
RUST_PEERS = HERE / "rust/target/release/warploss-peers"


# glibc keeps memory that was freed, and no page of it is new to the process a second time: a good part of
# what peers spend on large tensors is page faults otherwise.
KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "1073741824",
}
KEPT_BY = ", ".join(f"{name}={value}" for name, value in KEEPING.items())
# A peer's name in records, of which the second part says how it is run.
KEPT = ", memory kept"


def run(command, **env):
    """Standard output of a command; its failure ends the run with what it said."""
    threads = str(THREADS)
    env = {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PEER_THREADS": threads, **env}
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, **env}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    if done.returncode != 0:
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stderr[-4000:]}")
    return done.stdout


def build(peers):
    run(["cargo", "build", "--release", "--locked", "--bin", "warploss"])
    if {"candle", "burn"} & set(peers):
        manifest = HERE / "rust/Cargo.toml"
        run(
            ["cargo", "build", "--release", "--locked", "--manifest-path", manifest,
             "--target-dir", HERE / "rust/target"],
            RUSTFLAGS="-C target-cpu=native",
        )


def peer(name, rows, classes, dtype, seconds):
    case = [rows, classes, dtype, seconds]
    env = KEEPING if name.endswith(KEPT) else {}
    name = name.removesuffix(KEPT)
    if name == "pytorch":
        return json.loads(run([sys.executable, HERE / "pytorch.py", *case], **env))
    return json.loads(run([RUST_PEERS, name, *case], **env))


def bench(pass_, rows, classes, dtype, seconds):
    return json.loads(run(
        [WARPLOSS, "bench", "cross-entropy", "--pass", pass_, "--rows", rows, "--classes", classes,
         "--dtype", dtype, "--seconds", seconds, "--device", "cpu", "--json"]
    ))


def answer(classes, dtype):
    """Loss and sum of |gradient| by `warploss eval`, on the input that the peers make."""
    count = CHECK_ROWS * classes
    values = [(i * 2654435761 % 2**32 >> 16) % 129 / 16 - 4 for i in range(count)]
    logits = array.array("f", values)
    if dtype == "bf16":  # exact: the upper half of each f32
        logits = array.array("H", (bits >> 16 for bits in memoryview(logits).cast("B").cast("I")))
    target = array.array("q", (r * 7919 % classes for r in range(CHECK_ROWS)))
    tensors = {
        "input": {"dtype": dtype.upper(), "shape": [CHECK_ROWS, classes]},
        "target": {"dtype": "I64", "shape": [CHECK_ROWS]},
    }
    at = 0
    for entry, data in zip(tensors.values(), (logits, target)):
        entry["data_offsets"] = [at, at := at + len(data) * data.itemsize]
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.safetensors"), Path(folder, "out.safetensors")
        source.write_bytes(struct.pack("<Q", len(header)) + header + logits.tobytes() + target.tobytes())
        line = json.loads(run(
            [WARPLOSS, "eval", "cross-entropy", "--input", source, "--output", result, "--grad",
             "--device", "cpu"]
        ))
        content = result.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    begin, end = json.loads(content[8 : 8 + length])["grad_input"]["data_offsets"]
    grad = content[8 + length + begin : 8 + length + end]
    if dtype == "bf16":
        grad = array.array("I", (bits << 16 for bits in array.array("H", grad))).tobytes()
    return line["loss"], sum(map(abs, array.array("f", grad)))


def check(peers, classes, dtype):
    """How far each peer's loss and gradient are from warploss's; in f32 they must agree.

    The bound is loose: a plain f32 sum over a large vocabulary errs by some 1e-3.
    """
    loss, grad = answer(classes, dtype)
    errors = {}
    for name in peers:
        got = peer(name, CHECK_ROWS, classes, dtype, 0)
        distance = [abs(got["loss"] / loss - 1), abs(got["grad_abs"] / grad - 1)]
        errors[name] = {"loss": distance[0], "grad_abs": distance[1]}
        if dtype == "f32" and not all(d < AGREES["f32"] for d in distance):
            sys.exit(f"{name} {classes} {dtype}: loss {got['loss']}, sum of |gradient| "
                     f"{got['grad_abs']}; warploss {loss}, {grad}")
    return errors


def measure(peers, rounds, seconds):
    cases = []
    for rows, classes in SHAPES:
        for dtype in DTYPES:
            errors = check(peers, classes, dtype)
            ways = [name + kept for name in peers for kept in ("", KEPT)]
            times = {name: [] for name in ["warploss", *ways]}
            own = []
            for round_ in range(rounds):
                own.append(bench("forward-backward", rows, classes, dtype, seconds))
                times["warploss"].append(own[-1]["median_s"])
                for name in ways:
                    runs = peer(name, rows, classes, dtype, seconds)["seconds"]
                    times[name].append(statistics.median(runs))
                said = ", ".join(f"{name} {t[-1]:.3f} s" for name, t in times.items())
                print(f"{rows} x {classes} {dtype}, round {round_ + 1}/{rounds}: {said}",
                      file=sys.stderr, flush=True)
            cases.append({
                "rows": rows, "classes": classes, "dtype": dtype,
                "seconds": {name: summary(t) for name, t in times.items()},
                "ratio": {
                    name: statistics.median(p / w for p, w in zip(times[name], times["warploss"]))
                    for name in ways
                },
                "relative_difference": errors,
                "warploss": own,
            })
    alone = []
    for _ in range(rounds):
        alone.append([bench(*call, seconds) for call in OWN])
    return cases, [by_median(list(column)) for column in zip(*alone)]


def beside(ours, theirs, rounds):
    """A case of a record: rounds of warploss, of a peer as it comes, and of it with its memory kept.

    `ours` gives what `warploss bench` printed, `theirs` a median for an environment.
    """
    benches, usual, kept = [], [], []
    for _ in range(rounds):
        benches.append(ours())
        usual.append(theirs({}))
        kept.append(theirs(KEEPING))
    ratios, kept_ratios = ([t / b["median_s"] for t, b in zip(times, benches)] for times in (usual, kept))
    return {"warploss": by_median(benches), "pytorch": summary(usual), "kept": summary(kept),
            "ratio": statistics.median(ratios), "ratios": ratios, "kept_ratios": kept_ratios}


def spread(ratios, digits=1):
    """The median, the least and the most."""
    return f"{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f} to {max(ratios):.{digits}f})"


def summary(times):
    return {"median": statistics.median(times), "min": min(times), "max": max(times), "rounds": times}


def by_median(benches):
    """The round whose time is the median one."""
    return sorted(benches, key=lambda b: b["median_s"])[(len(benches) - 1) // 2]


def cpu_model():
    try:
        text = Path("/proc/cpuinfo").read_text()
        names = re.findall(r"^model name\s*:\s*(.*)$", text, re.M)
        family = re.findall(r"^(?:cpu family|model)\s*:\s*(.*)$", text, re.M)[:2]
        return f"{names[0]} (family {family[0]}, model {family[1]})"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def versions(peers):
    manifest = (HERE / "rust/Cargo.toml").read_text()
    found = {"rustc": run(["rustc", "--version"]).split()[1]}
    if "pytorch" in peers:
        found["pytorch"] = importlib.metadata.version("torch")
    for name, crate in (("candle", "candle-nn"), ("burn", "burn-nn")):
        if name in peers:
            found[name] = re.search(rf'^{crate} = {{ version = "=([^"]+)"', manifest, re.M)[1]
    return found


def origin_of(peers, rounds, seconds):
    """Where a record comes from."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": run(["git", "rev-parse", "HEAD"]).strip(),
        "uncommitted_changes": bool(run(["git", "status", "--porcelain", "src", "Cargo.toml"]).strip()),
        "machine": {"cpu": cpu_model(), "threads": THREADS, "system": platform.platform()},
        "versions": versions(peers),
        "rounds": rounds,
        "seconds_per_round": seconds,
    }


def origin(data, script):
    """The same in words."""
    machine = data["machine"]
    changed = " with uncommitted changes" if data.get("uncommitted_changes") else ""
    rustc = f"rustc {data['versions']['rustc']}; " if "rustc" in data["versions"] else ""
    return (f"{machine['cpu']}, {machine['threads']} threads; {rustc}{data['rounds']} rounds; {data['date']}, "
            f"commit {data['commit'][:12]}{changed}. Made by `benches/peers/{script}`.")


def record(peers, rounds, seconds):
    build(peers)
    data = origin_of(peers, rounds, seconds)
    data["cases"], data["warploss"] = measure(peers, rounds, seconds)
    return data


def table(data):
    peers = [p for p in PEERS if p in data["cases"][0]["ratio"]]
    versions = data["versions"]
    named = {"pytorch": "PyTorch", "candle": "candle", "burn": "burn"}
    ways = [(p, p + kept) for p in peers for kept in ("", KEPT) if p + kept in data["cases"][0]["ratio"]]
    head = ["logits", "dtype", "warploss",
            *(f"{named[p]}, memory kept" if way.endswith(KEPT) else f"{named[p]} {versions[p]}" for p, way in ways)]
    marked = 0
    lines = [
        "Cross entropy, mean, forward and backward; median seconds, and how many times warploss's. Each peer",
        f"runs as it comes, and with its freed memory kept ({KEPT_BY}); the smaller",
        "ratio is the one that counts.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for case in data["cases"]:
        cells = [f"{case['rows']} × {case['classes']}", case["dtype"],
                 f"{case['seconds']['warploss']['median']:.3f} s"]
        for p, way in ways:
            wrong = max(case["relative_difference"][p].values()) > AGREES[case["dtype"]]
            marked += wrong
            cells.append(f"{case['seconds'][way]['median']:.3f} s ({case['ratio'][way]:.1f}×)" + " †" * wrong)
        lines.append("| " + " | ".join(cells) + " |")
    if marked:
        lines += ["", "† Its answer is wrong here: loss or gradient are off by more than 3 %."]
    lines += [
        "",
        "warploss alone, beside the bandwidths of the same run: copying a buffer, and the plainest work",
        "with the same traffic (scaling in place for fused, reading for forward, copying for backward).",
        "",
        "| pass | logits | dtype | seconds | ns per element | GB/s | of copy | of the plainest work |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for b in data["warploss"]:
        each = b["median_s"] / (b["rows"] * b["classes"]) * 1e9
        name = PLAINEST[b["pass"]]
        bound = b.get(f"{name}_gb_per_s")
        share = f"{100 * b['gb_per_s'] / bound:.0f} % of {name} ({bound:.1f})" if bound else "not measured"
        lines.append(
            f"| {b['pass']} | {b['rows']} × {b['classes']} | {b['dtype']} | {b['median_s']:.4f} "
            f"| {each:.3f} | {b['gb_per_s']:.1f} "
            f"| {100 * b['share_of_copy']:.0f} % ({b['copy_gb_per_s']:.1f}) | {share} |"
        )
    lines += ["", origin(data, "run.py")]
    return "\n".join(lines) + "\n"


def publish(data, table, path, marker):
    """A record's table, as a file of its own and between the README's markers."""
    path.write_text(table(data))
    readme = ROOT / "README.md"
    text = readme.read_text()
    marked = re.compile(rf"(<!-- {marker}: begin -->\n).*(<!-- {marker}: end -->)", re.S)
    if not marked.search(text):
        sys.exit(f"README.md: the markers `<!-- {marker}: begin -->` and `end` are gone")
    readme.write_text(marked.sub(lambda m: m[1] + table(data) + m[2], text))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="per peer and round; default: %(default)s")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.table:
        return publish(json.loads(RECORD.read_text()), table, TABLE, "peers")
    peers = [p for p in options.peers.split(",") if p]
    if unknown := set(peers) - set(PEERS):
        sys.exit(f"--peers: expected some of {', '.join(PEERS)}, got {', '.join(sorted(unknown))}")
    if "pytorch" in peers and importlib.util.find_spec("torch") is None:
        sys.exit("PyTorch is missing: pip install -r benches/peers/requirements.txt, or --peers candle,burn")
    data = record(peers, options.rounds, options.seconds)
    print(table(data))
    if not options.dry:
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(data, indent=1) + "\n")
        publish(data, table, TABLE, "peers")


if __name__ == "__main__":
    main()
