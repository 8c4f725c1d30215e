"""One page about several comparisons of rationales: seeds pooled, and quality against speed-up along a sweep.

    OUT/index.html                         inline CSS and SVG; no request, no script
    OUT/figures/speedup-<metric>.svg|png   where there are several operating points
    OUT/figures/<number>-<metric>.svg|png  the curves over layers, of each point
    OUT/points.csv                         the table of all points

It reads what `bench.rationales.overview` wrote: overview.json and points.parquet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.figures.rationale_curves import SPEEDUPS, curves
from analysis.pages.page import FigureView
from analysis.pages.report import replace_report
from analysis.pages.spreadsheet import spreadsheet
from analysis.pages.templating import TEMPLATES
from analysis.rationales.page import (
    Agreement,
    claims,
    facts,
    figures,
    layer_figures,
    notes,
    table_rows,
)
from analysis.tables.summary import Summary
from bench.errors import InputError
from bench.rationales.files import AVERAGE, POINTS, POINTS_CSV, SUMMARY, points_in, read_frame
from bench.store.runs import write_aside


@dataclass(frozen=True)
class Point:
    """One operating point, its seeds pooled.

    Attributes:
        number: from 1, the slowest first.
        agreement: its numbers.
        pages: those of its comparisons that are there, from where the page is.
        figures: the curves over layers.
    """

    number: int
    agreement: Agreement
    pages: tuple[str, ...] = ()
    figures: tuple[FigureView, ...] = ()

    @property
    def name(self) -> str:
        """Return its knobs."""
        return str(self.agreement.summary["name"])

    @cached_property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Return what the numbers belong to."""
        return facts(self.agreement)

    @cached_property
    def claims(self) -> tuple[str, ...]:
        """Return a sentence per other method."""
        return claims(self.agreement)

    @cached_property
    def rows(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return the table's rows, means over layers."""
        return list(table_rows(self.agreement))


def read_points(folder: Path) -> tuple[Point, ...]:
    """Read the points in a folder that `bench.rationales.overview` wrote.

    Raises:
        InputError: there are none in it.
    """
    summaries, table = points_in(folder), read_frame(folder / POINTS)
    return tuple(
        Point(number, Agreement(summary, table[table["point"] == summary["name"]].drop(columns="point")))
        for number, summary in enumerate(summaries, start=1)
    )


def write_report(folder: Path, out: Path) -> Path:
    """Write the report of the overview in `folder` to `out`, which may be the same; the page.

    Raises:
        InputError: there is no overview in it, `out` is there and no report, or it has the page of its one comparison.
    """
    if out.resolve() == folder.resolve():
        if (folder / SUMMARY).is_file():
            raise InputError(f"{out} has the page of its one comparison, which stays; name another folder")
        return write_overview(folder, out)
    with replace_report(out, source=folder) as aside:
        write_overview(folder, aside)
    return out / "index.html"


def write_overview(folder: Path, out: Path) -> Path:
    """Write the page and figures of the overview in `folder` to `out`, which may be the same; the page.

    Raises:
        InputError: there is no overview in it.
    """
    points = [draw_point(point, out) for point in read_points(folder)]
    write_aside(out / POINTS_CSV, spreadsheet(read_frame(folder / POINTS)))
    page = TEMPLATES.get_template("rationale_points.html")
    shown = page.render(points=points, first=points[0].agreement.summary, sweep=sweep_figures(points, out / "figures"))
    write_aside(out / "index.html", shown)
    return out / "index.html"


def draw_point(point: Point, out: Path) -> Point:
    """Write a point's curves over layers below `out`; the point with them and its comparisons' pages there."""
    views = layer_figures(point.agreement, out / "figures", prefix=f"{point.number}-")
    pages = tuple(name for name in point.agreement.summary["folders"] if (out / name / "index.html").is_file())
    return replace(point, figures=tuple(views), pages=pages)


def sweep_figures(points: list[Point], folder: Path) -> list[FigureView]:
    """Draw every metric against speed-up into the folder; none of a single point."""
    if len(points) == 1:
        return []
    means = [
        point.agreement.table[point.agreement.table["layer"] == AVERAGE].assign(x=point.agreement.summary["speedup"])
        for point in points
    ]
    first = points[0].agreement
    return figures(curves(first.summary["metrics"], SPEEDUPS), first, pd.concat(means), folder)


def summary(folder: Path) -> Summary:
    """Summarise every point for a terminal: means over layers with intervals, and what they belong to.

    The point is named where there are several.
    """
    points = read_points(folder)
    several = len(points) > 1
    rows = tuple(
        (*([point.name] if several else []), name, *(value for value, _ in cells))
        for point in points
        for name, cells in point.rows
    )
    columns = (*(["point"] if several else []), "method", *points[0].agreement.metrics)
    lines = [f"{point.name}: {note}" if several else note for point in points for note in notes(point.agreement)]
    return Summary(columns, rows, tuple(lines))
