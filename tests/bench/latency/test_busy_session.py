"""A timing session on a busy machine, from fake readings: what is stored, what is said, and how to time again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow as pa
import pytest

from bench.errors import InputError
from bench.latency.session import time_arms
from bench.machine.load import Reading
from bench.planning.describe import describe
from bench.planning.plan import Plan, make_plan
from bench.planning.settings import Settings
from bench.progress import Bars
from bench.runs import run
from bench.runs.run import carry_out
from bench.runs.train import train_missing
from tests.support.tiny_files import write_backbone, write_sst2

EXAMPLES = 3
"""Too few for rounds to be compared, whose real times no test may depend on."""

QUIET = [Reading(wall=second, running=second, used=second, busy=second) for second in (0.0, 10.0, 20.0)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two arms of a tiny backbone, each timed on a few examples; its store holds their trained model."""
    folder = tmp_path_factory.mktemp("busy")
    settings = Settings(
        "sst2",
        methods=("static_depth",),
        knobs={"depth_mult": ("0.5",)},
        backbone=str(write_backbone(folder / "bert")),
        data_dir=write_sst2(folder / "sst2", train=40, dev=12),
        store=folder,
        options={"finetune.epochs": 1},
        latency_examples=EXAMPLES,
        rounds=2,
    )
    train_missing(make_plan(settings), Bars())
    return settings


def plan_in(store: Path, settings: Settings, **changes: Any) -> Plan:
    """A plan on a store of its own that holds the trained model."""
    if not store.exists() or not any(store.iterdir()):
        copytree(settings.store / "artifacts", store / "artifacts")
    return make_plan(replace(settings, store=store, **changes))


@dataclass
class Machine:
    """Carries out plans under readings that are given, and keeps what was said."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    said: str = ""

    def carry_out(self, plan: Plan, readings: Iterable[Reading]) -> list[dict[str, Any]]:
        """Each arm's timing, as it is stored."""
        given = iter(readings)
        self.monkeypatch.setattr(run, "time_arms", partial(time_arms, reading=lambda: next(given)))
        run_ids = carry_out(plan, Bars())
        assert next(given, None) is None, (
            "the machine is read before the warm-up, after it, and at the end; about throughput twice"
        )
        self.said = self.capsys.readouterr().err
        return [dict(plan.runs.record(run_id).timing) for run_id in run_ids]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Machine:
    """A machine whose readings are given."""
    return Machine(monkeypatch, capsys)


def after(reading: Reading, **changes: Any) -> Reading:
    """A reading with some counters changed."""
    return replace(reading, **changes)


def cases() -> dict[str, tuple[list[Reading], str]]:
    """Readings of busy sessions, and what is said of each."""
    end = QUIET[2]
    return {
        "others": ([*QUIET[:2], after(end, busy=29.0)], "other processes used 0.9"),
        "waiting": ([*QUIET[:2], after(end, running=14.0)], "off its core for 60% of the time"),
        "stolen": ([after(QUIET[0], stolen=0.0), after(QUIET[1], stolen=0.0), after(end, stolen=5.0)], "the host of"),
        "quota": (
            [after(QUIET[0], held_back=0.0), after(QUIET[1], held_back=0.0), after(end, held_back=5.0)],
            "a quota",
        ),
    }


