"""Runs read from a store: their records, their tables of examples, and how runs group into arms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import pandas as pd

from analysis.tables.identity import (
    DETAILS,
    backbone_identity,
    device,
    differ_in_training_data,
    evaluation_data,
    finetune_seed,
    fingerprint,
    group_by_training_data,
    identity,
    short_hash,
    training_rows,
    version,
)
from analysis.tables.record_check import require_same_metrics
from bench.errors import InputError
from bench.store.packs import RunReader
from bench.store.records import TORCH, Record

REFERENCE = "full"
"""The method every speed-up is against: the whole model on every example."""


def is_reference(record: Record) -> bool:
    """Check whether a run is of the full model in PyTorch."""
    return record.method == REFERENCE and record.backend == TORCH


def timed_rows(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that hold latencies."""
    return examples[examples["seconds"].map(len) > 0]


@dataclass(frozen=True, eq=False)
class Arm:
    """The same method, knobs, backbone, training, data, device and versions, with one or more seeds.

    Attributes:
        label: its name, unique among the arms of its task.
        records: one per seed, by rising seed.
    """

    label: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """Return the record that speaks for what all seeds share."""
        return self.records[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(record.run_id for record in self.records)

    @property
    def device(self) -> str:
        return device(self.first)

    @property
    def knobs(self) -> Mapping[str, Any]:
        return self.first.knobs

    @property
    def reference(self) -> bool:
        """Check whether this is the full model in PyTorch."""
        return is_reference(self.first)

    @property
    def mechanism(self) -> str:
        """Return the method itself, or that which it is a control for."""
        return self.first.control_of or self.first.method

    @cached_property
    def training_options(self) -> Mapping[tuple[str, str], object]:
        """Return the options of all stages, by stage and name, that are no knobs of the method."""
        return {
            (stage, name): value
            for stage, options in self.first.options.items()
            for name, value in options.items()
            if name not in self.knobs
        }

    def heldout_mean(self, name: str) -> float | None:
        """Compute the mean over seeds of a held-out value; None where a seed lacks it."""
        values = [record.heldout.get(name) for record in self.records]
        return None if None in values else sum(cast("list[float]", values)) / len(values)


@dataclass(frozen=True, eq=False)
class Runs:
    """Records and example tables, read once.

    Attributes:
        records: the runs.
        frames: run id -> table of examples (columns as in `bench.store.records.EXAMPLE_COLUMNS`).
    """

    records: tuple[Record, ...]
    frames: Mapping[str, pd.DataFrame]

    @classmethod
    def read(cls, store: RunReader, run_ids: Iterable[str]) -> Runs:
        """Read runs from `store`; a run named twice is read once.

        Raises:
            InputError: no run is named, the store lacks one, or one is damaged.
        """
        ids = list(dict.fromkeys(run_ids))
        if not ids:
            raise InputError(f"no runs to read from {store.root}; name at least one finished run")
        records = tuple(store.record(run_id) for run_id in ids)
        frames = {run_id: store.examples(run_id).to_pandas() for run_id in ids}
        for record in records:
            path, remedy = store.table_path(record.run_id), store.remedy(record.run_id)
            require_same_metrics(record, frames[record.run_id], path=path, remedy=remedy)
        return cls(records, frames)

    @cached_property
    def by_task(self) -> Mapping[str, Runs]:
        """Return the same runs, one task at a time, tasks sorted by name."""
        tasks = sorted({record.task for record in self.records})
        if len(tasks) == 1:
            return {tasks[0]: self}
        return {task: self.only(record for record in self.records if record.task == task) for task in tasks}

    def only(self, records: Iterable[Record]) -> Runs:
        """Return those of the runs that have these records."""
        kept = tuple(records)
        return Runs(records=kept, frames={record.run_id: self.frames[record.run_id] for record in kept})

    def full_model(self, record: Record) -> Record | None:
        """Return the full model's run of the same task, seed of fine-tuning, backbone, training and evaluation data.

        Of several, the very model that was fine-tuned for the run goes first, then one of the same version,
        fine-tuning, preset, the newest.
        """

        def likeness(other: Record) -> tuple[bool, bool, bool, bool, str]:
            return (
                other.artifacts.get("finetune") == record.artifacts.get("finetune"),
                version(other.environment) == version(record.environment),
                other.options.get("finetune") == record.options.get("finetune"),
                other.preset == record.preset,
                other.created,
            )

        same = [
            other
            for other in self.records
            if is_reference(other)
            and _comparison_key(other) == _comparison_key(record)
            and not differ_in_training_data(other, record)
        ]
        return max(same, key=likeness, default=None)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Return the arms, the full model first, then by method and rising knobs; their labels differ."""
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in sorted(self.records, key=lambda record: (record.seed, record.created, record.run_id)):
            groups[identity(record)].append(record)
        arms = [
            Arm(label=members[0].label, records=members)
            for group in groups.values()
            for alike in group_by_training_data(group)
            for members in _split_by_model(alike)
        ]
        return tuple(_distinguish(sorted(arms, key=_arm_sort_key)))

    @cached_property
    def series(self) -> Mapping[tuple[str, ...], str]:
        """Map the runs of an arm to its series: the method, with what tells it from others of that method."""
        return {arm.run_ids: ", ".join([arm.first.method, *distinguishing_traits(arm, self.arms)]) for arm in self.arms}


def _traits(arm: Arm) -> tuple[str, ...]:
    """Return what may tell apart two arms of one method and its knobs, in words, each column of one kind."""
    record = arm.first
    shared = {finetune_seed(each) for each in arm.records if not _has_model_of_its_seed(each)}
    return (
        f"on {record.backend}",
        record.backbone,
        record.preset,
        device(record),
        str(record.data.get("split")),
        f"{record.data.get('rows')} rows",
        f"{training_rows(record)} training rows",
        f"{record.data.get('max_length')} word pieces",
        f"fine-tuned with seed {shared.pop()}" if shared else "fine-tuned with its own seed",
        f"version {version(record.environment)}",
    )


def _has_model_of_its_seed(record: Record) -> bool:
    return finetune_seed(record) == record.seed


def _comparison_key(record: Record) -> tuple[object, ...]:
    """Return what a run and its reference share."""
    backbone = record.backbone, backbone_identity(record)
    return record.task, finetune_seed(record), backbone, evaluation_data(record)


def _split_by_model(group: list[Record]) -> Iterator[tuple[Record, ...]]:
    """Yield one arm of many seeds; where a seed occurs twice, every run is an arm: a mean would count it twice.

    Seeds that start from one fine-tuned model are another arm than seeds with a model each; the seed that the model
    was fine-tuned with belongs to both, and goes with those that have a model each if there are any.
    """
    separate = [record for record in group if _has_model_of_its_seed(record)]
    for first in sorted({finetune_seed(record) for record in group if not _has_model_of_its_seed(record)}):
        shared = [record for record in group if finetune_seed(record) == first != record.seed]
        alone = [record for record in separate if record.seed == first] if len(separate) == 1 else []
        separate = [record for record in separate if record not in alone]
        yield from _make_arms([*alone, *shared])
    if separate:
        yield from _make_arms(separate)


def _make_arms(group: list[Record]) -> Iterator[tuple[Record, ...]]:
    if len({record.seed for record in group}) == len(group):
        yield tuple(sorted(group, key=lambda record: record.seed))
    else:
        yield from ((record,) for record in group)


def _arm_sort_key(arm: Arm) -> tuple[object, ...]:
    knobs = [_sort_key(value) for value in arm.knobs.values()]
    return (not arm.reference, arm.first.task, arm.first.method, knobs, arm.device, arm.seeds, arm.run_ids)


def _sort_key(value: Any) -> tuple[bool, float, str]:
    """Sort numbers by size, then the rest by its text."""
    if isinstance(value, (int, float)):
        return (False, float(value), "")
    return (True, 0.0, str(value))


def _distinguish(arms: list[Arm]) -> Iterator[Arm]:
    """Lengthen labels that occur twice by what tells their arms apart."""
    alike: dict[tuple[str, str], list[Arm]] = defaultdict(list)
    for arm in arms:
        alike[arm.first.task, arm.label].append(arm)
    for arm in arms:
        group = alike[arm.first.task, arm.label]
        traits = distinguishing_traits(arm, group)
        if [distinguishing_traits(other, group) for other in group].count(traits) > 1:
            traits.append(arm.run_ids[0].rpartition("-")[2])
        yield replace(arm, label=", ".join([arm.label, *traits]))


def distinguishing_traits(arm: Arm, group: Iterable[Arm]) -> list[str]:
    """Return the arm's traits that not all arms of the group have, and training options that others set otherwise.

    Where these leave it alike with others, the details follow in which it differs from them.
    """
    others = list(group)
    columns = zip(*(_traits(other) for other in others), strict=True)
    traits = [trait for trait, column in zip(_traits(arm), columns, strict=True) if len(set(column)) > 1]
    stages: dict[str, list[str]] = defaultdict(list)
    for (stage, name), value in arm.training_options.items():
        if any(other.training_options.get((stage, name), value) != value for other in others):
            stages[stage].append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    traits += [f"{stage} {' '.join(options)}" for stage, options in stages.items()]
    return traits + _details(arm, [other for other in others if _traits(other) == _traits(arm)])


def _details(arm: Arm, alike: list[Arm]) -> list[str]:
    """Say what tells an arm from others of the same traits: what no user named, and other training rows."""
    first = arm.first
    details = [
        detail.words(first)
        for detail in DETAILS
        if len({repr(detail.value(other.first)) for other in alike}) > 1 and detail.value(first) is not None
    ]
    if any(differ_in_training_data(one, two) for other in alike for one in arm.records for two in other.records):
        known = fingerprint(first, "training") or fingerprint(first, "train")
        details.append(f"training data {short_hash(known)}")
    return details
