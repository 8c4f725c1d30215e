"""The timing session under a fake clock: who is called when, and what is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from bench.latency.timing import TURN, WARM_UP, Latencies, Sample, measure, wall_clock


class Session:
    """Arms that cost (arm, example) seconds on a clock of their own; every call is written down."""

    def __init__(self, *arms: str) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self.timed: list[tuple[str, int]] = []
        self.arms: dict[str, Callable[[int], object]] = {arm: self.arm(place, arm) for place, arm in enumerate(arms)}

    def arm(self, place: int, name: str) -> Callable[[int], object]:
        """A forward pass that takes 100 s per arm and 1 s per example."""

        def call(example: int) -> None:
            self.calls.append((name, example))
            self.now += 100 * place + example

        return call

    def clock(self) -> float:
        return self.now

    def stopwatch(self, call: Callable[[], object]) -> Sample:
        """The wall clock on the fake time, noting what is recorded."""
        sample = wall_clock(self.clock)(call)
        self.timed.append(self.calls[-1])
        return sample

    def measure(self, examples: int, *, rounds: int, seed: int = 0) -> dict[str, Latencies]:
        """The session on examples 0, 1, 2, ..."""
        return measure(self.arms, range(examples), rounds=rounds, seed=seed, stopwatch=self.stopwatch)


def test_raw_samples_are_kept_by_example_and_round() -> None:
    """Each arm has `rounds` samples of every example, in the example's place, whatever the order was."""
    found = Session("a", "b", "c").measure(7, rounds=4)
    for place, name in enumerate("abc"):
        assert found[name].wall == [[100.0 * place + example] * 4 for example in range(7)]
        assert found[name].events == [[] for _ in range(7)]


def test_samples_stand_in_the_order_of_rounds() -> None:
    """A machine that slows down by the call leaves rising samples."""
    ticks = iter(range(10_000))
    found = measure({"a": str, "b": str}, range(3), rounds=3, seed=0, stopwatch=lambda call: (float(next(ticks)), None))
    for name in "ab":
        assert all(samples == sorted(set(samples)) for samples in found[name].wall)


def test_issue_is_equal_and_arms_take_turns() -> None:
    """In every round each arm meets each example once, and all arms meet a few examples before the next ones."""
    examples = 2 * TURN + 3
    session = Session("a", "b", "c")
    session.measure(examples, rounds=4)
    everything = sorted((name, example) for name in "abc" for example in range(examples))
    for start in range(0, len(session.timed), 3 * examples):
        assert sorted(session.timed[start : start + 3 * examples]) == everything
        for turn, size in ((0, TURN), (3 * TURN, TURN), (6 * TURN, 3)):
            parts = [session.timed[start + turn + size * arm :][:size] for arm in range(3)]
            assert [len({name for name, _ in part}) for part in parts] == [1, 1, 1]
            assert {part[0][0] for part in parts} == set("abc")
            assert len({tuple(example for _, example in part) for part in parts}) == 1


def test_a_recorded_pass_follows_one_of_the_same_arm() -> None:
    """Each turn begins with a pass that nobody records, so that no arm is timed on another's caches."""
    session = Session("a", "b", "c")
    session.measure(TURN + 1, rounds=2)
    calls = session.calls[-2 * (3 * (TURN + 1) + 3 * 2) :]
    recorded = iter(session.timed)
    awaited = next(recorded)
    for before, call in itertools.pairwise(calls):
        if before[0] == call[0]:
            assert call == awaited
            awaited = next(recorded, ("", -1))
    assert awaited == ("", -1)


@pytest.mark.parametrize(("turns", "rounds"), [(5, 6), (1, 6), (2, 9), (3, 2)])
def test_every_arm_goes_first_equally_often(turns: int, rounds: int) -> None:
    """The first place rotates on over rounds, also where the arms do not divide the turns."""
    session = Session("a", "b", "c")
    session.measure(turns * TURN, rounds=rounds)
    first = [session.timed[start][0] for start in range(0, len(session.timed), 3 * TURN)]
    assert [first.count(name) for name in "abc"] == [turns * rounds // 3] * 3


def test_rounds_come_in_fresh_orders_fixed_by_the_seed() -> None:
    """Examples come in another order in each round, and the same again with the same seed."""
    sessions = [Session("a"), Session("a"), Session("a")]
    for session, seed in zip(sessions, (0, 0, 1), strict=True):
        session.measure(20, rounds=2, seed=seed)
    assert sessions[0].timed == sessions[1].timed != sessions[2].timed
    assert sessions[0].timed[:20] != sessions[0].timed[20:]


@pytest.mark.parametrize("examples", [3, WARM_UP + 5])
def test_warm_up_is_not_recorded(examples: int) -> None:
    """Every arm runs up to `WARM_UP` examples before the first sample."""
    session = Session("a", "b")
    found = session.measure(examples, rounds=1)
    before = [(name, example) for example in range(min(examples, WARM_UP)) for name in "ab"]
    assert session.calls[: len(before)] == before
    assert len(session.timed) == 2 * examples
    assert len(session.calls) == len(before) + len(session.timed) + 2 * -(-examples // TURN)
    assert all(len(samples) == 1 for samples in found["a"].wall)


def test_event_times_stand_beside_wall_times() -> None:
    """Where the stopwatch has events, they are kept in the same places."""
    found = measure({"a": str}, range(2), rounds=3, seed=0, stopwatch=lambda call: (2.0, 1.0))
    assert found["a"].events == [[1.0] * 3] * 2
    assert found["a"].wall == [[2.0] * 3] * 2


def test_progress_is_told_after_each_round() -> None:
    """The watcher hears of every round once."""
    rounds: list[int] = []
    measure({"a": str}, range(2), rounds=3, seed=0, stopwatch=wall_clock(), advance=lambda: rounds.append(1))
    assert len(rounds) == 3
