"""The flags that commands share, those of every method's knobs and every stage's options among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.presets import PRESETS
from bench.registry import METHODS, TASKS, Registry

if TYPE_CHECKING:
    from efficient_bert.knobs import Knob

Flag = Callable[[Callable[..., None]], Callable[..., None]]
"""What gives a command flags."""

SEED = click.IntRange(0, 2**32 - 1)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


class Name(click.ParamType[str]):
    """A name from a registry; `--help` lists them, a wrong one is told the nearest."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry
        self.name = registry.kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All names, as `--help` shows them."""
        return "[" + "|".join(self.registry) + "]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself, checked."""
        return str(self.registry[value].name)


class Share(click.FloatRange):
    """A number within bounds, which nan is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, checked."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value} is no number; give one of {self.min} to {self.max}", param, ctx)
        return found


def flag(name: str) -> str:
    """`exit_threshold` as `--exit-threshold`."""
    return "--" + name.replace("_", "-")


class WithKnobs(click.Command):
    """A command that also takes every method's knobs and every stage's options as flags, found when asked."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own flags and the found ones."""
        knobs = every_knob()
        stages = {stage.name: stage for method in METHODS.values() for stage in method.stage.chain}
        found = [self.knob(name, knob, several=True) for name, knob in knobs.items()]
        for stage in stages.values():
            found += [self.knob(f"{stage.name}.{knob.name}", knob, several=False) for knob in stage.options]
        *own, help_flag = super().get_params(ctx)
        return [*own, *found, help_flag]

    @staticmethod
    def knob(name: str, knob: Knob, *, several: bool) -> click.Option:
        """One flag; `several` values may be given, separated as the knob says."""
        values = f"{knob.separator} ".join(map(str, knob.points)) if knob.points and several else knob.default
        preset = not several or any(name in preset.knobs for preset in PRESETS.values())
        default = f"the preset's, or {values}" if preset else values
        destination = name.replace(".", "__")
        return click.Option(
            [flag(destination.replace("__", "-")), destination],
            help=f"{knob.summary} [default: {default}]",
            metavar=f"VALUE[{knob.separator}VALUE...]" if several else "VALUE",
        )


def every_knob() -> dict[str, Knob]:
    """The knobs of all methods, by name."""
    return {knob.name: knob for method in METHODS.values() for knob in method.all_knobs}


def given_values(extra: dict[str, Any]) -> dict[str, Any]:
    """The knobs and options among a command's parameters, as `Settings` takes them."""
    given = {name: value for name, value in extra.items() if value is not None}
    knobs = every_knob()
    return {
        "knobs": {name: tuple(value.split(knobs[name].separator)) for name, value in given.items() if name in knobs},
        "options": {name.replace("__", "."): value for name, value in given.items() if "__" in name},
    }


def with_flags(*flags: Flag) -> Flag:
    """One decorator of several, the first flag first in `--help`."""
    return lambda command: reduce(lambda made, flag: flag(made), reversed(flags), command)


SHARED = with_flags(
    click.option("--task", type=Name(TASKS), required=True, help="What to measure on."),
    click.option("--preset", default="quick", show_default=True, help=f"{', '.join(PRESETS)}."),
    click.option("--backbone", metavar="NAME_OR_DIR", help="Any BERT in safetensors. [default: the preset's]"),
    click.option("--data-dir", type=FOLDER, envvar="EFFICIENT_BERT_DATA", help="Where data sets lie. [default: hub]"),
    click.option("--device", help="cpu or cuda. [default: cuda where there is one]"),
    click.option("--max-length", type=int, help="Word pieces per example. [default: the task's]"),
    click.option("--train-rows", type=click.IntRange(1), help="Train on a seeded draw of so many rows."),
    click.option(
        "--finetune-seed", type=SEED, help="Of the held-out rows and of fine-tuning alone. [default: that of --seed]"
    ),
    click.option(
        "--store", type=FOLDER, default=Path(), help="Folder of runs/, artifacts/ and explained/. [default: here]"
    ),
)
"""What every command that needs a model is asked."""

SEEDS = click.option(
    "--seed", "seeds", type=SEED, multiple=True, default=(0,), show_default=True, help="May be repeated."
)

MANY = with_flags(
    click.option(
        "--method",
        "methods",
        type=Name(METHODS),
        multiple=True,
        help="May be repeated. [default: all that train quickly]",
    ),
    SEEDS,
    click.option("--split", help="Report on this split. [default: the task's]"),
    click.option("--eval-rows", type=click.IntRange(1), help="Evaluate on a seeded draw of so many rows."),
    click.option("--fresh", is_flag=True, help="Do again what is finished; what came of it is forgotten."),
)
"""Methods and seeds, and what they are evaluated on."""

ONE = with_flags(
    click.option("--method", type=Name(METHODS), required=True, help="Whose model answers."),
    click.option("--seed", type=SEED, default=0, show_default=True),
)
"""A single model."""

MEASURING = with_flags(
    click.option(
        "--latency-examples", type=click.IntRange(0), help="Examples to time, 0 for none. [default: the preset's]"
    ),
    click.option("--rounds", type=click.IntRange(0), help="Samples per timed example. [default: the preset's]"),
    click.option(
        "--time-again",
        is_flag=True,
        help="Time stored runs again, without training or evaluating: after a session on a busy machine.",
    ),
    click.option(
        "--report", "out", type=FOLDER, default=Path("report"), show_default=True, help="Where the report goes."
    ),
)
"""A timing session, and where the report goes."""
