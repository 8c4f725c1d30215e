"""The terminal: progress bars, quiet libraries, tables."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from bench.visible import visible_line


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
    """Print a `Summary` as a table with its notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*map(visible_line, text.columns))
    for row in text.rows:
        table.add_row(*map(visible_line, row))
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
    console.print(table)
    for note in text.notes:
        console.print(visible_line(note), soft_wrap=True)
