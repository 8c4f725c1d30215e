"""The HTML report: one page that needs nothing else, with its figures and data beside it.

OUT/index.html                     self-contained: inline CSS and SVG, no script, no request
OUT/figures/<task>-<plot>.svg|png  every figure as a file
OUT/data/<task>-<plot>.csv         what the figure draws
OUT/data/<task>-table.csv          every metric of every arm
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from markupsafe import escape

from analysis.figures.render import inline, render
from analysis.pages.page import FigureView, Section, section, slug
from analysis.pages.spreadsheet import spreadsheet
from analysis.pages.templating import TEMPLATES
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.table import table
from bench.errors import InputError
from bench.rationales.files import POINTS_CSV
from bench.registry import PLOTS
from bench.store.folders import disk_errors_at, exclusive_lock, require_own

_CONTENT = {"index.html", "figures", "data", POINTS_CSV}


def write_report(runs: Runs, out: Path, *, source: Path) -> Path:
    """Write the report of some runs to the folder `out` and return its page.

    The folder is assembled aside and renamed; an earlier report there is replaced.

    Args:
        runs: what is reported.
        out: the report's folder.
        source: the folder that the runs were read from, which `out` must not hold.

    Raises:
        InputError: as `replace_report`.
    """
    with replace_report(out, source=source) as aside:
        for folder in ("figures", "data"):
            (aside / folder).mkdir()
        sections = [_write_task(task, only, aside) for task, only in runs.by_task.items()]
        (aside / "index.html").write_text(_page(sections, runs), encoding="utf8")
    return out / "index.html"


@contextmanager
def replace_report(out: Path, *, source: Path) -> Iterator[Path]:
    """Give an empty folder that replaces the report in `out` once all is written to it.

    Raises:
        InputError: as `require_replaceable`, or `out` holds the source of what is reported.
    """
    require_replaceable(out)
    if source.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds {source}, which is reported, and a report replaces its folder; name a new one")
    target = out.resolve()  # a link stays, and what it leads to is replaced
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)  # a killed process may have had the same number
    with disk_errors_at(out):
        try:
            aside.mkdir(parents=True)
            yield aside
            with exclusive_lock(target):
                _swap(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def require_replaceable(out: Path) -> None:
    """Check that a report may be written to the folder `out`: it is new, empty or an earlier report.

    Raises:
        InputError: it is a file or lies below one, it holds something that is no report, or work goes on inside it.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        raise InputError(f"{out} is the current folder or holds it, and a report replaces its folder; name a new one")
    require_own(out, _CONTENT, kind="a report")


def _swap(aside: Path, out: Path) -> None:
    """Replace the old folder by the new one; the old one is deleted last."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    try:
        aside.replace(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_task(task: str, runs: Runs, folder: Path) -> Section:
    stem = slug(task)
    _write_csv(folder / "data" / f"{stem}-table.csv", table(runs))
    return section(task, runs, tuple(_write_figures(task, runs, folder)))


def _write_figures(task: str, runs: Runs, folder: Path) -> Iterator[FigureView]:
    for plot in sorted(PLOTS.values(), key=lambda plot: (plot.order, plot.name)):
        frame = plot.data(runs)
        if not frame.empty:
            yield _write_figure(plot, frame, stem=f"{slug(task)}-{plot.name}", folder=folder)


def _write_figure(plot: Plot, frame: pd.DataFrame, *, stem: str, folder: Path) -> FigureView:
    svg, png = render(plot, frame)
    (folder / "figures" / f"{stem}.svg").write_text(svg, encoding="utf8")
    (folder / "figures" / f"{stem}.png").write_bytes(png)
    _write_csv(folder / "data" / f"{stem}.csv", frame)
    return FigureView(
        name=plot.name,
        title=plot.summary,
        caption=plot.caption,
        stem=stem,
        svg=inline(svg, prefix=stem, label=str(escape(f"{plot.summary}. {plot.caption}"))),
        run_ids=tuple(dict.fromkeys(" ".join(frame["run_ids"]).split())),
    )


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    path.write_text(spreadsheet(frame), encoding="utf8")


def _page(sections: list[Section], runs: Runs) -> str:
    newest = max(record.created for record in runs.records)
    return TEMPLATES.get_template("report.html").render(sections=sections, newest=newest, count=len(runs.records))
