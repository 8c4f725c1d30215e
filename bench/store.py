"""The store of runs: one folder per run, complete once its record.json exists.

    runs/<run_id>/examples.parquet   written first
    runs/<run_id>/record.json        written last; its existence means the run is complete

A run is assembled in a hidden sibling folder and renamed into place, so no reader ever sees half of one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import InputError
from bench.records import EXAMPLE_COLUMNS, Record

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


def write_aside(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old content or the new, never a part."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf8")
    aside.replace(path)


@dataclass(frozen=True)
class RunStore:
    """Finished runs below `root`."""

    root: Path

    def folder(self, run_id: str) -> Path:
        return self.root / run_id

    def partial(self, run_id: str) -> Path:
        """Where an unfinished run keeps what it has; hidden from every listing, made on demand."""
        folder = self.root / f".{run_id}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __contains__(self, run_id: str) -> bool:
        return (self.folder(run_id) / "record.json").is_file()

    def ids(self) -> Iterator[str]:
        """Complete runs, sorted by id."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if not folder.name.startswith(".") and (folder / "record.json").is_file():
                    yield folder.name

    def record(self, run_id: str) -> Record:
        """The record of a complete run.

        Raises:
            InputError: there is no such run, or the folder holds another one's record.
        """
        if run_id not in self:
            known = ", ".join(self.ids()) or "none yet"
            raise InputError(f"no run {run_id!r} in {self.root}; there are: {known}")
        record = Record.from_json((self.folder(run_id) / "record.json").read_text(encoding="utf8"))
        if record.run_id != run_id:
            raise InputError(
                f"folder {run_id} holds the record of run {record.run_id}; a run's folder keeps its id: rename it back"
            )
        return record

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
        if table.schema.names != EXAMPLE_SCHEMA.names:
            raise InputError(f"{run_id}/examples.parquet has columns {table.schema.names}, not {EXAMPLE_SCHEMA.names}")
        return table

    def put(self, record: Record, examples: pa.Table) -> None:
        """Store a finished run: the table, then the record, then one rename."""
        partial = self.partial(record.run_id)
        ready = partial / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        schema = example_schema(regression=pa.types.is_floating(examples.schema.field("label").type))
        pq.write_table(examples.select(schema.names).cast(schema), ready / "examples.parquet")
        write_aside(ready / "record.json", record.to_json())
        self._drop(record.run_id)
        ready.replace(self.folder(record.run_id))
        shutil.rmtree(partial)

    def restart(self, run_id: str) -> None:
        """Forget a run and what an unfinished attempt at it has kept (`--fresh`)."""
        self._drop(run_id)
        shutil.rmtree(self.root / f".{run_id}.partial", ignore_errors=True)

    def _drop(self, run_id: str) -> None:
        """The record goes first, so that a half-removed run is no run."""
        folder = self.folder(run_id)
        (folder / "record.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
