"""From a plot and its frame to SVG and PNG, the same bytes every time, and to SVG that a page can restyle.

Text may be of any script. SVG keeps its letters, for the fonts of the reader; in PNG a letter that the figures' font
lacks is an empty box.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from analysis.figures.style import RC, VARIABLES, WIDTH
from bench.visible import visible

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # a date would differ on every run
_GENERATED_ID = re.compile(r"(?<=[\"#])[a-zA-Z][0-9a-f]{10}(?=[\")])")


class Drawable(Protocol):
    """What can be rendered; a `Plot` is one."""

    @property
    def name(self) -> str: ...

    @property
    def draw(self) -> Callable[[Axes, pd.DataFrame], None]: ...

    @property
    def height(self) -> Callable[[pd.DataFrame], float]: ...


def render(plot: Drawable, frame: pd.DataFrame) -> tuple[str, bytes]:
    """Return a plot as SVG text and PNG bytes (2x); no display and no global state is used."""
    frame = map_texts(frame, visible)
    with mpl.rc_context({**RC, "svg.hashsalt": plot.name}), _ignore_missing_glyphs():
        figure = Figure(figsize=(WIDTH, plot.height(frame)), layout="constrained")
        FigureCanvasAgg(figure)
        plot.draw(figure.subplots(), frame)
        pixels = io.BytesIO()
        figure.savefig(pixels, format="png", dpi=200)
        return draw_vector(figure), pixels.getvalue()


def draw_vector(figure: Figure) -> str:
    """Return a figure as SVG text, the same on every machine.

    Matplotlib makes ids out of the last digits of coordinates, in which processors differ; here they are numbers.
    """
    vector = io.BytesIO()
    figure.savefig(vector, format="svg", metadata=_NO_METADATA)
    text = vector.getvalue().decode("utf8")
    numbers = {name: f"{name[0]}{number}" for number, name in enumerate(dict.fromkeys(_GENERATED_ID.findall(text)))}
    return _GENERATED_ID.sub(lambda name: numbers[name.group()], text)


def map_texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return the frame with another text for each of its texts; numbers and the rest stay as they are."""

    def change_text(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    texts = [name for name in frame if not is_numeric_dtype(frame[name])]
    return frame.assign(**{str(name): frame[name].map(change_text) for name in texts})


@contextmanager
def _ignore_missing_glyphs() -> Iterator[None]:
    """Hide warnings of letters that the font lacks, and of scripts that are only set letter by letter."""
    with warnings.catch_warnings():
        for message in (r"Glyph \d+ ", "Matplotlib currently does not support "):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield


def inline(svg: str, *, prefix: str, label: str) -> str:
    """Return the SVG element for an HTML page: colours by CSS variable, unique ids, scalable, named for screen readers.

    Args:
        svg: what `render` gave.
        prefix: starts every id, so that figures of one page do not share any.
        label: what the figure shows, escaped for an HTML attribute.
    """
    element = svg[svg.index("<svg") :]
    head, body = element.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r'(?<=\sid=")', f"{prefix}-", body)
    body = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{prefix}-", body)
    body = body.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return f'<svg role="img" aria-label="{label}" {box.group() if box else ""}>{body}'
