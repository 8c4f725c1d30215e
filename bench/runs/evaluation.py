"""Evaluate one arm on a split: gathered forward passes, and one row per example in the form of `example_schema`.

Finished chunks are stored, so that a killed evaluation resumes where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.backends.runners import Runner, answer
from bench.data.finite import odd_row, require_finite
from bench.store.folders import aside
from bench.store.stored_examples import example_schema

if TYPE_CHECKING:
    from torch import Tensor

    from efficient_bert.engine.recorder import Output

Rows = Sequence[Mapping[str, Any]]
"""Encoded examples, as the engine's batches are made of."""

BATCH_SIZE = 32
CHUNK = 16 * BATCH_SIZE
"""Examples between two saves."""

UNTIMED: dict[str, list[float]] = {"seconds": [], "reference_seconds": [], "event_seconds": []}


def evaluate(
    runner: Runner, rows: Rows, *, folder: Path | None = None, advance: Callable[[int], None] = lambda examples: None
) -> pa.Table:
    """Return the table of encoded `rows` as a runner answers them, without timings.

    Args:
        runner: what answers them.
        rows: the examples.
        folder: where chunks are kept until the run is complete; those stored there are not computed again.
        advance: called with the number of examples of each finished chunk.
    """
    (table,) = evaluate_readings(runner, rows, [Reading(folder)], advance=advance)
    return table


@dataclass(frozen=True)
class Reading:
    """What is read off a pass: its own output, or the output of another policy that follows from it.

    Attributes:
        folder: where its chunks are kept, None for nowhere.
        read: a pass's output -> the output to write down.
    """

    folder: Path | None
    read: Callable[[Output], Output] = lambda output: output

    def chunk_path(self, start: int) -> Path | None:
        """Return the file of the chunk that begins with this row."""
        return self.folder and self.folder / f"part-{start:08d}.parquet"


def evaluate_readings(
    runner: Runner,
    rows: Rows,
    readings: Sequence[Reading],
    *,
    advance: Callable[[int], None] = lambda examples: None,
) -> list[pa.Table]:
    """Do as `evaluate`, with a table for each reading of the same passes."""
    chunks: list[list[pa.Table]] = [[] for _ in readings]
    for start in range(0, len(rows), CHUNK):
        chunk_rows = rows[start : start + CHUNK]
        for tables, table in zip(chunks, evaluate_chunk(runner, chunk_rows, readings, start), strict=True):
            tables.append(table)
        advance(len(chunk_rows))
    return [pa.concat_tables(tables) for tables in chunks]


def evaluate_chunk(runner: Runner, rows: Rows, readings: Sequence[Reading], start: int) -> list[pa.Table]:
    """Return the chunk's table for each reading: stored ones as they are, the others from passes, which are stored."""
    schema = example_schema(regression=runner.full_config.regression)
    tables = {reading: stored_chunk(reading.chunk_path(start), rows, schema) for reading in readings}
    missing = [reading for reading in readings if tables[reading] is None]
    for reading, examples in zip(missing, _read_passes(runner, rows, missing) if missing else (), strict=True):
        tables[reading] = pa.Table.from_pylist(examples, schema=schema)
        store_chunk(reading.chunk_path(start), tables[reading])
    return [tables[reading] for reading in readings]


def stored_chunk(path: Path | None, rows: Rows, schema: pa.Schema) -> pa.Table | None:
    """Return the chunk of these rows that a killed attempt has stored; None where there is none, or it is damaged."""
    if path is None:
        return None
    try:
        chunk = pq.ParquetFile(path, page_checksum_verification=True).read()
        intact = chunk.schema == schema and chunk["example_id"].to_pylist() == [row["example_id"] for row in rows]
    except (pa.ArrowException, OSError, ValueError):
        return None
    return chunk if intact and odd_row(chunk) is None else None


def store_chunk(path: Path | None, table: pa.Table) -> None:
    """Store a chunk, so that a reader sees all of it or nothing; without a path, do nothing."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        pq.write_table(table, part, write_page_checksum=True)


def _read_passes(runner: Runner, rows: Rows, readings: Sequence[Reading]) -> list[list[dict[str, Any]]]:
    """Return for each reading the rows of its table, all of the same passes."""
    examples: list[list[dict[str, Any]]] = [[] for _ in readings]
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        output = answer(runner, batch)
        for table_rows, reading in zip(examples, readings, strict=True):
            table_rows += _example_rows(runner, batch, reading.read(output))
    return examples


def _example_rows(runner: Runner, rows: Rows, output: Output) -> list[dict[str, Any]]:
    require_finite(output.logits, [row["example_id"] for row in rows])
    trace, layers = output.trace, runner.full_config.num_hidden_layers
    flops, published = runner.flops(output), runner.published_flops(output)
    columns = {
        **answer_columns(output.logits, regression=runner.full_config.regression),
        "length": trace.length.tolist(),
        "exit_depth": trace.exit_depth.tolist(),
        "tokens": _pad(trace.tokens.tolist(), layers),
        "heads": _pad(trace.heads.tolist(), layers),
        "neurons": _pad(trace.neurons.tolist(), layers),
        "flops": flops[0].tolist(),
        "reference_flops": flops[1].tolist(),
        "released_flops": published[0].tolist(),
        "released_reference_flops": published[1].tolist(),
    }
    return [
        _example_row(row, {name: values[number] for name, values in columns.items()}) for number, row in enumerate(rows)
    ]


def answer_columns(logits: Tensor, *, regression: bool) -> dict[str, list[Any]]:
    """Return `prediction` and `probabilities` of logits (B, C): the likeliest class; in a regression the score."""
    if regression:
        return {"prediction": logits[:, 0].double().tolist(), "probabilities": [[] for _ in logits]}
    probabilities = logits.double().softmax(-1)
    return {"prediction": probabilities.argmax(-1).tolist(), "probabilities": probabilities.tolist()}


def _pad(rows: list[list[int]], layers: int) -> list[list[int]]:
    """Return a truncated model's layers, with zeros for those the full model has beyond them."""
    return [row + [0] * (layers - len(row)) for row in rows]


def _example_row(row: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "example_id": row["example_id"],
        "text_id": row.get("text_id", row["example_id"]),
        "label": row["label"],
        "correct": columns["prediction"] == row["label"] if columns["probabilities"] else None,
        **columns,
        **UNTIMED,
    }
