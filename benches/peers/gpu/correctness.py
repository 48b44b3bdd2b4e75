"""Is it right? What there is, every kernel loaded, each op by itself, every schedule, the tests."""

import json, re, shutil

from record import ABSENT, DONE, FAILED, TIMED_OUT


def ended(process, result, good=True):
    """A step's status by how its process ended, and what it said where that was not well."""
    if process.timed_out:
        return TIMED_OUT, {**result, "said": process.last_words()}
    if process.code or not good:
        return FAILED, {**result, "exit": process.code, "said": process.last_words()}
    return DONE, result


def info(visit, binary, limit):
    """What the binary says there is, and the driver's own tool, where it is."""
    process = visit.run([binary, "info", "--json"], limit)
    found = process.lines()
    result = {"info": found[0] if found else None, "smi": None}
    tool = shutil.which("nvidia-smi")
    if tool and not visit.dry:
        fields = "name,driver_version,memory.total,clocks.sm,clocks.mem,mig.mode.current"
        smi = visit.run([tool, f"--query-gpu={fields}", "--format=csv,noheader"], limit)
        result["smi"] = smi.out.strip() or smi.last_words()
    return ended(process, result, bool(found))


def kernels(visit, binary, limit):
    """Every kernel loaded: registers, shared memory, clusters; the list as a file, its sum in the record."""
    process = visit.run([binary, "info", "--kernels", "--json", "--device", visit.device], limit)
    found = process.lines()
    if not found:
        return ended(process, {}, False)
    (visit.out / f"kernels-{visit.name_of(binary)}.json").write_text(json.dumps(found[0], indent=1) + "\n")
    listed = found[0]["kernels"]
    clusters = {}
    for kernel in listed:
        for entry in kernel.get("clusters", ()):
            key = f"{entry['size']} x {entry['threads']} threads, {entry['shared']} bytes"
            active = entry.get("active", entry.get("failed"))
            least = clusters.get(key, active)
            numbers = isinstance(least, int) and isinstance(active, int)
            clusters[key] = min(least, active) if numbers else active
    result = {
        **{key: found[0][key] for key in ("device", "description", "loaded", "failed", "seconds")},
        "failures": [k for k in listed if "failed" in k][:5],
        "most_registers": max((k["registers"] or 0 for k in listed if "registers" in k), default=0) or None,
        "local_memory": [k["kernel"] for k in listed if k.get("local")],
        "least_active_clusters": clusters,
    }
    return ended(process, result, not found[0]["failed"])


def ops(visit, binary):
    """Names of all ops that `check` knows, by the binary itself."""
    process = visit.run([binary, "check", "--cases", "1", "--json", "--device", "cpu"], 60)
    return [line["op"] for line in process.lines()]


def check(visit, binary, op, limit):
    """One op, random and adversarial cases against f64."""
    process = visit.run([binary, "check", op, "--cases", visit.sizes.check_cases, "--json", "--device", visit.device],
                        limit)
    found = process.lines()
    return ended(process, found[0] if found else {}, bool(found))


def schedule(visit, binary, case, ops_, limit):
    """A schedule forced at a large shape, by every loss of rows; fails where it was never reached."""
    name, rows, classes, word = case
    command = [binary, "check", *ops_, "--cases", visit.sizes.schedule_cases, "--rows", rows, "--classes", classes,
               "--schedule", name, "--json", "--device", visit.device]
    process = visit.run(command, limit)
    lines = process.lines()
    reached = sorted({s for line in lines for s in line["schedules"] if word in s})
    verdicts = [{key: line[key] for key in ("op", "verdict", "cases", "worst_share", "message")} for line in lines]
    result = {"rows": rows, "classes": classes, "verdicts": verdicts, "reached": reached}
    return ended(process, result, bool(reached))


def tests(visit, program, limit, only=()):
    """A test binary, or what a filter leaves of it. What says that it was skipped is told apart from what passed."""
    command = [program, "--test-threads", "1", "--nocapture", *only]
    process = visit.run(command, limit, WARPLOSS_TEST_DEVICE=visit.device)
    total = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed", process.out, re.M)
    passed, failed = map(int, total[-1]) if total else (0, 0)
    skipped = re.findall(r"(\w+): skipped: (.*)", process.out)
    result = {
        "passed": passed - len(skipped), "failed": failed, "skipped": dict(skipped),
        "failures": re.findall(r"^    (\w[\w:]*)$", process.out, re.M),
    }
    if "--exact" in only and not failed and passed == len(skipped) == 1:
        return ABSENT, {**result, "why": skipped[0][1]}
    # A run in which all was skipped has shown nothing.
    return ended(process, result, passed > len(skipped))
