"""The best trade-off of a method: the point to run at, chosen on training rows that no stage learnt on.

The point is kept in a file, one entry per task, which `bench run --config` reads back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.choosing import fastest, holds_up, is_faster
from bench.errors import InputError
from bench.evaluation import Reading, evaluate_readings
from bench.exclusive import alone
from bench.layouts import quoted
from bench.locks import exclusive_lock
from bench.registry import METHODS
from bench.runner import load_models, runnable, train_missing, values
from bench.store import write_aside

if TYPE_CHECKING:
    from bench.plan import Arm, Plan
    from bench.progress import Watcher
    from efficient_bert import EfficientBertConfig
    from efficient_bert.engine import Output

METHOD = "flexible"
"""What an entry without a method is for, as in the file that Flexible BERT's authors published."""


@dataclass(frozen=True)
class Point:
    """Knob values with their score (the task's first metric) and FLOPs speed-up on unseen rows, means over seeds."""

    knobs: Mapping[str, Any]
    score: float
    speedup: float


def searched_method(names: Sequence[str]) -> str:
    """The one method of a search.

    Raises:
        InputError: no method, several, one that has no knobs, or a control.
    """
    if len(names) != 1:
        raise InputError(f"a search is for one method, but --method is {', '.join(names) or 'not given'}; give one")
    (name,) = names
    if METHODS[name].control_of:
        raise InputError(
            f"method {name!r} is a control, and follows what is chosen for {METHODS[name].control_of}; search that one"
        )
    if not METHODS[name].all_knobs:
        others = ", ".join(other for other, method in METHODS.items() if method.all_knobs and not method.control_of)
        raise InputError(f"method {name!r} has no knobs, so there is nothing to search; give one of {others}")
    return name


def points(plans: Sequence[Plan], watcher: Watcher) -> tuple[Point, list[Point]]:
    """The full model's point and those of every arm beside it, missing stages trained first; a plan per seed.

    Passes are kept with the runs they belong to, so that a killed search, a larger grid or a later run repeats none.
    """
    measured = [seen(plan, watcher) for plan in plans]
    full, *others = [
        Point(arms[0].knobs, fmean(score for score, _ in found), fmean(speedup for _, speedup in found))
        for arms, found in zip(
            zip(*(plan.arms for plan in plans), strict=True), zip(*measured, strict=True), strict=True
        )
    ]
    return full, others


def seen(plan: Plan, watcher: Watcher) -> list[tuple[float, float]]:
    """Score and speed-up of each arm of a plan, all on the rows that are unseen by every one of them."""
    rows, places = plan.data.heldout.to_list(), unseen(plan, plan.arms)
    train_missing(plan, watcher)
    with alone(plan.runs, [arm.run_id for arm in plan.arms]):
        return scores_and_speedups(plan, watcher, rows, places)


def scores_and_speedups(
    plan: Plan, watcher: Watcher, rows: Sequence[Mapping[str, Any]], places: Sequence[int]
) -> list[tuple[float, float]]:
    """As `seen`, of trained stages and the rows' places that count."""
    models = load_models(plan, plan.arms)
    metric, found = plan.task.metrics[0], {}
    for staying, arms in together(plan.arms):
        able = runnable(plan, staying, models)
        readings = [
            Reading(plan.partial_run(arm) / "heldout", partial(read_by, arm, able.model.config)) for arm in arms
        ]
        points = f", read at {len(arms)} points" if len(arms) > 1 else ""
        with watcher.counting(f"search {staying.label}{points}", len(rows)) as advance:
            tables = evaluate_readings(able, rows, readings, advance=advance)
        for arm, table in zip(arms, tables, strict=True):
            own = values(table.take(places), [metric, "flops_speedup"])
            found[arm.run_id] = own[metric], own["flops_speedup"]
    return [found[arm.run_id] for arm in plan.arms]


def together(arms: Sequence[Arm]) -> list[tuple[Arm, list[Arm]]]:
    """Arms that differ in who leaves alone, beside the arm whose pass they are read off: where nobody does."""
    groups: dict[tuple[str, str], tuple[Arm, list[Arm]]] = {}
    for arm in arms:
        leaving = arm.method.leaving
        staying = replace(arm, knobs={**arm.knobs, leaving.knob: leaving.never}) if leaving else arm
        groups.setdefault((staying.job.id, staying.label), (staying, []))[1].append(arm)
    return list(groups.values())


