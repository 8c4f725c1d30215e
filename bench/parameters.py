"""From a command's parameters to settings and to plans, which are printed as they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.console import quiet
from bench.errors import InputError
from bench.flags import given_values
from bench.visible import visible

if TYPE_CHECKING:
    from bench.plan import Plan, Settings


def configured(given: dict[str, Any], config: Path) -> dict[str, Any]:
    """A command's parameters with the method and knobs of a task's entry where they do not say otherwise."""
    from bench.search import read_entry

    method, knobs = read_entry(config, given["task"])
    if given["methods"] not in ((), (method,)):
        raise InputError(f"{config} is for method {method!r} of this task; give --method {method}, or no --config")
    return {**given, "methods": (method,), **{name: knobs[name] for name in knobs if given[name] is None}}


def planned(
    seeds: Sequence[int],
    device: str | None,
    given: dict[str, Any],
    *,
    measuring: bool = True,
    adapted: Callable[[Settings], Settings] = lambda settings: settings,
) -> list[Plan]:
    """A plan per seed, each printed: stages, and the runs where those are measured.

    Args:
        adapted: makes a command's own settings of those that its parameters say.
    """
    quiet()
    from bench.describe import describe
    from bench.estimate import estimate_seconds
    from bench.plan import make_plan

    plans: list[Plan] = []
    for seed in dict.fromkeys(seeds):
        plan = make_plan(adapted(settings_from(given, device, seed=seed)))
        plan = replace(plan, made=frozenset(name for other in plans for name in other.names))
        seconds = estimate_seconds(plan, plan.missing_arms if measuring else ())
        click.echo(visible("\n".join(describe(plan, plan.arms if measuring else None, seconds))))
        plans.append(plan)
    return plans


def settings_from(given: dict[str, Any], device: str | None, **more: Any) -> Settings:
    """A command's parameters as `Settings`: what is none of its fields is a knob or an option."""
    from bench.plan import Settings

    names = {name: value for name, value in given.items() if name in Settings.__dataclass_fields__}
    rest = given_values({name: value for name, value in given.items() if name not in names})
    return Settings(**names, **rest, **more, device=device or default_device())


def default_device() -> str:
    """The GPU where torch sees one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
