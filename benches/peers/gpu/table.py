"""gpu.md: the record in words, predictions beside outcomes."""

import datetime, re, statistics

import plan, predictions, speed
from record import DONE


def rows_of(heads, rows):
    """A table of Markdown; nothing where it has no rows."""
    rows = list(rows)
    if not rows:
        return []
    cell = lambda value: str(value).replace("|", "/").replace("\n", " ")
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads),
            *("| " + " | ".join(map(cell, row)) + " |" for row in rows), ""]


def ms(value):
    return "" if value is None else f"{value:.3f} ms"


def percent(value):
    return "" if value is None else f"{value:.0%}"


def description(record):
    """The card in words, by whichever step has seen it."""
    for entry in record.named("kernels "):
        if entry["result"].get("description"):
            return entry["result"]["description"]
    return "unknown"


def about(visit):
    record = visit.record
    info = record.result("info").get("info") or {}
    yield f"# On a GPU: {description(record)}"
    yield ""
    commit = visit.commit or info.get("commit") or "not said (--commit)"
    yield f"warploss {info.get('version', '?')}, commit {commit}; {datetime.date.today().isoformat()}. Made by"
    yield "`benches/peers/gpu.py`; `docs/gpu-day-one.md` says how to read it."
    if record.result("info").get("smi"):
        yield f"nvidia-smi: {record.result('info')['smi']}."
    if visit.dry:
        yield ""
        yield "**A dry run on an emulated card: every time here is a host's, and means nothing.**"
    yield ""


def steps(visit, left_out):
    """What was not well."""
    bad = [(name, entry["status"], (entry["result"].get("why") or entry["result"].get("message")
                                    or entry["result"].get("said") or "")[:300])
           for name, entry in visit.record.steps.items() if entry["status"] != DONE]
    bad += [(name, "left out", "the time was spent; the same command does it") for name in left_out]
    yield f"{len(visit.record.steps)} steps in the record, {len(visit.record.steps) - len(bad) + len(left_out)} done."
    yield ""
    yield from rows_of(("step", "status", "why"), bad)


def correct(visit):
    record = visit.record
    yield "## Is it right?"
    yield ""
    for entry in record.named("kernels "):
        found = entry["result"]
        if "loaded" in found:
            yield (f"- {entry['step']}: {found['loaded']} loaded in {found['seconds']:.1f} s, {found['failed']} failed; "
                   f"most registers {found['most_registers'] or 'not told'}; local memory in "
                   f"{len(found['local_memory'])}.")
            clusters = ", ".join(f"{key}: {'not told' if n is None else n}"
                                 for key, n in found["least_active_clusters"].items())
            yield f"  Clusters active at once, of the kernel that has fewest: {clusters or 'none'}."
    yield ""
    verdicts = [(e["step"], e["result"]) for e in (*record.named("check "), *record.named("variant "))]
    yield from rows_of(("op", "verdict", "cases", "results", "worst share"), (
        (step.removeprefix("check "), r.get("verdict", "no verdict"), r.get("cases", ""), r.get("results", ""),
         f"{r['worst_share']:.2f}" if "worst_share" in r else "") for step, r in verdicts))
    yield from rows_of(("schedule, forced", "rows × classes", "losses that agree", "reached"), (
        (entry["step"].removeprefix("schedule "), f"{r.get('rows')} × {r.get('classes')}",
         f"{sum(v['verdict'] == 'agrees' for v in r.get('verdicts', ()))} of {len(r.get('verdicts', ()))}",
         len(r.get("reached", ()))) for entry in record.named("schedule ") for r in [entry["result"]]))
    yield from rows_of(("tests", "status", "passed", "failed", "skipped"), (
        (entry["step"], entry["status"], r.get("passed", ""), r.get("failed", ""), ", ".join(r.get("skipped", ())))
        for entry in (*record.named("graph"), *record.named("tests ")) for r in [entry["result"]]))


def cross_entropy(visit):
    """One table for all binaries: each one's median of rounds."""
    record = visit.record
    found = {name: speed.table(record, name) for name in visit.binaries}
    lines = [line for cases in found.values() for of in cases.values() for line in of]
    if not lines:
        return
    yield "## Cross entropy"
    yield ""
    copies = [line["copy_gb_per_s"] for line in lines]
    yield (f"A copy of {lines[0]['copy_bytes'] >> 20} MiB reached {statistics.median(copies):.0f} GB/s (bytes read and "
           f"written), {min(copies):.0f} to {max(copies):.0f} between processes. Median of a run's medians;")
    yield "`rows` is what the kernels that go through rows take of it, the rest are helpers and gaps."
    yield "Predicted: by a copy's rate on the data sheet's card, and with helpers and latencies."
    yield ""
    card = None if visit.dry else predictions.card_of(description(record))
    heads = ["pass", "rows × classes", "dtype", "floor", "predicted, copy", "predicted"]
    for name in found:
        heads += [name, "rounds", "rows", "of copy"]
    table = []
    for case in visit.sizes.table:
        work, rows, classes, dtype = case
        cells = [work, f"{rows} × {classes}", dtype, *map(ms, predictions.cross_entropy(card, case))]
        for cases in found.values():
            of = cases.get(tuple(case))
            if not of:
                cells += ["not measured", "", "", ""]
                continue
            medians = [line["median_s"] * 1e3 for line in of]
            kernels = [line["row_kernels_s"] * 1e3 for line in of if line["row_kernels_s"] is not None]
            shares = [line["share_of_copy"] for line in of]
            cells += [ms(statistics.median(medians)), f"{min(medians):.3f} to {max(medians):.3f}",
                      ms(statistics.median(kernels) if kernels else None), percent(statistics.median(shares))]
        table.append(cells)
    yield from rows_of(heads, table)


