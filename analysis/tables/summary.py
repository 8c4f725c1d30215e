"""The table of arms in words: for a terminal, for a README, for a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.tables.disturbance import MARK, is_disturbed, note
from analysis.tables.engines import against_engines
from analysis.tables.frames import Arm, Runs
from analysis.tables.identity import UNTIMED, backbone_names, finetune_seed, version
from analysis.tables.selection import RULE, first_metric
from analysis.tables.statistics import UNKNOWN, Interval, interval_note
from analysis.tables.table import table
from bench.planning.presets import trial_warning
from bench.registry import METRICS

SYNTHETIC_NOTE = "synthetic data made by this project"
SEEDS_NOTE = "a value is the mean over its arm's seeds, an interval the mean of the seeds' own intervals"

AGAINST_ENGINES = ("against the fastest engine of the full model", "against Hugging Face")
"""Headings of the columns that compare engines."""

THROUGHPUT = "examples per second, all there at once"
"""Heading of the column of offline throughput."""

ENGINES_NOTE = (
    "against: how many times as fast in the median (p50), both timed on one machine with as many CPU threads; the full "
    "model on its fastest engine, whatever that loses, and Hugging Face's fastest"
)


@dataclass(frozen=True)
class Summary:
    """A table as text, for anything that prints tables.

    Attributes:
        columns: headings.
        rows: tuples of cells, each as long as `columns`.
        notes: what the numbers belong to, one line each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """A number as text, and the ends of its interval; empty where it has none."""

    text: str
    ends: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write it as `5.20 [5.02, 5.41]`."""
        return f"{self.text} [{', '.join(self.ends)}]" if self.ends else self.text


def estimate(interval: Interval, write: Callable[[float], str]) -> Estimate:
    """Write a value and the ends of its interval; what is not known is a dash."""
    text, *ends = ("-" if math.isnan(end) else write(end) for end in (interval.value, interval.low, interval.high))
    return Estimate(text, () if "-" in ends else tuple(ends))


def summary(runs: Runs) -> Summary:
    """Return the table of arms as text: arm, quality and headline metrics, held-out choice, seeds, runs.

    Where several engines were timed, two more columns compare medians with the full model's best; where throughput was
    measured, a column has it.
    """
    frame = table(runs)
    engines, throughput = _engine_columns(runs), _throughput_column(runs)
    names = [name for name in metrics_with_values(frame) if is_headline(name)]
    several = frame["task"].nunique() > 1
    rows = [
        (
            *([row["task"]] if several else []),
            row["arm"],
            *(_cell(name, row) for name in names),
            *(cells[arm.run_ids] for cells in (engines | throughput).values()),
            "yes" if row["selected"] else "",
            row["seeds"],
            row["run_ids"],
        )
        for (_, row), arm in zip(frame.iterrows(), runs.arms, strict=True)
    ]
    measured = [*(heading(name, frame) for name in names), *engines, *throughput]
    columns = ["task"] * several + ["arm", *measured, "chosen", "seeds", "runs"]
    return Summary(columns=tuple(columns), rows=tuple(rows), notes=(*notes(runs), *([ENGINES_NOTE] if engines else [])))


def _engine_columns(runs: Runs) -> dict[str, dict[tuple[str, ...], str]]:
    """Return the columns that compare engines, heading -> runs of an arm -> cell; none where one engine was timed."""
    known = against_engines(runs)
    columns: dict[str, dict[tuple[str, ...], str]] = {}
    for number, name in enumerate(AGAINST_ENGINES):
        values = {arm.run_ids: known[arm.run_ids][number] if arm.run_ids in known else UNKNOWN for arm in runs.arms}
        if not all(math.isnan(each.value) for each in values.values()):
            columns[name] = {arm.run_ids: _times(values[arm.run_ids], arm) for arm in runs.arms}
    return columns


def _throughput_column(runs: Runs) -> dict[str, dict[tuple[str, ...], str]]:
    """Return the column of examples per second, heading -> runs of an arm -> cell; none where none were measured."""
    cells = {}
    for arm in runs.arms:
        reached = [record.timing["throughput"] for record in arm.records if "throughput" in record.timing]
        mean = fmean(each["examples_per_second"] for each in reached) if reached else math.nan
        mark = MARK if is_disturbed(arm) else ""
        cells[arm.run_ids] = "-" if math.isnan(mean) else f"{mean:.0f}{mark}, {reached[0]['manner']}"
    return {THROUGHPUT: cells} if {*cells.values()} - {"-"} else {}


def _times(ratio: Interval, arm: Arm) -> str:
    """Write a ratio of latencies as `2.67 [2.51, 2.80]`, with the mark where the arm's are not to be trusted."""
    written = estimate(ratio, "{:.2f}".format)
    return str(replace(written, text=written.text + MARK)) if written.ends and is_disturbed(arm) else str(written)


def metrics_with_values(frame: pd.DataFrame) -> list[str]:
    """Return the metrics of a table that hold any value."""
    return [name for name in frame.columns if name in METRICS and frame[name].notna().any()]


