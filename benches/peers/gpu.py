#!/usr/bin/env python3
"""A first visit to an NVIDIA GPU: is it right, how fast is it, where does the time go. One command, in eight
minutes, without a Rust toolchain and without git.

    cargo build --release --features cuda && cargo test --release --features cuda --test device --no-run
    python benches/peers/gpu.py --binary target/release/warploss --tests target/release/deps/device-* --out visit
    python benches/peers/gpu.py --binary … --out visit --sanitize     # a second call
    python benches/peers/gpu.py --binary today=A --binary arrive=B --out visit     # variants, interleaved
    python benches/peers/gpu.py --binary … --tests … --out visit --dry-run         # an emulated card, no figures

Writes OUT/visit.jsonl, a line a step as soon as the step is done, and OUT/gpu.md, the table. Called again it
goes on where it stopped. Each step has a limit, after which it is killed and noted, and the next one goes on.
What is not there (PyTorch, Liger, ncu, compute-sanitizer) is noted as absent. docs/gpu-day-one.md says more.
"""

import argparse, pathlib, signal, sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "gpu"))
from record import Record  # noqa: E402
from visit import Visit  # noqa: E402
import table  # noqa: E402


def binaries(given):
    """NAME=PATH, or PATH, whose name is `warploss`."""
    found = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator:
            name, path = "warploss", text
        path = pathlib.Path(path).resolve()
        if not path.is_file():
            sys.exit(f"--binary {text}: there is no such file")
        if name in found or not name or not name.replace("-", "").replace("_", "").isalnum():
            sys.exit(f"--binary {text}: expected a name of its own, of letters, digits, - and _")
        found[name] = path
    return found


def stop(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", action="append", required=True, metavar="[NAME=]PATH",
                        help="a built warploss; the first is checked and set beside peers, all are timed")
    parser.add_argument("--tests", nargs="+", action="extend", default=[], type=pathlib.Path, metavar="PATH",
                        help="built test binaries, that of tests/device first of all")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="where the record is kept")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all steps of this call [8]")
    parser.add_argument("--again", action="append", default=[], metavar="STEP", help="do a step once more")
    parser.add_argument("--commit", help="what the binary was built from, for the table")
    parser.add_argument("--sanitize", action="store_true", help="memcheck and racecheck instead of the rest")
    parser.add_argument("--dry-run", action="store_true", help="an emulated card and small shapes")
    options = parser.parse_args()
    named = binaries(options.binary)
    tests = [path.resolve() for path in options.tests if not path.suffix == ".d"]
    missing = [path for path in tests if not path.is_file()]
    if missing:
        sys.exit(f"--tests {missing[0]}: there is no such file")
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    record = Record(out / "visit.jsonl")
    device = "emulated" if options.dry_run else "cuda"
    known = record.result("visit").get("device")
    if known and known != device:
        sys.exit(f"--out {options.out}: holds a visit on {known}, expected one on {device}; give a folder of its own")
    if not known:
        record.add("visit", "done", 0.0, {"device": device, "commit": options.commit,
                                          "binaries": {name: path.name for name, path in named.items()}})
    commit = options.commit or record.result("visit").get("commit")
    visit = Visit(named, tests, out, device, options.dry_run, record, commit)
    signal.signal(signal.SIGTERM, stop)
    try:
        left_out = visit.go(visit.sanitizer_steps() if options.sanitize else visit.steps(), options.minutes,
                            options.again)
    except KeyboardInterrupt:
        table.write(visit, ["what came after"])
        sys.exit("stopped; the same command goes on")
    print((out / "gpu.md").read_text())
    print(f"wrote {out / 'visit.jsonl'} and gpu.md" + (f"; left out: {', '.join(left_out)}" if left_out else ""))
    wrong = [name for name, entry in record.steps.items() if entry["status"] in ("failed", "timed out")]
    sys.exit(f"not well: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
