"""The command line of `bench export`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.flags import FOLDER, Name
from bench.errors import InputError
from bench.registry import METHODS


@click.command("export")
@click.argument("source", metavar="RUN_OR_MODEL", required=False)
@click.option("--out", type=FOLDER, required=True, help="New folder for the export.")
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), help="Of the layers. [default: that of the run, or fp32]"
)
@click.option("--store", type=FOLDER, default=Path(), help="Where runs/ and artifacts/ are. [default: here]")
@click.option("--method", type=Name(METHODS), help="How a model runs, where no run is given.")
@click.option("--knob", "knobs", multiple=True, metavar="NAME=VALUE", help="Of the method. May be repeated.")
@click.option("--task", hidden=True)
def export_command(
    source: str | None,
    out: Path,
    precision: str | None,
    store: Path,
    method: str | None,
    knobs: tuple[str, ...],
    task: str | None,
) -> None:
    """Take a model away: write a folder with an ONNX graph that answers texts without torch.

    RUN_OR_MODEL is the id of a run, or the folder of a trained model with --method.
    """
    from bench.runs.export import export, find_source

    if task is not None:
        raise InputError("what bench export --task did is now called bench gold; give bench gold with the same flags")
    if source is None:
        raise InputError("bench export takes the id of a run, or the folder of a trained model; bench run makes runs")
    named = dict(split_knob(knob) for knob in knobs)
    chosen = find_source(source, store=store, method=method, knobs=named)
    click.echo(f"exported: {export(chosen, out, precision=precision)}")


def split_knob(text: str) -> tuple[str, str]:
    """Split NAME=VALUE.

    Raises:
        InputError: it has no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--knob is {text!r}, but it takes NAME=VALUE, as exit_threshold=0.3")
    return name.replace("-", "_"), value
