"""Offline throughput: each arm answers every row, in the way that is the fastest for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from bench.backends.runners import Runner
from bench.latency.throughput import measure_throughput

ROWS = [{"example_id": str(length), "input_ids": [0] * length} for length in (7, 2, 9, 4, 6)]


@dataclass
class Counting:
    """A runner that writes down the lengths of what it answers, and takes the seconds that it is told."""

    seconds: Callable[[Sequence[int]], float]
    parallel: bool = False
    calls: list[tuple[int, ...]] = field(default_factory=list)

    def prepare(self, rows: Any) -> tuple[int, ...]:
        return tuple(len(row["input_ids"]) for row in rows)

    def on_one_thread(self) -> Counting | None:
        return self if self.parallel else None

    def __call__(self, inputs: tuple[int, ...]) -> None:
        self.calls.append(inputs)


def measure(rounds: int = 2, **runners: Counting) -> Any:
    """Measure with a clock that adds up what the runners say of the calls in between."""

    def stopwatch(call: Callable[[], object]) -> tuple[float, None]:
        before = {name: len(runner.calls) for name, runner in runners.items()}
        call()
        new = {name: runner.calls[before[name] :] for name, runner in runners.items()}
        return sum(runners[name].seconds(inputs) for name in new for inputs in new[name]), None

    return measure_throughput(cast("dict[str, Runner]", runners), ROWS, threads=2, rounds=rounds, stopwatch=stopwatch)


def test_the_fastest_size_of_batches_counts() -> None:
    """Rows lie beside rows of their length; a call that costs 1 s and 0.1 s for each padded piece is best at four."""
    batched = Counting(lambda inputs: (1 if len(inputs) < 5 else 100) + 0.1 * len(inputs) * max(inputs))
    result = measure(batched=batched)["batched"]
    assert set(batched.calls) == {(2,), (4,), (6,), (7,), (9,), (2, 4, 6, 7), (2, 4, 6, 7, 9)}
    assert result.manner == "batches of 4 of similar length"
    assert result.seconds == pytest.approx([2 + 2.8 + 0.9] * 2)
    assert result.examples_per_second == pytest.approx(5 / 5.7)


def test_examples_in_parallel() -> None:
    """A runner that answers one by one gets each example once a round, on one thread each."""
    parallel = Counting(lambda inputs: 1.0, parallel=True)
    result = measure(rounds=3, parallel=parallel, other=Counting(lambda inputs: 2.0))["parallel"]
    assert sorted(parallel.calls) == sorted([(7,), (2,), (9,), (4,), (6,)] * 4), "one round is not recorded"
    assert (result.manner, result.seconds) == ("2 at a time, one thread each", (5.0, 5.0, 5.0))
    assert result.to_json() == {"examples_per_second": 1.0, "manner": result.manner, "seconds": [5.0, 5.0, 5.0]}
