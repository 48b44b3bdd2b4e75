"""Hot loops of a kernel's machine code, and what is in them."""

import collections, re

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
        kinds["LDGSTS"] += base == "LDGSTS"
        kinds["narrow"] += base in ("LDG", "STG") and not wide
        kinds["local"] += base in ("LDL", "STL")
    return kinds


class Graph:
    """A function's basic blocks, without those that have accesses narrower than 128 bits and no
    others: they are for rows or columns that do not lie on 16 bytes, and no hot path."""

    def __init__(self, lines):
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
            if wide or not kinds["narrow"]:
                self.ops[start], self.next[start] = ops, successors
        for start, successors in self.next.items():
            self.next[start] = [s for s in successors if s in self.ops]

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

    def _way(self, header, body, better):
        """The best way round a loop without inner ones. `better`: what a block adds to a way's rank."""
        best = {}
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
            ways = [best[s] for s in self.next[node] if s in body and s != header and s in best]
            if header in self.next[node]:
                ways.append(((0, 0), []))
            if ways:
                rank, path = max(ways, key=lambda w: w[0])
                own = better(self.ops[node])
                best[node] = ((own[0] + rank[0], own[1] + rank[1]), [node] + path)
        return [op for node in best.get(header, (0, []))[1] for op in self.ops[node]]

    def loops(self):
        """Tallies of the innermost loops, each along its longest way round and along the shortest that
        reads as many packs."""
        longest = lambda ops: (0, len(ops))
        reads = lambda kinds: kinds["stream"] + kinds["LDS"] + kinds["LDGSTS"]
        shortest = lambda ops: (reads(tally(ops)), -len(ops))
        todo, found = [set(self.ops)], []
        while todo:
            for component in self._components(todo.pop()):
                outside = {s for n in self.ops if n not in component for s in self.next[n]}
                header = min(component & outside or component)
                inner = self._components(component - {header})
                if inner:
                    todo.append(component - {header})
                else:
                    ways = [tally(self._way(header, component, better)) for better in (longest, shortest)]
                    found.append(tuple(ways))
        return found


def phases(lines, beside):
    """The loops that packs go through, each with the packs of a turn: bring, sum, gradient; of
    several of a kind the one that takes most packs at a time. `beside`: packs of another tensor
    with each. A loop is its tallies along the longest way round and along the shortest."""
    best = {}
    for k, plain in Graph(lines).loops():
        loads = k["stream"] or k["LDS"]
        if k["LDGSTS"]:
            kind, packs = "bring", k["LDGSTS"]
        elif loads and k["STG"]:
            kind, packs = "gradient", loads
        elif loads and k["mufu"]:
            kind, packs = "sum", loads
        else:
            continue
        packs /= 1 + beside
        if kind not in best or packs > best[kind][2]:
            best[kind] = (k, plain, packs)
    return best
