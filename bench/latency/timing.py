"""Single-instance latency: real examples, equal issue, arms interleaved, raw samples kept.

Every arm meets every example equally often (equal issue, as MLPerf's LoadGen has it), because examples differ in
cost. Within a round the examples come in a fresh seeded order, a few at a time, and the arms take turns on these few,
a different one first each time, so that a drift of the machine meets all arms alike. A turn begins with a pass that is
not recorded: as in service, every recorded pass follows one of the same model, and what is left in the caches is its
own, not another arm's weights. What is timed is one forward pass at batch 1, from word-piece ids on the device to
logits, tokenisation excluded. On a GPU the device is synchronised on both sides of the wall clock, and CUDA events
time the same span.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

E = TypeVar("E")
Sample = tuple[float, float | None]
"""(wall-clock seconds, CUDA-event seconds where there is a GPU)."""
Stopwatch = Callable[[Callable[[], object]], Sample]

WARM_UP = 10
"""Examples that every arm runs before anything is recorded."""

TURN = 8
"""Examples that an arm is timed on before the next arm's turn."""


@dataclass(frozen=True)
class Latencies:
    """Raw samples of one arm: `wall[example][round]` in seconds; `events` likewise, empty lists without a GPU."""

    wall: list[list[float]]
    events: list[list[float]]


def wall_clock(clock: Callable[[], float] = time.perf_counter) -> Stopwatch:
    """Time a call on the CPU."""

    def measure(call: Callable[[], object]) -> Sample:
        started = clock()
        call()
        return clock() - started, None

    return measure


def cuda_clock() -> Stopwatch:
    """Time a call on the current GPU: synchronised wall clock, and events around the same kernels."""
    import torch

    def measure(call: Callable[[], object]) -> Sample:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        started = time.perf_counter()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return time.perf_counter() - started, begin.elapsed_time(end) / 1000

    return measure


def measure(
    arms: Mapping[str, Callable[[E], object]],
    examples: Sequence[E],
    *,
    rounds: int,
    seed: int,
    stopwatch: Stopwatch,
    ready: Callable[[], None] = lambda: None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Latencies]:
    """Time every arm on every example `rounds` times.

    Args:
        arms: name -> forward pass of one example.
        examples: what the arms are called with.
        rounds: samples per arm and example.
        seed: of the order in each round.
        stopwatch: times one call.
        ready: called after the warm-up.
        advance: called after each round.
    """
    names = list(arms)
    for example in examples[:WARM_UP]:
        for name in names:
            arms[name](example)
    ready()
    latencies = {name: Latencies([[] for _ in examples], [[] for _ in examples]) for name in names}
    shuffler = random.Random(seed)  # noqa: S311 - an order, no secret
    turns = itertools.count()
    for _ in range(rounds):
        order = list(range(len(examples)))
        shuffler.shuffle(order)
        for start in range(0, len(order), TURN):
            first, turn = next(turns) % len(names), order[start : start + TURN]
            for name in names[first:] + names[:first]:
                arms[name](examples[turn[0]])
                for number in turn:
                    wall, events = stopwatch(lambda: arms[name](examples[number]))  # noqa: B023 - called at once
                    latencies[name].wall[number].append(wall)
                    if events is not None:
                        latencies[name].events[number].append(events)
        advance()
    return latencies
