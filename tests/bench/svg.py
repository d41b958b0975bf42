"""Draw ratios as bars on a logarithmic scale, as SVG for light and dark colour schemes."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WIDTH, _LABELS, _VALUES = 940, 310, 190
_LINE, _BAR, _TOP, _HEADING = 20, 12, 96, 30
_STYLE = """
svg { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
.page { fill: #ffffff } text { fill: #1f2328 } .faint { fill: #59636e }
.title { font-size: 18px; font-weight: 600 } .heading { font-weight: 600 }
.grid { stroke: #d1d9e0 } .one { stroke: #59636e; stroke-width: 1.5 }
.ahead { fill: #1f7a6d } .behind { fill: #c4560e } .range { stroke: #1f2328; stroke-opacity: .55 }
.mark { fill: #8250df; stroke: #ffffff }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 } text { fill: #f0f6fc } .faint { fill: #9198a1 }
  .grid { stroke: #3d444d } .one { stroke: #9198a1 }
  .ahead { fill: #3fb5a3 } .behind { fill: #f0883e } .range { stroke: #f0f6fc }
  .mark { fill: #ab7df8; stroke: #0d1117 }
}
"""


@frozen
class Bar:
    """One line of a chart.

    :ivar value: a ratio; the bar goes from 1 to it.
    :ivar text: text beside the bar.
    :ivar ends: the lowest and the highest ratio.
    :ivar marks: name -> ratio of others, drawn as points.
    """

    label: str
    value: float
    text: str
    ends: Sequence[float] = ()
    marks: Mapping[str, float] = field(factory=dict)

    @property
    def values(self) -> Iterable[float]:
        """The values that the scale must include."""
        return (1, self.value, *self.ends, *self.marks.values())


@frozen
class Scale:
    """A scale that maps ratios to pixels."""

    low: float
    high: float
    left: float = _LABELS
    width: float = _WIDTH - _LABELS - _VALUES

    def place(self, value: float) -> float:
        """Return the position of a ratio in pixels."""
        span = math.log(self.high / self.low)
        return self.left + self.width * math.log(value / self.low) / span

    def ticks(self) -> list[float]:
        """Return the ticks: 1, 2, 5, 10 ..., or fewer over many decades."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high < 200 * self.low else (1,)
        found = [step * 10.0**decade for decade in decades for step in steps]
        return [each for each in found if self.low * 0.999 <= each <= self.high * 1.001]


def scale_of(values: Iterable[float]) -> Scale:
    """Return a scale that includes all values."""
    known = [value for value in values if value > 0]
    low, high = min(known, default=1), max(known, default=1)
    return Scale(min(low / 1.15, 0.5), max(high * 1.15, 2))


def chart(title: str, subtitle: str, sections: Mapping[str, Sequence[Bar]]) -> str:
    """Draw a chart with its bars under headings."""
    bars = [bar for section in sections.values() for bar in section]
    scale = scale_of(value for bar in bars for value in bar.values)
    height = _TOP + sum(_HEADING + _LINE * len(section) for section in sections.values()) + 14
    names = list(dict.fromkeys(name for bar in bars for name in bar.marks))
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
        _text(16, 30, title, "title"),
        _text(16, 50, subtitle, "faint"),
        *_legend(names),
        *_grid(scale, height),
    ]
    top = _TOP
    for heading, section in sections.items():
        top += _HEADING
        parts.append(_text(16, top - 8, heading, "heading"))
        for bar in section:
            parts += _bar(bar, scale, top, names)
            top += _LINE
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} class="{style}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(names: Sequence[str]) -> Iterable[str]:
    words = [("ahead", "faster or smaller"), ("behind", "slower or larger")]
    x = 16.0
    for style, word in words:
        yield f'<rect class="{style}" x="{x}" y="62" width="12" height="10"/>'
        yield _text(x + 17, 71, word, "faint")
        x += 150
    for place, name in enumerate(names):
        yield _mark(x + 6, 67, place)
        yield _text(x + 17, 71, name, "faint")
        x += 40 + 7 * len(name)


def _grid(scale: Scale, height: float) -> Iterable[str]:
    for tick in scale.ticks():
        x = scale.place(tick)
        style = "one" if math.isclose(tick, 1) else "grid"
        yield f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - 10}"/>'
        yield _text(x, _TOP - 6, f"{tick:g}", "faint", "middle")


def _bar(bar: Bar, scale: Scale, top: float, names: Sequence[str]) -> Iterable[str]:
    one, end, middle = scale.place(1), scale.place(bar.value), top + _LINE / 2
    style = "ahead" if bar.value >= 1 else "behind"
    yield _text(28, middle + 4, bar.label)
    yield (
        f'<rect class="{style}" x="{min(one, end):.1f}" y="{middle - _BAR / 2:.1f}" '
        f'width="{max(abs(end - one), 1):.1f}" height="{_BAR}" rx="1.5"/>'
    )
    if bar.ends:
        low, high = scale.place(bar.ends[0]), scale.place(bar.ends[-1])
        yield f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    for name, value in bar.marks.items():
        yield _mark(scale.place(value), middle, names.index(name))
    yield _text(_WIDTH - _VALUES + 12, middle + 4, bar.text)


def _mark(x: float, y: float, place: int) -> str:
    """Draw the point of another server; each has a shape, so that colour is not needed."""
    if place % 2:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    return f'<path class="mark" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'
