"""Which model to deploy: the fastest arm whose loss against the full model is within a limit, or a plain no.

Milliseconds are judged, against the best alternative on the same machine: a static model on the engine that runs it
fastest. No ratio to a slow arm enters.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import pandas as pd

from analysis.tables.disturbance import disturbances, is_disturbed
from analysis.tables.engines import (
    Setting,
    TimedGroup,
    full_run_ids,
    is_hugging_face,
    setting,
    timed_examples,
    timed_groups,
)
from analysis.tables.frames import REFERENCE, Arm, Runs, timed_rows
from analysis.tables.identity import evaluation_data
from analysis.tables.selection import TOLERANCE, first_metric
from analysis.tables.statistics import UNKNOWN, Interval, mean_difference, mean_interval
from analysis.tables.table import measure
from bench.choosing import holds_up
from bench.errors import InputError
from bench.registry import METRICS
from bench.store.records import Record

ONE_SIDED = 0.95
"""Confidence with which a loss is within the limit."""

CONTROL = "is a control, which is never chosen"
"""Why a control is left out."""

BUSY = "was timed on a busy or unsteady machine (bench run --time-again)"
"""Why an arm is left out whose latencies are marked, where others' may be trusted."""

PERCENTILES: Mapping[str, str] = {f"p{percent}": f"latency_p{percent}_seconds" for percent in (50, 90, 99)}
"""Percentile of latency, as typed -> the metric."""


class Outcome(Enum):
    """What the advice comes to."""

    ADAPTIVE = "an adaptive arm is the fastest within the limit, and the interval of its speed says so"
    UNCLEAR = "an adaptive arm is the fastest within the limit, but may be no faster than the best static one"
    STATIC = "no adaptive arm within the limit is faster than the best static one"
    FULL_ALONE = "no arm is within the limit, but for the full model in PyTorch itself"
    UNKNOWN = "no latency but perhaps the full model's may be trusted"


@dataclass(frozen=True)
class Candidate:
    """An arm that was timed beside the full model.

    Attributes:
        label, backend, run_ids: its name, what computed it, and its runs, one for each seed.
        static: it ran the same layers at the same widths on every token, whatever the example.
        full: it is the full model, on some engine.
        reference: it is the full model in PyTorch, which losses are against.
        hugging_face: it ran in Hugging Face's implementation.
        latency: milliseconds for one example, and its 95 % interval.
        difference: quality less the full model's; `low` and `high` are the one-sided 95 % limits (a 90 % interval).
        admissible: `difference.low` is at least minus the limit; the full model in PyTorch always is.
        disturbed_by: why its latency is not to be trusted; empty where it is.
        ratio: how many times as long as the fastest admissible arm it takes, and the 95 % interval; NaN without one.
    """

    label: str
    backend: str
    run_ids: tuple[str, ...]
    static: bool
    full: bool
    reference: bool
    hugging_face: bool
    latency: Interval
    difference: Interval
    admissible: bool
    disturbed_by: tuple[str, ...] = ()
    ratio: Interval = UNKNOWN


