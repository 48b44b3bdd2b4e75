"""Hot loops of a kernel's machine code, and what is in them."""

import collections, functools, re

ALU = {"ISETP", "FSETP", "FMNMX", "FMNMX3", "FSEL", "SEL", "LOP3", "SHF", "PRMT", "IADD3", "LEA", "MOV", "PLOP3",
       "VIMNMX", "IABS", "LOP", "VIADD", "IADD", "IMNMX"}
CONVERT = {"F2FP", "F2F", "I2F", "F2I", "HADD2"}
FMA = {"FADD", "FMUL", "FFMA", "FFMA2", "FADD2", "FMUL2", "IMAD"}
# What ends a thread, or goes where no label of the function is.
AWAY = {"EXIT", "RET", "CALL", "BRX", "JMP", "KILL", "BPT"}


def functions(text):
    """(name, lines) of every kernel of a disassembly."""
    for part in re.split(r"^\.text\.", text, flags=re.M)[1:]:
        name, _, body = part.partition(":")
        yield name, body.splitlines()


def instructions(lines):
    """(predicated, opcode, operands) and the positions of labels."""
    code, labels = [], {}
    for line in lines:
        label = re.match(r"(\.L_\w+):", line)
        if label:
            labels[label[1]] = len(code)
        found = re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?([A-Z0-9_.]+)(.*);", line)
        if found:
            code.append((bool(found[1]), found[2], found[3]))
    return code, labels


def tally(ops):
    kinds = collections.Counter()
    for _, op, _ in ops:
        base, wide = op.split(".")[0], ".128" in op
        kinds["instructions"] += 1
        kinds["mufu"] += base == "MUFU"
        kinds["alu"] += base in ALU or base in CONVERT
        kinds["fma"] += base in FMA
        for memory in ("LDG", "STG", "LDS"):
            kinds[memory] += base == memory and wide
        # Loads of what is read once: the tensors themselves, not what belongs to their columns.
        kinds["stream"] += base == "LDG" and wide and ".NA" in op
        for products in ("LDGSTS", "LDSM", "HMMA"):
            kinds[products] += base == products
        kinds["narrow"] += base in ("LDG", "STG") and not wide
        kinds["one stored"] += base == "STG" and not wide
        kinds["local"] += base in ("LDL", "STL")
    return kinds


class Graph:
    """A function's basic blocks, without those that have accesses narrower than 128 bits and no
    others: they are for rows or columns that do not lie on 16 bytes, and no hot path; unless an element
    at a time is the way (`narrow`). And without those that have an instruction `but`."""

    def __init__(self, lines, narrow=False, but=None):
        code, labels = instructions(lines)
        heads = {0} | set(labels.values())
        for i, (_, op, _) in enumerate(code):
            if op.split(".")[0] in AWAY | {"BRA"}:
                heads.add(i + 1)
        starts = sorted(h for h in heads if h < len(code))
        self.ops, self.next = {}, {}
        for start, end in zip(starts, starts[1:] + [len(code)]):
            ops = code[start:end]
            predicated, op, rest = ops[-1]
            base, successors = op.split(".")[0], []
            target = re.search(r"`\((\.L_\w+)\)", rest)
            if base == "BRA" and target and target[1] in labels:
                successors.append(labels[target[1]])
            # BRA also takes a predicate as an operand, and .DIV and .CONV.
            conditional = predicated or base == "BRA" and re.search(r"!?U?P\d", rest)
            if end < len(code) and (base not in AWAY | {"BRA"} or conditional or base == "CALL"):
                successors.append(end)
            kinds = tally(ops)
            wide = kinds["LDG"] + kinds["STG"] + kinds["LDS"] + kinds["LDGSTS"]
            if any(op == but for _, op, _ in ops):
                continue
            if wide or narrow or not kinds["narrow"]:
                self.ops[start], self.next[start] = ops, successors
        for start, successors in self.next.items():
            self.next[start] = [s for s in successors if s in self.ops]

    def leave_out(self, nodes):
        self.ops = {node: ops for node, ops in self.ops.items() if node not in nodes}
        self.next = {node: [s for s in self.next[node] if s in self.ops] for node in self.ops}

    def _components(self, nodes):
        """Strongly connected components (Tarjan), without recursion."""
        index, low, stack, on, found = {}, {}, [], set(), []
        for root in nodes:
            if root in index:
                continue
            work = [(root, iter(self.next[root]))]
            index[root] = low[root] = len(index)
            stack.append(root), on.add(root)
            while work:
                node, successors = work[-1]
                for s in successors:
                    if s not in nodes:
                        continue
                    if s not in index:
                        index[s] = low[s] = len(index)
                        stack.append(s), on.add(s)
                        work.append((s, iter(self.next[s])))
                        break
                    if s in on:
                        low[node] = min(low[node], index[s])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == index[node]:
                        component = set()
                        while True:
                            top = stack.pop()
                            on.discard(top), component.add(top)
                            if top == node:
                                break
                        if len(component) > 1 or node in self.next[node]:
                            found.append(component)
        return found

    def _way(self, header, body, rank, stores):
        """The best way round a loop without inner ones, of those that store so many packs (None: any).
        `rank`: what a block adds to a way's, a pair."""
        best = {}  # of a node: packs stored on the way from it, to rank and path
        order, seen, work = [], set(), [(header, iter(self.next[header]))]
        seen.add(header)
        while work:
            node, successors = work[-1]
            for s in successors:
                if s in body and s not in seen:
                    seen.add(s)
                    work.append((s, iter(self.next[s])))
                    break
            else:
                order.append(node)
                work.pop()
        for node in order:
            kinds = tally(self.ops[node])
            own, stored = rank(kinds), 0 if stores is None else kinds["STG"]
            ways = [best[s] for s in self.next[node] if s in body and s != header and s in best]
            if header in self.next[node]:
                ways.append({0: ((0, 0), [])})
            best[node] = {}
            for packs, (further, path) in (way for ways_on in ways for way in ways_on.items()):
                way = (own[0] + further[0], own[1] + further[1]), [node] + path
                packs += stored
                if packs not in best[node] or way[0] > best[node][packs][0]:
                    best[node][packs] = way
        _, path = best.get(header, {}).get(stores or 0, (None, []))
        return tally([op for node in path for op in self.ops[node]])

    def loops(self):
        """The innermost loops, as functions that give the tally of a way round: `_way` of a rank."""
        todo, found = [set(self.ops)], []
        while todo:
            for component in self._components(todo.pop()):
                outside = {s for n in self.ops if n not in component for s in self.next[n]}
                header = min(component & outside or component)
                inner = self._components(component - {header})
                if inner:
                    todo.append(component - {header})
                else:
                    found.append(functools.partial(self._way, header, component))
        return found


