"""`bench`: the command line, where everything is put together. Heavy imports happen inside the commands."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import __version__
from bench.errors import InputError
from bench.presets import PRESETS
from bench.registry import METHODS, METRICS, PLOTS, TASKS, Registry

if TYPE_CHECKING:
    from bench.plan import Plan
    from efficient_bert.knobs import Knob

JSON_LINE = ("run_id", "task", "method", "knobs", "seed", "preset", "backbone", "metrics", "heldout")
"""What the JSON line of a run repeats from its record."""

SEED = click.IntRange(0, 2**32 - 1)
FOLDER = click.Path(file_okay=False, path_type=Path)


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
        """One flag; `several` values may be given, separated by commas."""
        values = f"{knob.separator} ".join(map(str, knob.points)) if knob.points and several else knob.default
        default = values if several else f"the preset's, or {values}"
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


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say what to train or run."""
    flags = [
        click.option("--task", type=Name(TASKS), required=True, help="What to measure on."),
        click.option(
            "--method",
            "methods",
            type=Name(METHODS),
            multiple=True,
            help="May be repeated. [default: all that train quickly]",
        ),
        click.option("--preset", default="quick", show_default=True, help=f"{', '.join(PRESETS)}."),
        click.option("--backbone", metavar="NAME_OR_DIR", help="Any BERT checkpoint. [default: the preset's]"),
        click.option(
            "--data-dir", type=FOLDER, envvar="EFFICIENT_BERT_DATA", help="Where data sets lie. [default: hub]"
        ),
        click.option("--device", help="cpu or cuda. [default: cuda where there is one]"),
        click.option(
            "--seed", "seeds", type=SEED, multiple=True, default=(0,), show_default=True, help="May be repeated."
        ),
        click.option("--max-length", type=int, help="Word pieces per example. [default: the task's]"),
        click.option("--train-rows", type=click.IntRange(1), help="Train on a seeded draw of so many rows."),
        click.option("--eval-rows", type=click.IntRange(1), help="Evaluate on a seeded draw of so many rows."),
        click.option("--store", type=FOLDER, default=Path(), help="Folder of runs/ and artifacts/. [default: here]"),
        click.option("--fresh", is_flag=True, help="Do again what is finished."),
    ]
    for option in reversed(flags):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="efficient-bert")
def bench() -> None:
    """Train, run and honestly measure input-adaptive BERT.

    `bench run --task demo` needs no download; `bench list` names tasks, methods, metrics and plots.
    """


@bench.command("run", cls=WithKnobs)
@settings_options
@click.option(
    "--latency-examples", type=click.IntRange(0), help="Examples to time, 0 for none. [default: the preset's]"
)
@click.option("--rounds", type=click.IntRange(0), help="Samples per timed example. [default: the preset's]")
@click.option("--report", "out", type=FOLDER, default=Path("report"), show_default=True, help="Where the report goes.")
def run_command(seeds: tuple[int, ...], device: str | None, out: Path, **given: Any) -> None:
    """Plan, train what is missing, evaluate, time, store, and write the report."""
    from analysis.report import require_replaceable, write_report
    from bench.runner import carry_out, is_main_process

    require_replaceable(out)
    plans = planned(seeds, device, given)
    bars = progress_bars()
    run_ids = [run_id for plan in plans for run_id in carry_out(plan, bars)]
    if not is_main_process():
        return
    runs = plans[0].runs
    show_table(runs, run_ids)
    for run_id in run_ids:
        record = vars(runs.record(run_id))
        click.echo(json.dumps({name: record[name] for name in JSON_LINE}))
    click.echo(f"report: {write_report(runs, run_ids, out)}")


@bench.command("train", cls=WithKnobs)
@settings_options
def train_command(seeds: tuple[int, ...], device: str | None, **given: Any) -> None:
    """Train the stages that the methods need; finished ones are kept."""
    from bench.runner import train_missing

    for plan in planned(seeds, device, given):
        train_missing(plan, progress_bars())
        for job in plan.jobs:
            click.echo(f"{job.stage.name}: {plan.artifacts.folder(job)}")


def planned(seeds: Sequence[int], device: str | None, given: dict[str, Any]) -> list[Plan]:
    """A plan per seed, each printed."""
    quiet()
    from bench.describe import describe
    from bench.estimate import estimate_seconds
    from bench.plan import Settings, make_plan

    names = {name: given.pop(name) for name in list(given) if name in Settings.__dataclass_fields__}
    plans = []
    for seed in dict.fromkeys(seeds):
        settings = Settings(**names, **given_values(given), seed=seed, device=device or default_device())
        plan = make_plan(settings)
        click.echo("\n".join(describe(plan, estimate_seconds(plan))))
        plans.append(plan)
    return plans


