"""How long a call takes, with what loop bounds leave out: latencies, barriers, few bytes in flight, launches.

A multiprocessor's resident blocks are the customers of a closed queueing network. Each goes round it once a row,
or a slice of one: it waits for itself (latencies, barriers: `Z`), for the multiprocessor's share of memory at the
rate of a copy (`S`), and for its instruction slots (`C`, from the machine code). Mean value analysis gives how many
rows a second so many blocks make, exactly where times are exponential, and on the safe side of what regular ones
do. To rows come what the last blocks take while others have ended, and the call besides rows. Latencies are
assumed, in clocks: see `Delays`.

Splits are as many passes, one after another, each with its own blocks.
"""

import dataclasses

import model

# Packs of a streamed row that a thread has on their way at once (kernels/loss/cross_entropy.cu).
TOGETHER = 4


@dataclasses.dataclass(frozen=True)
class Delays:
    """Clocks but where it says otherwise."""

    memory: int = 700
    # A block's barrier, with the shuffles about it.
    block: int = 250
    # Blocks of a cluster that tell each other their sums, and the wait before the last of them may end.
    exchange: int = 300
    # A row's loss: a fence and an atomic by one thread, at the end.
    written: int = 1400
    # Loads of a row that come one after another before it is on its way.
    prologue: int = 1
    # Seconds of a call besides its rows: the launches before and after, and gaps.
    besides: float = 6e-6


NOW = Delays()
# As it was before the first packs went first, exchanges did without a fence, and launches were five.
BEFORE = Delays(exchange=1500, written=0, prologue=3, besides=25e-6)


def rate(customers, delay, stations):
    """Rounds a clock of so many customers, by mean value analysis."""
    waiting = [0.0] * len(stations)
    per_clock = 0.0
    for n in range(1, customers + 1):
        times = [demand * (1 + queue) for demand, queue in zip(stations, waiting)]
        per_clock = n / (delay + sum(times))
        waiting = [per_clock * time for time in times]
    return per_clock


@dataclasses.dataclass
class Pass:
    """One launch over all rows."""

    blocks: int  # of the launch
    resident: int  # of a multiprocessor
    packs: float  # of logits, a block
    moved: float  # packs read and written for one of logits
    issue: float  # clocks of a multiprocessor for a warp's packs
    delay: float  # clocks of a block in which it needs neither memory nor instructions

    def seconds(self, card):
        share = card.copy / card.multiprocessors / card.clock  # bytes a clock
        memory, issue = 16 * self.packs * self.moved / share, self.issue * self.packs / 32
        # No more than there are: few blocks are spread over multiprocessors.
        most = max(1, min(self.resident, round(self.blocks / card.multiprocessors)))
        per_clock = rate(most, self.delay, (memory, issue))
        places = min(self.blocks, card.multiprocessors * most)
        # The last blocks end one by one: half a round on the average in which others have ended.
        tail = self.delay + memory + issue
        return (self.blocks / (per_clock * card.multiprocessors) + tail * places / self.blocks / 2) / card.clock


def streamed(plan, packs, delays):
    """A block reads its packs turn by turn: what it waits for itself."""
    turns = max(1.0, packs / plan["threads"] / TOGETHER)
    return (delays.prologue - 1 + turns) * delays.memory + delays.block + delays.written


def passes(plan, hot, resident, delays):
    """The launches of a plan; `hot` has the loops of their kernels in order, `resident` their blocks."""
    packs = plan["classes"] * plan["size"] / 16
    blocks, cluster = plan["blocks"], plan["cluster"]
    if plan["entry"] == "Stream":
        yield Pass(blocks, resident[0], packs, hot[0].moved, issue(hot[0]), streamed(plan, packs, delays))
    elif plan["entry"] in ("Block", "Cluster"):
        exchange = delays.exchange if cluster > 1 else 0
        delay = delays.prologue * delays.memory + delays.block + exchange + delays.written / cluster
        yield Pass(blocks, resident[0], packs / cluster, hot[0].moved, issue(hot[0]), delay)
    elif plan["entry"] == "SplitTwice":
        # Half of the blocks sum a part, half write one: each has half of both on the average.
        part = packs * plan["rows"] * 2 / blocks
        yield Pass(blocks, resident[0], part, hot[0].moved / 2, issue(hot[0]) / 2, streamed(plan, part, delays))
    elif plan["entry"] == "SplitSum":
        for one, most in zip(hot, resident):
            part = packs * plan["rows"] / blocks
            yield Pass(blocks, most, part, one.moved, issue(one), streamed(plan, part, delays))


def issue(hot):
    """Clocks for a warp's packs without options, of whatever unit is the tightest."""
    return max(model.bounds(hot.plain).values())


def estimate(card, plan, hot, resident, delays=NOW):
    """Seconds of a call; None where rows are in registers."""
    if not hot or plan["entry"] not in ("Stream", "Block", "Cluster", "SplitSum", "SplitTwice"):
        return None
    return sum(one.seconds(card) for one in passes(plan, hot, resident, delays)) + delays.besides


def in_flight(plan, resident):
    """Bytes that a multiprocessor's blocks have asked for at once, at the most."""
    if plan["shared"]:
        return resident * plan["shared"]
    return resident * plan["threads"] * TOGETHER * 16
