"""What a visit measures: shapes and steps as plain data, on a card and in a dry run."""

import dataclasses, math

DTYPE_BYTES = {"bf16": 2, "f16": 2, "f32": 4}
# What a call must move, in tensors as large as the logits.
MOVES = {"forward": 1, "forward-backward": 2}
# Losses whose cases are rows of one tensor, so that a schedule can be forced.
ROW_OPS = ("cross-entropy", "log-softmax", "logsumexp", "logprob-entropy", "soft-cross-entropy", "js-div-logits")
ELEMENTWISE = ("mse", "l1", "smooth-l1", "huber", "bce-with-logits", "kl-div", "js-div")
OTHER_ROWS = ("nll", "logprob-entropy", "soft-cross-entropy", "distillation", "js-div-logits")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    # pass, rows, classes, dtype
    table: tuple
    # of those, what peers are set beside
    peers: tuple
    # pass, rows, classes, dtype, kernel: what the profiler looks at, few rows, as it restores what they overwrite
    profiled: tuple
    # schedule, rows, classes, and what it calls itself
    schedules: tuple
    schedule_cases: int
    check_cases: int
    rounds: int
    # seconds a line
    seconds: float
    elements: int
    other_rows: int
    other_classes: int
    # rows, hidden, and (classes, cutoffs)
    adaptive_rows: int
    adaptive_hidden: int
    adaptive: tuple
    sanitized_ops: tuple
    sanitized_cases: int

    def lines(self, seconds=None):
        """Cross entropy's table as `bench --lines` takes it: the largest of each dtype decides its buffers."""
        seconds = self.seconds if seconds is None else seconds
        return [line_of(case, seconds) for case in sorted(self.table, key=lambda case: case[3])]

    def other_lines(self, dtype):
        for op in ELEMENTWISE + OTHER_ROWS:
            size = (f"--elements {self.elements // DTYPE_BYTES[dtype]}" if op in ELEMENTWISE
                    else f"--rows {self.other_rows} --classes {self.other_classes}")
            for work in MOVES:
                yield f"{op} --pass {work} {size} --dtype {dtype} --seconds {self.seconds}"

    def adaptive_lines(self):
        """With room in each cluster for a quarter more rows than Zipf's targets make expect."""
        for classes, cutoffs in self.adaptive:
            ends = (*cutoffs[1:], classes)
            mass = (math.log((end + 1) / (begin + 1)) / math.log(classes + 1) for begin, end in zip(cutoffs, ends))
            rows = self.adaptive_rows
            capacities = ",".join(str(min(rows, int(rows * share * 1.25) + 64)) for share in mass)
            for dtype in ("bf16", "f32"):
                yield (f"adaptive-log-softmax --rows {rows} --hidden {self.adaptive_hidden} --classes {classes} "
                       f"--cutoffs {','.join(map(str, cutoffs))} --capacities {capacities} --dtype {dtype} "
                       f"--seconds {self.seconds}")


def line_of(case, seconds):
    work, rows, classes, dtype = case
    return f"cross-entropy --pass {work} --rows {rows} --classes {classes} --dtype {dtype} --seconds {seconds}"


CARD = Sizes(
    table=(
        *(("forward-backward", 8192, classes, dtype) for classes in (32_000, 128_256, 262_144)
          for dtype in ("bf16", "f32")),
        *(("forward", 8192, classes, dtype) for classes in (32_000, 128_256, 262_144) for dtype in ("bf16", "f32")),
        ("forward", 64, 4_000_000, "f32"),
        ("forward-backward", 64, 4_000_000, "f32"),
    ),
    peers=(
        ("forward-backward", 8192, 128_256, "bf16"), ("forward-backward", 8192, 32_000, "bf16"),
        ("forward-backward", 8192, 262_144, "bf16"), ("forward-backward", 8192, 128_256, "f32"),
        ("forward", 8192, 128_256, "bf16"),
    ),
    profiled=(
        ("forward-backward", 1024, 128_256, "bf16", "cross_entropy_cluster_bf16"),
        ("forward-backward", 1024, 262_144, "bf16", "cross_entropy_cluster_bf16"),
        ("forward", 1024, 128_256, "bf16", "cross_entropy_stream_bf16"),
        ("forward-backward", 16, 4_000_000, "f32", "cross_entropy_split_gradient_f32"),
    ),
    schedules=(
        ("block", 4, 50_257, "block a row"), ("cluster-2", 4, 65_537, "cluster of 2 "),
        ("cluster-4", 4, 128_256, "cluster of 4 "), ("cluster-8", 4, 262_144, "cluster of 8 "),
        ("cluster-16", 4, 262_147, "cluster of 16 "), ("split", 4, 1_000_003, "two phases"),
        ("twice", 4, 1_000_003, "two visits"),
    ),
    schedule_cases=5, check_cases=60, rounds=2, seconds=0.3, elements=1 << 28, other_rows=8192,
    other_classes=128_256, adaptive_rows=8192, adaptive_hidden=1024,
    adaptive=((267_735, (20_000, 40_000, 200_000)), (1_000_000, (2_000, 10_000, 100_000))),
    sanitized_ops=("cross-entropy", "logprob-entropy", "js-div-logits", "mse", "adaptive-log-softmax"),
    sanitized_cases=3,
)

# The same path on an emulated card, by shapes that it goes through in seconds.
DRY = Sizes(
    table=(("forward-backward", 8, 3001, "bf16"), ("forward-backward", 4, 20_001, "f32"), ("forward", 8, 3001, "bf16")),
    peers=(("forward-backward", 8, 3001, "bf16"),),
    profiled=(("forward-backward", 4, 20_001, "bf16", "cross_entropy_cluster_bf16"),),
    schedules=(
        ("block", 2, 3001, "block a row"), ("cluster-2", 2, 5003, "cluster of 2 "),
        ("cluster-4", 2, 6007, "cluster of 4 "), ("cluster-8", 2, 9001, "cluster of 8 "),
        ("cluster-16", 2, 20_001, "cluster of 16 "), ("split", 2, 20_001, "two phases"),
        ("twice", 2, 20_001, "two visits"),
    ),
    schedule_cases=2, check_cases=3, rounds=2, seconds=0.0, elements=1 << 12, other_rows=4, other_classes=501,
    adaptive_rows=32, adaptive_hidden=16, adaptive=((3000, (200, 1000)),),
    sanitized_ops=("cross-entropy",), sanitized_cases=1,
)
