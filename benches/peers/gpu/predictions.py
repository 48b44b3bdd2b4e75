"""What was predicted before the first card was seen, as data; benches/NOTES.md says how it was arrived at."""

import plan

# TB/s: the data sheet's, and what a copy is known to reach.
BANDWIDTH = {"H100": (3.35, 3.0), "H200": (4.8, 4.3), "B200": (8.0, 7.1)}

# Share of the data sheet's bandwidth by counting latencies, helpers included: within 8 points.
#   (card, pass, dtype): for 32000, 128256 and 262144 classes of 8192 rows
SHARE = {
    ("H100", "forward-backward", "bf16"): (84, 85, 76), ("H100", "forward-backward", "f32"): (86, 87, 81),
    ("H100", "forward", "bf16"): (68, 86, 88), ("H100", "forward", "f32"): (84, 87, 89),
    ("H200", "forward-backward", "bf16"): (77, 78, 65), ("H200", "forward-backward", "f32"): (84, 86, 73),
    ("H200", "forward", "bf16"): (58, 82, 86), ("H200", "forward", "f32"): (80, 87, 88),
}
CLASSES = (32_000, 128_256, 262_144)

# Milliseconds of adaptive log-softmax on an H100, bf16, forward and backward: ours and PyTorch's.
ADAPTIVE = {267_735: (5.2, 5.0), 1_000_000: (4.1, 11.0)}


def card_of(name):
    """The card that predictions are for, by its name; None where there are none."""
    return next((card for card in BANDWIDTH if card in name), None)


def moved(case):
    """Bytes of a call of cross entropy. Rows that no cluster keeps are read twice where a gradient is written."""
    work, rows, classes, dtype = case
    tensors = plan.MOVES[work] + (work == "forward-backward" and classes >= 4_000_000)
    return tensors * rows * classes * plan.DTYPE_BYTES[dtype]


def cross_entropy(card, case):
    """Milliseconds: the floor by the data sheet, that by a copy, and the expected with helpers and latencies."""
    if card is None:
        return None, None, None
    sheet, copy = BANDWIDTH[card]
    work, rows, classes, dtype = case
    floor, by_copy = (moved(case) / rate / 1e9 for rate in (sheet, copy))
    shares = SHARE.get((card, work, dtype))
    expected = None
    if shares and rows == 8192 and classes in CLASSES:
        expected = floor / shares[CLASSES.index(classes)] * 100
    return floor, by_copy, expected
