"""Bars in an SVG, by hand: what a README shows needs no library for plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 800, 290, 110
"""Of the picture, of the names on the left, and of the figures behind the bars."""
BAR, STEP, HEAD = 14, 22, 40
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 13px }
.bar { fill: #afb8c1 } .ours { fill: #0969da } .spread { stroke: #57606a; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #4493f8 } .spread { stroke: #c9d1d9 }
}
"""


@dataclass(frozen=True)
class Bar:
    """One rival's figure."""

    name: str
    values: Sequence[float]
    """As measured; the bar is their median."""
    middle: float
    text: str
    is_ours: bool


@dataclass(frozen=True)
class Panel:
    """Figures of one kind."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """How high it is."""
        return HEAD + STEP * len(self.bars)


def svg(panels: Sequence[Panel]) -> str:
    """Draw panels one below the other."""
    lines, top = [], 0
    for panel in panels:
        lines += _panel(panel, top)
        top += panel.height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *lines, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    longest = max(max(bar.values) for bar in panel.bars)
    scale = (WIDTH - LEFT - RIGHT) / longest
    lines = [f'<text class="title" x="0" y="{top + 24}">{escape(panel.title)}</text>']
    for number, bar in enumerate(panel.bars):
        lines += _bar(bar, top + HEAD + number * STEP, scale)
    return lines


def _bar(bar: Bar, y: int, scale: float) -> list[str]:
    low, high = (LEFT + scale * end for end in (min(bar.values), max(bar.values)))
    middle = y + BAR / 2
    kind = "ours" if bar.is_ours else "bar"
    lines = [
        f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(1, scale * bar.middle):.1f}" '
        f'height="{BAR}" rx="2"/>',
        f'<text x="{max(high, LEFT) + 6:.1f}" y="{y + 11}">{escape(bar.text)}</text>',
    ]
    if high - low >= 1:
        lines.append(
            f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
        )
    return lines