def default_device() -> str:
    """The GPU where torch sees one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def progress_bars() -> Any:
    """The bars on standard error."""
    from bench.progress import Bars

    return Bars()


def quiet() -> None:
    """Keep the libraries' own bars and notices out of the output, and all but the first process of several."""
    from bench.runner import is_main_process

    if not is_main_process():
        sys.stdout = sys.stderr = io.StringIO()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def show_table(runs: Any, run_ids: Sequence[str]) -> None:
    """Print the table of arms with intervals and speed-ups."""
    from analysis.frames import Runs
    from analysis.summary import summary

    print_summary(summary(Runs.read(runs, run_ids)))


def print_summary(text: Any) -> None:
    """Print a `Summary` as a table with its notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*text.columns)
    for row in text.rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
    console.print(table)
    for note in text.notes:
        console.print(note, soft_wrap=True)


@bench.command("report")
@click.argument("runs", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Where the report goes.")
@click.option("--task", type=Name(TASKS), help="Only this task's runs.")
@click.option("--markdown", is_flag=True, help="Also print the table in Markdown.")
def report_command(runs: Path, out: Path, task: str | None, markdown: bool) -> None:
    """Write the report of all finished runs in the folder RUNS."""
    from analysis.frames import Runs
    from analysis.report import write_report
    from analysis.summary import markdown_table
    from bench.store import RunStore

    if not runs.is_dir():
        raise InputError(f"folder {runs} does not exist; give the runs/ folder of a store")
    store = RunStore(runs)
    run_ids = [run_id for run_id in store.ids() if task in (None, store.record(run_id).task)]
    click.echo(f"report: {write_report(store, run_ids, out)}")
    if markdown:
        click.echo(markdown_table(Runs.read(store, run_ids)))


@bench.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--store", type=FOLDER, default=Path(), help="Folder of runs/. [default: here]")
def compare_command(a: str, b: str, store: Path) -> None:
    """Compare runs A and B (ids, or their folders) example by example: metrics, paired difference, interval."""
    from analysis.compare import comparison
    from bench.store import RunStore

    print_summary(comparison(RunStore(store / "runs"), Path(a).name, Path(b).name))


@bench.command("export")
@click.option("--task", type=Name(TASKS), required=True)
@click.option("--out", type=FOLDER, required=True, help="Folder for docs.jsonl and {train,val,test}.jsonl.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def export_command(task: str, out: Path, seed: int) -> None:
    """Write a task's texts and gold rationales in ERASER's layout."""
    from bench.rationales import export_eraser

    export_eraser(TASKS[task], seed=seed, folder=out)
    click.echo(f"rationales: {out}")


@bench.command("list")
def list_command() -> None:
    """Tasks, methods, metrics, plots and presets, a line each."""
    found = {f"{registry.kind}s": registry for registry in (TASKS, METHODS, METRICS, PLOTS)}
    for kind, entries in {**found, "presets": PRESETS}.items():
        click.echo(kind)
        for name, entry in entries.items():
            click.echo(f"  {name:24} {entry.summary}")


@bench.command("env")
@click.option("--device", help="cpu or cuda. [default: cuda where there is one]")
def env_command(device: str | None) -> None:
    """What a measurement here would record of the machine, as JSON."""
    from bench.environment import read_environment
    from bench.plan import check_device

    chosen = device or default_device()
    check_device(chosen)
    click.echo(json.dumps(read_environment(chosen), indent=2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    try:
        code = bench.main(arguments, prog_name="bench", standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message())
    except click.Abort:
        fail("interrupted")
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}; is the folder there, and may it be written?")
    except ValueError as error:
        if not is_input_error(error):
            raise
        fail(str(error))
    else:
        sys.exit(code or 0)


def is_input_error(error: ValueError) -> bool:
    """Whether it is one of the packages' errors for wrong input (each leaf package has its own)."""
    return any(kind.__name__ == InputError.__name__ for kind in type(error).__mro__)


def fail(message: str) -> None:
    """One line, exit code 2."""
    click.echo(f"bench: {' '.join(message.split())}", err=True)
    sys.exit(2)
