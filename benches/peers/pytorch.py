"""PyTorch as a peer: one case on the CPU, the contract of rust/src/main.rs.

pytorch.py ROWS CLASSES f32|bf16 SECONDS
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F


def main(rows, classes, dtype, seconds):
    torch.set_num_threads(int(os.environ["PEER_THREADS"]))
    # Multiples of 1/16 in [-4, 4], exact in bf16; the same in every peer.
    index = torch.arange(rows * classes, dtype=torch.int64)
    logits = ((index * 2654435761 & 0xFFFFFFFF) >> 16) % 129
    logits = (logits.float() / 16 - 4).view(rows, classes)
    logits = logits.to({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    del index
    logits.requires_grad_(True)
    target = torch.arange(rows) * 7919 % classes

    def step():
        logits.grad = None
        loss = F.cross_entropy(logits, target)
        loss.backward()
        return loss

    loss = step().item()
    grad_abs = logits.grad.double().abs().sum().item() if rows <= 16 else None
    times = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        run = time.perf_counter()
        step()
        times.append(time.perf_counter() - run)
    print(json.dumps({"loss": loss, "grad_abs": grad_abs, "seconds": times}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
