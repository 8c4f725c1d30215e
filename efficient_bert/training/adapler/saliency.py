"""Saliency maps of the training rows: what AdapLeR's predictors learn to follow (section 3.2).

The map of an example is gradient times input of its gold logit, averaged over the fine-tuned model's best epochs. All
maps are one parquet file beside the model, one row per example under its id: `example_id`, `saliency`, a float32 for
every word piece, and `row`, a digest of the word pieces and the label that it is the map of.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState

from efficient_bert.errors import InputError
from efficient_bert.explainers.attribution import gradient_times_input
from efficient_bert.files import DamagedError, read_table, read_tensors, write_tables
from efficient_bert.knobs import Knob
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import Rows, chunks
from efficient_bert.training import Context, Stage, Status, Trained
from efficient_bert.training.batches import batch_of, collate, length_order
from efficient_bert.training.cached_rows import SHARD
from efficient_bert.training.finetune import FINETUNE
from efficient_bert.training.loop import native_precision

FILE = "saliency.parquet"
SCHEMA = pa.schema({"example_id": pa.string(), "saliency": pa.list_(pa.float32()), "row": pa.string()})


def row_digest(row: Mapping[str, Any]) -> str:
    """Hash an example's word pieces and label to 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps([list(row["input_ids"]), row["label"]]).encode()).hexdigest()[:16]


def saliency_of(
    models: Sequence[EfficientBertForSequenceClassification], rows: Rows, *, batch_size: int, precision: str = "no"
) -> list[list[float]]:
    """Compute each row's map, one number for every word piece: the mean over the models."""
    maps: dict[int, list[float]] = {}
    for numbers in chunks(length_order(rows), batch_size):
        inputs = collate([rows[number] for number in numbers], pad_token_id=models[0].config.padding)
        batch = batch_of(models[0], inputs)
        labels = inputs["labels"].to(models[0].device)
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=precision == "bf16"):
            batch_maps = torch.stack([gradient_times_input(model, batch, labels) for model in models]).mean(0).tolist()
        maps |= {
            number: scores[: len(rows[number]["input_ids"])] for number, scores in zip(numbers, batch_maps, strict=True)
        }
    return [maps[number] for number in range(len(rows))]


def extract(context: Context) -> Trained:
    """Extract the maps of all training rows, shards shared among processes; the model is passed on as it is."""
    state = PartialState(cpu=context.device == "cpu")
    models = best_epochs(context)
    precision, batch_size = context.options["precision"], context.options["batch_size"]
    precision = native_precision(context.device) if precision == "auto" else precision
    context.folder.mkdir(parents=True, exist_ok=True)
    shards, started, computed = [], time.monotonic(), 0
    for number, rows in enumerate(chunks(context.train, SHARD)):
        shards.append(context.folder / f"shard-{number:05d}.parquet")
        digests = [row_digest(row) for row in rows]
        if number % state.num_processes == state.process_index and not is_stored(shards[-1], digests):
            maps = saliency_of(models, rows, batch_size=batch_size, precision=precision)
            names = [row["example_id"] for row in rows]
            write_tables(shards[-1], SCHEMA, [pa.table([names, maps, digests], SCHEMA)])
            computed += len(rows)
        done = min(len(context.train), (number + 1) * SHARD)
        context.watch(Status(done, len(context.train), computed / (time.monotonic() - started)))
    state.wait_for_everyone()
    path = context.folder / FILE
    if state.is_main_process:
        write_tables(path, SCHEMA, (pq.read_table(shard, schema=SCHEMA) for shard in shards))
    return Trained(context.model.cpu(), beside={FILE: path})


def is_stored(shard: Path, digests: Sequence[str]) -> bool:
    """Check whether a killed attempt has stored the maps of these rows, undamaged."""
    table = read_table(shard, SCHEMA)
    return table is not None and table["row"].to_pylist() == digests


def best_epochs(context: Context) -> list[EfficientBertForSequenceClassification]:
    """Load the models of the best epochs that fine-tuning kept, on the device.

    Raises:
        InputError: none is there, or one is damaged.
    """
    folder, models = context.stage_before() / "epochs", []
    for path in sorted(folder.glob("*.safetensors")):
        model = EfficientBertForSequenceClassification(context.model.config)
        try:
            model.load_state_dict(read_tensors(path)[0])
        except (DamagedError, RuntimeError) as error:
            raise InputError(f"{path} is damaged; fine-tune again, with --fresh") from error
        torch.nn.Module.to(model, context.device)
        models.append(model.eval())
    if not models:
        raise InputError(f"{folder} has lost the epochs that fine-tuning kept; fine-tune again, with --fresh")
    return models


def with_saliency(rows: Rows, path: Path) -> Rows:
    """Add to each row its `saliency`, (length,) float32, matched by its id.

    Raises:
        InputError: the file cannot be read, lacks a row's map, or has one of other word pieces or another label.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); extract saliency again, with --fresh"
        ) from error
    names = table["example_id"].to_pylist()
    row_of = {name: index for index, name in enumerate(names)}
    if len(row_of) < len(names):
        raise InputError(f"{path} has several saliency maps of one example; give the training rows ids of their own")
    column, digests = table["saliency"].chunk(0), table["row"].to_pylist()
    numbers, starts = torch.tensor(column.values.to_numpy()), column.offsets.to_pylist()
    mapped = []
    for row in rows:
        name = row["example_id"]
        if name not in row_of:
            raise InputError(f"{path} has no saliency map of example {name!r}; extract saliency again, with --fresh")
        index = row_of[name]
        if digests[index] != row_digest(row):
            raise InputError(
                f"{path}: the saliency map of example {name!r} is of other word pieces or another label, so of another "
                "tokenizer, length or revision of the data: extract saliency again, with --fresh"
            )
        mapped.append({**row, "saliency": numbers[starts[index] : starts[index + 1]]})
    return mapped


SALIENCY = Stage(
    name="saliency",
    summary="extract saliency maps of the training rows, averaged over the best fine-tuned epochs",
    train=extract,
    options=(
        Knob("batch_size", "examples per pass", 32, low=1, high=65536),
        Knob("precision", "arithmetic of the passes", "auto", choices=("auto", "bf16", "no")),
    ),
    after=FINETUNE,
    uses_seed=False,
    step_cost=lambda options: 1.4,  # three epochs' maps, each cheaper than a step: no gradients of weights
)