def read_by(arm: Arm, config: EfficientBertConfig, output: Output) -> Output:
    """The arm's own pass, read off one in which nobody left."""
    from efficient_bert.exits import replay

    leaving = arm.method.leaving
    return replay(output, leaving.rule(config, arm.knobs[leaving.knob])) if leaving else output


def unseen(plan: Plan, arms: Sequence[Arm]) -> list[int]:
    """Places of the held-out rows that no stage of these arms learnt on.

    Raises:
        InputError: there is none.
    """
    rows = range(len(plan.data.heldout))
    left = set(rows)
    for job in (job for arm in arms for job in arm.job.chain):
        left &= set(job.stage.untouched_rows(len(rows), job.options, job.seed))
    if not left:
        raise InputError(
            f"of {len(rows)} held-out rows none is left to search on: importance or gates learn on them; give "
            "importance fewer rows (--rewire-importance-rows, --width-importance-rows), or hold out more"
        )
    return sorted(left)


def best(full: Point, found: Sequence[Point], *, allowed_drop: float) -> Point:
    """The point of the highest FLOPs speed-up that loses at most `allowed_drop` of the full model's score.

    Raises:
        InputError: none does.
    """
    fit = [point for point in found if holds_up(point.score, full.score, allowed_drop) and is_faster(point.speedup)]
    chosen = fastest(fit, lambda point: (point.speedup, point.score))
    if chosen is None:
        scores = [point.score for point in found if not math.isnan(point.score)]
        nearest = f"the best scores {max(scores):.3f}" if scores else "none has a score"
        raise InputError(
            f"none of {len(found)} points is faster and loses at most {allowed_drop:g} of {full.score:.3f}; {nearest}: "
            "give other knob values or a larger --allowed-drop"
        )
    return chosen


def write_entry(path: Path, *, task: str, method: str, knobs: Mapping[str, Any]) -> None:
    """Put a task's entry into the file, beside those of other tasks; a list is written as one.

    Raises:
        InputError: the file is there and holds something else.
    """
    from efficient_bert.knobs import parse_numbers

    separators = {knob.name: knob.separator for knob in METHODS[method].all_knobs}
    entry = {name: parse_numbers(str(value)) if separators[name] != "," else value for name, value in knobs.items()}
    with exclusive_lock(path):  # another command may be about to put its own task's entry
        others = {name: entry for name, entry in kept(path).items() if plain(name) != task}
        write_aside(path, json.dumps({**others, task: {"method": method, **entry}}, indent=2) + "\n")


def read_entry(path: Path, task: str) -> tuple[str, dict[str, str]]:
    """A task's method and its knob values as they are typed.

    Raises:
        InputError: no such file, no JSON, no entry of the task, a knob that the method does not have, or a value that
            nobody could type.
    """
    entries = {plain(name): entry for name, entry in read(path).items()}
    if task not in entries:
        raise InputError(f"{path} has no entry for task {task!r}; it has: {', '.join(entries) or 'none'}")
    entry = dict(entries[task])
    method = METHODS[str(entry.pop("method", METHOD))]
    known = {knob.name for knob in method.all_knobs}
    for name, value in entry.items():
        if name not in known:
            raise InputError(
                f"{path} sets {name!r} for task {task!r}, but method {method.name!r} has: {', '.join(sorted(known))}"
            )
        parts = value if isinstance(value, list) else [value]
        if not isinstance(value, str) and not all(isinstance(part, int | float) for part in parts):
            raise InputError(
                f"{path} sets {name!r} for task {task!r} to {quoted(value, json.dumps)}, but a value is a number, a "
                f"text or a list of numbers, as [0.5, 0.75]"
            )
    return method.name, {name: typed(value) for name, value in entry.items()}


def kept(path: Path) -> dict[str, Mapping[str, Any]]:
    """All entries of a file, none where it is not there yet.

    Raises:
        InputError: as `read`.
    """
    return read(path) if path.exists() else {}


def read(path: Path) -> dict[str, Mapping[str, Any]]:
    """All entries of a file, task -> its values.

    Raises:
        InputError: no such file, no JSON, or not an object of objects.
    """
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; bench search writes it") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it, or let bench search write it") from None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise InputError(f"{path} must be a JSON object with an object of knob values for each task")
    return found


def plain(name: str) -> str:
    """A task's name as ours is written: SST-2 is sst2."""
    return name.lower().replace("-", "")


def typed(value: Any) -> str:
    """A value of the file as it would be typed on the command line."""
    from efficient_bert.knobs import format_numbers

    return format_numbers(value) if isinstance(value, list) else str(value)
