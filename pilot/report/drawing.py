"""Drawing: what all figures have in common, and turning them into SVG and PNG. matplotlib is imported when needed."""

import base64
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from pilot.report.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas

#: Okabe and Ito's colours, which all kinds of eyes tell apart (jfly.uni-koeln.de/color)
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#8A8A8A", "#222222"
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
KINDS = {"label": BLUE, "train": RED, "explore": GREEN, "select": PURPLE, "evaluate": ORANGE, "command": GREY}

_COORDINATES = re.compile(r'\b(?:d|x|y|width|height|transform)="[^"]*"')
_PICTURE = re.compile(r"(data:image/png;base64,)([A-Za-z0-9+/=\s]+)")
_COLOURS = 128
_DIGITS = re.compile(r"(\d\.\d\d)\d+")
#: more points than this are a picture in the figure, not one shape each
MANY = 1500
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pilot",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "figure.facecolor": "white",
}


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(cast("Any", _STYLE)):
        yield


def render(figure: Figure, *, png: bool = False) -> tuple[str, bytes]:
    """A figure as SVG and, if wanted, as PNG (else empty)."""
    from matplotlib.figure import Figure as Canvas

    assert figure.draw is not None
    with _styled():
        canvas = Canvas(figsize=figure.size, layout="constrained")
        figure.draw(canvas)
        svg = io.StringIO()
        about: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Type", "Format"))
        canvas.savefig(svg, format="svg", dpi=130, metadata=about)
        picture = io.BytesIO()
        if png:
            canvas.savefig(picture, format="png", dpi=200)
    return svg.getvalue(), picture.getvalue()


def inlined(svg: str, name: str, title: str) -> str:
    """An SVG as a page can hold it among others: no prolog, ids of its own, as wide as there is room.

    Args:
        svg: as matplotlib writes it.
        name: goes before its ids.
        title: for who does not see it; already escaped.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body).replace("xlink:href", "href")
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    # its style is not to reach the rest of the page, and a reader is to know that all of it is one picture
    rest = re.sub(r"<style[^>]*>.*?</style>", "", rest, flags=re.DOTALL)
    rest = re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", rest, flags=re.DOTALL))
    # in coordinates the third digit is finer than any eye; in words all digits stay
    rest = _COORDINATES.sub(lambda found: _DIGITS.sub(r"\1", found[0]), rest)
    rest = _PICTURE.sub(_smaller, rest)
    return f'<svg {box[0]} role="img" aria-label="{title}">{rest.strip()}'


def _smaller(found: re.Match[str]) -> str:
    """A picture within a figure with a palette of its own instead of a thousand shades, if that is smaller."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(found[2]))) as picture:
        few = picture.convert("RGBA").quantize(_COLOURS, method=Image.Quantize.FASTOCTREE)
    content = io.BytesIO()
    few.save(content, format="PNG", optimize=True)
    text = base64.b64encode(content.getvalue()).decode()
    return f"{found[1]}{text if len(text) < len(found[2]) else found[2]}"


def axes(canvas: "Canvas", across: str, up: str, *, xlog: bool = False, ylog: bool = False) -> "Axes":
    """Axes with their labels."""
    found = canvas.subplots()
    return dressed(found, across, up, xlog=xlog, ylog=ylog)


def dressed(found: "Axes", across: str, up: str, *, xlog: bool = False, ylog: bool = False) -> "Axes":
    """Existing axes with labels."""
    found.set_xlabel(across)
    found.set_ylabel(up)
    for wanted, axis, name in ((xlog, found.xaxis, "x"), (ylog, found.yaxis, "y")):
        if wanted:
            (found.set_xscale if name == "x" else found.set_yscale)("log")
            _plain_logarithms(axis)
    return found


#: decades that an axis spans, at most → the leading digits that are written between its powers of ten
_BETWEEN = ((0.75, "2345678"), (1.2, "2357"), (2.4, "25"))
#: decades below which every tick has its number
_NARROW = 0.3


def _plain_logarithms(axis: "Axis") -> None:
    """0.1, 2, 30 in place of powers of ten, and between those as many as there is room for."""
    from matplotlib.ticker import FuncFormatter

    def minor(value: float, _place: int | None) -> str:
        low, high = (math.log10(max(end, 1e-300)) for end in axis.get_view_interval())
        wanted = next((digits for most, digits in _BETWEEN if high - low <= most), "")
        digits = f"{value:.6e}".partition("e")[0].rstrip("0").rstrip(".")
        # where there is no room for two such digits matplotlib sets ticks at equal distances: 13.8, 14, 14.2
        return f"{value:g}" if len(digits) > 1 or digits in wanted or high - low <= _NARROW else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(minor))


def whole_numbers(found: "Axes") -> None:
    """Ticks across at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    found.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=12))


def mark_stages(found: "Axes", starts: Sequence[tuple[int, int]]) -> None:
    """A line where each stage begins, with its number above; nothing if there is only one."""
    if len(starts) < 2:
        return
    for stage, count in starts:
        found.axvline(count - 0.5, color=GREY, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0.5)
        found.annotate(
            f"stage {stage}",
            (count - 0.4, 1.0),
            xycoords=("data", "axes fraction"),
            va="bottom",
            fontsize=7.5,
            color="#666666",
        )


def legend(found: "Axes", **more: Any) -> None:
    """A legend where it hides nothing, if there is anything to tell apart."""
    handles, _ = found.get_legend_handles_labels()
    if handles:
        found.legend(**({"loc": "best"} | more))


def legend_above(found: "Axes", columns: int) -> None:
    """A legend in one line over the axes: for those that are full."""
    handles, _ = found.get_legend_handles_labels()
    if handles:
        found.legend(loc="lower left", bbox_to_anchor=(0.0, 1.03), ncols=columns, borderaxespad=0.0)
