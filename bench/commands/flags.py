"""The flags that commands share, those of every method's knobs and every stage's options among them."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.planning.presets import PRESETS
from bench.planning.settings import LARGEST_SEED
from bench.registry import BACKENDS, METHODS, TASKS, Registry, all_knobs, stages_of

if TYPE_CHECKING:
    from efficient_bert.knobs import Knob, Value
    from efficient_bert.methods import Method
    from efficient_bert.training import Stage

HELP_WIDTH = 110
"""Characters of a line of help."""

ARGUMENTS = f"{__name__}.arguments"
"""Key of a context's `meta` for the arguments before they are parsed."""

Flag = Callable[[Callable[..., None]], Callable[..., None]]
"""A decorator that gives a command flags."""

SEED = click.IntRange(0, LARGEST_SEED)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


class Name(click.ParamType[str]):
    """A name from a registry; a wrong one is told the nearest."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry
        self.name = registry.kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return what `--help` shows; `bench list` has the names."""
        return "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name itself, checked."""
        return str(self.registry[value].name)


class Share(click.FloatRange):
    """A number within bounds, which nan is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, checked."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is no number; give one of {self.min} to {self.max}", param, ctx)
        return number


def flag(name: str) -> str:
    """Return `exit_threshold` as `--exit-threshold`."""
    return "--" + name.replace("_", "-")


class WithKnobs(click.Command):
    """A command that also takes every method's knobs and every stage's options as flags.

    Its help shows those of the methods that are named beside `--help`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, which `--help` is read from."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own flags, and those of all methods."""
        stages = {stage.name: stage for method in METHODS.values() for stage in stages_of(method)}
        extra = [knob_flag(knob) for knob in every_knob().values()]
        extra += [option_flag(stage, knob) for stage in stages.values() for knob in stage.options]
        *options, help_flag = super().get_params(ctx)
        return [*options, *extra, help_flag]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own flags, then those of each method that is named, in groups."""
        named = named_methods(ctx.meta.get(ARGUMENTS, ()))
        with formatter.section("Options"):
            formatter.write_dl(_records(super().get_params(ctx), ctx))
        for method in named:
            with formatter.section(f"Knobs of {method.name}"):
                formatter.write_dl(_records([knob_flag(knob) for knob in all_knobs(method)], ctx) or [("none", "")])
        if named:
            with formatter.section("Training stages and their options, as in --finetune-epochs 3"):
                formatter.write("".join(f"{line}\n" for line in _stage_lines(named)))
        with formatter.section("More"):
            formatter.write_text(
                f"bench list {named[0].name}: what each of its flags means, with its default"
                if named
                else f"bench {ctx.info_name} --method NAME --help: the flags of a method; bench list: all methods"
            )


def _records(flags: Iterable[click.Parameter], ctx: click.Context) -> list[tuple[str, str]]:
    return [record for each in flags if (record := each.get_help_record(ctx)) is not None]


def _stage_lines(methods: Sequence[Method]) -> Iterator[str]:
    """Yield each stage's name with the names of its options, none broken at a hyphen."""
    for stage in {stage.name: stage for method in methods for stage in stages_of(method)}.values():
        options = " ".join(knob.name.replace("_", "-") for knob in stage.options)
        first, rest = f"  {stage.name:10} ", " " * 13
        yield from textwrap.wrap(
            options, HELP_WIDTH - 2, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )


def named_methods(arguments: Sequence[str]) -> list[Method]:
    """Return the methods that follow `--method` among unparsed arguments; a wrong name is passed over."""
    names = [value for name, value in itertools.pairwise(arguments) if name == "--method"]
    names += [word.partition("=")[2] for word in arguments if word.startswith("--method=")]
    return [METHODS[name] for name in dict.fromkeys(names) if name in METHODS]


def knob_flag(knob: Knob) -> click.Option:
    """Return a knob's flag, which takes several values, separated as the knob says."""
    values = f"{knob.separator} ".join(map(str, knob.points)) if knob.points else knob.default
    preset = any(knob.name in preset.knobs for preset in PRESETS.values())
    return _value_flag(knob.name, knob, several=True, default=f"the preset's, or {values}" if preset else values)


def option_flag(stage: Stage, knob: Knob) -> click.Option:
    """Return the flag of an option of a training stage."""
    return _value_flag(f"{stage.name}__{knob.name}", knob, several=False, default=f"the preset's, or {knob.default}")


def _value_flag(name: str, knob: Knob, *, several: bool, default: Value) -> click.Option:
    return click.Option(
        [flag(name.replace("__", "-")), name],
        help=f"{knob.summary} [default: {default}]",
        metavar=f"VALUE[{knob.separator}...]" if several else "VALUE",
    )


def every_knob() -> dict[str, Knob]:
    """Return the knobs of all methods, by name."""
    return {knob.name: knob for method in METHODS.values() for knob in all_knobs(method)}


def given_values(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the knobs and options among a command's parameters, as `Settings` takes them."""
    given = {name: value for name, value in extra.items() if value is not None}
    knobs = every_knob()
    return {
        "knobs": {name: tuple(value.split(knobs[name].separator)) for name, value in given.items() if name in knobs},
        "options": {name.replace("__", "."): value for name, value in given.items() if "__" in name},
    }


def with_flags(*flags: Flag) -> Flag:
    """Join decorators into one, the first flag first in `--help`."""
    return lambda command: reduce(lambda made, flag: flag(made), reversed(flags), command)


SHARED = with_flags(
    click.option("--task", type=Name(TASKS), required=True, help="Data set to measure on; bench list has the names."),
    click.option("--preset", default="quick", show_default=True, help=f"{', '.join(PRESETS)}."),
    click.option("--backbone", metavar="NAME_OR_DIR", help="Any BERT in safetensors. [default: the preset's]"),
    click.option("--data-dir", type=FOLDER, envvar="EFFICIENT_BERT_DATA", help="Where data sets lie. [default: hub]"),
    click.option("--device", help="cpu or cuda. [default: cuda where there is one]"),
    click.option("--max-length", type=int, help="Word pieces per example. [default: the task's]"),
    click.option("--train-rows", type=click.IntRange(1), help="Train on a seeded draw of so many rows."),
    click.option("--finetune-seed", type=SEED, help="Of held-out rows and fine-tuning alone. [default: --seed]"),
    click.option(
        "--store", type=FOLDER, default=Path(), help="Folder of runs/, artifacts/ and explained/. [default: here]"
    ),
)
"""Flags of every command that needs a model."""

SEEDS = click.option(
    "--seed", "seeds", type=SEED, multiple=True, default=(0,), show_default=True, help="May be repeated."
)

MANY = with_flags(
    click.option(
        "--method",
        "methods",
        type=Name(METHODS),
        multiple=True,
        help="Model to measure; may be repeated. [default: all that train quickly]",
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
        "--backend",
        "backends",
        type=Name(BACKENDS),
        multiple=True,
        help="Engine; may be repeated; full runs on each.  [default: torch]",
    ),
    click.option(
        "--latency-examples",
        type=click.IntRange(0),
        metavar="INTEGER",
        help="Examples to time, 0 for none. [default: the preset's]",
    ),
    click.option("--rounds", type=click.IntRange(0), help="Samples per timed example. [default: the preset's]"),
    click.option("--throughput", is_flag=True, help="Also measure examples per second, all of them there at once."),
    click.option(
        "--time-again",
        is_flag=True,
        help="Time stored runs again; nothing is trained or evaluated.",
    ),
    click.option(
        "--report", "out", type=FOLDER, default=Path("report"), show_default=True, help="Where the report goes."
    ),
)
"""A timing session, and where the report goes."""
