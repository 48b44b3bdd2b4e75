"""Processes that end: each in a group of its own, which is killed as a whole at its limit."""

import dataclasses, json, os, signal, subprocess, tempfile, time


@dataclasses.dataclass
class Ended:
    """What is left of a process. `code` is None where it was killed at its limit."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def timed_out(self):
        return self.code is None

    def lines(self):
        """The JSON objects that it printed, also where it was killed half-way."""
        found = []
        for line in self.out.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    def last_words(self, most=2000):
        """The end of what it said to people."""
        return (self.err.strip() or self.out.strip())[-most:]


def run(command, limit, **environment):
    """Runs a command for `limit` seconds at the most."""
    begin = time.monotonic()
    # Files and no pipes: what outlives the kill holds no reader up.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                 start_new_session=True, env={**os.environ, **environment})
        try:
            code = child.wait(max(limit, 0.1))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # The group is the child's own. Nobody of it is left where it ended by itself.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            child.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(code, *texts, time.monotonic() - begin)
