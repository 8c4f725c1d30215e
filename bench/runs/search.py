"""Search for the best trade-off of a method (`bench search`), on training rows that no stage learnt on.

The chosen point is kept in a file, one entry per task, which `bench run --config` reads back.
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

from bench.backends.runners import load_models, make_runner
from bench.choosing import fastest, holds_up, is_faster
from bench.data.layouts import quote
from bench.errors import InputError
from bench.registry import METHODS, all_knobs
from bench.runs.evaluation import Reading, evaluate_readings
from bench.runs.run import metric_values
from bench.runs.train import train_missing
from bench.store.exclusive import lock_folders
from bench.store.locks import exclusive_lock
from bench.store.runs import write_aside

if TYPE_CHECKING:
    import pyarrow as pa

    from bench.planning.plan import Arm, Plan
    from bench.progress import Watcher
    from efficient_bert import EfficientBertConfig
    from efficient_bert.engine.recorder import Output

METHOD = "flexible"
"""The method of an entry that names none, as in the file that Flexible BERT's authors published."""


@dataclass(frozen=True)
class Point:
    """Knob values with their score and FLOPs speed-up on rows that no stage learnt on, means over seeds.

    Attributes:
        knobs: knob -> value.
        score: of the task's first metric.
        speedup: FLOPs of the full model over those of the method.
    """

    knobs: Mapping[str, Any]
    score: float
    speedup: float


@dataclass(frozen=True)
class Pass:
    """Arms that differ only in which examples leave early: all are read off one pass in which none leaves.

    Attributes:
        arm: the arm that makes the pass.
        arms: those that are read off it.
    """

    arm: Arm
    arms: tuple[Arm, ...]

    @property
    def label(self) -> str:
        """The pass's name for progress bars."""
        points = f", read at {len(self.arms)} points" if len(self.arms) > 1 else ""
        return f"search {self.arm.label}{points}"


def method_to_search(names: Sequence[str]) -> str:
    """Return the one method of a search.

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
    if not all_knobs(METHODS[name]):
        others = ", ".join(other for other, method in METHODS.items() if all_knobs(method) and not method.control_of)
        raise InputError(f"method {name!r} has no knobs, so there is nothing to search; give one of {others}")
    return name


def measure_points(plans: Sequence[Plan], watcher: Watcher) -> tuple[Point, list[Point]]:
    """Return the full model's point and those of every arm beside it, after training missing stages.

    Passes are kept with the runs they belong to, so that a killed search, a larger grid or a later run repeats none.

    Args:
        plans: with the same arms, a seed each.
        watcher: shows progress.
    """
    points_of_seeds = [measure_arms(plan, watcher) for plan in plans]
    full, *others = [mean_point(seeds) for seeds in zip(*points_of_seeds, strict=True)]
    return full, others


def mean_point(points: Sequence[Point]) -> Point:
    """Return the mean over seeds of one operating point."""
    return Point(points[0].knobs, fmean(point.score for point in points), fmean(point.speedup for point in points))


def measure_arms(plan: Plan, watcher: Watcher) -> list[Point]:
    """Return the point of each arm of a plan, all on the rows that no stage of any of them learnt on."""
    row_numbers = unseen_rows(plan, plan.arms)
    train_missing(plan, watcher)
    with lock_folders(plan.runs, [arm.run_id for arm in plan.arms]):
        tables = evaluate_heldout(plan, watcher)
    return [point_of(plan, arm, tables[arm.run_id].take(row_numbers)) for arm in plan.arms]


def point_of(plan: Plan, arm: Arm, table: pa.Table) -> Point:
    """Return an arm's point by its table of examples."""
    metric = plan.task.metrics[0]
    values = metric_values(table, [metric, "flops_speedup"])
    return Point(arm.knobs, values[metric], values["flops_speedup"])


def evaluate_heldout(plan: Plan, watcher: Watcher) -> dict[str, pa.Table]:
    """Return each arm's table of the held-out rows by its run id; the stages are trained."""
    rows, models = plan.data.heldout.to_list(), load_models(plan, plan.arms)
    tables: dict[str, pa.Table] = {}
    for each in passes_of(plan.arms):
        runner = make_runner(plan, each.arm, models)
        readings = [
            Reading(plan.partial_run(arm) / "heldout", partial(replay_exits, arm, runner.model.config))
            for arm in each.arms
        ]
        with watcher.counting_bar(each.label, len(rows)) as advance:
            results = evaluate_readings(runner, rows, readings, advance=advance)
        tables |= zip((arm.run_id for arm in each.arms), results, strict=True)
    return tables


