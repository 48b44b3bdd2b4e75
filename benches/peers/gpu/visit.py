"""A visit to a card: its steps in order, each under a limit, until the time is spent."""

import dataclasses, pathlib, time
from collections.abc import Callable

import correctness, process, profiler, sanitizer, speed, table
from plan import CARD, DRY, ROW_OPS, Sizes
from record import FAILED, TIMED_OUT, Record

# Seconds that a step must have left to be begun at all.
LEAST = 3.0


@dataclasses.dataclass
class Step:
    name: str
    # seconds at the most
    limit: float
    # (status, result), given the limit
    work: Callable


@dataclasses.dataclass
class Visit:
    """What every step needs to know."""

    binaries: dict
    tests: list
    out: pathlib.Path
    device: str
    dry: bool
    record: Record
    commit: str | None
    sizes: Sizes = None

    def __post_init__(self):
        self.sizes = DRY if self.dry else CARD

    @property
    def binary(self):
        """The first binary: what is checked, and set beside peers."""
        return next(iter(self.binaries.values()))

    def name_of(self, binary):
        return next(name for name, path in self.binaries.items() if path == binary)

    def run(self, command, limit, **environment):
        return process.run(command, limit, **environment)

    # Steps ------------------------------------------------------------------------------------------

    def steps(self):
        """All steps of the first call. Correctness first: a speed of wrong answers is worth nothing."""
        main, sizes = self.binary, self.sizes
        yield Step("info", 20, lambda limit: correctness.info(self, main, limit))
        for name, path in self.binaries.items():
            yield Step(f"kernels {name}", 60, lambda limit, path=path: correctness.kernels(self, path, limit))
        for op in self.ops():
            yield Step(f"check {op}", 30, lambda limit, op=op: correctness.check(self, main, op, limit))
        for case in sizes.schedules:
            yield Step(f"schedule {case[0]}", 40,
                       lambda limit, case=case: correctness.schedule(self, main, case, ROW_OPS, limit))
        # Of the tests of devices, those that are a card's.
        gpu, graph = ("gpu::",), ("gpu::a_captured_graph_gives_the_bits_of_the_plain_call", "--exact")
        for program in self.tests:
            # The harness's own number at the end of a name is no part of it.
            name = program.name.rsplit("-", 1)[0]
            only = gpu if name == "device" else ()
            if only:
                yield Step("graph", 30, lambda limit, p=program: correctness.tests(self, p, limit, graph))
            yield Step(f"tests {name}", 60, lambda limit, p=program, of=only: correctness.tests(self, p, limit, of))
        for name, path in list(self.binaries.items())[1:]:
            # A variant is checked before it is timed.
            yield Step(f"variant {name}", 30,
                       lambda limit, path=path: correctness.check(self, path, "cross-entropy", limit))
        # Rounds are interleaved, so that drift of the card meets all binaries alike.
        for number in range(1, sizes.rounds + 1):
            for name, path in self.binaries.items():
                yield Step(f"table {name} {number}", 60, lambda limit, n=name, p=path, i=number: speed.lines(
                    self, p, f"table-{n}-{i}", sizes.lines(), limit))
        for number, case in enumerate(sizes.profiled, 1):
            yield Step(f"profile {number} {case[-1]}", 30,
                       lambda limit, case=case: profiler.profile(self, main, case, limit))
        yield Step("peers", 120, lambda limit: speed.peers(self, main, limit))
        for dtype in ("bf16", "f32"):
            yield Step(f"others {dtype}", 60, lambda limit, d=dtype: speed.lines(
                self, main, f"others-{d}", list(sizes.other_lines(d)), limit))
        yield Step("adaptive", 40, lambda limit: speed.lines(
            self, main, "adaptive", list(sizes.adaptive_lines()), limit))
        yield Step("adaptive peers", 60, lambda limit: speed.adaptive_peers(self, limit))

    def sanitizer_steps(self):
        """The second call's."""
        _, rows, classes, _ = self.sizes.schedules[1]
        for tool in sanitizer.TOOLS:
            for op in self.sizes.sanitized_ops:
                yield Step(f"{tool} {op}", 60,
                           lambda limit, t=tool, op=op: sanitizer.sanitize(self, self.binary, t, [op], limit))
            forced = ["cross-entropy", "--rows", rows, "--classes", classes, "--schedule", "cluster-2"]
            yield Step(f"{tool} cluster", 60,
                       lambda limit, t=tool: sanitizer.sanitize(self, self.binary, t, forced, limit))

    def ops(self):
        """Ops by name, from the record where they are there."""
        if not self.record.result("ops").get("ops"):
            begin = time.monotonic()
            found = correctness.ops(self, self.binary)
            self.record.add("ops", "done" if found else FAILED, time.monotonic() - begin, {"ops": found})
        return self.record.result("ops")["ops"]

    def go(self, steps, minutes, again):
        """Does what is not in the record yet; the table is written after each step, whatever comes then."""
        end = time.monotonic() + 60 * minutes
        left_out = []
        for step in steps:
            if self.record.has(step.name) and step.name not in again:
                continue
            left = end - time.monotonic()
            if left < LEAST:
                left_out.append(step.name)
                continue
            begin = time.monotonic()
            try:
                status, result = step.work(min(step.limit, left))
            except Exception as why:  # noqa: BLE001: a step that breaks must not end the visit
                status, result = FAILED, {"said": f"{type(why).__name__}: {why}"}
            # What the visit's end cut short has not used its own time up.
            if status == TIMED_OUT and left < step.limit:
                left_out.append(step.name)
                print(f"{step.name}: cut short", flush=True)
                continue
            self.record.add(step.name, status, time.monotonic() - begin, result)
            table.write(self, left_out)
            print(f"{step.name}: {status} ({time.monotonic() - begin:.1f} s)", flush=True)
        table.write(self, left_out)
        return left_out
