"""Only runs over the same texts are held against each other; and where stored runs are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.figures.curves import points
from analysis.tables.compare import compare
from analysis.tables.identity import same_examples
from analysis.tables.subnets import pair_runs
from bench.errors import InputError
from bench.registry import PLOTS
from bench.store.runs import RunStore
from tests.support.command_line import call
from tests.support.stored_runs import StoredRun, gates, read_runs, subnets, sweep, write_runs

PRINTS: Mapping[str, Any] = {"fingerprints": {"train": "t1", "heldout": "h1", "evaluation": "aaaa1111"}}
OTHER: Mapping[str, Any] = {"fingerprints": {"train": "t1", "heldout": "h1", "evaluation": "bbbb2222"}}
A = StoredRun("demo-full-a", examples=6, timed=0, data=PRINTS)
B = replace(A, run_id="demo-m-b", method="m", wrong=(1,))


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (replace(B, data=OTHER), ["aaaa1111", "bbbb2222", "texts, pairs or labels differ", "--data-dir"]),
        (replace(B, data={**PRINTS, "split": "test"}), ["'validation'", "'test'", "one split"]),
        (replace(B, task="sst2"), ["'demo'", "'sst2'", "one task"]),
        (replace(B, examples=5), ["1 only in the first", "0 only in the second"]),
    ],
    ids=["texts", "split", "task", "rows"],
)
def test_runs_over_other_texts_are_refused(other: StoredRun, parts: list[str], tmp_path: Path) -> None:
    """Equal ids and labels are not enough: other fingerprints, splits, tasks or rows are one line that says both."""
    store, _ = write_runs(tmp_path / "runs", A, other)
    with pytest.raises(InputError, match="run") as refusal:
        compare(store, A.run_id, other.run_id)
    assert all(part in str(refusal.value) for part in parts)
    answer = call("compare", A.run_id, other.run_id, "--store", tmp_path)
    assert (answer.code, answer.err.count("\n"), answer.out) == (2, 1, "")


def test_runs_without_a_fingerprint_are_paired_by_their_ids(tmp_path: Path) -> None:
    """Records of versions that kept no fingerprint are read as before; what is known of one says nothing of both."""
    store, _ = write_runs(tmp_path, replace(A, data={}), B)
    assert compare(store, A.run_id, B.run_id).set_index("metric").loc["accuracy", "difference"] == pytest.approx(-1 / 6)
    assert same_examples(replace(A, data={}).record(), B.record())


def test_examples_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    """The same table in another order gives the same differences; with other ids there is nothing to pair."""
    store, _ = write_runs(tmp_path / "one", A, B)
    table = B.table()
    turned = RunStore(tmp_path / "two")
    turned.put(A.record(), A.table())
    turned.put(B.record(), table.take(list(reversed(range(len(table))))))
    found = [compare(own, A.run_id, B.run_id)[["a", "b", "difference"]] for own in (store, turned)]
    assert found[0].equals(found[1])


def test_seeds_over_other_texts_are_no_pair(tmp_path: Path) -> None:
    """Within a report, too: runs of one seed that report on other texts are left out of a paired difference."""
    runs = read_runs(tmp_path, A, B, replace(B, run_id="demo-m-c", data=OTHER))
    assert pair_runs(runs, [A.run_id], [B.run_id]) == [(A.run_id, B.run_id)]
    assert pair_runs(runs, [A.run_id], ["demo-m-c"]) == []


def test_a_rival_is_one_over_the_same_texts(tmp_path: Path) -> None:
    """What chooses among subnets is held to a subnet over its own texts; over others there is none."""
    family = [replace(run, data=PRINTS, timed=0) for run in subnets()[:-1]]
    for data, wanted in ((PRINTS, True), (OTHER, False)):
        chooser = replace(gates(stages={"final": "f"}), data=data, timed=0)
        frame = PLOTS["dynamic_front"].data(read_runs(tmp_path / str(wanted), *family, chooser))
        row = frame[frame["method"] == "width_gates"].iloc[0]
        assert (row["rival"] != "-") == wanted


def test_no_point_beats_one_over_other_texts(tmp_path: Path) -> None:
    """Each set of texts has a front of its own: a worse point over other texts is not beaten by a better one."""
    better, worse = replace(B, depths=(3,)), replace(B, run_id="demo-m-c", depths=(6,), wrong=(1, 2, 3), data=OTHER)
    frame = points(read_runs(tmp_path, better, worse), "flops_speedup")
    assert frame["pareto"].tolist() == [True, True]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with four runs, whose report is quick."""
    root = tmp_path_factory.mktemp("store")
    write_runs(root / "runs", *(replace(run, timed=0, examples=10) for run in sweep()[:2]))
    (root / "artifacts").mkdir()
    return root


@pytest.mark.parametrize("place", ["", "/", "/runs", "/runs/", "/runs/../runs"])
def test_a_report_takes_a_store_or_its_runs(place: str, store: Path, tmp_path: Path) -> None:
    """A store, its runs/ folder, with a slash at the end or without: the report is of the same runs."""
    answer = call("report", f"{store}{place}", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "2 runs;" in (tmp_path / "out" / "index.html").read_text(encoding="utf8")


def test_a_report_takes_one_run(store: Path, tmp_path: Path) -> None:
    """A run's own folder is reported alone."""
    assert call("report", store / "runs" / "demo-full-1", "--out", tmp_path / "out").code == 0
    assert "1 run;" in (tmp_path / "out" / "index.html").read_text(encoding="utf8")


def test_a_comparison_takes_a_store_or_its_runs(store: Path) -> None:
    """`--store` names the store or its runs/ folder, and both find the two runs."""
    answers = [call("compare", "demo-full-1", "demo-exit-0.1-1", "--store", own) for own in (store, store / "runs/")]
    assert [answer.code for answer in answers] == [0, 0]
    assert answers[0].out == answers[1].out


def test_what_was_looked_for_in_vain_is_said(store: Path, tmp_path: Path) -> None:
    """A folder without finished runs is one line: where they were looked for, how many are under way, what to do."""
    (tmp_path / "runs" / ".demo-full-1.partial").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path: [f"neither does {tmp_path / 'runs'}", "1 unfinished", "bench run --store"],
        tmp_path / "runs": ["holds no finished run (1 unfinished"],
        tmp_path / "empty": [f"neither does {tmp_path / 'empty' / 'runs'}; make some"],
        tmp_path / "absent": ["does not exist", "give the runs/ folder"],
    }
    for folder, parts in cases.items():
        answer = call("report", folder, "--out", tmp_path / "out")
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert all(part in answer.err for part in parts), answer.err
    other = call("report", store, "--task", "rte", "--out", tmp_path / "out")
    assert (other.code, "no finished run of task 'rte', but of demo" in other.err) == (2, True)
    assert not (tmp_path / "out").exists()
