"""The schema of a table of examples, and its checks when it is read: somebody may have changed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bench.errors import InputError
from bench.store.records import EXAMPLE_COLUMNS, Record

_ARROW_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "list<float64>": pa.list_(pa.float64()),
    "list<int64>": pa.list_(pa.int64()),
}
EXAMPLE_SCHEMA = pa.schema([(name, _ARROW_TYPES[note.split(":")[0]]) for name, note in EXAMPLE_COLUMNS.items()])
"""The arrow schema of examples.parquet, of a classification."""


def example_schema(*, regression: bool) -> pa.Schema:
    """Return `EXAMPLE_SCHEMA`, with real-valued labels and predictions for a regression."""
    schema = EXAMPLE_SCHEMA
    for name in ("label", "prediction") if regression else ():
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.float64()))
    return schema


LAYERED = ("tokens", "heads", "neurons")
"""Columns with an entry for each layer."""


def require_sound(table: pa.Table, record: Record, *, path: Path, remedy: str) -> None:
    """Check a table against its record, and its columns against what they say.

    Raises:
        InputError: it has not as many rows as the record says, names an example twice, or a column holds what it cannot
            hold.
    """
    wrong = _problem(table, record)
    if wrong:
        raise InputError(f"{path} is damaged: {wrong}; {remedy}")


def _problem(table: pa.Table, record: Record) -> str | None:
    rows = record.data["rows"]
    if len(table) != rows:
        return f"it has {len(table)} rows, but the record beside it says {rows}"
    regression = pa.types.is_floating(table.schema.field("label").type)
    columns = (_wrong_column(table, name, regression=regression) for name in EXAMPLE_COLUMNS)
    problem = next(filter(None, columns), None)
    return problem or next((f"column {name}: {rule}" for name, rule in _broken_rules(table, record, regression)), None)


def _wrong_column(table: pa.Table, name: str, *, regression: bool) -> str | None:
    """Say whether a column is of another type than it should be, or has empty or undefined entries."""
    column = table.column(name)
    wanted = example_schema(regression=regression).field(name).type
    if column.type != wanted:
        return f"column {name} is of type {column.type}, not {wanted}"
    if column.null_count and not (name == "correct" and regression):
        return f"column {name} has {column.null_count} empty entries"
    entries = pc.list_flatten(column) if pa.types.is_list(wanted) else column
    if entries.null_count and name != "correct":
        return f"column {name} has {entries.null_count} empty entries in its lists"
    if pa.types.is_floating(entries.type) and not pc.all(pc.is_finite(entries), min_count=0).as_py():
        return f"column {name} has a value that is not finite"
    return None


def _broken_rules(table: pa.Table, record: Record, regression: bool) -> list[tuple[str, str]]:
    """Yield (column, the rule that one of its entries breaks)."""
    rules = [(name, "an entry for each layer", _lengths(record.layers)) for name in LAYERED]
    rules += [(name, "no negative count", _at_least(0)) for name in LAYERED]
    rules += [(name, "a positive count", _at_least(1)) for name in ("length", "flops", "reference_flops")]
    rules += [(name, "a positive count", _at_least(1)) for name in ("released_flops", "released_reference_flops")]
    rules += [(name, "no negative time", _at_least(0)) for name in ("seconds", "reference_seconds", "event_seconds")]
    rules += [("exit_depth", f"1 to {record.layers}", _between(1, record.layers))]
    if not regression:
        classes = pc.list_value_length(table["probabilities"]).unique().to_pylist()
        rules += [
            ("probabilities", "an entry for each class", lambda column: len(classes) <= 1),
            ("probabilities", "0 to 1", _between(0, 1)),
            *((name, "a class", _between(0, max(classes, default=0) - 1)) for name in ("label", "prediction")),
            ("correct", "prediction == label", lambda column: _agrees(table)),
        ]
    rules += [("example_id", "no example twice", lambda column: not _has_duplicates(table))]
    return [(name, f"the rule is {rule}") for name, rule, holds in rules if not holds(table[name])]


def _entries(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column) if pa.types.is_list(column.type) else column


def _between(low: float, high: float) -> Callable[[pa.ChunkedArray], bool]:
    def holds(column: pa.ChunkedArray) -> bool:
        extremes: Mapping[str, float | None] = pc.min_max(_entries(column)).as_py()
        least, most = extremes["min"], extremes["max"]
        return least is None or most is None or (low - _SLACK <= least and most <= high + _SLACK)

    return holds


_SLACK = 1e-9  # a softmax may be a hair above 1


def _at_least(low: int) -> Callable[[pa.ChunkedArray], bool]:
    return _between(low, float("inf"))


def _lengths(wanted: int) -> Callable[[pa.ChunkedArray], bool]:
    return lambda column: bool(pc.all(pc.equal(pc.list_value_length(column), wanted), min_count=0).as_py())


def _agrees(table: pa.Table) -> bool:
    right = pc.equal(table["prediction"], table["label"])
    return bool(pc.all(pc.equal(right, table["correct"]), min_count=0).as_py())


def _has_duplicates(table: pa.Table) -> bool:
    """Say whether an example stands there twice."""
    return len(table["example_id"].unique()) < len(table)
