"""Operating points chosen on the held-out slice of the training split, never on the split that is reported."""

from __future__ import annotations

import math

from analysis.tables.frames import Arm, Runs
from bench.choosing import fastest, holds_up, is_faster
from bench.registry import METRICS

TOLERANCE = 0.01
"""How far below the full model's held-out quality a chosen point may lie: one point of accuracy."""

RULE = (
    "highest held-out FLOPs speed-up among the points whose held-out {metric} is at most"
    f" {TOLERANCE * 100:g} point below the full model's"
)
"""The rule in words."""


def choose_arms(runs: Runs) -> dict[str, Arm]:
    """Choose an arm for each series, by its name: one per method (backbone, preset, device and data apart).

    A series with no eligible point, or without a full model of the same seeds to compare with, is absent.
    """
    fit: dict[str, list[Arm]] = {}
    for arm in runs.arms:
        if not refusal(arm, runs):
            fit.setdefault(series(arm, runs), []).append(arm)
    chosen = {name: fastest(arms, _speedup_and_score) for name, arms in fit.items()}
    return {name: arm for name, arm in chosen.items() if arm is not None}


def choices(runs: Runs) -> list[str]:
    """Write a line for each series of a method that is no control: its chosen point, or that there is none."""
    chosen = choose_arms(runs)
    lines = []
    wanted = [arm for arm in runs.arms if not arm.reference and not arm.first.control_of]
    for name in dict.fromkeys(series(arm, runs) for arm in wanted):
        arm = chosen.get(name)
        if arm is None:
            why = dict.fromkeys(refusal(each, runs) for each in wanted if series(each, runs) == name)
            lines.append(f"chosen  {name}: no point, each {' or '.join(why)}")
            continue
        knobs = " ".join(f"{knob}={value}" for knob, value in arm.knobs.items()) or "no knobs"
        score = f"held-out {first_metric(arm)} {arm.heldout_mean(first_metric(arm)):.3f}"
        lines.append(f"chosen  {name}: {knobs} ({score}, FLOPs speed-up {_speedup(arm):.2f})")
    return lines


def series(arm: Arm, runs: Runs) -> str:
    """Name the method, with what else tells its series from another of the same method in these runs."""
    return runs.series[arm.run_ids]


def first_metric(arm: Arm) -> str:
    """Return the quality metric that the arm's task names first: the one models are selected by."""
    return quality_metrics(arm)[0]


def quality_metrics(arm: Arm) -> list[str]:
    """Return the quality metrics of the arm's task, in the task's order."""
    return [name for name in arm.first.metrics if name in METRICS and METRICS[name].quality]


def refusal(arm: Arm, runs: Runs) -> str:
    """Say why an arm may not be chosen; empty where it may.

    It may where, on held-out rows, it costs less than the full model and holds up. Controls may not; nor may what
    learnt on the held-out slice, gates or the order of heads, which is not judged on it.
    """
    if arm.reference or arm.first.control_of:
        return "is no choice but what choices are compared with"
    if has_learnt_on_heldout(arm, "label_split"):
        return "has gates that learnt on the held-out rows (bench search keeps rows for this)"
    if has_learnt_on_heldout(arm, "importance_split"):
        return "has heads in an order that the held-out rows decided"
    fulls = tuple(full for record in arm.records if (full := runs.full_model(record)) is not None)
    name = first_metric(arm)
    score = arm.heldout_mean(name)
    reference = Arm(label="", records=fulls).heldout_mean(name) if fulls else None
    if score is None or reference is None or len(fulls) < len(arm.records):
        return "lacks a full model of its seeds, or held-out scores"
    if not is_faster(_speedup(arm)):
        return "costs as much as the full model on held-out rows"
    if not holds_up(score, reference, TOLERANCE):
        return f"loses more than {TOLERANCE * 100:g} point on held-out rows"
    return ""


def has_learnt_on_heldout(arm: Arm, option: str) -> bool:
    """Check whether a stage of the arm's models read the held-out labels, as this option of it says."""
    return any(options.get(option) == "heldout" for record in arm.records for options in record.options.values())


def _speedup_and_score(arm: Arm) -> tuple[float, float]:
    score = arm.heldout_mean(first_metric(arm))
    return _speedup(arm), math.nan if score is None else score


def _speedup(arm: Arm) -> float:
    return arm.heldout_mean("flops_speedup") or 0.0
