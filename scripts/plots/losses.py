#!/usr/bin/env python3
"""Draws docs/losses/*.svg: value and gradient of every element-by-element loss.

Needs Python 3.9 or later and nothing else: python3 scripts/plots/losses.py
Colours are about as far from white as from black, and the background is left clear, so that a
figure reads on either.
"""

from dataclasses import dataclass
from math import copysign, exp, floor, inf, log, log1p, log10
from pathlib import Path
from typing import Callable

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "losses"

GREY = "#7f7f7f"
COLOURS = ["#3b82f6", "#d9730d", "#16a34a"]
DASHES = ["", "7 3", "2 3"]  # told apart without colours too

PANEL_WIDTH, PANEL_HEIGHT = 270, 190
LEFT, TOP, BOTTOM, GAP = 46, 30, 44, 62
WIDTH, HEIGHT = LEFT + 2 * PANEL_WIDTH + GAP + 12, TOP + PANEL_HEIGHT + BOTTOM
STEPS = 120  # points of a curve

Function = Callable[[float], float]


@dataclass
class Curve:
    """One setting of a loss. A gradient that jumps says where, and is not drawn across."""

    name: str
    value: Function
    gradient: Function
    jumps: tuple[float, ...] = ()


@dataclass
class Figure:
    file: str
    title: str
    x_name: str
    gradient_name: str
    curves: list[Curve]
    x: tuple[float, float]
    value: tuple[float, float]
    gradient: tuple[float, float]


def sign(d: float) -> float:
    return 0.0 if d == 0 else copysign(1, d)


def smooth_l1(beta: float) -> Curve:
    return Curve(
        f"β = {beta:g}",
        lambda d: d * d / (2 * beta) if abs(d) < beta else abs(d) - beta / 2,
        lambda d: d / beta if abs(d) < beta else sign(d),
    )


def huber(delta: float) -> Curve:
    return Curve(
        f"δ = {delta:g}",
        lambda d: d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2),
        lambda d: d if abs(d) <= delta else delta * sign(d),
    )


def softplus(x: float) -> float:
    return max(x, 0) + log1p(exp(-abs(x)))


def bce(t: float) -> Curve:
    return Curve(
        f"t = {t:g}",
        lambda x: t * softplus(-x) + (1 - t) * softplus(x),
        lambda x: 1 / (1 + exp(-x)) - t,
    )


def kl_div(p: float) -> Curve:
    """As a function of the target probability q, at a fixed input x = ln p."""
    return Curve(
        f"p = {p:g}",
        lambda q: 0 if q == 0 else q * (log(q) - log(p)),
        lambda q: -inf if q == 0 else log(q) + 1 - log(p),
    )


def js_div(beta: float) -> Curve:
    """As a function of the model's probability, at a fixed target probability of one half."""
    target = 0.5

    def mixture(q: float) -> float:
        return log(beta * target + (1 - beta) * q)

    def value(q: float) -> float:
        own = 0 if q == 0 else (1 - beta) * q * (log(q) - mixture(q))
        return own + beta * target * (log(target) - mixture(q))

    # By the model's log-probability, as the loss has it.
    return Curve(
        f"β = {beta:g}", value,
        lambda q: 0 if q == 0 else (1 - beta) * q * (log(q) - mixture(q)),
    )


def difference(file: str, title: str, curves: list[Curve], top: float, slope: float) -> Figure:
    """A loss of d = input − target."""
    return Figure(
        file, title, "d = input − target", "gradient to input",
        curves, (-3, 3), (0, top), (-slope, slope),
    )


FIGURES = [
    difference("mse", "MSE: d²", [Curve("", lambda d: d * d, lambda d: 2 * d)], 9, 6),
    difference("l1", "L1: |d|", [Curve("", abs, sign, (0.0,))], 3, 1.5),
    difference("smooth_l1", "Smooth L1", [smooth_l1(0.5), smooth_l1(1)], 3, 1.5),
    difference("huber", "Huber", [huber(0.5), huber(1), huber(2)], 4.5, 2.5),
    Figure(
        "bce_with_logits", "BCE with logits", "x (logit)", "gradient to x",
        [bce(0), bce(1)], (-6, 6), (0, 6), (-1.2, 1.2),
    ),
    Figure(
        "kl_div", "KL divergence, one element: q·(ln q − x), x = ln p", "q (target probability)",
        "gradient to q", [kl_div(p) for p in (0.1, 0.5, 0.9)],
        (0, 1), (-0.5, 2.5), (-3, 4),
    ),
    Figure(
        "js_div", "JS divergence, one element, target probability 1/2", "model's probability",
        "gradient to its logarithm", [js_div(beta) for beta in (0.1, 0.5, 0.9)],
        (0, 1), (0, 0.4), (-0.15, 0.15),
    ),
]


def ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers between two."""
    raw = (high - low) / 6
    power = 10 ** floor(log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = -floor(-low / step + 1e-9)
    return [i * step for i in range(first, floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


class Panel:
    """Axes, and curves in them."""

    def __init__(self, clip: str, left: float, x: tuple[float, float], y: tuple[float, float]):
        self.clip, self.left, self.x, self.y = clip, left, x, y

    def at_x(self, x: float) -> float:
        return self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * PANEL_WIDTH

    def at_y(self, y: float) -> float:
        return TOP + (self.y[1] - y) / (self.y[1] - self.y[0]) * PANEL_HEIGHT

    def axes(self, x_name: str, y_name: str) -> list[str]:
        right, bottom = self.left + PANEL_WIDTH, TOP + PANEL_HEIGHT
        box = f'x="{self.left}" y="{TOP - 1}" width="{PANEL_WIDTH}" height="{PANEL_HEIGHT + 2}"'
        out = [f'<clipPath id="{self.clip}"><rect {box}/></clipPath>']
        for x in ticks(*self.x):
            at = f"{self.at_x(x):.1f}"
            out.append(f'<path class="{"zero" if x == 0 else "grid"}" d="M{at} {TOP}V{bottom}"/>')
            out.append(f'<text x="{at}" y="{bottom + 15}" text-anchor="middle">{number(x)}</text>')
        for y in ticks(*self.y):
            at = f"{self.at_y(y):.1f}"
            kind = "zero" if abs(y) < 1e-9 else "grid"
            out.append(f'<path class="{kind}" d="M{self.left} {at}H{right}"/>')
            label = f'<text x="{self.left - 6}" y="{at}" dy="4" text-anchor="end">'
            out.append(f"{label}{number(y)}</text>")
        middle = self.left + PANEL_WIDTH / 2
        out.append(f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{x_name}</text>')
        out.append(f'<text x="{self.left}" y="{TOP - 10}">{y_name}</text>')
        return out

    def curve(self, f: Function, jumps: tuple[float, ...], place: int) -> str:
        """A path that is cut where the curve jumps; what leaves the panel is clipped."""
        path, command = [], "M"
        low, high = self.x
        for i in range(STEPS + 1):
            x = round(low + (high - low) * i / STEPS, 9)  # kinks are met exactly
            if x in jumps:
                path.append(self.point("L", x, f(x - 1e-9)))
                path.append(self.point("M", x, f(x + 1e-9)))
            else:
                path.append(self.point(command, x, f(x)))
            command = "L"
        stroke = f'stroke="{COLOURS[place]}"{dash(place)} clip-path="url(#{self.clip})"'
        return f'<path class="curve" {stroke} d="{"".join(path)}"/>'

    def point(self, command: str, x: float, y: float) -> str:
        far = self.y[1] - self.y[0]
        y = min(max(y, self.y[0] - far), self.y[1] + far)  # an infinity is somewhere out there
        return f"{command}{self.at_x(x):.1f} {self.at_y(y):.1f}"


def dash(place: int) -> str:
    return f' stroke-dasharray="{DASHES[place]}"' if DASHES[place] else ""


def draw(figure: Figure) -> str:
    value = Panel("value", LEFT, figure.x, figure.value)
    gradient = Panel("gradient", LEFT + PANEL_WIDTH + GAP, figure.x, figure.gradient)
    body = value.axes(figure.x_name, "loss") + gradient.axes(figure.x_name, figure.gradient_name)
    for place, curve in enumerate(figure.curves):
        body.append(value.curve(curve.value, (), place))
        body.append(gradient.curve(curve.gradient, curve.jumps, place))
    for x in {x for curve in figure.curves for x in curve.jumps}:
        at = f'cx="{gradient.at_x(x):.1f}" cy="{gradient.at_y(0):.1f}"'
        body.append(f'<circle {at} r="3" fill="{COLOURS[0]}"/>')
    body += legend(figure)
    names = ", ".join(curve.name for curve in figure.curves if curve.name)
    what = f"{figure.title}: loss and {figure.gradient_name} over {figure.x_name}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" '
        f'fill="{GREY}">',
        f"<title>{what}{'; ' + names if names else ''}</title>",
        f"<style>path{{fill:none}}.grid{{stroke:{GREY};stroke-opacity:.25}}"
        f".zero{{stroke:{GREY}}}.curve{{stroke-width:2}}</style>",
        *body,
        "</svg>\n",
    ])


def legend(figure: Figure) -> list[str]:
    """Names with a piece of their line, at the top right of the value's panel."""
    out, at = [], LEFT + PANEL_WIDTH
    for place, curve in reversed(list(enumerate(figure.curves))):
        if not curve.name:
            continue
        out.append(f'<text x="{at}" y="{TOP - 10}" text-anchor="end">{curve.name}</text>')
        at -= 6 * len(curve.name) + 4
        line = f'd="M{at - 21} {TOP - 14}h19"'
        out.append(f'<path class="curve" stroke="{COLOURS[place]}"{dash(place)} {line}/>')
        at -= 30
    return out


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        (FOLDER / f"{figure.file}.svg").write_text(draw(figure), encoding="utf-8")


if __name__ == "__main__":
    main()
