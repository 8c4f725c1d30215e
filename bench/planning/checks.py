"""Checks of what the user gave, before anything is trained."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.planning.fitting import refuse
from bench.planning.settings import LARGEST_SEED
from bench.registry import all_knobs, stages_of

if TYPE_CHECKING:
    from bench.backends import Backend
    from bench.planning.plan import Plan
    from bench.planning.settings import Settings
    from efficient_bert.methods import Method


LIMITS = {
    **dict.fromkeys(("seed", "finetune_seed"), (0, LARGEST_SEED)),
    **dict.fromkeys(("train_rows", "eval_rows"), (1, math.inf)),
    **dict.fromkeys(("latency_examples", "rounds"), (0, math.inf)),
}
"""Setting -> its least and its largest value."""


def check_limits(settings: Settings) -> None:
    """Raise InputError for seeds and numbers of rows or samples out of their limits, all of them at once."""
    given = {name: getattr(settings, name) for name in LIMITS}
    refuse(
        f"{name} is {value}, but it is {f'{least} to {most}' if math.isfinite(most) else f'{least} or more'}"
        for name, (least, most) in LIMITS.items()
        if (value := given[name]) is not None and not least <= value <= most
    )


def check_names(settings: Settings, methods: Sequence[Method]) -> None:
    """Raise InputError for a knob or stage option that none of the methods has."""
    knobs = {knob.name for method in methods for knob in all_knobs(method)}
    stages = {stage.name: stage for method in methods for stage in stages_of(method)}
    options = {f"{stage.name}.{knob.name}" for stage in stages.values() for knob in stage.options}
    wrong = []
    for given, known, kind in ((settings.knobs, knobs, "knob"), (settings.options, options, "training option")):
        for name in given:
            if name not in known:
                wrong.append(
                    f"none of the methods {', '.join(method.name for method in methods)} has the {kind} {name!r}; "
                    f"they have: {', '.join(sorted(known)) or 'none'}"
                )
    refuse(wrong)


def check_controls(settings: Settings, methods: Sequence[Method]) -> None:
    """Raise InputError for a knob value at which a method runs and its control beside it cannot."""
    from efficient_bert.policies.controls import OWN

    for control in methods:
        control_knobs = {knob.name for knob in all_knobs(control)}
        given = any(knob.default == OWN and knob.name in settings.knobs for knob in all_knobs(control))
        methods_beside = [method for method in methods if method.name == control.control_of and not given]
        for knob in itertools.chain.from_iterable(all_knobs(method) for method in methods_beside):
            values = settings.knobs.get(knob.name, ())
            if knob.name not in control_knobs and values not in ((), (knob.default,)):
                raise InputError(
                    f"{control.name} has no points along {knob.name} to set beside, only {knob.default}; leave the "
                    f"flag out, name the methods without the control by --method, or give a sweep --no-controls"
                )


def check_time_again(plan: Plan) -> None:
    """Check that stored runs can be timed again where that is asked for, or a throughput that they lack.

    Raises:
        InputError: all is done anew, nothing is timed at all, or the model of a stored run is gone.
    """
    if plan.settings.time_again and plan.settings.fresh:
        raise InputError("--time-again keeps the models and answers that --fresh makes anew; give one of the two")
    if plan.settings.time_again and not plan.timing:
        raise InputError(
            "--time-again times stored runs again, but with 0 latency examples or rounds nothing is timed; leave it out"
        )
    flag = "--time-again" if plan.settings.time_again else "--throughput"
    for arm in plan.arms_timed_again:
        if arm.job.id not in plan.artifacts:
            raise InputError(
                f"run {arm.run_id} cannot be timed again, because its model {arm.job.id} is no longer in "
                f"{plan.artifacts.root}; leave {flag} out, or give --fresh to train and measure anew"
            )


def check_throughput(plan: Plan) -> None:
    """Raise InputError where throughput is wanted and no example is timed."""
    if plan.timing.throughput and not plan.timing:
        raise InputError(
            "--throughput measures the examples that are timed, but with 0 latency examples or rounds there are none; "
            "leave it out"
        )


def check_backends(backends: Sequence[Backend], device: str) -> None:
    """Raise InputError for a backend that cannot run here: a package is missing, or the device is another one."""
    for backend in backends:
        for package in backend.packages:
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"backend {backend.name} needs {package}, which is not installed; "
                    f"pip install 'efficient-bert[{backend.extra}]'"
                )
        if device not in backend.devices:
            raise InputError(f"backend {backend.name} runs on {' or '.join(backend.devices)}, not on {device}")


def check_device(device: str) -> None:
    """Raise InputError where the device cannot be used here."""
    import torch

    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}, but it is cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no GPU here; use --device cpu")
