"""How runs become arms, and which full model is whose reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.tables.frames import Runs
from analysis.tables.selection import series
from analysis.tables.summary import facts
from analysis.tables.table import table
from bench.errors import InputError
from tests.support.stored_runs import DEVICE, StoredRun, read_runs, write_runs


def test_a_store_is_read_once_per_run(tmp_path: Path) -> None:
    """A run named twice counts once; no run at all and an unknown run are errors."""
    store, ids = write_runs(tmp_path, StoredRun("only"))
    assert len(Runs.read(store, ids * 2).records) == 1
    with pytest.raises(InputError, match="no runs to read"):
        Runs.read(store, [])
    with pytest.raises(InputError, match="no run 'other'"):
        Runs.read(store, ["other"])


def test_the_full_run_is_that_of_the_same_seed_and_backbone(tmp_path: Path) -> None:
    """A run's reference has its task, seed and backbone; where there is none it is None."""
    arm = StoredRun("arm", method="entropy_exit", knobs={"exit_threshold": 0.1}, seed=2)
    fulls = [StoredRun("full1"), StoredRun("full2", seed=2), StoredRun("big", seed=2, backbone="big")]
    runs = read_runs(tmp_path, arm, *fulls, replace(arm, run_id="alone", seed=3))
    by_id = {record.run_id: record for record in runs.records}
    assert runs.full_model(by_id["arm"]) is by_id["full2"]
    assert runs.full_model(by_id["alone"]) is None


def test_seeds_that_were_not_timed_are_one_arm(tmp_path: Path) -> None:
    """Where nothing was timed, a timed metric has no mean over seeds and no deviation."""
    frame = table(read_runs(tmp_path, StoredRun("a", timed=0), StoredRun("b", seed=2, timed=0)))
    assert frame[["wall_speedup", "wall_speedup_seed_sd"]].isna().all(axis=None)
    assert frame.loc[0, "accuracy_seed_sd"] == 0


def test_seeds_that_share_a_fine_tuned_model_share_its_run(tmp_path: Path) -> None:
    """Two seeds of a method that start from one fine-tuned model are held to that model, and are one arm."""
    shared = {"finetune": "finetune-1"}
    arms = [
        StoredRun(f"arm{seed}", method="adapler", seed=seed, stages=shared, data={"finetune_seed": 1})
        for seed in (1, 2)
    ]
    runs = read_runs(tmp_path, *arms, StoredRun("full"), StoredRun("other", seed=2))
    assert {runs.full_model(record).run_id for record in runs.records if record.method == "adapler"} == {"full"}  # type: ignore[union-attr]
    assert [arm.run_ids for arm in runs.arms if not arm.reference] == [("arm1", "arm2")]


DATA: Mapping[str, Any] = {
    "split": "validation",
    "rows": 40,
    "train_rows": 80,
    "heldout_rows": 10,
    "dropped_rows": 10,
    "max_length": 64,
    "fingerprints": {"train": "t1", "heldout": "h1", "evaluation": "e1"},
}
OTHER_DATA: Mapping[str, Mapping[str, Any]] = {
    "split": {"split": "test"},
    "rows": {"rows": 39},
    "max_length": {"max_length": 32},
    "fingerprint": {"fingerprints": {"train": "t1", "heldout": "h1", "evaluation": "e2"}},
}


@pytest.mark.parametrize("changed", OTHER_DATA)
def test_a_full_run_of_other_evaluation_data_is_no_reference(changed: str, tmp_path: Path) -> None:
    """Another split, number of rows, length or content to evaluate on, and there is nothing to compare with."""
    full = StoredRun("full", data={**DATA, **OTHER_DATA[changed]})
    runs = read_runs(tmp_path, full, StoredRun("arm", method="entropy_exit", data=DATA))
    by_id = {record.run_id: record for record in runs.records}
    assert runs.full_model(by_id["arm"]) is None
    assert runs.full_model(by_id["full"]) is by_id["full"]


