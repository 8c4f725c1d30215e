"""Latencies of a disturbed machine in tables, pages, figures and comparisons; stored runs that never looked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.figures.curves import points
from analysis.figures.render import render
from analysis.pages.report import write_report
from analysis.plots.latency import LATENCY
from analysis.plots.tradeoff import TRADEOFF, WALL_TRADEOFF
from analysis.tables.compare import compare, comparison
from analysis.tables.frames import Runs
from analysis.tables.summary import markdown, summary
from analysis.tables.table import table
from bench.store.runs import RunStore
from tests.support.stored_runs import StoredRun, write_runs

QUOTA = "a quota of 0.5 cores held 1 threads back for 4.5 s of 10 s"
ROUND = "in exit k=1, round 3 took 2.1 times as long as round 1"
LOAD: dict[str, Any] = {"off_core": 0.4, "load_average": [1.0, 2.0], "megahertz": None}
FULL, EXIT, TRUNCATED = (
    StoredRun("full"),
    StoredRun("exit", method="exit", knobs={"k": 1}, depths=(2, 3), heldout={"accuracy": 0.9, "flops_speedup": 2.0}),
    StoredRun("cut", method="cut", depths=(3,), wrong=range(9)),
)


def stored(root: Path, **disturbed_by: list[str]) -> RunStore:
    """Three runs, those that are named with the readings and reasons of a session."""
    store, _ = write_runs(root)
    for run in (FULL, EXIT, TRUNCATED):
        record = run.record()
        looked = {"load": LOAD, "disturbed_by": disturbed_by[run.run_id]} if run.run_id in disturbed_by else {}
        store.put(replace(record, timing={**record.timing, **looked}), run.table())
    return store


def runs_of(store: RunStore) -> Runs:
    """All runs of a store."""
    return Runs.read(store, store.ids())


def marks(store: RunStore) -> dict[str, set[str]]:
    """The headings under which each arm's cells are marked."""
    text = summary(runs_of(store))
    return {
        row[0]: {heading.split(" on ")[0] for heading, cell in zip(text.columns, row, strict=True) if "*" in cell}
        for row in text.rows
    }


SPEEDS = {"wall speed-up", "latency p50 (ms)"}


@pytest.mark.parametrize(
    ("disturbed_by", "marked"),
    [
        ({"exit": [ROUND]}, {"exit k=1"}),
        ({"full": [QUOTA], "exit": [QUOTA], "cut": [QUOTA]}, {"full", "exit k=1", "cut"}),
        ({"exit": [QUOTA, ROUND], "cut": [], "full": []}, {"exit k=1"}),
    ],
    ids=["one_arm", "all", "others_looked"],
)
def test_the_table_marks_speeds_and_nothing_else(
    tmp_path: Path, disturbed_by: dict[str, list[str]], marked: set[str]
) -> None:
    """Only the speeds of marked arms have a star, and one note says why, for which arms, and what to do."""
    store = stored(tmp_path, **disturbed_by)
    assert marks(store) == {arm: SPEEDS if arm in marked else set() for arm in ("full", "exit k=1", "cut")}
    (note,) = [note for note in summary(runs_of(store)).notes if note.startswith("busy machine: *")]
    assert all(reason in note for reasons in disturbed_by.values() for reason in reasons)
    assert "--time-again" in note
    assert ("exit k=1: a quota" in note) == (QUOTA in disturbed_by["exit"] and len(marked) < 3)
    assert r"\*" in markdown(summary(runs_of(store)))
    frame = table(runs_of(store)).set_index("arm")
    assert set(frame.index[frame["disturbed_by"] != ""]) == marked


