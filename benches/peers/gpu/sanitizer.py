"""What compute-sanitizer says: bad accesses and races, on a few cases."""

import pathlib, re, shutil

from correctness import ended
from record import ABSENT

TOOLS = ("memcheck", "racecheck")


def program():
    found = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    return found if pathlib.Path(found).exists() else None


def sanitize(visit, binary, tool, arguments, limit):
    """A `warploss check` under one of its tools."""
    sanitizer = program()
    if visit.dry or sanitizer is None:
        return ABSENT, {"why": "no sanitizer for an emulated card" if visit.dry
                        else "compute-sanitizer was not found"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", binary, "check", *arguments, "--cases",
               visit.sizes.sanitized_cases, "--device", visit.device]
    process = visit.run(command, limit)
    said = re.findall(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", process.out + process.err)
    return ended(process, {"summary": said[-1] if said else None, "arguments": list(map(str, arguments))}, bool(said))
