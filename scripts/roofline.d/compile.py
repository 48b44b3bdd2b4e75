"""NVIDIA's run-time compiler over ctypes: units to machine code, several at a time, kept on disk."""

import ctypes, dataclasses, functools, hashlib, json, pathlib, re
from concurrent.futures import ProcessPoolExecutor


@dataclasses.dataclass(frozen=True)
class Unit:
    """Kernels of one file that are compiled together for one architecture."""

    name: str
    arch: int
    source: str
    # (name, text) of every file that an #include may name.
    headers: tuple

    def included(self):
        """The headers that the source reaches."""
        texts, found, todo = dict(self.headers), {}, [self.source]
        while todo:
            for name in re.findall(r'#include "([^"]+)"', todo.pop()):
                if name in texts and name not in found:
                    found[name] = texts[name]
                    todo.append(texts[name])
        return sorted(found.items())

    def depends_on(self):
        """The text that the machine code is made of: of the header that has all kernels' arguments, its own."""
        texts = {"": code(self.source), **{name: code(text) for name, text in self.included()}}
        shared = texts.pop(ARGUMENTS, "")
        kept, structs = [], {}
        for paragraph in shared.split("\n\n"):
            name = re.search(r"^struct (\w+) \{", paragraph, re.M)
            if name:
                structs[name[1]] = paragraph
            else:
                kept.append(paragraph)
        todo = list(texts.values())
        while todo:
            for name in structs.keys() & words(todo.pop()):
                kept.append(structs.pop(name))
                todo.append(kept[-1])
        return sorted(texts.items()), sorted(kept)

    def options(self):
        # The crate's own (src/code/nvrtc.rs), and the assembler's report of what it used.
        return [f"--gpu-architecture=sm_{self.arch}", "--std=c++17", "-default-device", "-Xptxas=-v"]


# Each kernel's arguments, in paragraphs of a struct each.
ARGUMENTS = "core/args_generated.cuh"


@functools.cache
def code(text):
    """Without comments, and the lines that are nothing else: an empty one would end a paragraph."""
    return re.sub(r"[ \t]*//[^\n]*", "", re.sub(r"(?m)^[ \t]*//[^\n]*\n", "", text))


@functools.cache
def words(text):
    return frozenset(re.findall(r"\w+", text))


def headers(folder):
    """(folder/name, text) of all files of kernels."""
    files = (p for pattern in ("*/*.cuh", "*/*.cu") for p in folder.glob(pattern))
    return tuple(sorted((p.relative_to(folder).as_posix(), p.read_text()) for p in files))


@dataclasses.dataclass
class Compiled:
    unit: Unit
    cubin: pathlib.Path
    log: str
    fresh: bool


class Nvrtc:
    def __init__(self, library):
        # Opened first: some versions look for it by its name alone, which finds nothing here.
        self.builtins = [ctypes.CDLL(str(b)) for b in sorted(library.parent.glob("libnvrtc-builtins.so*"))]
        self.library = ctypes.CDLL(str(library))

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def architectures(self):
        """90 for sm_90."""
        count = ctypes.c_int()
        self.library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self.library.nvrtcGetSupportedArchs(known)
        return list(known)

    def _bytes(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(size.value, 1))
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw[: size.value]

    def compile(self, unit):
        """Machine code (None where it was refused) and what the compiler said."""
        strings = lambda texts: (ctypes.c_char_p * len(texts))(*(t.encode() for t in texts))
        names, texts = zip(*unit.headers)
        program = ctypes.c_void_p()
        self.library.nvrtcCreateProgram(
            ctypes.byref(program), unit.source.encode(), b"warploss.cu",
            len(names), strings(texts), strings(names),
        )
        options = unit.options()
        code = self.library.nvrtcCompileProgram(program, len(options), strings(options))
        log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode()
        cubin = self._bytes(program, "CUBIN") if code == 0 else None
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return cubin, log


def describe(library):
    """Version and architectures."""
    nvrtc = Nvrtc(library)
    return nvrtc.version(), nvrtc.architectures()


_nvrtc = None


def _start(library):
    global _nvrtc
    _nvrtc = Nvrtc(library)


def _work(unit):
    return _nvrtc.compile(unit)


def compile_all(library, units, folder, processes):
    """Compiles what the folder does not have yet; yields a Compiled, or a text that says what failed."""
    folder.mkdir(parents=True, exist_ok=True)
    version = Nvrtc(library).version()
    stale, kept = [], []
    for unit in units:
        parts = [version, unit.depends_on(), unit.options()]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        path = folder / f"{unit.name}_{unit.arch}_{key}.cubin"
        (kept if path.exists() else stale).append((unit, path))
    for unit, path in kept:
        yield Compiled(unit, path, path.with_suffix(".log").read_text(), False)
    # The longest first, so that no process waits for another's last one.
    stale.sort(key=lambda s: -len(s[0].source))
    with ProcessPoolExecutor(processes, initializer=_start, initargs=(library,)) as pool:
        done = pool.map(_work, [unit for unit, _ in stale])
        for (unit, path), (cubin, log) in zip(stale, done):
            if cubin is None:
                yield f"{unit.name} for sm_{unit.arch} does not compile:\n{log}"
                continue
            path.with_suffix(".log").write_text(log)
            temporary = path.with_suffix(".new")
            temporary.write_bytes(cubin)
            temporary.rename(path)
            yield Compiled(unit, path, log, True)
    # What no unit of now has made is of no use any more.
    for path in folder.glob("*.cubin"):
        if path not in {p for _, p in kept + stale}:
            path.unlink()
            path.with_suffix(".log").unlink(missing_ok=True)
