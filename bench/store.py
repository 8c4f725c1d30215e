"""The store of runs: one folder per run, complete once its record.json exists.

runs/<run_id>/examples.parquet   written first
runs/<run_id>/shown.json         the texts that the record shows: all that a run holds of its data's words
runs/<run_id>/record.json        written last; its existence means the run is complete
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import InputError
from bench.finite import odd_row
from bench.folders import Folders, aside
from bench.layouts import quoted
from bench.records import EXAMPLE_COLUMNS, Record
from bench.registry import TASKS
from bench.windows import with_text_ids

_ARROW_TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "list<float64>": pa.list_(pa.float64()),
    "list<int64>": pa.list_(pa.int64()),
}
EXAMPLE_SCHEMA = pa.schema([(name, _ARROW_TYPES[note.split(":")[0]]) for name, note in EXAMPLE_COLUMNS.items()])
"""The arrow schema of examples.parquet, of a classification."""


def example_schema(*, regression: bool) -> pa.Schema:
    """`EXAMPLE_SCHEMA`, with real-valued labels and predictions for a regression."""
    schema = EXAMPLE_SCHEMA
    for name in ("label", "prediction") if regression else ():
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.float64()))
    return schema


def write_aside(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to `path` so that a reader sees the old content or the new, never a part."""
    with aside(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@dataclass(frozen=True)
class RunStore(Folders):
    """Finished runs below `root`, by their ids."""

    marker: ClassVar = "record.json"
    texts: ClassVar = "shown.json"

    def record(self, run_id: str) -> Record:
        """The record of a complete run, with the texts that it shows where they are still there.

        Raises:
            InputError: there is no such run, or the folder holds another one's record.
        """
        if run_id not in self:
            known = ", ".join(self.ids()) or "none yet"
            raise InputError(f"no run {run_id!r} in {self.root}; there are: {known}")
        record = Record.from_json((self.folder(run_id) / self.marker).read_text(encoding="utf8"))
        if record.run_id != run_id:
            raise InputError(
                f"folder {run_id} holds the record of run {record.run_id}; a run's folder keeps its id: rename it back"
            )
        texts = self.folder(run_id) / self.texts
        if not texts.exists():
            return record
        try:
            return replace(record, shown=json.loads(texts.read_text(encoding="utf8")))
        except ValueError as error:
            raise InputError(f"{run_id}/{self.texts} is damaged; delete it, the run is whole without it") from error

    def examples(self, run_id: str) -> pa.Table:
        """The per-example table of a complete run, in `example_schema`."""
        if run_id not in self:
            raise InputError(f"no run {run_id!r} in {self.root}")
        path = self.folder(run_id) / "examples.parquet"
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{run_id}/examples.parquet cannot be read ({type(error).__name__}); measure the run again with --fresh"
            ) from error
        if "text_id" not in table.schema.names and "example_id" in table.schema.names:
            task = self.record(run_id).task
            table = with_text_ids(table, windows=task in TASKS and TASKS[task].windows)
        if table.schema.names != EXAMPLE_SCHEMA.names:
            raise InputError(f"{run_id}/examples.parquet has columns {table.schema.names}, not {EXAMPLE_SCHEMA.names}")
        if (row := odd_row(table)) is not None:
            name = quoted(table["example_id"][row].as_py(), repr)
            raise InputError(f"{run_id}: its answer to example {name} is no finite number; run it again with --fresh")
        return table

    def made_with(self, artifacts: Collection[str]) -> list[str]:
        """Ids of the runs of models among these, complete or under way; an unreadable record names none."""
        found = self.unfinished(artifacts)
        for run_id in self.ids():
            try:
                record = self.record(run_id)
            except InputError:
                continue
            if set(artifacts) & set(record.artifacts.values()):
                found.append(run_id)
        return found

    def put(self, record: Record, examples: pa.Table) -> None:
        """Store a finished run: the table, the texts it shows, then the record."""
        schema = example_schema(regression=pa.types.is_floating(examples.schema.field("label").type))
        with self.assembled(record.run_id) as ready:
            pq.write_table(examples.select(schema.names).cast(schema), ready / "examples.parquet")
            if record.shown:
                write_aside(ready / self.texts, json.dumps(record.shown))
            write_aside(ready / self.marker, replace(record, shown=()).to_json())