def passes_of(arms: Sequence[Arm]) -> list[Pass]:
    """Group arms that differ only in which examples leave early."""
    groups: dict[tuple[str, str], list[Arm]] = {}
    for arm in arms:
        full_depth = without_exits(arm)
        groups.setdefault((full_depth.job.id, full_depth.label), []).append(arm)
    return [Pass(without_exits(group[0]), tuple(group)) for group in groups.values()]


def without_exits(arm: Arm) -> Arm:
    """Return the arm at the knob value at which no example leaves early; the arm itself where none can."""
    leaving = arm.method.leaving
    return replace(arm, knobs={**arm.knobs, leaving.knob: leaving.never}) if leaving else arm


def replay_exits(arm: Arm, config: EfficientBertConfig, output: Output) -> Output:
    """Return the output of an arm's own pass, read off one in which no example left."""
    from efficient_bert.policies.exit_rules import replay

    leaving = arm.method.leaving
    return replay(output, leaving.rule(config, arm.knobs[leaving.knob])) if leaving else output


def unseen_rows(plan: Plan, arms: Sequence[Arm]) -> list[int]:
    """Return the numbers of the held-out rows that no stage of these arms learnt on.

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


def best_point(full: Point, points: Sequence[Point], *, allowed_drop: float) -> Point:
    """Return the point of the highest FLOPs speed-up that loses at most `allowed_drop` of the full model's score.

    Raises:
        InputError: none does.
    """
    fit = [point for point in points if holds_up(point.score, full.score, allowed_drop) and is_faster(point.speedup)]
    chosen = fastest(fit, lambda point: (point.speedup, point.score))
    if chosen is None:
        scores = [point.score for point in points if is_faster(point.speedup) and not math.isnan(point.score)]
        best = f"the best of the faster ones scores {max(scores):.3f}" if scores else "none is faster and has a score"
        raise InputError(
            f"no setting is faster than the full model and loses at most {allowed_drop:g} of its score, "
            f"{full.score:.3f}: of the {len(points)} tried, {best}; try other knob values or a larger --allowed-drop"
        )
    return chosen


def write_entry(path: Path, *, task: str, method: str, knobs: Mapping[str, Any]) -> None:
    """Write a task's entry into the file, beside those of other tasks; a list is written as one.

    Raises:
        InputError: the file is there and holds something else.
    """
    from efficient_bert.knobs import parse_numbers

    separators = {knob.name: knob.separator for knob in all_knobs(METHODS[method])}
    entry = {name: parse_numbers(str(value)) if separators[name] != "," else value for name, value in knobs.items()}
    with exclusive_lock(path):  # another command may be about to put its own task's entry
        others = {name: entry for name, entry in existing_entries(path).items() if our_task_name(name) != task}
        write_aside(path, json.dumps({**others, task: {"method": method, **entry}}, indent=2) + "\n")


def read_entry(path: Path, task: str) -> tuple[str, dict[str, str]]:
    """Read a task's method and its knob values as a user would type them.

    Raises:
        InputError: no such file, no JSON, no entry of the task, a knob that the method does not have, or a value that
            nobody could type.
    """
    entries = {our_task_name(name): entry for name, entry in read_entries(path).items()}
    if task not in entries:
        raise InputError(f"{path} has no entry for task {task!r}; it has: {', '.join(entries) or 'none'}")
    entry = dict(entries[task])
    method = METHODS[str(entry.pop("method", METHOD))]
    known = {knob.name for knob in all_knobs(method)}
    for name, value in entry.items():
        if name not in known:
            raise InputError(
                f"{path} sets {name!r} for task {task!r}, but method {method.name!r} has: {', '.join(sorted(known))}"
            )
        parts = value if isinstance(value, list) else [value]
        if not isinstance(value, str) and not all(isinstance(part, int | float) for part in parts):
            raise InputError(
                f"{path} sets {name!r} for task {task!r} to {quote(value, json.dumps)}, but a value is a number, a "
                f"text or a list of numbers, as [0.5, 0.75]"
            )
    return method.name, {name: command_line_text(value) for name, value in entry.items()}


def existing_entries(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return all entries of a file, none where it does not exist yet.

    Raises:
        InputError: as `read_entries`.
    """
    return read_entries(path) if path.exists() else {}


def read_entries(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read all entries of a file, task -> its values.

    Raises:
        InputError: no such file, no JSON, or not an object of objects.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; bench search writes it") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it, or let bench search write it") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{path} must be a JSON object with an object of knob values for each task")
    return entries


def our_task_name(name: str) -> str:
    """Return a task's name as this project writes it: SST-2 is sst2."""
    return name.lower().replace("-", "")


def command_line_text(value: Any) -> str:
    """Return a value of the file as a user would type it on the command line."""
    from efficient_bert.knobs import format_numbers

    return format_numbers(value) if isinstance(value, list) else str(value)
