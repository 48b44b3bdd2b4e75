"""What a multiprocessor can do in a clock, and what that makes of a hot loop.

Per 16 bytes of logits of a warp (512 bytes), in clocks of one multiprocessor:

    issue   instructions / 4             (four schedulers, one instruction each)
    MUFU    special functions * 32 / 16
    ALU     compare, select, min/max, logic, shift, convert * 32 / 64
    FMA     add, multiply, fused * 32 / 128
    memory  bytes moved / (bandwidth / multiprocessors / clock)

The loops of a kernel (bring a row on chip, sum it, write what comes of it) add up. Instructions are
counted along the longest way round each loop, which has all options on, and along the shortest that reads
as many packs: no option on. Of an elementwise loss the way counts that memory covers least. It knows
nothing of latency and L2, nor of what a call inside a loop does (a division's rare cases): an upper
bound, no prediction. Assumed: 16 special functions, 64 ALU and 128 FMA lanes a clock on every
architecture from sm_80 on; data-sheet bandwidths; the clocks below.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Card:
    name: str
    arch: int
    bandwidth: float  # bytes a second
    copy: float  # of which a copy reaches: predictions use it
    multiprocessors: int
    clock: float
    registers: int = 65536
    shared: int = 228 * 1024
    threads: int = 2048
    blocks: int = 32

    @property
    def bytes_per_clock(self):
        return self.bandwidth / self.multiprocessors / self.clock

    @property
    def pack(self):
        """Clocks that memory takes for a warp's packs."""
        return 512 / self.bytes_per_clock


# Copies: public measurements of others (3.0 and 4.3 TB/s); the others' are assumed at the same share.
A100 = Card("A100", 80, 2.039e12, 1.82e12, 108, 1.41e9, shared=164 * 1024)
RTX_4090 = Card("RTX 4090", 89, 1.008e12, 0.9e12, 128, 2.52e9, shared=100 * 1024, threads=1536, blocks=24)
H100 = Card("H100", 90, 3.35e12, 3.0e12, 132, 1.755e9)
H200 = Card("H200", 90, 4.8e12, 4.3e12, 132, 1.755e9)
B200 = Card("B200", 100, 8.0e12, 7.1e12, 148, 1.85e9)
PLANNED = (H100, H200, B200, A100, RTX_4090)

# A kernel's loops by the schedule's entry; `moves` counts packs of logits read and written, to which
# come the packs that lie beside them.
#   entry: (loops, whether x and what lies beside it are read, whether an output is written)
# Losses of rows with a target each.
TARGETS = ("CrossEntropy", "CrossEntropyFull", "CrossEntropyRanked", "CrossEntropyTokens", "CrossEntropyTokensRanked",
           "CrossEntropyTop", "CrossEntropyBiased", "LogprobEntropy", "LogprobEntropyRanked", "MultiMargin")
# Entries whose launch may begin before the one before it is done (Entry::waits in src/code/variants/entry.rs).
FOLLOW = ("FewForward", "FewGradient", "WarpForward", "WarpGradient", "Stream", "Block", "Cluster", "SplitSum", "SplitTwice")
ENTRIES = {
    "Stream": (("sum",), True, False),
    "Block": (("bring", "sum", "gradient"), True, True),
    "Cluster": (("bring", "sum", "gradient"), True, True),
    "SplitSum": (("sum",), True, False),
    "SplitGradient": (("gradient",), True, True),
    # The second read is L2's, where this schedule is planned.
    "SplitTwice": (("sum", "gradient"), True, True),
    "SplitBackward": (("gradient",), True, True),
    "State": (("sum",), True, False),
    "StateGradient": (("gradient",), True, True),
    "NeighboursForward": (("sum",), True, False),
    "NeighboursGradient": (("sum", "gradient"), True, True),
}
# Those whose elements are brought one by one, and how many at a time (WL_TURN).
ONE_BY_ONE = ("NeighboursForward", "NeighboursGradient")
TURN = 8
# Elementwise kernels by the schedule's entry: packs that they write of the ways that are looked at, one
# a gradient; the losses are summed, not written.
ELEMENTS = {"Forward": (0,), "Gradient": (1, 2)}

