"""The pages of stored results: for each experiment the finding, the figures, the tables, and its commands.

    EXPERIMENTS/<name>.toml          question, answer, finding, details, commands, and which results belong to it
    RESULTS/<part>/                  packed runs, or rationales that were put together
    RESULTS/<part>/figures/*.svg     written here
    RESULTS/overview.svg             written here, from EXPERIMENTS/overview.toml
    PAGES/<name>.md, PAGES/index.md  written here

Usage: python -m analysis.result_pages EXPERIMENTS RESULTS PAGES
"""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.figures.render import render
from analysis.pages.overview import draw_overview, overview_data
from analysis.rationales import overview as rationale_overview
from analysis.tables.advice import advise
from analysis.tables.frames import Runs
from analysis.tables.summary import Summary, markdown, summary
from analysis.tables.verdict import paragraph, verdict
from bench.errors import InputError
from bench.rationales.files import OVERVIEW
from bench.registry import PLOTS
from bench.store.packs import open_runs
from bench.store.runs import write_aside

PREFACE, OVERVIEW_SETTINGS = "index.md", "overview.toml"
"""Of the experiments: what stands above the list of pages, and what the figure above all results draws."""


@dataclass(frozen=True)
class Figure:
    """A figure of a part: the plot's name (of rationales the file's stem), and what it shows in words."""

    plot: str
    alt: str


@dataclass(frozen=True)
class Part:
    """Results of an experiment that share a table.

    Attributes:
        results: folder of packed runs or of rationales, below the results.
        title: heading of the table.
        figures: those that the page shows.
        max_drop: the loss that may be accepted, where the page says which of the arms to deploy.
    """

    results: str
    title: str
    figures: tuple[Figure, ...] = ()
    max_drop: float | None = None


@dataclass(frozen=True)
class Experiment:
    """What one page says; texts are Markdown.

    Attributes:
        name: file stem of the page.
        title, question, answer: one line each.
        finding: what the results say, in a few sentences.
        details: what was done, and what else was seen.
        commands: the shell commands that made the results.
        parts: the tables.
        order: position in the index, lowest first.
    """

    name: str
    title: str
    question: str
    answer: str
    finding: str
    details: str
    commands: str
    parts: tuple[Part, ...]
    order: int


def read_experiment(path: Path) -> Experiment:
    """Read an experiment's file.

    Raises:
        InputError: it is no TOML, or lacks a field or has one more.
    """
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf8"))
        parts = tuple(_part(fields_of_part) for fields_of_part in fields.pop("parts"))
        return Experiment(name=path.stem, parts=parts, **fields)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no experiment ({error}); compare it with another one beside it") from error


def _part(fields: dict[str, Any]) -> Part:
    return Part(**{**fields, "figures": tuple(Figure(**figure) for figure in fields.get("figures", ()))})


def write_pages(experiments: Path, results: Path, pages: Path) -> list[Path]:
    """Write every experiment's page and figures, and the index; the pages.

    Args:
        experiments: folder of the experiments' files.
        results: folder of the stored results; figures are written into it.
        pages: folder of the pages.
    """
    pages.mkdir(parents=True, exist_ok=True)
    files = [path for path in experiments.glob("*.toml") if path.name != OVERVIEW_SETTINGS]
    known = sorted(map(read_experiment, files), key=lambda experiment: experiment.order)
    written = [pages / f"{experiment.name}.md" for experiment in known]
    for experiment, path in zip(known, written, strict=True):
        write_aside(path, page(experiment, results, pages))
    settings = experiments / OVERVIEW_SETTINGS
    write_aside(results / "overview.svg", draw_overview(overview_data(settings, results)))
    preface = (experiments / PREFACE).read_text(encoding="utf8")
    write_aside(pages / "index.md", index(known, preface))
    return [*written, pages / "index.md"]


def index(experiments: Sequence[Experiment], preface: str) -> str:
    """Return the page that lists all others, a line for each."""
    rows = [f"| [{each.question}]({each.name}.md) | {each.answer} |" for each in experiments]
    return "\n".join([preface.strip(), "", "| question | answer |", "| --- | --- |", *rows, ""])


def page(experiment: Experiment, results: Path, pages: Path) -> str:
    """Return an experiment's page, after writing its figures."""
    back = Path(os.path.relpath(results, pages)).as_posix()
    figures, tables = [], []
    verdicts = [text for part in experiment.parts for text in _verdict(part, results / part.results)]
    for part in experiment.parts:
        summary_of_part = write_figures(part, results / part.results)
        figures += [f"![{each.alt}]({back}/{part.results}/figures/{each.plot}.svg)" for each in part.figures]
        tables += [f"### {part.title}", _fold(summary_of_part)]
    sections = [
        f"# {experiment.title}",
        f"*{experiment.question}*",
        experiment.finding.strip(),
        *figures,
        *verdicts,
        "## Details",
        experiment.details.strip(),
        "## Tables",
        *tables,
        "## Commands",
        f"```sh\n{experiment.commands.strip()}\n```",
        "The table and all figures again, from the stored runs:",
        "```sh\n"
        + "\n".join(f"bench report results/{part.results} --out report" for part in experiment.parts)
        + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _verdict(part: Part, folder: Path) -> Iterator[str]:
    """Yield which arm of a part to deploy, in words and as a table, where the page says so."""
    if part.max_drop is None:
        return
    reader = open_runs(folder)
    advice = advise(Runs.read(reader, reader.ids()), max_drop=part.max_drop)
    yield f"## Which to deploy: {part.title}"
    yield paragraph(advice)
    yield markdown(verdict(advice)).strip()


def _fold(table: Summary) -> str:
    """Return a table in Markdown, folded because it is long."""
    text = markdown(table).strip()
    return f"<details><summary>Every arm, and what its numbers belong to</summary>\n\n{text}\n\n</details>"


def write_figures(part: Part, folder: Path) -> Summary:
    """Write the figures of a part as SVG into its folder; its table, made of the same runs."""
    names = {figure.plot for figure in part.figures}
    if (folder / OVERVIEW).is_file():
        figures, table = _rationale_figures(folder, names), rationale_overview.summary(folder)
    else:
        reader = open_runs(folder)
        runs = Runs.read(reader, reader.ids())
        figures, table = _run_figures(runs, names, folder), summary(runs)
    for name, svg in figures:
        (folder / "figures").mkdir(exist_ok=True)
        write_aside(folder / "figures" / f"{name}.svg", svg)
    return table


def _run_figures(runs: Runs, names: Set[str], folder: Path) -> Iterator[tuple[str, str]]:
    for name in sorted(names):
        frame = PLOTS[name].data(runs)
        if frame.empty:
            raise InputError(f"the runs in {folder} have nothing for the figure {name!r}; name another")
        yield name, render(PLOTS[name], frame)[0]


def _rationale_figures(folder: Path, names: Set[str]) -> Iterator[tuple[str, str]]:
    if not names:
        return
    with tempfile.TemporaryDirectory() as report:
        rationale_overview.write_overview(folder, Path(report))
        for name in sorted(names):
            yield name, Path(report, "figures", f"{name}.svg").read_text(encoding="utf8")


def main(arguments: Sequence[str]) -> None:
    """Write the pages of the three folders named on the command line."""
    experiments, results, pages = map(Path, arguments)
    for path in write_pages(experiments, results, pages):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
