"""What a visit has found so far: one JSON object a line, on disk as soon as it is there."""

import json, os, pathlib

# What ends a step. `absent`: what it needs is not there. The others are done again by nobody but --again.
DONE, FAILED, TIMED_OUT, ABSENT = "done", "failed", "timed out", "absent"


class Record:
    """Lines {"step", "status", "seconds", "result"}; of a step that was done again the last line counts."""

    def __init__(self, path: pathlib.Path):
        self.path, self.steps = path, {}
        if path.exists():
            text = path.read_text()
            for line in text.splitlines():
                # A line that a killed process left half written is a step that is not done.
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                self.steps[entry["step"]] = entry
            if text and not text.endswith("\n"):
                with path.open("a") as file:
                    file.write("\n")

    def has(self, step):
        return step in self.steps

    def result(self, step):
        """What a step found; empty where it was not run."""
        return self.steps.get(step, {}).get("result") or {}

    def status(self, step):
        return self.steps.get(step, {}).get("status")

    def named(self, prefix):
        """Entries of steps whose names begin so, in the order in which they were done."""
        return [entry for name, entry in self.steps.items() if name.startswith(prefix)]

    def add(self, step, status, seconds, result):
        entry = {"step": step, "status": status, "seconds": round(seconds, 3), "result": result}
        self.steps.pop(step, None)
        self.steps[step] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
