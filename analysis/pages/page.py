"""What a report page says, gathered per task; how it looks is the template's business."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.tables.advice import advise, largest_group
from analysis.tables.frames import REFERENCE, Runs
from analysis.tables.selection import RULE, first_metric
from analysis.tables.summary import facts, format_value, format_with_mark, heading, is_headline, metrics_with_values
from analysis.tables.table import table
from analysis.tables.verdict import Line, headings, left_out, lines, notes, paragraph
from bench.registry import METRICS
from bench.store.records import Record


@dataclass(frozen=True)
class Value:
    """One number of the table: its text, its interval's, and the spread over seeds where there are several."""

    text: str
    interval: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Row:
    """One arm of the table.

    Attributes:
        arm: label.
        values: one per heading.
        selected: whether held-out data chose it.
        reference: whether it is the full model.
        seeds, run_ids: what stands behind it.
        device: where it was timed.
    """

    arm: str
    values: tuple[Value, ...]
    selected: bool
    reference: bool
    seeds: str
    run_ids: str
    device: str


@dataclass(frozen=True)
class FigureView:
    """One figure: its name, texts, file stem, inline SVG (safe markup) and the runs behind it."""

    name: str
    title: str
    caption: str
    stem: str
    svg: str
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class VerdictView:
    """Which model to deploy: a paragraph, a table, what its numbers mean, and which arms are left out and why."""

    paragraph: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One task of the report.

    Attributes:
        task, slug: its name, and that as an anchor and a part of file names.
        synthetic: whether the project made its data.
        verdict: which model to deploy; None where no full model was timed.
        facts: what the numbers belong to, as (subject, statement).
        rule: how held-out data chose.
        headings, rows: the table; `headline` are the columns that a card repeats.
        figures: those that have something to show.
        environment: (key, ((value, its runs, or "" where all runs share it), ...)).
    """

    task: str
    slug: str
    synthetic: bool
    verdict: VerdictView | None
    facts: tuple[tuple[str, str], ...]
    rule: str
    headings: tuple[str, ...]
    headline: tuple[int, ...]
    rows: tuple[Row, ...]
    figures: tuple[FigureView, ...]
    environment: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def chosen(self) -> tuple[Row, ...]:
        """Return the rows that held-out data chose."""
        return tuple(row for row in self.rows if row.selected)

    @property
    def references(self) -> tuple[Row, ...]:
        """Return the full model's rows."""
        return tuple(row for row in self.rows if row.reference)

    @property
    def several_devices(self) -> bool:
        """Check whether the rows were timed on different devices, so that each must name its device."""
        return len({row.device for row in self.rows}) > 1

    @property
    def several_seeds(self) -> bool:
        """Check whether some number is a mean over seeds."""
        return any(value.spread for row in self.rows for value in row.values)


def section(task: str, runs: Runs, figures: tuple[FigureView, ...]) -> Section:
    """Gather everything the page says of one task."""
    frame = table(runs)
    names = metrics_with_values(frame)
    return Section(
        task=task,
        slug=slug(task),
        synthetic=bool(frame["synthetic"].any()),
        verdict=view_verdict(runs),
        facts=facts(runs),
        rule=RULE.format(metric=first_metric(runs.arms[0])),
        headings=tuple(heading(name, frame) for name in names),
        headline=tuple(number for number, name in enumerate(names) if is_headline(name)),
        rows=tuple(_rows(frame, names)),
        figures=figures,
        environment=tuple(_environment(runs)),
    )


def view_verdict(runs: Runs) -> VerdictView | None:
    """Return the advice on one task at the usual limit and the median; None where no full model was timed."""
    if largest_group(runs) is None:
        return None
    advice = advise(runs)
    return VerdictView(
        paragraph=paragraph(advice),
        headings=headings(advice),
        lines=lines(advice),
        notes=tuple(notes(advice)),
        left_out=tuple(left_out(advice)),
    )


def slug(name: str) -> str:
    """Make a name a part of a file name: letters, digits, dots, dashes and underscores, no dot in front."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".") or "task"


def _rows(frame: pd.DataFrame, names: list[str]) -> Iterator[Row]:
    for _, row in frame.iterrows():
        yield Row(
            arm=row["arm"],
            values=tuple(_value(name, row) for name in names),
            selected=bool(row["selected"]),
            reference=row["method"] == REFERENCE,
            seeds=row["seeds"],
            run_ids=row["run_ids"],
            device=row["device"],
        )


def _value(name: str, row: pd.Series[Any]) -> Value:
    low, high, spread = (float(row[f"{name}{part}"]) for part in ("_low", "_high", "_seed_sd"))
    return Value(
        text=format_with_mark(name, row),
        interval="" if math.isnan(low) else f"{format_value(name, low)} to {format_value(name, high)}",
        spread="" if math.isnan(spread) else f"seeds' SD {spread * METRICS[name].scale:.2g}",
    )


def _environment(runs: Runs) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield each thing that was read back, with its values; where they differ, a value names its runs."""
    keys = dict.fromkeys(key for record in runs.records for key in _read_back(record))
    for key in keys:
        holders: dict[str, list[str]] = defaultdict(list)
        for record in runs.records:
            holders[_read_back(record).get(key, "not recorded")].append(record.run_id)
        yield key, tuple((value, "" if len(holders) == 1 else ", ".join(ids)) for value, ids in holders.items())


def _read_back(record: Record) -> dict[str, str]:
    """Return the environment and timing protocol of a run, flat, as text."""
    timing = {name: value for name, value in record.timing.items() if name != "disturbed_by"}  # is among the facts
    return dict([*_flat("", record.environment), *_flat("timing", timing), *_flat("data", record.data)])


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        else:
            yield name, str(value)
