"""The search for the best trade-off: on unseen rows alone, by the rule, kept in a file that a run reads back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.backends.runners import EagerRunner, make_runner
from bench.errors import InputError
from bench.planning.plan import Arm, Plan
from bench.registry import METHODS, stages_of
from bench.runs.evaluation import evaluate
from bench.runs.run import metric_values
from bench.runs.search import Point, best_point, method_to_search, read_entry, write_entry
from efficient_bert.training.flexible.gating import GATES, heldout_folds
from tests.support.command_line import Answer, call
from tests.support.tiny_files import write_backbone, write_sst2

FULL = Point({}, 0.9, 1.0)
LISTS = "0.5,1;1,1"
QUICK = ("finetune", "width", "depth", "final", "gates")


def test_the_fastest_point_that_holds_up_is_chosen() -> None:
    """Of the points that lose at most the allowed drop, to the last digit, the one with the highest speed-up."""
    found = [Point({"k": k}, score, speedup) for k, score, speedup in ((1, 0.91, 1.2), (2, 0.89, 1.5), (3, 0.88, 2.0))]
    assert best_point(FULL, found, allowed_drop=0.01).knobs == {"k": 2}
    assert best_point(FULL, found, allowed_drop=0.02).knobs == {"k": 3}
    assert best_point(FULL, found, allowed_drop=0.0).knobs == {"k": 1}


def test_no_point_is_chosen_where_none_holds_up() -> None:
    """A slower point is no choice, nor is one that loses more; one plain line says so."""
    slower, worse = Point({}, 0.95, 0.99), Point({}, 0.7, 3.0)
    begin = r"^no setting is faster than the full model and loses at most 0\.01 of its score, 0\.900: of the "
    with pytest.raises(InputError, match=begin + r"2 tried, the best of the faster ones scores 0\.700; try other "):
        best_point(FULL, [slower, worse], allowed_drop=0.01)
    with pytest.raises(InputError, match=begin + "1 tried, none is faster and has a score; try other "):
        best_point(FULL, [slower], allowed_drop=0.01)


def test_an_entry_comes_back_as_it_is_typed(tmp_path: Path) -> None:
    """Lists are lists in the file and text for the command; entries of other tasks stay."""
    path = tmp_path / "found" / "config.json"
    knobs = {"graft": "yes", "num_gates": 0, "width_mult_list": "0.5,0.75,0.75,0.75", "exit_threshold": 0.15}
    write_entry(path, task="rte", method="flexible", knobs=knobs)
    write_entry(path, task="sst2", method="full", knobs={})
    write_entry(path, task="sst2", method="prefix_exit", knobs={"exit_threshold": 0.05})
    assert json.loads(path.read_text(encoding="utf8"))["rte"]["width_mult_list"] == [0.5, 0.75, 0.75, 0.75]
    assert read_entry(path, "rte") == ("flexible", {name: str(value) for name, value in knobs.items()})
    assert read_entry(path, "sst2") == ("prefix_exit", {"exit_threshold": "0.05"})


def test_a_published_entry_is_read(tmp_path: Path) -> None:
    """Upper-case names with hyphens, and no method, are Flexible BERT's."""
    path = tmp_path / "config.json"
    path.write_text('{"SST-2": {"width_mult_list": [0.5, 0.55, 0.55, 0.75], "exit_threshold": 0.4}}', encoding="utf8")
    assert read_entry(path, "sst2") == ("flexible", {"width_mult_list": "0.5,0.55,0.55,0.75", "exit_threshold": "0.4"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist; bench search writes it"),
        ('{"rte": {"exit_threshold": 0.1},}', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"rte": 3}', "must be a JSON object"),
        ('{"cola": {}}', "no entry for task 'rte'; it has: cola"),
        ('{"rte": {"threshold": 0.1}}', "sets 'threshold' for task 'rte', but method 'flexible' has: exit_threshold"),
        ('{"rte": {"method": "flexibel"}}', "Did you mean 'flexible'"),
        ('{"rte": {"width_mult_list": ["0.5", "0.75"]}}', r"config.json sets 'width_mult_list' .* a list of numbers"),
        ('{"rte": {"width_mult_list": [[0.5], [0.75]]}}', r"to \[\[0.5\], \[0.75\]\], but"),
        ('{"rte": {"exit_threshold": {"a": 1}}}', "a value is a number, a text or a list of numbers"),
        ('{"rte": {"exit_threshold": null}}', "to null, but a value is a number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    """One line with the file and what is wrong."""
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text, encoding="utf8")
    with pytest.raises(InputError, match=message) as caught:
        read_entry(path, "rte")
    assert "\n" not in str(caught.value)


def test_rows_that_gates_learnt_on_are_left_out() -> None:
    """A quarter of the held-out rows is unseen where gates learn on the others; all are where they learn elsewhere."""
    learn, select = heldout_folds(40, 3)
    assert sorted([*learn, *select]) == list(range(40))
    assert len(select) == 10
    assert GATES.untouched_rows(40, {"label_split": "heldout"}, 3) == select
    assert list(GATES.untouched_rows(40, {"label_split": "train"}, 3)) == list(range(40))
    others = {stage.name: stage for method in METHODS.values() for stage in stages_of(method) if stage is not GATES}
    options: dict[str, Any] = {"importance_split": "train", "importance_rows": 2}
    assert all(list(stage.untouched_rows(5, options, 0)) == [0, 1, 2, 3, 4] for stage in others.values())
    options["importance_split"] = "heldout"
    left = {name for name, stage in others.items() if list(stage.untouched_rows(5, options, 0)) == [1, 3, 4]}
    assert left == {"rewire", "width"}


@dataclass(frozen=True)
class Searched:
    """A store in which a search was made."""

    folder: Path
    base: tuple[object, ...]
    grid: tuple[object, ...]
    answer: Answer

    @property
    def file(self) -> Path:
        return self.folder / "best.json"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """`bench search` over two width lists and two thresholds of a tiny model."""
    folder = tmp_path_factory.mktemp("search")
    places: dict[str, Any] = {
        "--data-dir": write_sst2(folder / "data", train=200, dev=20),
        "--backbone": write_backbone(folder / "backbone"),
        "--store": folder,
    }
    options = {f"--{stage}-epochs": 1 for stage in QUICK} | {"--width-list": "0.5,1", "--depth-list": "0.5,1"}
    base = ("--task", "sst2", "--device", "cpu", *(part for pair in {**places, **options}.items() for part in pair))
    grid = ("--method", "flexible", "--width-mult-list", LISTS, "--exit-threshold", "0.05,0.693")
    return Searched(
        folder, base, grid, call("search", *base, *grid, "--allowed-drop", 1, "--out", folder / "best.json")
    )


def test_a_search_tries_every_point_and_keeps_one(searched: Searched) -> None:
    """The full model and four points are listed; with any loss allowed the fastest one is kept."""
    assert searched.answer.code == 0, searched.answer.err
    lines = [line for line in searched.answer.out.splitlines() if line.startswith("point")]
    assert len(lines) == 5
    entry = json.loads(searched.file.read_text(encoding="utf8"))["sst2"]
    fastest = max(lines, key=lambda line: float(line.split("speed-up ")[1].split(":")[0]))
    assert f"exit_threshold={entry['exit_threshold']}" in fastest
    assert entry["method"] == "flexible"
    assert entry["width_mult_list"] == [0.5, 1.0]


def test_a_search_counts_unseen_rows_alone(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm, the full model too, is scored on the quarter of the held-out rows that no stage learnt on."""
    scored: list[int] = []

    def count(table: Any, names: Any) -> dict[str, float]:
        scored.append(len(table))
        return metric_values(table, names)

    monkeypatch.setattr("bench.runs.search.metric_values", count)
    again = call("search", *searched.base, *searched.grid, "--allowed-drop", 1, "--out", searched.folder / "again.json")
    assert again.code == 0, again.err
    heldout = int(re.findall(r"([\d,]+) held out", again.out)[0].replace(",", ""))
    assert scored == [heldout // 4] * 5
    assert heldout >= 8
    assert (searched.folder / "again.json").read_bytes() == searched.file.read_bytes()


def test_thresholds_are_read_off_one_pass(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search passes once for the full model and once for each width list; what it keeps is what a run would find."""
    passed: list[str] = []

    def watched(plan: Plan, arm: Arm, models: Any) -> EagerRunner:
        passed.append(arm.label)
        if len(passed) == 1:
            for own in plan.arms:
                (part,) = (plan.runs.partial(own.run_id) / "heldout").glob("*.parquet")
                found, expected = (
                    pq.read_table(part),
                    evaluate(make_runner(plan, own, models), plan.data.heldout.to_list()),
                )
                assert found.drop(["probabilities"]).equals(expected.drop(["probabilities"]))
                one, other = (np.array(table["probabilities"].to_pylist()) for table in (found, expected))
                np.testing.assert_allclose(one, other, atol=1e-6)
        return make_runner(plan, arm, models)

    monkeypatch.setattr("bench.runs.search.make_runner", watched)
    again = call("search", *searched.base, *searched.grid, "--allowed-drop", 1, "--out", searched.folder / "once.json")
    assert again.code == 0, again.err
    lists = [f"flexible graft=yes num_gates=0 width_mult_list={own} exit_threshold=0.0" for own in LISTS.split(";")]
    assert passed == ["full", *lists]


def test_a_run_reads_the_choice_back(searched: Searched) -> None:
    """`bench run --config` measures the chosen point without training; a flag goes before the file."""
    rest = ("--latency-examples", 0, "--report", searched.folder / "report", "--config", searched.file)
    answer = call("run", *searched.base, *rest)
    assert answer.code == 0, answer.err
    assert "stage     gates: cached" in answer.out
    entry = json.loads(searched.file.read_text(encoding="utf8"))["sst2"]
    chosen = next(record for record in answer.records if record["method"] == "flexible")
    assert chosen["knobs"]["exit_threshold"] == entry["exit_threshold"]
    assert chosen["knobs"]["width_mult_list"] == "0.5,1"
    again = call("run", *searched.base, *rest, "--exit-threshold", "0.2")
    assert {record["knobs"].get("exit_threshold") for record in again.records} == {None, 0.2}
    other = call("run", *searched.base, *rest, "--method", "full")
    assert other.code == 2
    assert "give --method flexible" in other.err


def test_a_search_is_for_one_method() -> None:
    """None, or two, are refused in one line."""
    for methods in ((), ("--method", "flexible", "--method", "full")):
        answer = call("search", "--task", "demo", *methods)
        assert answer.code == 2
        assert "a search is for one method" in answer.err


def test_a_search_needs_knobs(tmp_path: Path) -> None:
    """The full model is refused before anything is trained, and every other method is named."""
    answer = call("search", "--task", "demo", "--preset", "smoke", "--method", "full", "--store", tmp_path)
    assert (answer.code, answer.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    others = ", ".join(name for name, method in METHODS.items() if name != "full" and not method.control_of)
    assert f"method 'full' has no knobs, so there is nothing to search; give one of {others}" in answer.err
    assert method_to_search(["flexible"]) == "flexible"


def test_a_search_needs_rows_that_nothing_learnt_on(tmp_path: Path) -> None:
    """Where importance reads every held-out row, the line says so, and nothing has been trained."""
    data = write_sst2(tmp_path / "sst2", train=96, dev=8)
    small = ("--backbone", write_backbone(tmp_path / "bert"), "--preset", "smoke", "--max-length", 16)
    lists = ("--method", "prefix_exit", "--width-list", "0.5,1", "--depth-list", "0.5,1")
    places = ("--data-dir", data, "--store", tmp_path, "--out", tmp_path / "out.json")
    answer = call("search", "--task", "sst2", *small, *lists, *places, "--rewire-importance-split", "heldout")
    assert answer.code == 2
    assert re.search(r"of \d+ held-out rows none is left to search on: importance or gates learn on", answer.err)
    assert not (tmp_path / "artifacts").exists()
    answer = call("search", "--task", "sst2", *small, *lists, *places, "--allowed-drop", "nan")
    assert (answer.code, "nan is no number; give one of 0 to 1" in answer.err) == (2, True)


def test_controls_are_not_searched() -> None:
    """A control follows what is chosen for its method: the search is for that one."""
    controls = [name for name, method in METHODS.items() if method.control_of]
    assert "random_widths" in controls
    for name in controls:
        with pytest.raises(InputError, match=f"{name!r} is a control.* chosen for {METHODS[name].control_of}"):
            method_to_search([name])


def test_lists_keep_all_their_digits(tmp_path: Path) -> None:
    """A list in the file is the knob that was searched, whole numbers without a point."""
    path = tmp_path / "found.json"
    path.write_text('{"SST-2": {"method": "flexible", "width_mult_list": [0.3333333333, 0.5, 1.0]}}', encoding="utf8")
    assert read_entry(path, "sst2")[1]["width_mult_list"] == "0.3333333333,0.5,1"


def test_a_file_that_cannot_be_read_is_refused_before_a_search(tmp_path: Path) -> None:
    """Nothing is planned or trained where the file for the choice is no JSON, and it stays as it is."""
    path = tmp_path / "best.json"
    path.write_text('{"rte": {"exit_threshold": 0.1},}', encoding="utf8")
    asked = ("--task", "demo", "--preset", "smoke", "--method", "flexible", "--store", tmp_path / "store")
    answer = call("search", *asked, "--out", path)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "best.json is not valid JSON" in answer.err
    assert not (tmp_path / "store").exists()
    assert path.read_text(encoding="utf8") == '{"rte": {"exit_threshold": 0.1},}'