def profiled(visit):
    found = [(e["step"], e["result"].get("metrics")) for e in visit.record.named("profile ")]
    found = [(step, metrics) for step, metrics in found if metrics]
    if not found:
        return
    yield "## The profiler"
    yield ""

    def stalls(metrics):
        named = {k.removeprefix("stall_"): v for k, v in metrics.items() if k.startswith("stall_") and isinstance(v, float)}
        most = sorted(named, key=named.get, reverse=True)[:4]
        return ", ".join(f"{name} {named[name]:.1f}" for name in most)

    yield from rows_of(("launch", "memory, of peak", "warps, of most", "issue", "registers", "blocks a multiprocessor",
                        "stalls, warps an issue"), (
        (step.removeprefix("profile "), *(f"{m[k]:.0f} %" if k in m else "" for k in
                                         ("memory_percent", "warps_percent", "issue_percent")),
         m.get("registers", ""), m.get("blocks_a_multiprocessor", ""), stalls(m)) for step, m in found))


def peers(visit):
    lines = visit.record.result("peers").get("lines", ())
    if not lines:
        return
    yield "## Beside peers, in one run"
    yield ""
    names = [name for name in lines[0]["results"] if name != "warploss"]

    def cells(results):
        for name in ("warploss", *names):
            yield ms(results[name]["ms"]) if "ms" in results[name] else results[name].get("failed", "")
        mine = results["warploss"].get("ms")
        others = [results[name]["ms"] for name in names if "ms" in results[name]]
        yield f"{min(others) / mine:.2f}" if mine and others else ""

    yield from rows_of(("pass", "rows × classes", "dtype", "warploss", *names, "fastest peer / warploss"), (
        (line["case"][0], f"{line['case'][1]} × {line['case'][2]}", line["case"][3], *cells(line["results"]))
        for line in lines))


def others(visit):
    record = visit.record
    lines = [line for e in record.named("others ") for line in
             (*e["result"].get("measured", ()), *e["result"].get("failed", ()))]
    if lines:
        yield "## Other losses"
        yield ""
        yield from rows_of(("loss", "pass", "dtype", "median", "rows", "of copy"), (
            (line["op"], line["pass"], line["dtype"], ms(line["median_s"] * 1e3),
             ms(line["row_kernels_s"] * 1e3 if line["row_kernels_s"] is not None else None),
             percent(line["share_of_copy"])) if "op" in line else (line["line"], "", "", line["failed"], "", "")
            for line in lines))
    theirs = {(line["classes"], line["dtype"]): line for line in record.result("adaptive peers").get("lines", ())}
    lines = record.result("adaptive").get("measured", ())
    if lines:
        yield "## Adaptive log-softmax, forward and backward, Zipf targets"
        yield ""

        def row(line):
            other = theirs.get((line["classes"], line["dtype"]), {})
            mine = line["median_s"] * 1e3
            predicted = predictions.ADAPTIVE.get(line["classes"]) if line["dtype"] == "bf16" else None
            yield from (line["classes"], ", ".join(map(str, line["cutoffs"])), line["dtype"])
            yield f"{predicted[0]} ms beside {predicted[1]} ms (H100)" if predicted else ""
            yield from (ms(mine), ms(other["ms"]) if "ms" in other else other.get("failed", ""))
            yield f"{other['ms'] / mine:.2f}" if "ms" in other else ""

        yield from rows_of(("classes", "cutoffs", "dtype", "predicted", "warploss", "PyTorch", "PyTorch / warploss"),
                           map(row, lines))


def sanitized(visit):
    entries = [e for e in visit.record.steps.values() if re.match("(mem|race)check ", e["step"])]
    if entries:
        yield "## compute-sanitizer"
        yield ""
        yield from rows_of(("step", "status", "summary"),
                           ((e["step"], e["status"], e["result"].get("summary") or "") for e in entries))


def text(visit, left_out=()):
    parts = (about(visit), steps(visit, left_out), correct(visit), cross_entropy(visit), profiled(visit), peers(visit),
             others(visit), sanitized(visit))
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def write(visit, left_out):
    """Beside the record; in whole or not at all."""
    path = visit.out / "gpu.md"
    new = path.with_suffix(".new")
    new.write_text(text(visit, left_out))
    new.replace(path)
