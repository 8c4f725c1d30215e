"""Arms that were timed side by side, on whatever engine, and how many times as fast one is as another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from analysis.tables.frames import REFERENCE, Arm, Runs, timed_rows
from analysis.tables.identity import finetune_seed
from analysis.tables.statistics import UNKNOWN, Interval, mean_difference
from bench.registry import METRICS
from bench.store.records import HUGGING_FACE, Record

if TYPE_CHECKING:
    from bench.metrics import Metric

MEDIAN = "latency_p50_seconds"
"""The latency by which engines are compared where no other one is named."""


@dataclass(frozen=True, order=True)
class Setting:
    """A machine and a number of CPU threads: milliseconds are compared within one setting alone."""

    device: str
    threads: int

    def __str__(self) -> str:
        """Write it as `AMD EPYC, 1 CPU thread`."""
        return f"{self.device}, {self.threads} CPU thread{'' if self.threads == 1 else 's'}"


def setting(record: Record) -> Setting | None:
    """Return where a run was timed; None where it was not, or its record does not say."""
    device, threads = (record.timing.get(name) for name in ("device", "threads"))
    return Setting(str(device), int(threads)) if device and threads else None


@dataclass(frozen=True, eq=False)
class TimedGroup:
    """Arms whose milliseconds and answers may be compared: one task, setting and full model, the same timed examples.

    Attributes:
        setting: where they were timed.
        full: the full model in PyTorch, whose answers the others' are held against.
        arms: all of them, `full` first.
        runs: those of the task in this setting.
    """

    setting: Setting
    full: Arm
    arms: tuple[Arm, ...]
    runs: Runs

    @property
    def of_full_model(self) -> tuple[Arm, ...]:
        """Return the full model on each engine."""
        return tuple(arm for arm in self.arms if arm.first.method == REFERENCE)

    @property
    def of_hugging_face(self) -> tuple[Arm, ...]:
        """Return the full model as Hugging Face runs it."""
        return tuple(arm for arm in self.of_full_model if is_hugging_face(arm))

    def latency(self, arm: Arm, name: str = MEDIAN) -> float:
        """Compute a latency of an arm in seconds, the mean over its seeds."""
        return fmean(METRICS[name].compute(timed_rows(self.runs.frames[run_id])) for run_id in arm.run_ids)

    def fastest(self, arms: Sequence[Arm], name: str = MEDIAN) -> Arm | None:
        """Return the arm of the lowest latency; None of no arms."""
        return min(arms, key=lambda arm: self.latency(arm, name), default=None)

    def times_as_fast(self, arm: Arm, other: Arm, name: str = MEDIAN) -> Interval:
        """Compute how many times as fast `arm` is as `other`, and the interval of that.

        It is the latency of `other` over that of `arm`, the geometric mean over the seeds of `arm`. Both are resampled
        by the same examples.
        """
        frames = self.runs.frames
        pairs = [
            (timed_rows(frames[record.run_id]), timed_rows(frames[_partner(record, other).run_id]))
            for record in arm.records
        ]
        logarithm = mean_difference(_logarithm(name), pairs)
        return Interval(*map(math.exp, (logarithm.value, logarithm.low, logarithm.high)))


def is_hugging_face(arm: Arm) -> bool:
    """Check whether an arm ran in Hugging Face's own implementation."""
    return arm.first.backend.startswith(HUGGING_FACE)


def _partner(record: Record, arm: Arm) -> Record:
    """Return the arm's run of the same seed, else of the same seed of fine-tuning, else its first."""

    def likeness(other: Record) -> tuple[bool, bool]:
        return other.seed == record.seed, finetune_seed(other) == finetune_seed(record)

    return max(arm.records, key=likeness)


def _logarithm(name: str) -> Metric:
    """Return the metric whose values are the logarithms of another's: a difference of two is a ratio."""
    metric = METRICS[name]
    reduce = metric.reduce
    return replace(
        metric,
        compute=lambda examples: math.log(metric.compute(examples)),
        reduce=reduce and (lambda terms: np.log(reduce(terms))),
    )


def timed_groups(runs: Runs) -> Iterator[TimedGroup]:
    """Yield the arms that were timed side by side, for each task, setting and full model in PyTorch."""
    for only in runs.by_task.values():
        for where in sorted({known for record in only.records if (known := setting(record))}):
            here = only.only(record for record in only.records if setting(record) == where)
            arms = [arm for arm in only.arms if setting(arm.first) == where]
            for full in (arm for arm in arms if arm.reference and any(timed_examples(arm, here))):
                beside = (arm for arm in arms if arm is not full and is_comparable(arm, full, here))
                yield TimedGroup(where, full, (full, *beside), here)


def is_comparable(arm: Arm, full: Arm, runs: Runs) -> bool:
    """Check whether an arm of a setting belongs to this full model, and was timed on the same examples."""
    return full_run_ids(arm, runs) <= set(full.run_ids) and timed_examples(arm, runs) == timed_examples(full, runs)


def full_run_ids(arm: Arm, runs: Runs) -> set[str]:
    """Return the runs of the full model that belong to an arm's seeds; "" stands for one that is missing."""
    fulls = map(runs.full_model, arm.records)
    return {full.run_id if full else "" for full in fulls}


def timed_examples(arm: Arm, runs: Runs) -> set[frozenset[str]]:
    """Return the ids of the examples that were timed, once for all seeds that were timed on the same ones."""
    return {frozenset(timed_rows(runs.frames[run_id])["example_id"]) for run_id in arm.run_ids}


def against_engines(runs: Runs) -> dict[tuple[str, ...], tuple[Interval, Interval]]:
    """Compute how many times as fast each arm is, in the median, as the full model in two forms.

    Returns:
        runs of an arm -> (against the full model on its fastest engine, against Hugging Face's full model, UNKNOWN
        where that was not timed); only of arms beside which several engines were timed.
    """
    return {
        arm.run_ids: (_against(group, arm, group.of_full_model), _against(group, arm, group.of_hugging_face))
        for group in timed_groups(runs)
        if len({arm.first.backend for arm in group.arms}) > 1
        for arm in group.arms
    }


def _against(group: TimedGroup, arm: Arm, others: Sequence[Arm]) -> Interval:
    fastest = group.fastest(others)
    return group.times_as_fast(arm, fastest) if fastest else UNKNOWN