def is_headline(name: str) -> bool:
    """Check whether a metric is one of the few that are shown first: it scores answers or is a headline."""
    return METRICS[name].quality or METRICS[name].headline


def heading(name: str, frame: pd.DataFrame) -> str:
    """Return a metric's heading; one that was timed names the devices it was timed on."""
    words = name.removesuffix("_seconds").replace("_", " ").replace("flops", "FLOPs").replace("gFLOPs", "GFLOPs")
    words = words.replace("speedup", "speed-up")
    if METRICS[name].unit:
        words += f" ({METRICS[name].unit})"
    return f"{words} on {devices(frame)}" if METRICS[name].timed else words


def devices(frame: pd.DataFrame) -> str:
    """Name the devices of the timed arms."""
    return " / ".join(dict.fromkeys(name for name in frame["device"] if name != UNTIMED)) or "no device"


def format_value(name: str, value: float) -> str:
    """Write a metric's value as a table prints it, in the metric's unit."""
    return "-" if math.isnan(value) else METRICS[name].format(value * METRICS[name].scale)


def _cell(name: str, row: pd.Series[Any]) -> str:
    """Write a metric's value, for quality and speed-ups with the interval: `0.912 [0.893, 0.931]`."""
    low, high = (float(row[f"{name}{end}"]) for end in ("_low", "_high"))
    text = format_with_mark(name, row)
    if math.isnan(low) or not (METRICS[name].quality or name.endswith("_speedup")):
        return text
    return f"{text} [{format_value(name, low)}, {format_value(name, high)}]"


def format_with_mark(name: str, row: pd.Series[Any]) -> str:
    """Write a metric's value in a row, with the mark where it was timed on a disturbed machine."""
    value = float(row[name])
    trusted = math.isnan(value) or not (METRICS[name].timed and row["disturbed_by"])
    return format_value(name, value) + ("" if trusted else MARK)


def facts(runs: Runs) -> tuple[tuple[str, str], ...]:
    """Say what the numbers belong to, as (subject, statement): data, hardware, backbone, seeds and so on."""
    of_tasks: list[tuple[str, str]] = []
    for task, only in runs.by_task.items():
        frame = table(only)
        made = f" ({SYNTHETIC_NOTE})" if frame["synthetic"].any() else ""
        where = f"{task}: " if len(runs.by_task) > 1 else ""
        of_tasks += [
            ("data", f"{task}{made}, {_split_names(only)}, {_span(frame['examples'])} examples"),
            ("hardware", f"{where}{_hardware(frame, only)}"),
            *([("busy machine", f"{where}{why}")] if (why := note(only)) else []),
        ]
    several = any(len(arm.seeds) > 1 for arm in runs.arms)
    first = {finetune_seed(record) for record in runs.records if finetune_seed(record) != record.seed}
    shared = [f"some start from one model, fine-tuned with seed {_join(sorted(first))}"] if first else []
    warnings = dict.fromkeys(warning for record in runs.records if (warning := trial_warning(record.preset)))
    return (
        *(("trial", warning) for warning in warnings),
        *of_tasks,
        ("backbone", _join(backbone_names(runs.records))),
        ("seeds", "; ".join([_join(record.seed for record in runs.records), *shared, *([SEEDS_NOTE] * several)])),
        ("interval", interval_note(*runs.frames.values())),
        ("FLOPs", _join(record.flops_convention for record in runs.records)),
        ("code", _join(code(record.environment) for record in runs.records)),
    )


def code(environment: Mapping[str, Any]) -> str:
    """Name the version and, where it was a checkout, the commit of the code that ran."""
    commit = environment.get("commit")
    changed = " with changes" if environment.get("dirty") else ""
    return f"version {version(environment)}" + (f", commit {commit[:9]}{changed}" if commit else "")


def notes(runs: Runs) -> tuple[str, ...]:
    """Return `facts`, and the rule by which points were chosen, one line each."""
    rule = RULE.format(metric=" or ".join(dict.fromkeys(first_metric(arm) for arm in runs.arms)))
    return (*(f"{subject}: {statement}" for subject, statement in facts(runs)), f"chosen: {rule}")


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(set(values), key=str)))


def _split_names(runs: Runs) -> str:
    return _join(record.data.get("split", "evaluation split") for record in runs.records)


def _hardware(frame: pd.DataFrame, runs: Runs) -> str:
    counts = frame.loc[frame["timed_examples"] > 0, "timed_examples"]
    if counts.empty:
        return "nothing was timed"
    threads = _join(record.timing["threads"] for record in runs.records if record.timing)
    return f"{devices(frame)}, {threads} CPU threads, batch 1, {_span(counts)} examples timed"


def _span(counts: pd.Series[Any]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def markdown(text: Summary) -> str:
    """Return a table in Markdown (GitHub's dialect), what its numbers belong to named below it."""
    lines = [_markdown_row(text.columns), _markdown_row(["---"] * len(text.columns)), *map(_markdown_row, text.rows)]
    return "\n".join([*lines, "", *(f"- {_escape(note)}" for note in text.notes), ""])


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is: no cell is split, no tag or emphasis opened."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    return "".join("\\" + letter if letter in r"\|*_`" else letter for letter in escaped)