@dataclass(frozen=True)
class Advice:
    """The arms of one task that were timed side by side, and which of them to deploy.

    Attributes:
        task: its name.
        metric: the quality that a loss is measured by, the task's first.
        percentile: of latency: p50, p90 or p99.
        max_drop: how much of the metric may be lost.
        setting: machine and number of CPU threads.
        timed: how many examples were timed.
        sessions: most timing sessions that arms of one seed come from.
        candidates: by rising latency; of equal ones the arm of the better score first. Arms of a busy machine are
            among them only where there are no others to compare.
        left_out: label of another arm of the task -> why nothing is said of it.
        earlier: how many runs are left out because the same model was run again.
    """

    task: str
    metric: str
    percentile: str
    max_drop: float
    setting: Setting
    timed: int
    sessions: int
    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str]
    earlier: int

    @property
    def admissible(self) -> tuple[Candidate, ...]:
        """Return the arms within the limit, the fastest first."""
        return tuple(each for each in self.candidates if each.admissible)

    @property
    def trusted(self) -> bool:
        """Check whether all latencies that are compared may be trusted."""
        return not any(each.disturbed_by for each in self.candidates)

    @property
    def fastest(self) -> Candidate | None:
        """Return the arm to deploy; None where none is within the limit, or where latencies say nothing."""
        return next(iter(self.admissible), None) if self.trusted else None

    @property
    def runner_up(self) -> Candidate | None:
        """Return the second fastest arm within the limit."""
        return self.admissible[1] if len(self.admissible) > 1 else None

    @property
    def static(self) -> Candidate | None:
        """Return the fastest static arm within the limit, on any engine."""
        return next((each for each in self.admissible if each.static), None)

    @property
    def full(self) -> Candidate | None:
        """Return the full model on the fastest engine that keeps it within the limit."""
        return next((each for each in self.admissible if each.full), None)

    @property
    def reference(self) -> Candidate | None:
        """Return the full model in PyTorch."""
        return next((each for each in self.candidates if each.reference), None)

    @property
    def hugging_face(self) -> Candidate | None:
        """Return the full model as Hugging Face runs it fastest; None where that was not timed."""
        return next((each for each in self.candidates if each.hugging_face), None)

    @property
    def adaptive(self) -> Candidate | None:
        """Return the fastest adaptive arm within the limit, else the adaptive arm that comes closest to it."""
        arms = [each for each in self.candidates if not each.static]
        within = (each for each in arms if each.admissible)
        return next(within, max(arms, key=lambda each: each.difference.low, default=None))

    @property
    def outcome(self) -> Outcome:
        """Return what the advice comes to."""
        if not self.trusted:
            return Outcome.UNKNOWN
        if self.fastest is None or self.admissible == (self.reference,):
            return Outcome.FULL_ALONE
        if self.fastest.static:
            return Outcome.STATIC
        certain = self.static is None or self.static.ratio.low > 1
        return Outcome.ADAPTIVE if certain else Outcome.UNCLEAR


def advise(runs: Runs, *, max_drop: float = TOLERANCE, percentile: str = "p50") -> Advice:
    """Compare the arms of one task that were timed beside the full model.

    An arm is admissible where its loss is not above the limit by a paired test of non-inferiority at one-sided 95 %:
    its quality less that of the full model in PyTorch, of the same seeds and resampled by the same examples
    (`mean_difference`), has a two-sided 90 % interval, 5 % below it and 5 % above; the lower end must be at least
    `-max_drop`. A mean within the limit is not enough. The difference of an interval that is not known is not
    admissible. Several seeds are one arm: latency is the mean over seeds, the difference the mean of their differences.

    Arms of one setting (machine and CPU threads) are compared, that with most arms; controls are left out, and so are
    arms that were timed elsewhere, on other examples, on a busy machine, not at all or beside another full model. Where
    a busy machine leaves out every arm but the full model, its arms are compared by their losses alone. Of runs that
    are alike in all that they did, the newest counts.

    Args:
        runs: of one task.
        max_drop: how much of the task's first metric may be lost, in the metric's unit: 0.01 is a point of accuracy.
        percentile: p50, p90 or p99 of the latency of one example.

    Raises:
        InputError: several tasks, no full model in PyTorch that was timed, or a limit outside [0, 1].
    """
    if not 0 <= max_drop <= 1:
        raise InputError(f"the loss that is allowed is {max_drop:g}, but it lies in [0, 1]; 0.01 is usual")
    if len(runs.by_task) > 1:
        raise InputError(f"these runs are of tasks {', '.join(runs.by_task)}; choose one with --task")
    count = len(runs.records)
    runs = newest_runs(runs)
    group = largest_group(runs)
    if group is None:
        raise InputError(
            "none of these runs is of the full model in PyTorch with latencies; bench run times it beside the others"
        )
    reasons = {arm: reason for arm in runs.arms if (reason := exclusion(arm, group, runs))}
    if not {*group.arms} - {*reasons, group.full}:  # there is nothing else to show
        reasons = {arm: reason for arm, reason in reasons.items() if reason != BUSY}
    left_out = {arm.label: reason for arm, reason in reasons.items()}
    compared = [arm for arm in group.arms if arm.label not in left_out]
    return Advice(
        task=group.full.first.task,
        metric=first_metric(group.full),
        percentile=percentile,
        max_drop=max_drop,
        setting=group.setting,
        timed=max(map(len, timed_examples(group.full, runs))),
        sessions=most_sessions(compared),
        candidates=tuple(_candidates(compared, group, max_drop, PERCENTILES[percentile])),
        left_out=left_out,
        earlier=count - len(runs.records),
    )


def newest_runs(runs: Runs) -> Runs:
    """Return the newest of those runs that measured one model in one way on one machine, and on the same examples."""
    newest = {_subject(record, runs): record for record in sorted(runs.records, key=lambda record: record.created)}
    return runs.only(record for record in runs.records if newest[_subject(record, runs)] is record)


