"""Latency of a size of model without training: random weights, random word pieces, every engine in turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from bench.backends.runners import Runner, Subject, move
from bench.latency.profiles import Profile
from bench.latency.session import prepared
from bench.latency.timing import cuda_clock, measure, wall_clock
from bench.machine.gpus import other_processes
from bench.machine.load import Reading, disturbances, load_between, read
from efficient_bert.memory import keep_freed_memory

if TYPE_CHECKING:
    from bench.backends import Backend
    from efficient_bert import EfficientBertConfig
    from efficient_bert.rows import Rows

SIZES: Mapping[str, tuple[int, int, int]] = {"minilm": (6, 384, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Name -> layers, hidden size, heads; an inner layer is four times as wide (Devlin et al., 2019, section 3)."""

BATCHES = 32
"""Batches of other word pieces that are timed at each length."""


@dataclass(frozen=True)
class Cell:
    """What one engine took.

    Attributes:
        arm: "full" or the profile's name.
        milliseconds: mean over batches of the median over rounds.
        disturbed_by: why it is not to be trusted; empty where it is.
    """

    arm: str
    backend: str
    size: str
    length: int
    batch: int
    milliseconds: float
    disturbed_by: tuple[str, ...]


def time_size(
    size: str,
    profiles: Mapping[str, Profile],
    backends: Sequence[Backend],
    *,
    lengths: Sequence[int],
    batches: Sequence[int],
    rounds: int,
    device: str,
    reading: Callable[[], Reading] = read,
) -> Iterator[Cell]:
    """Yield what each engine takes for the full model of a size, and for it under each profile.

    Args:
        size: a name of `SIZES`.
        profiles: name -> profile; of a model of any depth.
        backends: engines; those that know nothing of decisions run the full model only, and those that answer one
            example at a time run batches of one only.
        lengths, batches: word pieces and rows of what is answered.
        rounds: samples of each batch.
        device: "cpu" or "cuda".
        reading: reads the machine's counters.
    """
    import torch

    keep_freed_memory()  # as every other timing session does
    runners = {(arm, backend.name): runner for arm, backend, runner in _runners(size, profiles, backends, device)}
    in_batches = runners
    if max(batches) > 1:
        in_batches = {key: each for key, each in runners.items() if each.on_one_thread() is None}
    for batch in batches:
        arms = runners if batch == 1 else in_batches
        for length in lengths:
            rows = [random_rows(batch, length, seed=number) for number in range(BATCHES)]
            readings: list[Reading] = []
            samples = measure(
                {" ".join(key): prepared(runner, rows) for key, runner in arms.items()},
                range(BATCHES),
                rounds=rounds,
                seed=0,
                stopwatch=cuda_clock() if device == "cuda" else wall_clock(),
                ready=lambda: readings.append(reading()),  # noqa: B023 - called at once
            )
            load = load_between(
                *(readings[0], reading()), threads=torch.get_num_threads(), others_on_gpu=other_processes(device)
            )
            disturbed_by = tuple(disturbances(load, device=device))
            for (arm, backend), latencies in zip(arms, samples.values(), strict=True):
                seconds = fmean(map(median, latencies.wall))
                yield Cell(arm, backend, size, length, batch, 1000 * seconds, disturbed_by)


def _runners(
    size: str, profiles: Mapping[str, Profile], backends: Sequence[Backend], device: str
) -> Iterator[tuple[str, Backend, Runner]]:
    config = config_of(size)
    for name, profile in [("full", Profile(config.num_hidden_layers)), *profiles.items()]:
        subject = make_subject(config, profile.stretched(config.num_hidden_layers), device)
        for backend in backends:
            if name == "full" or not backend.dense:
                yield name, backend, backend.make(subject)


def config_of(size: str) -> EfficientBertConfig:
    """Return the configuration of a size."""
    from efficient_bert import EfficientBertConfig

    layers, hidden, heads = SIZES[size]
    return EfficientBertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        num_labels=2,
    )


def make_subject(config: EfficientBertConfig, profile: Profile, device: str) -> Subject:
    """Make a model with random weights, run as the profile says, with the predictors and exits that it needs."""
    import torch

    from efficient_bert import EfficientBertForSequenceClassification
    from efficient_bert.methods import Method

    changes: dict[str, Any] = {"exit_depths": tuple(sorted(profile.exits))}
    if profile.tokens:
        changes["contribution_size"] = 32
    torch.manual_seed(0)
    model = EfficientBertForSequenceClassification(type(config)(**{**config.to_dict(), **changes})).eval()
    method = Method(
        name="profile",
        summary="a profile on random weights",
        source="this project",
        stage="",
        policy=lambda model, knobs: profile.policy(model),
    )
    return Subject(move(model, device), method, {}, config, device, partial(random_rows, 32, 64, seed=0))


def random_rows(count: int, length: int, *, seed: int) -> Rows:
    """Return encoded rows of random word pieces."""
    draw = random.Random(1000 * length + seed)  # noqa: S311 - a draw, no secret
    return [
        {"input_ids": [draw.randrange(1000, 30000) for _ in range(length)], "token_type_ids": [0] * length}
        for _ in range(count)
    ]
