"""Latencies that are not to be trusted, as their session recorded: marked wherever they are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from analysis.tables.frames import Arm, Runs
from bench.store.records import Record

MARK = "*"
"""Stands right behind a number that was timed on a disturbed machine."""

REMEDY = "no verdict is drawn from these; when nothing else runs, time them anew: the same command with --time-again"


def disturbances(records: Iterable[Record]) -> tuple[str, ...]:
    """Say why the latencies of these runs are marked; nothing for quiet ones, and for those that never looked."""
    return tuple(dict.fromkeys(str(line) for record in records for line in record.timing.get("disturbed_by") or ()))


def is_disturbed(arm: Arm) -> bool:
    """Check whether any of an arm's latencies are marked."""
    return bool(disturbances(arm.records))


def note(runs: Runs) -> str:
    """Say what the mark means: why, for which arms where not all, the remedy; empty where nothing is marked."""
    arms: dict[str, list[str]] = defaultdict(list)
    for arm in runs.arms:
        for line in disturbances(arm.records):
            arms[line].append(arm.label)
    reasons = [
        line if len(labels) == len(runs.arms) else f"{', '.join(labels)}: {line}" for line, labels in arms.items()
    ]
    return f"{MARK} marks latencies of a busy or unsteady machine ({'; '.join(reasons)}); {REMEDY}" if reasons else ""