@pytest.mark.parametrize("kind", cases())
def test_a_busy_session_is_stored_and_said(
    tmp_path: Path, machine: Machine, settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every arm's record says why, beside the readings; the last line of the session says it and what to do."""
    monkeypatch.setattr("bench.machine.load.usable_cores", lambda: 2)
    readings, words = cases()[kind]
    for timing in machine.carry_out(plan_in(tmp_path, settings), readings):
        assert len(timing["disturbed_by"]) == 1
        assert words in timing["disturbed_by"][0]
        assert timing["load"]["seconds"] == 10
    (line,) = [line for line in machine.said.splitlines() if line.startswith("latencies are marked")]
    assert words in line
    assert "--time-again" in line


def test_a_quiet_session_is_stored_and_nothing_said(tmp_path: Path, machine: Machine, settings: Settings) -> None:
    """Work before the session, or in its warm-up, is none of it."""
    busy_before = [after(reading, busy=reading.wall + 500) for reading in QUIET]
    for timing in machine.carry_out(plan_in(tmp_path, settings), busy_before):
        assert timing["disturbed_by"] == []
        assert timing["load"]["other_cores"] == 0
    assert "marked" not in machine.said
    assert "busy" not in machine.said


def test_a_machine_that_is_busy_already_is_told_before_the_rounds(
    tmp_path: Path, machine: Machine, settings: Settings
) -> None:
    """Others at work in the warm-up are said at once; if they end before the rounds, nothing is marked."""
    readings = [after(QUIET[0], busy=-9.0), *QUIET[1:]]
    timings = machine.carry_out(plan_in(tmp_path, settings), readings)
    assert "this machine is busy (other processes used 0.9" in machine.said
    assert [timing["disturbed_by"] for timing in timings] == [[], []]


def test_a_system_that_tells_nothing_marks_nothing(tmp_path: Path, machine: Machine, settings: Settings) -> None:
    """Where only a clock can be read the session is stored with blanks."""
    blanks = [Reading(wall=reading.wall) for reading in QUIET]
    for timing in machine.carry_out(plan_in(tmp_path, settings), blanks):
        assert timing["disturbed_by"] == []
        assert timing["load"]["off_core"] is None


def test_a_plan_tells_of_more_threads_than_cores(tmp_path: Path, settings: Settings) -> None:
    """The line of the device says how many may run at once and what to set; with enough cores it does not."""
    plan = plan_in(tmp_path, settings)
    for cores, told in ((2, True), (4, False)):
        crowd = {**plan.environment, "torch_threads": 4, "usable_cores": cores, "cpu_quota": None}
        (line,) = [line for line in describe(replace(plan, environment=crowd), (), 0.0) if line.startswith("device")]
        assert ("4 threads, more than the 2 cores" in line) == ("set OMP_NUM_THREADS=2" in line) == told


def test_an_arm_whose_round_was_slow_is_marked_alone(
    tmp_path: Path, machine: Machine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unsteady arm is marked and named; the full model beside it is not, but an unsteady one marks all."""
    for slow, marked in ((1, [False, True]), (0, [True, True])):
        calls = itertools.count()
        words = ["round 2 took 1.9 times as long as round 1" if number == slow else "" for number in range(2)]
        monkeypatch.setattr(
            "bench.latency.session.disagreement", lambda _, calls=calls, words=words: words[next(calls)]
        )
        plan = plan_in(tmp_path / str(slow), settings)
        timings = machine.carry_out(plan, QUIET)
        assert [bool(timing["disturbed_by"]) for timing in timings] == marked
        assert plan.arms[slow].label in timings[1]["disturbed_by"][0]


def test_stored_runs_are_timed_again_without_training_or_evaluating(
    tmp_path: Path, machine: Machine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new session takes the marked one's place: answers, metrics and models are those there were, samples are new."""
    plan = plan_in(tmp_path, settings)
    before = machine.carry_out(plan, cases()["waiting"][0])
    tables = [plan.runs.examples(arm.run_id) for arm in plan.arms]
    records = [plan.runs.record(arm.run_id) for arm in plan.arms]
    for name in ("train_missing", "evaluate_arm"):
        monkeypatch.setattr(run, name, lambda *_: pytest.fail("nothing is trained or evaluated"))
    again = plan_in(tmp_path, settings, time_again=True)
    assert sum("timed again" in line for line in describe(again, again.arms, 1.0)) == len(plan.arms)
    timings = machine.carry_out(again, QUIET)
    assert [timing["disturbed_by"] for timing in timings] == [[], []]
    assert {timing["session"] for timing in before}.isdisjoint(timing["session"] for timing in timings)
    speeds = ["seconds", "reference_seconds", "event_seconds"]
    for arm, table, record in zip(plan.arms, tables, records, strict=True):
        now: pa.Table = plan.runs.examples(arm.run_id)
        assert now.drop_columns(speeds) == table.drop_columns(speeds)
        assert now["seconds"] != table["seconds"]
        assert [len(seconds) for seconds in now["seconds"].to_pylist()].count(2) == EXAMPLES
        assert replace(plan.runs.record(arm.run_id), timing={}) == replace(record, timing={})


def test_a_throughput_that_stored_runs_lack_is_measured_without_evaluating(
    tmp_path: Path, machine: Machine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids are those without it; stored runs are timed anew once, and then are cached."""
    plan = plan_in(tmp_path, settings)
    assert not any("throughput" in timing for timing in machine.carry_out(plan, QUIET))
    for name in ("train_missing", "evaluate_arm"):
        monkeypatch.setattr(run, name, lambda *_: pytest.fail("nothing is trained or evaluated"))
    wanted = plan_in(tmp_path, settings, throughput=True)
    assert wanted.arms_timed_again == wanted.arms == plan.arms
    assert all("throughput" in timing for timing in machine.carry_out(wanted, [*QUIET, *QUIET[:2]]))
    assert plan_in(tmp_path, settings, throughput=True).arms_timed_again == ()
    assert plan_in(tmp_path, settings, throughput=True, time_again=True).arms_timed_again == plan.arms


def test_what_is_not_stored_yet_is_measured_as_ever(tmp_path: Path, machine: Machine, settings: Settings) -> None:
    """On an empty store the flag changes nothing; a later arm is measured while the stored one is timed again."""
    first = make_plan(replace(settings, store=tmp_path, methods=("full",), knobs={}, time_again=True))
    assert first.arms_timed_again == ()
    (before,) = machine.carry_out(first, QUIET)
    both = plan_in(tmp_path, settings, time_again=True)
    assert [arm.label for arm in both.arms_timed_again] == ["full"]
    timings = machine.carry_out(both, QUIET)
    assert len({timing["session"] for timing in timings} | {before["session"]}) == 2


def test_what_cannot_be_timed_again_is_refused_in_the_plan(
    tmp_path: Path, machine: Machine, settings: Settings
) -> None:
    """A stored run whose model is gone, a session of no examples, and a fresh start, with what to do."""
    plan = plan_in(tmp_path, settings)
    machine.carry_out(plan, QUIET)
    plan.artifacts.restart(plan.arms[0].job.id)
    with pytest.raises(InputError, match=r"cannot be timed again.*leave --time-again out, or give --fresh"):
        plan_in(tmp_path, settings, time_again=True)
    with pytest.raises(InputError, match=r"cannot be timed again.*leave --throughput out, or give --fresh"):
        plan_in(tmp_path, settings, throughput=True)
    with pytest.raises(InputError, match="there are none; leave it out"):
        plan_in(tmp_path, settings, throughput=True, rounds=0)
    with pytest.raises(InputError, match="give one of the two"):
        plan_in(tmp_path, settings, time_again=True, fresh=True)
    with pytest.raises(InputError, match="nothing is timed"):
        plan_in(tmp_path, settings, time_again=True, rounds=0)


def test_throughput_is_measured_where_it_is_wanted(
    tmp_path: Path, machine: Machine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each arm's record has it beside the latencies, and what else ran then; without timed examples it is refused."""
    monkeypatch.setattr("bench.machine.load.usable_cores", lambda: 2)
    later = [replace(QUIET[2], wall=30.0), replace(QUIET[2], wall=40.0, busy=29.0)]
    for timing in machine.carry_out(plan_in(tmp_path, settings, throughput=True), [*QUIET, *later]):
        (line,) = timing["disturbed_by"]
        assert line.startswith("while throughput was measured, other processes used"), "waiting for threads is none"
        reached = timing["throughput"]
        assert reached["manner"].startswith("batches of ")
        assert len(reached["seconds"]) == 2
        assert reached["examples_per_second"] == pytest.approx(EXAMPLES / (sum(reached["seconds"]) / 2))
    with pytest.raises(InputError, match=r"--throughput measures the examples that are timed.*leave it out"):
        plan_in(tmp_path, settings, throughput=True, latency_examples=0)
