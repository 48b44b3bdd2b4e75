"""PyTorch, its compiler and Liger in one process, and ours between them: a line of JSON a case.

    python peers.py OURS DEVICE SECONDS CASES…      a case: pass:rows:classes:dtype
    python peers.py --adaptive SECONDS LINES…       a line: rows:hidden:classes:cutoffs:dtype

Each round times every peer and then ours, so that drift of the card meets all alike. Logits are made once
a dtype, and PyTorch's allocator keeps what it has. A peer's answer is checked against f64 before it is timed.
"""

import json, statistics, subprocess, sys

ROUNDS = 2


def say(**line):
    print(json.dumps(line), flush=True)


def torch_on_a_gpu():
    """torch, or a line that says why there is none."""
    try:
        import torch
    except ImportError:
        say(absent="PyTorch is not installed")
        sys.exit(0)
    if not torch.cuda.is_available():
        say(absent="PyTorch sees no CUDA device")
        sys.exit(0)
    return torch


def times(torch, step, seconds, prepare=lambda: None):
    """Milliseconds of single steps, by events; `prepare` comes before each and does not count."""
    for _ in range(3):
        prepare()
        step()
    torch.cuda.synchronize()
    found, total = [], 0.0
    while len(found) < 5 or total < seconds * 1e3:
        prepare()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
        total += found[-1]
    return found


def losses(torch):
    """Name and function of each peer that is there, and why the others are not."""
    functional = torch.nn.functional
    found = {"eager": functional.cross_entropy}
    missing = {}
    try:
        found["compile"] = torch.compile(functional.cross_entropy)
    except Exception as why:  # noqa: BLE001: whatever a peer says is its own affair, and is told
        missing["compile"] = str(why)
    try:
        from liger_kernel.transformers import LigerCrossEntropyLoss
        found["liger"] = LigerCrossEntropyLoss()
    except ImportError:
        missing["liger"] = "not installed"
    return found, missing


def wrong(torch, loss, logits, target):
    """What is wrong with an answer on a few rows; None where nothing is."""
    some = logits[:64].detach().clone().requires_grad_(True)
    exact = some.detach().double().requires_grad_(True)
    expected = torch.nn.functional.cross_entropy(exact, target[:64])
    expected.backward()
    got = loss(some, target[:64])
    got.backward()
    off = abs(got.item() - expected.item()) / abs(expected.item())
    grad = (some.grad.double() - exact.grad).norm() / exact.grad.norm()
    return None if off < 1e-2 and grad.item() < 2e-2 else f"loss off by {off:.1e}, gradient by {grad.item():.1e}"


def measured(torch, loss, work, logits, target, seconds, consumed):
    leaf = logits.detach()
    prepare = (lambda: logits.normal_(0, 2.5)) if consumed else (lambda: None)
    if work == "forward":
        def step():
            with torch.no_grad():
                loss(leaf, target)
    else:
        leaf = leaf.requires_grad_(True)

        def step():
            leaf.grad = None
            loss(leaf, target).backward()
    return times(torch, step, seconds, prepare)


def ours(binary, device, case, seconds):
    work, rows, classes, dtype = case
    command = [binary, "bench", "cross-entropy", "--pass", work, "--rows", str(rows), "--classes", str(classes),
               "--dtype", dtype, "--seconds", str(seconds), "--json", "--device", device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip()[-300:]}
    line = json.loads(done.stdout)
    return {"ms": line["median_s"] * 1e3, "copy_gb_per_s": line["copy_gb_per_s"]}


def cross_entropy(binary, device, seconds, cases):
    torch = torch_on_a_gpu()
    found, missing = losses(torch)
    say(torch=torch.__version__, missing=missing, card=torch.cuda.get_device_name())
    torch.manual_seed(0)
    for dtype in dict.fromkeys(case[3] for case in cases):
        of_dtype = [case for case in cases if case[3] == dtype]
        kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
        room = max(rows * classes for _, rows, classes, _ in of_dtype)
        memory = torch.empty(room, device="cuda", dtype=kind).normal_(0, 2.5)
        for case in of_dtype:
            work, rows, classes, _ = case
            target = torch.randint(classes, (rows,), device="cuda")
            results = {name: {"rounds": []} for name in (*found, "warploss")}
            for _ in range(ROUNDS):
                for name, loss in found.items():
                    if "failed" in results[name]:
                        continue
                    try:
                        logits = memory[:rows * classes].view(rows, classes)
                        logits.normal_(0, 2.5)
                        said = wrong(torch, loss, logits, target)
                        if said:
                            results[name]["failed"] = f"wrong answer: {said}"
                            continue
                        # Liger writes the gradient over the logits; ours has them back between runs too.
                        consumed = name == "liger" and work != "forward"
                        ms = measured(torch, loss, work, logits, target, seconds, consumed)
                        results[name]["rounds"].append(statistics.median(ms))
                    except torch.cuda.OutOfMemoryError:
                        results[name]["failed"] = "out of memory"
                    except Exception as why:  # noqa: BLE001: a peer that fails must not end the others
                        results[name]["failed"] = str(why).splitlines()[0][:300] if str(why) else repr(why)
                mine = ours(binary, device, case, seconds)
                if "ms" in mine:
                    results["warploss"]["rounds"].append(mine["ms"])
                else:
                    results["warploss"]["failed"] = mine["failed"]
            for result in results.values():
                if result["rounds"]:
                    result["ms"] = statistics.median(result["rounds"])
            say(case=case, results=results)
        del memory


def adaptive(seconds, lines):
    """PyTorch's own module."""
    import math

    torch = torch_on_a_gpu()
    torch.manual_seed(0)
    for rows, hidden, classes, cutoffs, dtype in lines:
        kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
        case = {"classes": classes, "cutoffs": cutoffs, "dtype": dtype}
        try:
            module = torch.nn.AdaptiveLogSoftmaxWithLoss(hidden, classes, cutoffs).to("cuda", kind)
            x = torch.randn(rows, hidden, device="cuda", dtype=kind, requires_grad=True)
            y = (torch.rand(rows, dtype=torch.float64) * math.log(classes + 1)).exp() - 1
            y = y.long().clamp(max=classes - 1).cuda()

            def step():
                x.grad = None
                module.zero_grad(set_to_none=True)
                module(x, y).loss.backward()

            say(**case, ms=statistics.median(times(torch, step, seconds)))
        except Exception as why:  # noqa: BLE001: the next line goes on
            say(**case, failed=str(why)[:300])


def main(arguments):
    if arguments[0] == "--adaptive":
        lines = [line.split(":") for line in arguments[2:]]
        lines = [(int(r), int(h), int(v), list(map(int, c.split(","))), d) for r, h, v, c, d in lines]
        return adaptive(float(arguments[1]), lines)
    binary, device, seconds, *cases = arguments
    cases = [case.split(":") for case in cases]
    return cross_entropy(binary, device, float(seconds), [(w, int(r), int(v), d) for w, r, v, d in cases])


if __name__ == "__main__":
    main(sys.argv[1:])