def _subject(record: Record, runs: Runs) -> tuple[object, ...]:
    """Return what a run measured: model, method, knobs, engine, setting, reported and timed examples."""
    named = (record.task, record.method, record.backend, record.knobs, record.artifacts, record.seed)
    timed = frozenset(timed_rows(runs.frames[record.run_id])["example_id"])
    return json.dumps(named, sort_keys=True, default=str), evaluation_data(record), setting(record), timed


def largest_group(runs: Runs) -> TimedGroup | None:
    """Return the group of most arms that were timed side by side, the newest of equal ones; None without latencies."""
    return max(
        timed_groups(runs),
        key=lambda group: (len(group.arms), max(record.created for record in group.full.records)),
        default=None,
    )


def exclusion(arm: Arm, group: TimedGroup, runs: Runs) -> str:
    """Say why an arm is not compared with those of a group; empty where it is."""
    where = setting(arm.first)
    if where is None or not any(timed_examples(arm, runs)):
        return "was not timed"
    if where != group.setting:
        return f"was timed on {where}, not on {group.setting}"
    if arm.first.control_of:
        return CONTROL
    if arm is not group.full and not full_run_ids(arm, group.runs) <= set(group.full.run_ids):
        return f"is of another full model than {group.full.label}, or of seeds that it lacks"
    if timed_examples(arm, runs) != timed_examples(group.full, runs):
        return f"was timed on other examples than {group.full.label}"
    return BUSY if is_disturbed(arm) else ""


def _candidates(arms: list[Arm], group: TimedGroup, max_drop: float, latency: str) -> Iterator[Candidate]:
    known = {arm: _candidate(arm, group, max_drop, latency) for arm in arms}
    known = dict(sorted(known.items(), key=lambda item: (item[1].latency.value, -item[1].difference.value)))
    trusted = not any(candidate.disturbed_by for candidate in known.values())
    fastest = next((arm for arm, candidate in known.items() if candidate.admissible and trusted), None)
    for arm, candidate in known.items():
        yield replace(candidate, ratio=group.times_as_fast(fastest, arm, latency)) if fastest else candidate


def _candidate(arm: Arm, group: TimedGroup, max_drop: float, latency: str) -> Candidate:
    frames = group.runs.frames
    seconds = mean_interval([measure(latency, frames[run_id]) for run_id in arm.run_ids])
    change = difference(arm, group)
    return Candidate(
        label=arm.label,
        backend=arm.first.backend,
        run_ids=arm.run_ids,
        static=all(is_static(frames[run_id]) for run_id in arm.run_ids),
        full=arm.first.method == REFERENCE,
        reference=arm is group.full,
        hugging_face=arm.first.method == REFERENCE and is_hugging_face(arm),
        latency=Interval(*(METRICS[latency].scale * end for end in (seconds.value, seconds.low, seconds.high))),
        difference=change,
        admissible=arm is group.full or holds_up(change.low, 0.0, max_drop),
        disturbed_by=disturbances(arm.records),
    )


def difference(arm: Arm, group: TimedGroup) -> Interval:
    """Compute an arm's quality less that of the full model of the same seeds, between its one-sided 95 % limits."""
    runs = group.runs
    pairs = [
        (runs.frames[full.run_id], runs.frames[record.run_id])
        for record in arm.records
        if (full := record if arm is group.full else runs.full_model(record))
    ]
    return mean_difference(METRICS[first_metric(arm)], pairs, confidence=2 * ONE_SIDED - 1)


def is_static(examples: pd.DataFrame) -> bool:
    """Check whether a run did the same for all examples: the same layers, at the same widths, on every token.

    So an adaptive method counts as static where nothing ever adapted.
    """
    share = np.stack(examples["tokens"].to_list()) / examples["length"].to_numpy()[:, None]
    widths = [np.stack(examples[name].to_list()) for name in ("heads", "neurons")]
    alike = all((rows == rows[0]).all() for rows in (share, *widths))
    return bool(alike and np.isin(share, (0, 1)).all())


def most_sessions(arms: list[Arm]) -> int:
    """Count the timing sessions that the runs of one seed come from, and return the largest count."""
    sessions: dict[int, set[str]] = defaultdict(set)
    for record in (record for arm in arms for record in arm.records):
        sessions[record.seed].add(str(record.timing.get("session")))
    return max(map(len, sessions.values()), default=0)
