"""Offline throughput: how many examples a second an arm answers when all of them are there from the start.

Each arm does it in the way that suits it: examples in parallel, one thread each, where an engine answers one example at
a time; otherwise batches of examples of similar length, of the size that is the fastest on this machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.backends.runners import Runner
from bench.latency.timing import Stopwatch
from efficient_bert.rows import Rows

BATCH_SIZES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Throughput:
    """What an arm reached.

    Attributes:
        examples_per_second: in the median round.
        manner: how examples were answered, in words.
        seconds: of each round, over all examples.
    """

    examples_per_second: float
    manner: str
    seconds: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a record of a run holds it."""
        return {**asdict(self), "seconds": list(self.seconds)}


def measure_throughput(
    runners: Mapping[str, Runner],
    rows: Rows,
    *,
    threads: int,
    rounds: int,
    stopwatch: Stopwatch,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Throughput]:
    """Measure runners on the same rows, in turns; the fastest way of each counts.

    Args:
        runners: name -> what answers.
        rows: encoded examples.
        threads: that may work at the same time.
        rounds: passes over all rows, for each way of each runner; one more is not recorded.
        stopwatch: times one pass.
        advance: called after each round.
    """
    ways = {name: ways_to_answer(runner, rows, threads=threads) for name, runner in runners.items()}
    seconds: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways[name]} for name in ways}
    for number in range(rounds + 1):
        for name, choices in ways.items():
            for way, answer_all in choices.items():
                taken, _ = stopwatch(answer_all)
                if number:
                    seconds[name][way].append(taken)
        advance()
    return {name: _best(of_ways, len(rows)) for name, of_ways in seconds.items()}


def _best(seconds: Mapping[str, Sequence[float]], examples: int) -> Throughput:
    manner = min(seconds, key=lambda way: median(seconds[way]))
    return Throughput(examples / median(seconds[manner]), manner, tuple(seconds[manner]))


def ways_to_answer(runner: Runner, rows: Rows, *, threads: int) -> dict[str, Callable[[], object]]:
    """Return how a runner may answer all rows: in words -> what does it once, its inputs ready."""
    alone = runner.on_one_thread()
    if alone is not None:
        inputs = [alone.prepare([row]) for row in rows]
        return {f"{threads} at a time, one thread each": lambda: _answer_in_parallel(alone, inputs, threads)}
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    return {
        f"batches of {size} of similar length": _answer_batches(runner, by_length, size)
        for smaller, size in itertools.pairwise((0, *BATCH_SIZES))
        if smaller < len(rows)
    }


def _answer_in_parallel(runner: Runner, inputs: Sequence[Any], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(runner, inputs))


def _answer_batches(runner: Runner, rows: Rows, size: int) -> Callable[[], object]:
    batches = [runner.prepare(rows[start : start + size]) for start in range(0, len(rows), size)]
    return lambda: [runner(batch) for batch in batches]