def reads(kinds):
    return kinds["stream"] + kinds["LDS"] + kinds["LDGSTS"]


def pipeline(lines):
    """A round of the loop that multiplies what comes by LDGSTS, the shortest; and the instructions of the loop that it
    lies in, or where it lies in none of the kernel, all of which stand outside of it. None: there is no such loop."""
    rank = lambda kinds: (kinds["HMMA"] + kinds["LDGSTS"], -kinds["instructions"])
    graph, rounds = Graph(lines), []
    while not rounds and (ways := graph.loops()):
        rounds = [kinds for kinds in (way(rank, None) for way in ways) if kinds["HMMA"] and kinds["LDGSTS"]]
        # Loops between rounds look for what comes next, and are no part of most.
        graph.leave_out({node for way in ways for node in way.args[1]})
    code, labels = instructions(lines)
    products = [i for i, (_, op, _) in enumerate(code) if op.startswith("HMMA")]
    if len(rounds) != 1 or not products:
        return None
    turns = []
    for i, (_, op, rest) in enumerate(code):
        target = re.search(r"`\((\.L_\w+)\)", rest) if op.split(".")[0] == "BRA" else None
        if target and labels.get(target[1], i) <= products[0] and i >= products[-1]:
            turns.append((labels[target[1]], i))
    turns.sort(key=lambda turn: turn[1] - turn[0])
    if not turns:
        return None
    inner, outer = turns[0], turns[-1] if len(turns) > 1 else (0, len(code))
    return rounds[0], (outer[1] - outer[0]) - (inner[1] - inner[0])


def longest(kinds):
    return 0, kinds["instructions"]


def shortest(kinds):
    """Of the ways that read as many packs as any."""
    return reads(kinds), -kinds["instructions"]


def hardest(clocks):
    """Of the same ways the one that memory covers least, a pack taking so many clocks."""
    return lambda kinds: (reads(kinds), kinds["instructions"] / 4 - clocks * (kinds["LDG"] + kinds["STG"]))


