"""Where does the time go? Nsight Compute on single launches, parsed."""

import csv, io, pathlib, shutil

import plan
from correctness import ended
from record import ABSENT

STALLS = ("long_scoreboard", "short_scoreboard", "barrier", "membar", "wait", "lg_throttle", "mio_throttle",
          "math_pipe_throttle", "no_instruction", "not_selected", "drain", "sleeping")
METRICS = {
    "gpu__time_duration.sum": "time",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory_percent",
    "dram__bytes_read.sum": "bytes_read",
    "dram__bytes_write.sum": "bytes_written",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps_percent",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue_percent",
    "launch__registers_per_thread": "registers",
    "launch__occupancy_limit_registers": "blocks_by_registers",
    "launch__occupancy_limit_shared_mem": "blocks_by_shared_memory",
    "launch__occupancy_limit_warps": "blocks_by_warps",
    **{f"smsp__average_warps_issue_stalled_{s}_per_issue_active.ratio": f"stall_{s}" for s in STALLS},
}


def program():
    """ncu, on PATH or where NVIDIA's packages put it."""
    if shutil.which("ncu"):
        return shutil.which("ncu")
    places = [*pathlib.Path("/opt/nvidia/nsight-compute").glob("*/ncu"), pathlib.Path("/usr/local/cuda/bin/ncu")]
    return next((str(place) for place in sorted(places, reverse=True) if place.exists()), None)


def parse(text):
    """Values by the names above, from ncu's CSV: a line of names, one of units, one of values."""
    begin = text.find('"ID"')
    rows = list(csv.reader(io.StringIO(text[begin:]))) if begin >= 0 else []
    if len(rows) < 3:
        return {}
    found = {}
    for name, unit, value in zip(rows[0], rows[1], rows[2]):
        if name in METRICS:
            try:
                found[METRICS[name]] = float(value.replace(",", ""))
            except ValueError:
                found[METRICS[name]] = value
            if unit:
                found[METRICS[name] + "_unit"] = unit
    limits = [found[k] for k in found if k.startswith("blocks_by_") and isinstance(found[k], float)]
    if limits:
        found["blocks_a_multiprocessor"] = min(limits)
    return found


def profile(visit, binary, case, limit):
    """One launch of a kernel. The clocks are left alone."""
    ncu = program()
    if visit.dry or ncu is None:
        return ABSENT, {"why": "no profiler for an emulated card" if visit.dry else "ncu was not found"}
    *shape, kernel = case
    command = [ncu, "--clock-control", "none", "--csv", "--page", "raw", "--kernel-name", kernel, "--launch-skip", "1",
               "--launch-count", "1", "--metrics", ",".join(METRICS), binary, "bench",
               *plan.line_of(shape, 0).split(), "--json", "--device", visit.device]
    process = visit.run(command, limit)
    found = parse(process.out)
    result = {"case": case, "metrics": found}
    # The program under it may be stopped by ncu once it has its launch: what counts is the figures.
    if found and not process.timed_out:
        process.code = 0
    return ended(process, result, bool(found))
