"""Many runs in two files, for keeping and passing on: what `bench pack` writes and every reader of runs takes.

    PACK/records.jsonl      one record per line, by rising run id
    PACK/examples.parquet   the tables of examples, a row group per run, with the run's id as first column

A pack is read-only and holds no text of the data: the beginnings of examples that a run may show stay behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import InputError, first_line
from bench.store.digests import digests_of, marker_text, require_seal, require_unchanged
from bench.store.folders import aside, require_own
from bench.store.records import Record
from bench.store.runs import RunStore, write_aside
from bench.store.stored_examples import example_schema, require_sound

RECORDS, EXAMPLES = "records.jsonl", "examples.parquet"
REMEDY = "pack the runs again"
CONTENT = (RECORDS, EXAMPLES, "figures", "*.json")
"""Names in a folder that a pack may be written to: its own, and what is kept beside it."""


class RunReader(Protocol):
    """Finished runs that can be read, wherever they lie."""

    @property
    def root(self) -> Path: ...

    def ids(self) -> Iterator[str]:
        """Return the names of the runs, sorted."""
        ...

    def record(self, run_id: str) -> Record:
        """Return the record of a run."""
        ...

    def examples(self, run_id: str) -> pa.Table:
        """Return the table of examples of a run, in `example_schema`."""
        ...

    def table_path(self, run_id: str) -> Path:
        """Return the file that holds it."""
        ...

    def remedy(self, run_id: str) -> str:
        """Say what to do where a run is damaged, as the end of a message."""
        ...


def open_runs(folder: Path) -> RunReader:
    """Open the runs in a folder: a pack, or the runs/ folder of a store."""
    return PackedRuns(folder) if (folder / RECORDS).is_file() else RunStore(folder)


@dataclass(frozen=True)
class PackedRuns:
    """The runs of a pack."""

    root: Path

    def ids(self) -> Iterator[str]:
        """Return the names of the runs, sorted."""
        return iter(self._records)

    def record(self, run_id: str) -> Record:
        """Return the record of a run.

        Raises:
            InputError: the pack lacks it, or is damaged.
        """
        if run_id not in self._records:
            raise InputError(f"no run {run_id!r} in {self.root}; there are: {', '.join(self._records) or 'none'}")
        return self._records[run_id]

    def examples(self, run_id: str) -> pa.Table:
        """Read the table of examples of a run.

        Raises:
            InputError: the pack lacks it, or is damaged.
        """
        record = self.record(run_id)
        position = list(self._records).index(run_id)
        path = self.root / EXAMPLES
        require_unchanged(self.root, record.digests, names=[EXAMPLES], remedy=REMEDY)
        try:
            file = pq.ParquetFile(path)
            table = file.read_row_group(position)
        except (pa.ArrowException, OSError, IndexError) as error:
            raise InputError(f"{path} cannot be read ({first_line(error)}); {REMEDY}") from error
        if file.num_row_groups != len(self._records) or set(table["run_id"].to_pylist()) != {run_id}:
            raise InputError(f"{path} and {RECORDS} beside it do not belong together; {REMEDY}")
        regression = table["correct"].null_count == len(table)
        table = table.drop_columns("run_id").cast(example_schema(regression=regression))
        require_sound(table, record, path=path, remedy=REMEDY)
        return table

    def table_path(self, run_id: str) -> Path:
        """Return the file that holds all tables."""
        return self.root / EXAMPLES

    def remedy(self, run_id: str) -> str:
        """Say what to do where a run is damaged, as the end of a message."""
        return REMEDY

    @cached_property
    def _records(self) -> dict[str, Record]:
        path = self.root / RECORDS
        records: dict[str, Record] = {}
        for number, line in enumerate(_lines(path), start=1):
            try:
                record = Record.from_json(line)
                require_seal(json.loads(line), path, remedy=REMEDY)
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
            records[record.run_id] = record
        return records


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf8").splitlines()
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is not UTF-8; {REMEDY}") from error


def pack(runs: RunReader, run_ids: Iterable[str], folder: Path) -> list[str]:
    """Write runs to a pack, in place of an earlier one; the ids.

    Raises:
        InputError: no run is named, one is damaged, or the folder holds something that is no pack.
    """
    ids = sorted(set(run_ids))
    if not ids:
        raise InputError(f"{runs.root} holds no finished runs to pack; give the runs/ folder of a store")
    require_own(folder, CONTENT, kind="a pack of runs")
    folder.mkdir(parents=True, exist_ok=True)
    records = [replace(runs.record(run_id), shown=(), digests={}) for run_id in ids]
    with aside(folder / EXAMPLES) as part:
        _write_examples(part, ((run_id, runs.examples(run_id)) for run_id in ids))
    tables = digests_of(folder, [EXAMPLES])
    texts = [marker_text(json.loads(record.to_json()), tables, RECORDS) for record in records]
    write_aside(folder / RECORDS, "".join(f"{json.dumps(json.loads(text))}\n" for text in texts))
    return ids


def _write_examples(path: Path, tables: Iterable[tuple[str, pa.Table]]) -> None:
    """Write the tables as row groups; classes become real numbers, as the scores of regressions are."""
    schema = pa.schema([("run_id", pa.string()), *example_schema(regression=True)])
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=9) as writer:
        for run_id, table in tables:
            named = table.add_column(0, "run_id", pa.array([run_id] * len(table), pa.string()))
            writer.write_table(named.cast(schema), row_group_size=max(1, len(table)))
