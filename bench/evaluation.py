"""One arm over a split: gathered forward passes, and one row per example in the form of `example_schema`.

Finished chunks are kept aside, so that a killed evaluation resumes where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.finite import odd_row, require_finite
from bench.folders import aside
from bench.store import example_schema

if TYPE_CHECKING:
    from torch import Tensor

    from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification
    from efficient_bert.decisions import Policy
    from efficient_bert.engine import Output

BATCH_SIZE = 32
CHUNK = 16 * BATCH_SIZE
"""Examples between two saves."""

UNTIMED: dict[str, list[float]] = {"seconds": [], "reference_seconds": [], "event_seconds": []}


@dataclass(frozen=True)
class Runnable:
    """A model with a policy, on a device, and the configuration of the full model it is compared with.

    `released_flops` is the authors' own count, where a method has one.
    """

    model: EfficientBertForSequenceClassification
    policy: Policy
    reference: EfficientBertConfig
    device: str
    released_flops: Callable[[EfficientBertForSequenceClassification, Output], tuple[Tensor, Tensor]] | None = None


def evaluate(
    arm: Runnable,
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: Path | None = None,
    advance: Callable[[int], None] = lambda examples: None,
) -> pa.Table:
    """The example table of `arm` on encoded `rows`, without timings.

    Args:
        folder: where chunks are kept until the run is complete; those found there are not computed again.
        advance: called with the number of examples of each finished chunk.
    """
    (table,) = evaluate_readings(arm, rows, [Reading(folder)], advance=advance)
    return table


@dataclass(frozen=True)
class Reading:
    """What is read off a pass: its own answers, or those it would have given otherwise; and where chunks are kept."""

    folder: Path | None
    read: Callable[[Output], Output] = lambda output: output


def evaluate_readings(
    arm: Runnable,
    rows: Sequence[Mapping[str, Any]],
    readings: Sequence[Reading],
    *,
    advance: Callable[[int], None] = lambda examples: None,
) -> list[pa.Table]:
    """As `evaluate`, an example table for each reading of the same passes."""
    schema = example_schema(regression=arm.reference.regression)
    for folder in (reading.folder for reading in readings if reading.folder):
        folder.mkdir(parents=True, exist_ok=True)
    chunks: list[list[pa.Table]] = []
    for start in range(0, len(rows), CHUNK):
        paths = [reading.folder and reading.folder / f"part-{start:08d}.parquet" for reading in readings]
        found = [path and kept_chunk(path, rows[start : start + CHUNK], schema) for path in paths]
        missing = [place for place, chunk in enumerate(found) if chunk is None]
        examples = _chunk(arm, rows[start : start + CHUNK], [readings[place] for place in missing]) if missing else []
        for place, own in zip(missing, examples, strict=True):
            found[place] = pa.Table.from_pylist(own, schema=schema)
            if path := paths[place]:
                with aside(path) as part:
                    pq.write_table(found[place], part, write_page_checksum=True)
        chunks.append(found)
        advance(len(rows[start : start + CHUNK]))
    return [pa.concat_tables(own) for own in zip(*chunks, strict=True)]


def kept_chunk(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table | None:
    """What a killed attempt has kept of these rows; None where there is none, or it is damaged."""
    try:
        chunk = pq.ParquetFile(path, page_checksum_verification=True).read()
        whole = chunk.schema == schema and chunk["example_id"].to_pylist() == [row["example_id"] for row in rows]
    except (pa.ArrowException, OSError, ValueError):
        return None
    return chunk if whole and odd_row(chunk) is None else None


def _chunk(arm: Runnable, rows: Sequence[Mapping[str, Any]], readings: Sequence[Reading]) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = [[] for _ in readings]
    for start in range(0, len(rows), BATCH_SIZE):
        own = rows[start : start + BATCH_SIZE]
        output = _passed(arm, own)
        for examples, reading in zip(found, readings, strict=True):
            examples += _examples(arm, own, reading.read(output))
    return found


def _passed(arm: Runnable, rows: Sequence[Mapping[str, Any]]) -> Output:
    import torch

    from efficient_bert import Batch, run
    from efficient_bert.training.batches import collate

    inputs = collate(rows, pad_token_id=arm.model.config.padding)
    batch = Batch.of({name: value.to(arm.device) for name, value in inputs.items()})
    with torch.inference_mode():
        return run(arm.model, batch, arm.policy)


def _examples(arm: Runnable, rows: Sequence[Mapping[str, Any]], output: Output) -> list[dict[str, Any]]:
    from efficient_bert.cost import full_flops, trace_flops

    require_finite(output.logits, [row["example_id"] for row in rows])
    trace, layers = output.trace, arm.reference.num_hidden_layers
    counts = trace_flops(trace, arm.model.config), full_flops(trace.length, arm.reference)
    released = arm.released_flops(arm.model, output) if arm.released_flops else counts
    columns = {
        **answers(output.logits, regression=arm.reference.regression),
        "length": trace.length.tolist(),
        "exit_depth": trace.exit_depth.tolist(),
        "tokens": _padded(trace.tokens.tolist(), layers),
        "heads": _padded(trace.heads.tolist(), layers),
        "neurons": _padded(trace.neurons.tolist(), layers),
        "flops": counts[0].tolist(),
        "reference_flops": counts[1].tolist(),
        "released_flops": released[0].tolist(),
        "released_reference_flops": released[1].tolist(),
    }
    return [_example(row, {name: values[place] for name, values in columns.items()}) for place, row in enumerate(rows)]


def answers(logits: Tensor, *, regression: bool) -> dict[str, list[Any]]:
    """`prediction` and `probabilities` of logits (B, C): the likeliest class; in a regression the score, and none."""
    if regression:
        return {"prediction": logits[:, 0].double().tolist(), "probabilities": [[] for _ in logits]}
    probabilities = logits.double().softmax(-1)
    return {"prediction": probabilities.argmax(-1).tolist(), "probabilities": probabilities.tolist()}


def _padded(rows: list[list[int]], layers: int) -> list[list[int]]:
    """A truncated model's layers, with zeros for those the full model has beyond them."""
    return [row + [0] * (layers - len(row)) for row in rows]


def _example(row: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "example_id": row["example_id"],
        "text_id": row.get("text_id", row["example_id"]),
        "label": row["label"],
        "correct": columns["prediction"] == row["label"] if columns["probabilities"] else None,
        **columns,
        **UNTIMED,
    }
