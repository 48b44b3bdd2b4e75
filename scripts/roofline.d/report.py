"""benches/results/static.md: what the machine code promises."""

import collections, dataclasses, re

import model, products, queues, sass


@dataclasses.dataclass
class Hot:
    """A kernel's hot loops, per pack of logits."""

    name: str
    registers: int
    shared: int
    threads: int
    moved: int  # packs read and written
    sums: collections.Counter  # along the longest ways: all options
    plain: collections.Counter  # along the shortest: no option
    missing: list

    @staticmethod
    def of(kernel, resources, lines):
        """None where a kernel has no hot loop: rows in registers, and what is done once a row."""
        if kernel["entry"] not in model.ENTRIES:
            return None
        kinds, read, written = model.ENTRIES[kernel["entry"]]
        beside = kernel["beside"]
        reads = (1 + beside) * read
        writes = model.output_packs(kernel["loss"], kernel["data"]) * written
        lanes = 4 if kernel["data"] == "f32" else 8
        one_by_one = kernel["entry"] in model.ONE_BY_ONE
        found = sass.side_by_side(lines, lanes, model.TURN) if one_by_one else sass.phases(lines, beside)
        sums, plain = collections.Counter(), collections.Counter()
        for kind in kinds:
            *ways, packs = found.get(kind, ({}, {}, 1))
            for total, tally in zip((sums, plain), ways):
                for unit, n in tally.items():
                    total[unit] += n / packs
        missing = [kind for kind in kinds if kind not in found]
        return Hot(kernel["symbol"], resources["REG"], resources["SHARED"], kernel["threads"], reads + writes, sums,
                   plain, missing)

    def memory(self, card):
        return card.pack * self.moved

    def tightest(self, card, plain=False):
        """The unit that is needed longest, and the memory's time over that unit's."""
        return tightest(card, self.plain if plain else self.sums, self.moved)


@dataclasses.dataclass
class Pass:
    """A pass of an elementwise kernel over its tensors, per pack of one."""

    name: str
    registers: int
    shared: int
    threads: int
    written: int
    plain: collections.Counter  # without weights and an upstream tensor
    weighted: collections.Counter

    @staticmethod
    def of(kernel, resources, lines, card):
        """Those of a kernel; without ways where its loops are not found."""
        for written in model.ELEMENTS.get(kernel["entry"], ()):
            ways = sass.element_ways(lines, written, card.pack / model.LIMIT)
            yield Pass(kernel["symbol"], resources["REG"], resources["SHARED"], kernel["threads"], written,
                       *(ways or (None, None)))

    @staticmethod
    def moved(tally):
        return tally["LDG"] + tally["STG"]

    def tightest(self, card, tally):
        return tightest(card, tally, self.moved(tally))


def tightest(card, tally, moved):
    bounds = model.bounds(tally)
    unit = max(bounds, key=bounds.get)
    return unit, card.pack * moved / bounds[unit]


