"""How fast is it? Tables of lines, each measured in one process; and peers."""

import pathlib, sys

from correctness import ended
from record import ABSENT

PEERS = pathlib.Path(__file__).resolve().parent / "peers.py"


def lines(visit, binary, name, texts, limit):
    """`bench --lines`: what was measured until the process ended, and what failed."""
    file = visit.out / f"{name}.lines"
    file.write_text("".join(text + "\n" for text in texts))
    process = visit.run([binary, "bench", "--lines", file, "--json", "--device", visit.device, "--seconds",
                         visit.sizes.seconds], limit)
    found = process.lines()
    measured = [line for line in found if "median_s" in line]
    failed = [line for line in found if "failed" in line]
    result = {"measured": measured, "failed": failed, "asked": len(texts)}
    return ended(process, result, len(measured) == len(texts))


def case_of(line):
    return (line["pass"], line["rows"], line["classes"], line["dtype"])


def table(record, name):
    """Cross entropy's figures of a binary by case: all rounds' lines."""
    found = {}
    for entry in record.named(f"table {name} "):
        for line in entry["result"].get("measured", ()):
            found.setdefault(case_of(line), []).append(line)
    return found


def peers(visit, binary, limit):
    """All peers in one process, ours between them."""
    cases = [":".join(map(str, case)) for case in visit.sizes.peers]
    return from_peers(visit, [binary, visit.device, visit.sizes.seconds, *cases], len(cases), limit)


def adaptive_peers(visit, limit):
    """PyTorch's adaptive softmax."""
    rows, hidden = visit.sizes.adaptive_rows, visit.sizes.adaptive_hidden
    texts = [f"{rows}:{hidden}:{classes}:{','.join(map(str, cutoffs))}:{dtype}"
             for classes, cutoffs in visit.sizes.adaptive for dtype in ("bf16", "f32")]
    return from_peers(visit, ["--adaptive", visit.sizes.seconds, *texts], len(texts), limit)


def from_peers(visit, arguments, asked, limit):
    if visit.dry:
        return ABSENT, {"why": "no peers on an emulated card"}
    process = visit.run([sys.executable, PEERS, *arguments], limit)
    found = process.lines()
    why = next((line["absent"] for line in found if "absent" in line), None)
    if why:
        return ABSENT, {"why": why}
    head = [line for line in found if "torch" in line]
    lines_ = [line for line in found if "torch" not in line]
    result = {"about": head[0] if head else None, "lines": lines_, "asked": asked}
    return ended(process, result, len(lines_) == asked)
