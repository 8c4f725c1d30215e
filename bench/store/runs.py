"""The store of runs: one folder per run, complete once its record.json exists.

runs/<run_id>/examples.parquet   written first
runs/<run_id>/shown.json         the texts that the record shows: all that a run holds of its data's words
runs/<run_id>/record.json        written last; its existence means the run is complete
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from bench.data.windows import with_text_ids
from bench.errors import InputError
from bench.registry import TASKS
from bench.store.digests import digests_below, marker_text, require_seal, require_unchanged
from bench.store.folders import Folders, aside
from bench.store.json_files import misfit, read_json, read_object
from bench.store.records import EXAMPLE_COLUMNS, Record
from bench.store.stored_examples import example_schema, require_sound


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
        """Read the record of a complete run, with the texts that it shows where they are still there.

        Raises:
            InputError: there is no such run, or the folder holds another one's record, or a damaged one.
        """
        if run_id not in self:
            known = ", ".join(self.ids()) or "none yet"
            raise InputError(f"no run {run_id!r} in {self.root}; there are: {known}")
        path, remedy = self.folder(run_id) / self.marker, self.remedy(run_id)
        values = read_object(path, remedy=remedy)
        try:
            record = Record.from_values(values)
        except InputError as error:
            raise InputError(f"{path}: {error}; {remedy}") from error
        if record.run_id != run_id:
            raise InputError(
                f"folder {run_id} holds the record of run {record.run_id}; a run's folder keeps its id: rename it "
                "back, or delete it where it is a copy"
            )
        require_seal(values, path, remedy=remedy)
        return replace(record, shown=self._read_shown(record))

    def table_path(self, run_id: str) -> Path:
        """Return the file that holds the run's table of examples."""
        return self.folder(run_id) / "examples.parquet"

    def remedy(self, run_id: str) -> str:
        """Return the remedy for a damaged run, as the end of a message."""
        return f"delete the folder {self.folder(run_id)} and run the same command again, or measure again with --fresh"

    def _read_shown(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Read the texts that a run shows; those of the record itself where there is no file of them."""
        path = self.folder(record.run_id) / self.texts
        if not path.exists():
            return record.shown
        known = {self.texts: record.digests.get(self.texts, "")} if record.digests else {}
        try:
            require_unchanged(path.parent, known, remedy="")
            content: Sequence[Mapping[str, Any]] = read_json(path, remedy="")
        except InputError as error:
            raise InputError(f"{path} is damaged; delete it, the run is whole without it") from error
        if wrong := misfit(content, _SHOWN, "it") or next(filter(None, map(_shown_misfit, content)), None):
            raise InputError(f"{path} is damaged ({wrong}); delete it, the run is whole without it")
        return content

    def examples(self, run_id: str) -> pa.Table:
        """Read the per-example table of a complete run, in `example_schema`.

        Raises:
            InputError: there is no such run, or its table is not the whole one that was stored.
        """
        record = self.record(run_id)
        path, remedy = self.table_path(run_id), self.remedy(run_id)
        require_unchanged(path.parent, record.digests, names=[path.name], remedy=remedy)
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}); {remedy}") from error
        if "text_id" not in table.schema.names and "example_id" in table.schema.names:
            table = with_text_ids(table, windows=record.task in TASKS and TASKS[record.task].windows)
        if table.schema.names != list(EXAMPLE_COLUMNS):
            raise InputError(f"{run_id}/examples.parquet has columns {table.schema.names}, not {list(EXAMPLE_COLUMNS)}")
        require_sound(table, record, path=path, remedy=remedy)
        return table

    def ids_made_with(self, artifacts: Collection[str]) -> list[str]:
        """Return the ids of the runs of these models, complete or not; an unreadable record names none."""
        run_ids = self.unfinished_ids(artifacts)
        for run_id in self.ids():
            try:
                record = self.record(run_id)
            except InputError:
                continue
            if set(artifacts) & set(record.artifacts.values()):
                run_ids.append(run_id)
        return run_ids

    def put(self, record: Record, examples: pa.Table) -> None:
        """Store a finished run: the table, the texts it shows, then the record."""
        schema = example_schema(regression=pa.types.is_floating(examples.schema.field("label").type))
        with self.assemble(record.run_id) as ready:
            pq.write_table(examples.select(schema.names).cast(schema), ready / "examples.parquet")
            if record.shown:
                write_aside(ready / self.texts, json.dumps(record.shown))
            content = json.loads(replace(record, shown=(), digests={}).to_json())
            write_aside(ready / self.marker, marker_text(content, digests_below(ready), self.marker))


_SHOWN = Sequence[Mapping[str, Any]]


def _shown_misfit(entry: Mapping[str, Any]) -> str | None:
    """Say what is wrong with one text that a run shows."""
    kinds = {"pieces": Sequence[str], "layers": Sequence[int]}
    return next((wrong for name, kind in kinds.items() if (wrong := misfit(entry.get(name), kind, name))), None)
