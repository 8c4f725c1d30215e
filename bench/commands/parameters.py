"""Turn a command's parameters into settings and plans, and print the plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.flags import given_values
from bench.console import silence_libraries
from bench.errors import InputError
from bench.visible import visible

if TYPE_CHECKING:
    from bench.planning.plan import Plan
    from bench.planning.settings import Settings


def add_config_entry(parameters: dict[str, Any], config: Path) -> dict[str, Any]:
    """Return a command's parameters with the method and knobs of a task's entry where they give none.

    Raises:
        InputError: the entry is missing or for another method.
    """
    from bench.runs.search import read_entry

    method, knobs = read_entry(config, parameters["task"])
    if parameters["methods"] not in ((), (method,)):
        raise InputError(f"{config} is for method {method!r} of this task; give --method {method}, or no --config")
    return {**parameters, "methods": (method,), **{name: knobs[name] for name in knobs if parameters[name] is None}}


def make_plans(
    seeds: Sequence[int],
    device: str | None,
    parameters: dict[str, Any],
    *,
    measuring: bool = True,
    adapt: Callable[[Settings], Settings] = lambda settings: settings,
) -> list[Plan]:
    """Make a plan per seed, and print each: its stages, and the runs where those are measured.

    Args:
        seeds: of training.
        device: "cpu" or "cuda"; None for the default.
        parameters: of the command.
        measuring: whether runs are measured, or stages trained alone.
        adapt: changes the settings that follow from the parameters.
    """
    silence_libraries()
    from bench.planning.describe import describe
    from bench.planning.plan import make_plan
    from bench.runs.estimate import estimate_seconds

    plans: list[Plan] = []
    for seed in dict.fromkeys(seeds):
        plan = make_plan(adapt(make_settings(parameters, device, seed=seed)))
        plan = replace(plan, made=frozenset(name for other in plans for name in other.names))
        seconds = estimate_seconds(plan, plan.missing_arms if measuring else ())
        click.echo(visible("\n".join(describe(plan, plan.arms if measuring else None, seconds))))
        plans.append(plan)
    return plans


def make_settings(parameters: dict[str, Any], device: str | None, **more: Any) -> Settings:
    """Turn a command's parameters into `Settings`: those that are none of its fields are knobs and options."""
    from bench.planning.settings import Settings

    fields = {name: value for name, value in parameters.items() if name in Settings.__dataclass_fields__}
    values = given_values({name: value for name, value in parameters.items() if name not in fields})
    return Settings(**fields, **values, **more, device=device or default_device())


def default_device() -> str:
    """Return "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