def loops(card, hot, others=()):
    """The table of one architecture."""
    heads = "".join(f" {c.name} | no option |" for c in (card, *others))
    yield ("| kernel | registers | shared | blocks | instr | MUFU | LDG | LDGSTS | LDS | STG | issue | MUFU | ALU | FMA "
           f"| memory | tightest |{heads}")
    yield "|---|" + "---|" * (15 + 2 + 2 * len(others))
    for h in hot:
        bounds = model.bounds(h.sums)
        unit, _ = h.tightest(card)
        cells = [
            f"`{h.name}`", h.registers, h.shared, model.occupancy(card, h.registers, h.threads, h.shared),
            f"{h.sums['instructions']:.1f}", f"{h.sums['mufu']:.2f}",
            *(f"{h.sums[m]:.3g}" for m in ("LDG", "LDGSTS", "LDS", "STG")),
            *(f"{bounds[u]:.1f}" for u in ("issue", "MUFU", "ALU", "FMA")), f"{h.memory(card):.1f}", unit,
            *(f"{h.tightest(c, plain)[1]:.0%}" for c in (card, *others) for plain in (False, True)),
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"


def passes(cards, found):
    """The table of elementwise kernels on the first of some cards of one architecture."""
    heads = "".join(f" {c.name} | weighted |" for c in cards)
    yield ("| kernel | gradients written | registers | blocks | instr | MUFU | LDG | STG | issue | MUFU | ALU | FMA "
           f"| memory | tightest |{heads}")
    yield "|---|" + "---|" * (13 + 2 * len(cards))
    for p in found:
        bounds = model.bounds(p.plain)
        unit, _ = p.tightest(cards[0], p.plain)
        cells = [
            f"`{p.name}`", p.written, p.registers, model.occupancy(cards[0], p.registers, p.threads, p.shared),
            *(p.plain[k] for k in ("instructions", "mufu", "LDG", "STG")),
            *(f"{bounds[u]:.1f}" for u in ("issue", "MUFU", "ALU", "FMA")),
            f"{cards[0].pack * p.moved(p.plain):.1f}", unit,
            *(f"{p.tightest(c, tally)[1]:.0%}" for c in cards for tally in (p.plain, p.weighted)),
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"


def plans(crate, hot, used):
    """What the planner chooses for the shapes that matter, and the bounds that follow."""
    cards = {c.name: c for c in model.PLANNED}
    yield ("| card | rows × classes | dtype | pass | schedule | threads | blocks of a multiprocessor | on chip "
           "| bytes | floor, data sheet | prediction, copy rate | tightest unit |")
    yield "|---|" + "---|" * 11
    for plan in crate["plans"]:
        card = cards.get(plan["card"])
        if card is None:
            continue
        names = symbols(plan)
        found = loops_of(card, plan, hot)
        tensor = plan["rows"] * plan["classes"] * plan["size"]
        # A row's logits and gradient; what a number a row or a block costs is left out.
        moved = tensor * (sum(h.moved for h in found) or (1 if plan["pass"] == "Forward" else 2))
        clocks = collections.Counter()
        for h in found:
            clocks.update(model.bounds(h.sums))
        seconds = {u: c * tensor / 512 / card.multiprocessors / card.clock for u, c in clocks.items()}
        unit = max(seconds, key=seconds.get) if seconds else None
        numbers = used[card.arch][names[0]]
        blocks = model.occupancy(card, numbers["REG"], plan["threads"], numbers["SHARED"] + plan["shared"])
        on_chip = f"{blocks * plan['shared'] / 1024:.0f} KiB" if plan["shared"] else ""
        tight = f"{unit} {seconds[unit] * 1e3:.3f} ms" if unit else "no loop: rows in registers"
        cells = [
            card.name, f"{plan['rows']} × {plan['classes']}", plan["data"],
            "forward" if plan["pass"] == "Forward" else "fused", plan["schedule"], plan["threads"], blocks, on_chip,
            f"{moved / 1e9:.2f} GB", f"{moved / card.bandwidth * 1e3:.3f} ms", f"{moved / card.copy * 1e3:.3f} ms", tight,
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"


def symbols(plan):
    """The kernels that go through the rows of a plan, one after another."""
    entries = {"Forward": {"SplitSum": ["split_sum"]}, "Gradient": {"SplitSum": ["split_sum", "split_gradient"]}}
    names = entries[plan["pass"]].get(plan["entry"]) or [re.sub(r"(?<!^)([A-Z])", r"_\1", plan["entry"]).lower()]
    return [f"cross_entropy_{name}_{plan['data']}" for name in names]


def loops_of(card, plan, hot):
    """Their loops. Those are read of two architectures; cards before them have the older's."""
    of_arch = hot.get(card.arch, hot[model.H100.arch])
    return [h for name in symbols(plan) for h in of_arch if h.name == name]


def calls(crate, hot, used):
    """What a whole call takes at the shapes of today's vocabularies, by `queues.py`; before, likewise."""
    yield ("| card | rows × classes | dtype | pass | blocks of a multiprocessor | in flight of one | loops alone "
           "| estimate | of the data sheet's bandwidth | before |")
    yield "|---|" + "---|" * 9
    cards = {c.name: c for c in model.PLANNED}
    for plan in crate["plans"]:
        card = cards[plan["card"]]
        if plan["rows"] != 8192:
            continue
        loops = loops_of(card, plan, hot)
        numbers = [used[card.arch][name] for name in symbols(plan)]
        resident = [model.occupancy(card, n["REG"], plan["threads"], n["SHARED"] + plan["shared"]) for n in numbers]
        now, before = (queues.estimate(card, plan, loops, resident, d) for d in (queues.NOW, queues.BEFORE))
        if now is None:
            continue
        # What must be moved, whatever the schedule does.
        must = plan["rows"] * plan["classes"] * plan["size"] * (1 if plan["pass"] == "Forward" else 2)
        cells = [
            card.name, f"{plan['rows']} × {plan['classes']}", plan["data"],
            "forward" if plan["pass"] == "Forward" else "fused", " + ".join(map(str, resident)),
            f"{queues.in_flight(plan, resident[0]) / 1024:.0f} KiB",
            f"{sum(h.moved for h in loops) * plan['rows'] * plan['classes'] * plan['size'] / card.copy * 1e3:.3f} ms",
            f"{now * 1e3:.3f} ms", f"{must / card.bandwidth / now:.0%}", f"{must / card.bandwidth / before:.0%}",
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"


def excuses(hot, named, plain):
    """Who is excused, at what least share of memory's time, and why."""
    for pattern, reason in named.items():
        least = min(h.tightest(model.H100, plain)[1] for h in hot if re.fullmatch(pattern, h.name))
        yield f"- `{pattern}` (from {least:.0%} on): {reason}."


def render(crate, archs, hot, elements, tiles, used):
    count = sum(k["oldest"] <= arch for k in crate["kernels"] for arch in archs)
    options, excused = (
        list(excuses(hot[model.H100.arch], named, plain)) or ["nobody."]
        for named, plain in ((model.OPTIONS, False), (model.EXCUSED, True))
    )
    named = ", ".join(f"sm_{a}" for a in sorted(archs))
    lines = [
        "# What the machine code promises", "",
        "Made by `scripts/roofline --write`, which compiles every kernel and reads the code. **Nothing here was",
        "measured.**", "",
        f"{count} kernels in all, for {named}: no warning, no spill, no local memory.", "",
        "## Model", "", model.__doc__.strip(), "",
        "| card | architecture | bandwidth | copy | multiprocessors | clock | bytes a clock of one |",
        "|---|---|---|---|---|---|---|",
        *(f"| {c.name} | sm_{c.arch} | {c.bandwidth / 1e12} TB/s | {c.copy / 1e12} TB/s | {c.multiprocessors} "
          f"| {c.clock / 1e9} GHz | {c.bytes_per_clock:.1f} |" for c in model.PLANNED), "",
        "## Cross entropy at the shapes that matter", "",
        "What the planner chooses, made of the crate's own `plan.rs`. The tightest unit's time is the bound of the loops;",
        "where it is below the floor, memory is the limit. Blocks of a multiprocessor follow from registers, threads and",
        "shared memory; with two or more, one row's loads overlap another's stores. Of cards before sm_90 the loops are",
        "sm_90's. Where a row is visited twice by one launch, the second read is L2's and no byte of memory's.", "",
        *plans(crate, hot, used), "",
        "## What a whole call takes", "",
        queues.__doc__.strip(), "",
        "`loops alone`: the bytes that the schedule moves, at the rate of a copy. `before`: the same kernels and plans, with",
        "the latencies and launches that a call had when a row waited for its target, exchanges in a cluster for fences,",
        "and a call was five launches. **An estimate, not measured.**", "",
        *calls(crate, hot, used), "",
        "## Products of many features", "",
        products.__doc__.strip(), "",
        *products.rows(tiles), "",
        f"## Hot loops on sm_{model.H100.arch}", "",
        "Per pack of 16 bytes of logits; `blocks` at the most threads a block may have and without dynamic shared memory;",
        "LDG to STG count 128-bit accesses. The last columns: the memory's time over that of the tightest unit, with all",
        f"options and with none. Under {model.LIMIT:.0%} on an {model.H100.name} a kernel fails, but for those named below.",
        "", *loops(model.H100, hot[model.H100.arch], (model.H200,)), "",
        "Excused with all options, which rows without them never run:", "", *options, "",
        "Excused without options too:", "", *excused, "",
        f"## Elementwise losses on sm_{model.H100.arch}", "",
        "Per pack of 16 bytes of the input, by ways that also sum the losses. Weights and an upstream gradient, one number",
        "each of which memory has no part (`weighted`), cost instructions and no bytes; tensors of them cost both.", "",
        *passes((model.H100, model.H200), elements[model.H100.arch]), "",
        f"## Hot loops on sm_{model.B200.arch}", "",
        *loops(model.B200, hot[model.B200.arch]), "",
        f"## Elementwise losses on sm_{model.B200.arch}", "",
        *passes((model.B200,), elements[model.B200.arch]), "",
    ]
    return "\n".join(lines)