def test_the_reference_of_the_same_training_goes_first(tmp_path: Path) -> None:
    """Of four full models a run is compared with that of its training data, then of its fine-tuning."""
    arm = StoredRun(
        "arm", method="entropy_exit", data=DATA, options={"finetune": {"epochs": 3}, "exits": {"epochs": 1}}
    )
    other = {**DATA, "fingerprints": {"train": "t2", "heldout": "h2", "evaluation": "e1"}}
    fulls = [
        StoredRun("data", data=other, options={"finetune": {"epochs": 3}}),
        StoredRun("tuning", data=DATA, options={"finetune": {"epochs": 3}}),
        StoredRun("neither", data=other),
        StoredRun("untuned", data=DATA),
    ]
    for left, wanted in ((fulls, "tuning"), (fulls[::-1], "tuning"), ([fulls[0], *fulls[2:]], "untuned")):
        runs = read_runs(tmp_path / f"{wanted}-{left[0].run_id}", arm, *left)
        found = runs.full_model(runs.records[0])
        assert found is not None
        assert found.run_id == wanted


def test_seeds_with_a_model_each_are_not_mixed_with_seeds_of_one(tmp_path: Path) -> None:
    """Seeds that were fine-tuned anew are one arm, seeds that start from the first one's model another, and said so."""
    one = StoredRun("0", method="adapler", seed=0, data={**DATA, "finetune_seed": 0})
    own = [one, *(replace(one, run_id=f"{n}", seed=n, data={**DATA, "finetune_seed": n}) for n in (1, 2))]
    shared = [replace(one, run_id=f"{n}-0", seed=n) for n in (1, 2)]
    cases = {"own": own, "shared": [one, *shared], "both": [*own, *shared]}
    stored = {name: read_runs(tmp_path / name, *runs) for name, runs in cases.items()}
    arms = {name: [(arm.run_ids, arm.label) for arm in runs.arms] for name, runs in stored.items()}
    assert arms["own"] == [(("0", "1", "2"), "adapler")]
    assert arms["shared"] == [(("0", "1-0", "2-0"), "adapler")]
    assert arms["both"] == [
        (("0", "1", "2"), "adapler, fine-tuned with its own seed"),
        (("1-0", "2-0"), "adapler, fine-tuned with seed 0"),
    ]
    late = [replace(one, run_id=f"{n}", seed=n, data={**DATA, "finetune_seed": 2}) for n in (2, 0, 1)]
    (arm,) = read_runs(tmp_path / "late", *late).arms
    assert arm.seeds == (0, 1, 2)
    told = [dict(facts(stored[name]))["seeds"] for name in ("own", "shared")]
    assert ["fine-tuned with seed 0" in line for line in told] == [False, True]


def test_seeds_of_an_arm_are_averaged(tmp_path: Path) -> None:
    """Two seeds with 4 and 8 wrong of 40 are one arm with accuracy 0.85 and the standard deviation of 0.9 and 0.8."""
    frame = table(read_runs(tmp_path, StoredRun("a", wrong=range(4)), StoredRun("b", seed=2, wrong=range(8))))
    assert len(frame) == 1
    assert frame.loc[0, "accuracy"] == pytest.approx(0.85)
    assert frame.loc[0, "accuracy_seed_sd"] == pytest.approx(math.sqrt(0.005))
    assert (frame.loc[0, "seeds"], frame.loc[0, "run_ids"]) == ("1, 2", "a b")


def test_runs_that_must_not_be_averaged_stay_apart(tmp_path: Path) -> None:
    """Another device, another backbone and a repeated seed are other arms, each with its own label."""
    base = StoredRun("aaaaaaaa1")
    frame = table(
        read_runs(
            tmp_path,
            base,
            replace(base, run_id="gpu", device="Test GPU"),
            replace(base, run_id="big", backbone="big-bert"),
            replace(base, run_id="again"),
        )
    )
    assert len(frame) == frame["arm"].nunique() == 4
    assert any("Test GPU" in label for label in frame["arm"])
    assert any("big-bert" in label for label in frame["arm"])
    assert any("again" in label for label in frame["arm"])


def test_seeds_that_hold_out_other_rows_are_one_arm(tmp_path: Path) -> None:
    """Of the same 100 training rows seeds hold out and drop different ones; they are averaged all the same."""
    drawn = {"train_rows": 70, "dropped_rows": 20, "fingerprints": {"train": "t2", "heldout": "h2", "evaluation": "e1"}}
    runs = read_runs(tmp_path, StoredRun("a", data=DATA), StoredRun("b", seed=2, data={**DATA, **drawn}))
    assert [arm.run_ids for arm in runs.arms] == [("a", "b")]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"split": "test"}, "test"),
        ({"rows": 39}, "39 rows"),
        ({"train_rows": 180}, "200 training rows"),
        ({"max_length": 32}, "32 word pieces"),
    ],
    ids=str,
)
def test_runs_of_other_data_are_other_arms_and_series(changed: Mapping[str, Any], told: str, tmp_path: Path) -> None:
    """Seeds with another split, other numbers of rows or another length are not averaged, and labels say why."""
    runs = read_runs(tmp_path, StoredRun("a", data=DATA), StoredRun("b", seed=2, data={**DATA, **changed}))
    (other,) = [arm for arm in runs.arms if arm.run_ids == ("b",)]
    assert len(runs.arms) == 2
    assert other.label == series(other, runs) == f"full, {told}"