def test_runs_that_never_looked_are_shown_as_before(tmp_path: Path) -> None:
    """Without readings, or with quiet ones, nothing is marked, and every number is that of a run with marks."""
    old, quiet = stored(tmp_path / "old"), stored(tmp_path / "quiet", full=[], exit=[], cut=[])
    marked = stored(tmp_path / "marked", full=[QUOTA], exit=[QUOTA], cut=[QUOTA])
    for store in (old, quiet):
        assert set().union(*marks(store).values()) == set()
        assert not [note for note in summary(runs_of(store)).notes if note.startswith("busy")]
    assert summary(runs_of(old)) == summary(runs_of(quiet))
    numbers = [table(runs_of(store)).drop(columns="disturbed_by") for store in (old, marked)]
    assert numbers[0].equals(numbers[1])


def test_one_disturbed_seed_marks_its_arm(tmp_path: Path) -> None:
    """A mean over seeds is as good as its worst session."""
    store = stored(tmp_path, exit=[QUOTA])
    store.put(replace(EXIT, run_id="exit2", seed=2).record(), EXIT.table())
    assert marks(store)["exit k=1"] == SPEEDS


def test_the_page_marks_and_explains(tmp_path: Path) -> None:
    """The page has a star in table and cards and the reason once among the facts; an old one has neither."""
    store = stored(tmp_path / "runs", exit=[QUOTA])
    path = write_report(Runs.read(store, store.ids()), tmp_path / "report", source=store.root)
    page = path.read_text(encoding="utf8")
    assert page.count(QUOTA) == 1
    assert page.count("<dt>busy machine</dt>") == 1
    assert len(re.findall(r"<strong>[0-9.]+\*</strong>", page)) == len(SPEEDS)
    assert len(re.findall(r'<td class="number">[0-9.]+\*<small>', page)) == 4
    old = stored(tmp_path / "old")
    page = write_report(Runs.read(old, old.ids()), tmp_path / "report", source=old.root).read_text(encoding="utf8")
    assert "busy machine" not in page


def test_no_front_is_drawn_from_disturbed_speeds(tmp_path: Path) -> None:
    """A disturbed speed-up beats nobody on the wall clock, and is crossed out; by FLOPs the front is what it was."""
    quiet, disturbed = runs_of(stored(tmp_path / "a")), runs_of(stored(tmp_path / "b", exit=[QUOTA]))
    fronts = [
        {name: points(runs, name).set_index("arm")["pareto"].to_dict() for name in ("flops_speedup", "wall_speedup")}
        for runs in (quiet, disturbed)
    ]
    assert fronts[0]["flops_speedup"] == fronts[1]["flops_speedup"] == fronts[0]["wall_speedup"]
    assert fronts[0]["wall_speedup"] == {"full": False, "exit k=1": True, "cut": False}
    assert fronts[1]["wall_speedup"] == {"full": True, "exit k=1": False, "cut": True}
    for plot, told in ((WALL_TRADEOFF, "busy machine, no verdict"), (LATENCY, "(* busy")):
        assert told in render(plot, plot.data(disturbed))[0]
        assert told not in render(plot, plot.data(quiet))[0]
    assert "busy" not in render(TRADEOFF, TRADEOFF.data(disturbed))[0]


@pytest.mark.parametrize("disturbed", ["full", "exit", "cut"])
def test_a_comparison_withholds_verdicts_on_disturbed_speeds(tmp_path: Path, disturbed: str) -> None:
    """Where either run is marked no speed is called better, and the last note says why; the rest is compared."""
    store = stored(tmp_path, **{disturbed: [QUOTA]})
    frame = compare(store, "full", "exit").set_index("metric")
    speeds = ["wall_speedup", "latency_p50_seconds", "latency_p90_seconds", "latency_p99_seconds"]
    expected = "b" if disturbed == "cut" else ""
    assert set(frame.loc[speeds, "better"]) == {expected}
    assert frame.loc["flops_speedup", "better"] == "b"
    text = comparison(store, "full", "exit")
    withheld = [row for row in text.rows if row[4] == "withheld"]
    assert len(withheld) == (0 if disturbed == "cut" else len(speeds))
    assert all("*" in cell for row in withheld for cell in row[1:4])
    assert (QUOTA in text.notes[-1]) == (disturbed != "cut")
