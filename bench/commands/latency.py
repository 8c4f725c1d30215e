"""The command line of `bench latency`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.flags import FILE, FOLDER, Name
from bench.errors import InputError
from bench.registry import BACKENDS
from bench.store.records import TORCH

if TYPE_CHECKING:
    from bench.latency.profiles import Profile
    from bench.latency.sizes import Cell

LENGTHS, BATCHES = "16,32,64,128,256,512", "1"


@click.command("latency")
@click.option("--size", "sizes", multiple=True, help="minilm, base or large; may be repeated. [default: minilm]")
@click.option("--profile", "files", multiple=True, type=FILE, help="JSON of what each layer runs on.")
@click.option("--run", "run_ids", multiple=True, metavar="RUN", help="A stored run, whose profile is taken.")
@click.option("--store", type=FOLDER, default=Path(), help="A store, its runs/ folder or a pack. [default: here]")
@click.option("--backend", "backends", type=Name(BACKENDS), multiple=True, help="Engine; may be repeated.")
@click.option("--device", help="cpu or cuda. [default: cuda where there is one]")
@click.option("--length", "lengths", default=LENGTHS, show_default=True, help="Word pieces of a text.")
@click.option("--batch", "batches", default=BATCHES, show_default=True, help="Texts at a time.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Samples of each of 32 batches.")
@click.option("--out", type=FILE, help="Write the numbers as JSON too.")
def latency_command(
    sizes: tuple[str, ...],
    files: tuple[Path, ...],
    run_ids: tuple[str, ...],
    store: Path,
    backends: tuple[str, ...],
    device: str | None,
    lengths: str,
    batches: str,
    rounds: int,
    out: Path | None,
) -> None:
    """Time sizes of model on this machine, with random weights: nothing is trained.

    The full model runs on each engine, and beside it each profile on the engines that know how to leave out tokens,
    heads and layers. A profile comes from a JSON file or from a stored run.
    """
    from bench.console import silence_libraries
    from bench.planning.checks import check_backends, check_device

    silence_libraries()
    from bench.commands.parameters import default_device
    from bench.latency.sizes import SIZES, time_size
    from bench.machine.environment import read_environment

    chosen = device or default_device()
    engines = [BACKENDS[name] for name in dict.fromkeys(backends or (TORCH,))]
    check_device(chosen)
    check_backends(engines, chosen)
    for size in sizes:
        if size not in SIZES:
            raise InputError(f"--size is {size!r}, but it takes one of {', '.join(SIZES)}")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"--out is {out}, but there is no folder {out.parent}; make it, or name another")
    profiles = _profiles(files, run_ids, store)
    pieces, rows = _counts(lengths, "--length", most=512), _counts(batches, "--batch", most=4096)
    environment = read_environment(chosen)
    cells: list[Cell] = []
    for size in dict.fromkeys(sizes or ("minilm",)):
        for cell in time_size(size, profiles, engines, lengths=pieces, batches=rows, rounds=rounds, device=chosen):
            cells.append(cell)
            click.echo(f"{cell.size} {cell.length:4} x {cell.batch:<3} {cell.arm} on {cell.backend}", err=True)
    click.echo("\n".join(_lines(cells, environment)))
    if out is not None:
        content = {"environment": environment, "rounds": rounds, "cells": [asdict(cell) for cell in cells]}
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


def _profiles(files: Sequence[Path], run_ids: Sequence[str], store: Path) -> dict[str, Profile]:
    """Return profiles by the names of their arms: of files, and of stored runs."""
    from bench.latency.profiles import profile_of_run, read_profile
    from bench.store.locations import run_store

    names = ["full", *(path.stem for path in files), *run_ids]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two arms are called {name!r}; give each profile another file name, and none full.json")
    of_runs = {name: profile_of_run(run_store(store), name) for name in run_ids}
    return {path.stem: read_profile(path) for path in files} | of_runs


def _counts(text: str, flag: str, *, most: int) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
        raise InputError(f"{flag} is {text!r}, but it takes numbers from 1 to {most}, as 32,128")
    return sorted({int(part) for part in parts})


def _lines(cells: Sequence[Cell], environment: dict[str, Any]) -> Iterable[str]:
    """Yield a table for each size and batch, in Markdown: a row for each arm and engine, a column for each length."""
    at = {(cell.size, cell.batch, cell.arm, cell.backend, cell.length): cell.milliseconds for cell in cells}
    lengths = sorted({cell.length for cell in cells})
    for size, batch in dict.fromkeys((cell.size, cell.batch) for cell in cells):
        yield f"\n{size}, {batch} at a time, ms by word pieces"
        yield "| arm | engine | " + " | ".join(map(str, lengths)) + " |"
        yield "| --- | --- |" + " --- |" * len(lengths)
        for arm, backend in dict.fromkeys(key[2:4] for key in at if key[:2] == (size, batch)):
            numbers = (f"{at[size, batch, arm, backend, length]:.3g}" for length in lengths)
            yield f"| {arm} | {backend} | " + " | ".join(numbers) + " |"
    if disturbed := [cell for cell in cells if cell.disturbed_by]:
        yield (
            f"\nbusy machine: {len(disturbed)} of {len(cells)} numbers are not to be trusted "
            f"({'; '.join(disturbed[0].disturbed_by)}); when nothing else runs, give the command again"
        )
    instructions = ", ".join(environment["cpu_instructions"]) or "no instruction sets named"
    yield f"\n{environment['device_name']}; {environment['torch_threads']} CPU threads; {instructions}; random weights"
