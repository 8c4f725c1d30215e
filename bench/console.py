"""The terminal: progress bars, quiet libraries, tables."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from bench.visible import visible_line

RUNS = "runs"
"""Heading of the column that holds ids of runs."""


def progress_bars() -> Any:
    """Return the bars on standard error."""
    from bench.progress import Bars

    return Bars()


def silence_libraries() -> None:
    """Keep the libraries' own bars and notices out of the output, and all but the first process of several."""
    from bench.store.locks import is_main_process

    if not is_main_process():
        sys.stdout = sys.stderr = io.StringIO()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def print_summary(text: Any) -> None:
    """Print a `Summary` as a table with its notes; each id of a run stands on its line, whole where it fits."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
    rows = [dict(zip(text.columns, map(visible_line, row), strict=True)) for row in text.rows]
    longest = max((len(run_id) for row in rows for run_id in row.get(RUNS, "").split()), default=0)
    table = Table()
    for name in text.columns:
        table.add_column(visible_line(name), overflow="fold", no_wrap=name == RUNS and longest <= console.width // 2)
    for row in rows:
        table.add_row(*("\n".join(cell.split()) if name == RUNS else cell for name, cell in row.items()))
    console.print(table)
    for note in text.notes:
        console.print(visible_line(note), soft_wrap=True)
