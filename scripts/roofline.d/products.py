"""A block of 8 warps makes 128 by 256 products of 32 features in a round (kernels/tile/pipeline.cuh,
kernels/tile/block_sparse.cuh). In clocks of a multiprocessor that has one such block:

    tensor   HMMA * 8 / 4 * clocks of one (four tensor cores; 2048 pairs of numbers each)
    shared   (LDSM + LDGSTS) * 8 * 512 bytes / 128 a clock; no access has two lanes in a bank (tests/device/banks.rs)
    issue    instructions * 8 / 4
    L2       24 KiB a round, in bytes a clock

The share is that of the tensor cores in the largest of the three, and in a tile of 4096 features (or rows or classes
that are summed over) with all code that stands outside of the loop, every option's, issued by all warps and nothing beside it. Pairs a clock and multiprocessor:
the data sheet's on sm_80 and sm_120; on sm_90 62 % of it, as mma.sync was measured there by others
(arXiv:2402.13499). An upper bound, no prediction.
"""

import dataclasses, re

import sass

KERNEL = re.compile(r"linear_(full_)?(forward|gradient)_bf16|block_sparse_(f32|turned_bf16)")
# Architecture: pairs of 16-bit numbers that a multiprocessor multiplies in a clock.
PAIRS = {80: 1024, 90: 0.62 * 2048, 120: 256}
LIMIT = 0.85
FEATURES, WARPS, STAGE = 4096, 8, (128 + 256) * 32 * 2


@dataclasses.dataclass
class Round:
    name: str
    arch: int
    registers: int
    shared: int
    counts: object
    outside: int

    @staticmethod
    def of(name, arch, resources, lines):
        """None where there is no loop of products."""
        found = sass.pipeline(lines)
        return found and Round(name, arch, resources["REG"], resources["SHARED"], *found)

    def clocks(self):
        """Of the tensor cores, shared memory, and issue."""
        each = 2048 / (PAIRS[self.arch] / 4)
        moved = self.counts["LDSM"] + self.counts["LDGSTS"]
        return (self.counts["HMMA"] * WARPS / 4 * each, moved * WARPS * 512 / 128,
                self.counts["instructions"] * WARPS / 4)

    def share(self):
        return self.clocks()[0] / max(self.clocks())

    def share_of_tile(self):
        rounds = FEATURES / 32
        return rounds * self.clocks()[0] / (rounds * max(self.clocks()) + self.outside * WARPS / 4)


def rows(rounds):
    yield "| kernel | sm | registers | shared | HMMA | LDSM | LDGSTS | instructions | tensor | shared | issue | L2 | share | of a tile |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for r in sorted(rounds, key=lambda r: (r.arch, r.name)):
        tensor, shared, issue = r.clocks()
        counts = " | ".join(str(r.counts[k]) for k in ("HMMA", "LDSM", "LDGSTS", "instructions"))
        yield (f"| `{r.name}` | {r.arch} | {r.registers} | {r.shared} | {counts} | {tensor:.0f} | {shared:.0f} | {issue:.0f} "
               f"| {STAGE / max(tensor, shared, issue):.0f} | {r.share():.0%} | {r.share_of_tile():.0%} |")