def phases(lines, beside):
    """The loops that packs of rows go through, each with the packs of a turn: bring, sum, gradient; of
    several of a kind the one that takes most packs at a time. `beside`: packs of another tensor
    with each. A loop is its tallies along the longest way round and along the shortest."""
    best = {}
    for way in Graph(lines).loops():
        k, plain = way(longest, None), way(shortest, None)
        loads = k["stream"] or k["LDS"]
        if k["LDGSTS"]:
            kind, packs = "bring", k["LDGSTS"]
        elif loads and k["STG"]:
            kind, packs = "gradient", loads
        elif loads and (k["mufu"] or k["fma"] >= 8):  # logarithms may be polynomials
            kind, packs = "sum", loads
        else:
            continue
        packs /= 1 + beside
        if kind not in best or packs > best[kind][2]:
            best[kind] = (k, plain, packs)
    return best


def fullest(kinds):
    """Of the ways that do as much, the shortest."""
    return kinds["narrow"] + kinds["mufu"], -kinds["instructions"]


def side_by_side(lines, lanes, turn):
    """As `phases`, of rows whose elements are brought one by one, `turn` of them at a time: the sum, and the
    gradient, which takes half a turn. Of several of a kind the one that computes most, as losses are added up in
    loops of their own. A pack is `lanes` elements."""
    def loops(graph, rank):
        best = {}
        for way in graph.loops():
            k = way(rank, None)
            stored = k["one stored"] >= turn // 2 - 1
            kind = "gradient" if stored else "sum"
            computes = k["mufu"] + k["fma"]
            if (stored or k["narrow"] >= turn - 1) and computes > best.get(kind, (None, -1))[1]:
                best[kind] = (k, computes)
        return best

    whole = Graph(lines, narrow=True)
    # A soft-cap's far side has the only division of a loop, and mostly stands apart.
    plain = {**loops(whole, fullest), **loops(Graph(lines, narrow=True, but="MUFU.RCP"), fullest)}
    packs = {"sum": turn / lanes, "gradient": turn / 2 / lanes}
    return {kind: (k, plain[kind][0], packs[kind]) for kind, (k, _) in loops(whole, longest).items()}


def element_ways(lines, stores, clocks):
    """The hardest ways round the loops over packs of two tensors, storing so many packs: of the loop
    without weights, and of the one with them. None: there are no two such loops."""
    ways = [way(hardest(clocks), stores) for way in Graph(lines).loops()]
    ways = [k for k in ways if k["stream"] == 2 and k["STG"] == stores]
    return sorted(ways, key=lambda k: k["instructions"]) if len(ways) == 2 else None


def registers(text):
    """Numbers of the registers that operands name, both of a pair."""
    found = set()
    for number, pair in re.findall(r"\bR(\d+)(\.64)?", text):
        found |= {int(number), int(number) + 1} if pair else {int(number)}
    return found


def waits_first(lines):
    """The instruction that needs a number which is loaded (a target, a total) before the first pack of the row is
    on its way; None where there is none."""
    loaded = set()
    for _, op, operands in instructions(lines)[0]:
        base = op.split(".")[0]
        if base == "LDGSTS" or base == "LDG" and ".128" in op or base == "CCTL" and ".PF" in op:
            return None
        first, _, others = operands.partition(",")
        writes = re.match(r"\s*R\d", first) and base not in ("ST", "STG", "STS", "RED")
        if registers(others if writes else operands) & loaded:
            return f"{op}{operands}"
        if writes:
            wide = 4 if ".128" in op else 2 if ".64" in op.split("R")[0] or ".WIDE" in op else 1
            start = int(re.search(r"R(\d+)", first)[1])
            written = set(range(start, start + wide))
            loaded = loaded | written if base in ("LDG", "LD") else loaded - written
    return "no access of 128 bits"


def begins_early(lines):
    """What a kernel does before it waits for the launch before it, but for asking for packs; None where that is
    nothing."""
    for _, op, operands in instructions(lines)[0]:
        base = op.split(".")[0]
        if base == "ACQBULK":
            return None
        if base in ("LDG", "LD", "STG", "ST", "ATOM", "ATOMG", "RED", "REDG"):
            return f"{op}{operands}"
    return "no wait"


def exchange(lines):
    """What keeps the blocks of a cluster from meeting by messages alone, once they have arrived at its barrier one time,
    with no fence from the making of mbarriers on; None where nothing does."""
    ops = [op.split(".")[0] for _, op, _ in instructions(lines)[0]]
    arrivals, sent = ops.count("UCGABAR_ARV"), [i for i, op in enumerate(ops) if op == "STAS"]
    if arrivals != 1 or not sent:
        return f"{arrivals} arrivals at the cluster's barrier, {len(sent)} messages"
    fences = ops[ops.index("SYNCS"): sent[-1]].count("MEMBAR")
    return f"{fences} fences before the last message" if fences else None
