"""Runs are seeds of one arm only where everything that decides a number is the same; what differs is said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.tables.compare import comparison
from analysis.tables.frames import Runs
from analysis.tables.identity import backbone_names
from analysis.tables.selection import choices, series
from bench.store.records import Record
from bench.store.runs import RunStore
from tests.support.stored_runs import StoredRun

VERSIONS = {"efficient-bert": "0.2.5", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6"}
ENVIRONMENT: Mapping[str, Any] = {
    "versions": VERSIONS,
    "backbone_identity": "sha256:aaaa111122223333",
    "device_name": "Test CPU",
    "torch_threads": 2,
    "attention": "sdpa",
    "float32_matmul_precision": "highest",
}
DATA: Mapping[str, Any] = {
    "train_rows": 80,
    "heldout_rows": 20,
    "dropped_rows": 0,
    "max_length": 64,
    "fingerprints": {"train": "t1", "heldout": "h1", "evaluation": "eeee0000ffff", "training": "wwww0000"},
}
ONE = StoredRun("demo-full-0a1", seed=0, examples=4, environment=ENVIRONMENT, data=DATA)
SECOND_PRINTS = {"train": "t2", "heldout": "h2", "evaluation": "eeee0000ffff", "training": "wwww0000"}
SECOND = replace(ONE, run_id="demo-full-0a2", seed=1, data={**DATA, "fingerprints": SECOND_PRINTS})


def runs_of(*runs: StoredRun, timing: Mapping[str, Mapping[str, Any]] | None = None) -> Runs:
    """The runs, as if they had been read; `timing` holds by run what else is recorded of its protocol."""
    more = timing or {}
    records = [run.record() for run in runs]
    records = [replace(own, timing={**own.timing, **more.get(own.run_id, {})}) for own in records]
    return Runs(tuple(records), {run.run_id: run.table().to_pandas() for run in runs})


def with_environment(run: StoredRun, **changed: Any) -> StoredRun:
    """The run under another environment."""
    return replace(run, environment={**run.environment, **changed})


def with_prints(run: StoredRun, **changed: str | None) -> StoredRun:
    """The run with other fingerprints; None takes one away."""
    prints = {**run.data["fingerprints"], **changed}
    return replace(run, data={**run.data, "fingerprints": {k: v for k, v in prints.items() if v is not None}})


def test_seeds_of_the_same_are_one_arm() -> None:
    """Two seeds that are alike in all that decides a number are one arm, and its label says no more than before."""
    (arm,) = runs_of(ONE, SECOND).arms
    assert (arm.label, arm.seeds) == ("full", (0, 1))


OTHERS: Mapping[str, tuple[StoredRun, str]] = {
    "weights": (with_environment(SECOND, backbone_identity="sha256:bbbb111122223333"), "tiny-bert (bbbb1111)"),
    "commit": (with_environment(SECOND, backbone_identity="org/tiny-bert@cccc1111dddd"), "tiny-bert (cccc1111)"),
    "evaluation": (with_prints(SECOND, evaluation="0000ffffeeee"), "evaluation data 0000ffff"),
    "training": (with_prints(SECOND, training="vvvv0000"), "training data vvvv0000"),
    "torch": (with_environment(SECOND, versions={**VERSIONS, "torch": "2.12.0"}), "torch 2.12.0"),
    "transformers": (with_environment(SECOND, versions={**VERSIONS, "transformers": "5.22.0"}), "transformers 5.22.0"),
    "attention": (with_environment(SECOND, attention="eager"), "attention eager"),
    "products": (with_environment(SECOND, float32_matmul_precision="high"), "float32 matmul precision high"),
    "files": (
        replace(SECOND, data={**SECOND.data, "contents": {"width.words": "9999aaaabbbb"}}),
        "width.words 9999aaaa",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_model_is_another_arm_and_said_so(other: str) -> None:
    """Seeds of other weights, rows, packages, numerics or files are not averaged, and labels say why."""
    changed, told = OTHERS[other]
    runs = runs_of(ONE, changed)
    by_run = {arm.run_ids[0]: arm for arm in runs.arms}
    assert len(by_run) == 2
    assert by_run["demo-full-0a2"].label == series(by_run["demo-full-0a2"], runs) == f"full, {told}"


def test_threads_and_protocols_are_told() -> None:
    """Latencies of other numbers of threads or rounds are never averaged, whether or not a label said so before."""
    for changed, told in (
        ({"threads": 1}, "1 CPU thread"),
        ({"rounds": 9}, "timing rounds 9"),
        ({"examples": 7}, "timing examples 7"),
        ({"clock": "another"}, "timing clock another"),
    ):
        runs = runs_of(ONE, SECOND, timing={"demo-full-0a2": changed})
        assert f"full, {told}" in {arm.label for arm in runs.arms}
    untimed = replace(ONE, timed=0), with_environment(replace(SECOND, timed=0), device_name="Test GPU")
    assert {arm.label for arm in runs_of(*untimed).arms} == {"full, run on Test CPU", "full, run on Test GPU"}


def test_runs_of_one_seed_and_other_rows_are_told_without_the_whole() -> None:
    """Records of earlier versions hold no fingerprint of all training rows; those of one seed tell them apart."""
    one, other = (with_prints(replace(ONE, run_id=f"r-{name}"), train=name, training=None) for name in ("ta", "tb"))
    assert {arm.label for arm in runs_of(one, other).arms} == {"full, training data ta", "full, training data tb"}
    late = with_prints(SECOND, training=None)
    assert [arm.seeds for arm in runs_of(with_prints(ONE, training=None), late).arms] == [(0, 1)]
    assert len(runs_of(one, other, late).arms) == 3


def test_a_full_model_of_other_weights_or_rows_is_no_reference() -> None:
    """A run is held to a full model of its own backbone and rows; of another of the same name it has none."""
    point = replace(ONE, run_id="demo-m-1", method="m", heldout={"accuracy": 0.9, "flops_speedup": 2.0})
    for full in (
        OTHERS["weights"][0],
        with_prints(ONE, train="other"),
        OTHERS["commit"][0],
        with_prints(ONE, heldout="x"),
    ):
        runs = runs_of(replace(full, seed=0), point)
        assert runs.full_model(runs.records[1]) is None
        assert "lacks a full model" in choices(runs)[0]
    runs = runs_of(ONE, point)
    assert runs.full_model(runs.records[1]) is runs.records[0]


def test_choices_name_the_backbone_whose_point_they_are() -> None:
    """Where two backbones share a name, each has a choice of its own, with the beginning of its hash."""
    fast = replace(ONE, method="m", heldout={"accuracy": 0.9, "flops_speedup": 2.0})
    points = [
        replace(with_environment(run, backbone_identity=f"sha256:{own}"), run_id=f"{run.method}-{own}")
        for own in ("aaaa1111", "bbbb2222")
        for run in (ONE, fast)
    ]
    named = [line.partition(":")[0] for line in choices(runs_of(*points))]
    assert named == ["chosen  m, tiny-bert (aaaa1111)", "chosen  m, tiny-bert (bbbb2222)"]


def test_the_comparison_of_two_names_their_backbones(tmp_path: Path) -> None:
    """What is compared is named, with hashes where two backbones share a name and without where they do not."""
    store = RunStore(tmp_path)
    for run in (ONE, OTHERS["weights"][0]):
        store.put(run.record(), run.table())
    notes = comparison(store, "demo-full-0a1", "demo-full-0a2").notes
    assert "tiny-bert (aaaa1111)" in notes[0]
    assert "tiny-bert (bbbb1111)" in notes[1]
    assert backbone_names(runs_of(ONE, SECOND).records) == ["tiny-bert"]
    record: Record = replace(ONE, backbone="other").record()
    assert backbone_names([ONE.record(), record]) == ["tiny-bert", "other"]
