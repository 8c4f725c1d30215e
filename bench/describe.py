"""A plan in words, as `bench run` prints it before it does anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.environment import crowded

if TYPE_CHECKING:
    from bench.plan import Arm, Plan


def describe(plan: Plan, arms: Sequence[Arm] | None, seconds: float) -> Iterator[str]:
    """One line per fact: what, on what, with what, what is cached, the arms, and how long it will take.

    Args:
        arms: what is measured; None where stages are trained and no run is stored.
        seconds: for all of that.
    """
    data, environment, settings = plan.data, plan.environment, plan.settings
    synthetic = ", synthetic data made by this project" if plan.task.synthetic else ""
    first = f", fine-tuned with seed {settings.first_seed}" if settings.first_seed != settings.seed else ""
    yield f"plan      task {plan.task.name}{synthetic}, preset {plan.preset.name}, seed {settings.seed}{first}"
    dropped = f", {data.dropped:,} dropped as their copies or phrases" if data.dropped else ""
    cut = f" (longer texts, which are cut: {data.cut:,})" if data.cut else ""
    yield (
        f"data      {len(data.train):,} training rows, {len(data.heldout):,} held out for selection{dropped}; "
        f"{len(data.evaluation):,} {plan.task.evaluation} rows, at most {plan.max_length} word pieces{cut}"
    )
    others = plan.other_classes
    left = f", without its classifier of {len(others)} other classes: {', '.join(others)}" if others else ""
    yield f"backbone  {plan.backbone.name}, {plan.config.num_hidden_layers} layers, {plan.backbone.identity}{left}"
    crowd = crowded(environment)
    threads = f"{environment['torch_threads']} threads{f', {crowd}' if crowd else ''}"
    yield f"device    {environment['device']}: {environment['device_name']}, {threads}"
    missing_jobs, missing_arms, timed_again = plan.missing_jobs, plan.missing_arms, plan.arms_timed_again
    for job in plan.jobs:
        options = ", ".join(f"{name} {value}" for name, value in job.options.items())
        yield f"stage     {job.stage.name}: {'to do' if job in missing_jobs else 'cached'} ({options})"
    runs, stages = (len(set(found).difference(plan.names)) for found in plan.forgotten)
    if runs or stages:
        yield f"fresh     forgets {runs} stored runs and {stages} stages of other commands, which came of these stages"
    for arm in arms or ():
        state = "to do" if arm in missing_arms else "cached, timed again" if arm in timed_again else "cached"
        yield f"run       {arm.label}: {state}"
    some, nothing = (" of training", "train") if arms is None else ("", "do")
    measured = f"about {duration(seconds)}{some}, measured from a few steps"
    yield f"time      {measured if seconds else f'nothing to {nothing}'}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