# Kernels whose bound with all options may lie under the limit, by a pattern of their symbol, and why.
# Without options they keep it, unless they are named once more.
LIMIT = 1.10
OPTIONS = {
    r"cross_entropy_full_.*": "a soft-cap's tanh is two special functions and some twenty instructions an element, "
    "label smoothing with class weights ten more",
    r"cross_entropy_ranked_.*": "the same, and the ranking below",
    r"cross_entropy_(tokens|top)_.*": "the same soft-cap, smoothing and weights, the ranking, and the entropy's moment, two "
    "operations more an element",
    r"logprob_entropy_.*": "the same soft-cap; the entropy's moment is two operations more an element",
    r"soft_cross_entropy_full_.*": "the same soft-cap, class weights, and a gradient of the probabilities",
    r"distillation_.*": "the same soft-cap and class weights beside two soft-maxes",
    r"information_(stream|split_sum)_.*": "two logarithms an element, of which the entropy takes one",
    r".*_neighbours_.*_b?f16": "an element has instructions of its own to bring, keep and write it, at two bytes",
    r"js_div_logits_.*": "any beta: either Kullback-Leibler divergence is another way round the loop",
}
EXCUSED = {
    r"(cross|logprob)_entropy_ranked_(stream|split_sum|split_twice|block|cluster)_.*": "argmax and rank are comparisons and "
    "counts, some nine instructions an element beside the soft-max's twelve",
    r"cross_entropy_(tokens_ranked|top)_(stream|split_sum|split_twice|block|cluster)_.*": "the same beside the entropy's "
    "moment",
    r"distillation_(stream|split_sum|split_twice|block|cluster)_(f16|bf16)": "two soft-maxes, each apart from its largest "
    "element, and their cross term, of twice two bytes an element",
    r"soft_cross_entropy_full_split_twice_(f16|bf16)": "both visits' exponentials beside one read of memory; where rows go "
    "this way a multiprocessor has less of memory's bandwidth than an H100's",
    r".*_neighbours_.*_b?f16": "as with all options",
    r"((soft_)?cross_entropy_full|(cross_entropy|logprob_entropy|cross_entropy_tokens)(_ranked)?|distillation)"
    r"_neighbours_.*_f32": "a soft-cap's near side, ranks and an entropy's moment beside an element's own instructions",
    r"js_div_logits_(block|cluster)_.*": "three passes over rows that are read once, of six exponentials and two "
    "logarithms an element",
    r"js_div_logits_split_gradient_(f16|bf16)": "two exponentials, a logarithm and the series of both near 0, without "
    "which a model near its teacher has no digits, at two bytes an element",
}


# Elementwise passes that may lie under the limit, likewise.
ELEMENTS_EXCUSED = {
    r"bce_(forward|gradient)_.*": "two logarithms an element, of x and of 1 - x: neither has the other's digits",
    r"poisson_nll_(forward|gradient|of_rate)_.*": "the rate's exponential to all digits, or its logarithm, and that of the "
    "count where it is asked for",
    r"sigmoid_focal_(forward|gradient)_.*": "a reciprocal and a power beside binary cross entropy's exponential and logarithm",
    r"sigmoid_focal_of_power_.*": "any gamma: another logarithm and exponential beside those",
    r"js_div_forward_.*": "two exponentials and a logarithm an element, without a gradient to be written meanwhile",
    r"js_div_gradient_.*": "the same two, and the series of both near 0, without which a model near its teacher has no "
    "digits",
    r"gaussian_nll_gradient_b?f16": "a division an element for each result, exact as of f32; the variance is a third stream, "
                                   "which is not counted",
}


def output_packs(loss, data):
    """16-byte packs written for one of logits."""
    return 2 if loss == "LogSoftmax" and data != "f32" else 1


def bounds(sums):
    return {
        "issue": sums["instructions"] / 4,
        "MUFU": sums["mufu"] * 2,
        "ALU": sums["alu"] / 2,
        "FMA": sums["fma"] / 4,
    }


def occupancy(card, registers, threads, shared):
    """Blocks of a multiprocessor. `shared`: static and dynamic, without the 1 KiB that the system adds."""
    warps = -(-threads // 32)
    by_registers = card.registers // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = card.shared // (shared + 1024)
    return min(card.blocks, card.threads // (warps * 32), by_registers, by_shared)