def test_evaluation_rows_of_other_content_are_not_averaged(tmp_path: Path) -> None:
    """As many rows of the same split, but others: two arms, told apart by the fingerprints of the rows."""
    other = {**DATA, **OTHER_DATA["fingerprint"]}
    runs = read_runs(tmp_path, StoredRun("demo-full-0a1", data=DATA), StoredRun("demo-full-0a2", seed=2, data=other))
    assert {arm.label for arm in runs.arms} == {"full, evaluation data e1", "full, evaluation data e2"}


def test_other_training_options_are_told(tmp_path: Path) -> None:
    """Arms that were trained otherwise are named by what differs; a knob that is an option too is told once."""
    trained = [
        StoredRun(
            f"r{weights}", method="m", knobs={"phi": 1}, options={"gates": {"phi": 1, "weights": weights, "epochs": 8}}
        )
        for weights in ("none", "balanced")
    ]
    swept = StoredRun(
        "swept", method="m", knobs={"phi": 2}, options={"gates": {"phi": 2, "weights": "none", "epochs": 8}}
    )
    runs = read_runs(tmp_path, StoredRun("full"), *trained, swept)
    labels = {arm.run_ids[0]: arm.label for arm in runs.arms}
    assert labels == {
        "full": "full",
        "rnone": "m phi=1, gates weights=none",
        "rbalanced": "m phi=1, gates weights=balanced",
        "swept": "m phi=2",
    }
    assert {series(arm, runs) for arm in runs.arms} == {"full", "m, gates weights=none", "m, gates weights=balanced"}


def test_seeds_of_two_versions_are_two_arms(tmp_path: Path) -> None:
    """Another version of the code may train or measure another way, and labels say which it was."""
    versions = [{"versions": {"efficient-bert": name}} for name in ("0.1.0", "0.2.0")]
    one, other = StoredRun("a", environment=versions[0]), StoredRun("b", seed=2, environment=versions[1])
    runs = read_runs(tmp_path, one, other)
    assert [arm.label for arm in runs.arms] == ["full, version 0.1.0", "full, version 0.2.0"]


def test_the_reference_of_the_same_version_goes_first(tmp_path: Path) -> None:
    """Of two full models that neither was fine-tuned for the run, the one of its version, though the other is newer."""
    versions = [{"versions": {"efficient-bert": name}} for name in ("0.1.0", "0.2.0")]
    arm = StoredRun("arm", method="static_depth", environment=versions[0], stages={"finetune": ""})
    fulls = [StoredRun(f"full-{number}", environment=own) for number, own in enumerate(versions)]
    for order in (fulls, fulls[::-1]):
        runs = read_runs(tmp_path / order[0].run_id, arm, *order)
        found = runs.full_model(runs.records[0])
        assert found is not None
        assert found.run_id == "full-0"


def test_the_model_that_was_fine_tuned_for_a_run_is_its_reference(tmp_path: Path) -> None:
    """Of two full models that are alike in all else, the one with the run's own fine-tuned artifact."""
    own = {"finetune": "own"}
    arm = StoredRun("arm", method="entropy_exit", stages=own)
    for fulls in ([StoredRun("a", stages=own), StoredRun("z")], [StoredRun("z", stages=own), StoredRun("a")]):
        runs = read_runs(tmp_path / fulls[0].run_id, arm, *fulls)
        found = runs.full_model(runs.records[0])
        assert found is not None
        assert found.run_id == fulls[0].run_id


def test_seeds_on_two_devices_are_two_arms(tmp_path: Path) -> None:
    """Times of different devices are never averaged, not even as seeds of one arm."""
    frame = table(read_runs(tmp_path, StoredRun("cpu"), StoredRun("gpu", seed=2, device="Test GPU")))
    assert set(frame["device"]) == {DEVICE, "Test GPU"}
