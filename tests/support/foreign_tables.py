"""Parquet and saved data sets as other people's programs leave them, made by Hypothesis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.support.foreign_data import COLUMNS, Draw, Truth, replace


def stored_names(draw: Draw, truth: Truth) -> tuple[list[str] | None, list[int]]:
    """The class names of a table, None for none, and our number -> its number there."""
    classes = len(truth.names)
    kind = draw(st.sampled_from(["none", "same", "turned", "spelt", "numbers"] * 4 + ["foreign", "longer"]))
    order = draw(st.permutations(range(classes))) if kind in ("turned", "spelt") else list(range(classes))
    names = [truth.names[number] for number in order]
    if kind == "spelt":
        names = [name.replace("_", " ").title() for name in names]
    if kind == "numbers":
        names = draw(st.sampled_from([[str(number) for number in order], [f"LABEL_{number}" for number in order]]))
    if truth.task == "stsb":
        kind = draw(st.sampled_from(["none"] * 9 + ["foreign"]))
    if kind == "foreign":
        names = ["rain", "sun", "snow"][: max(classes, 2)]
        truth.spoil()
    if kind == "longer":
        names = [*names, "neither"]
        truth.spoil()
    return (None if kind == "none" else list(names)), [list(order).index(number) for number in range(classes)]


def arrays(draw: Draw, truth: Truth, numbers: Sequence[int], *, named: bool) -> dict[str, pa.Array]:
    """The columns of a table; without names in its metadata labels may be strings or floats too."""
    *texts, label = COLUMNS[truth.task].hub
    table_columns = {}
    for number, name in enumerate(texts):
        column = [row[number] for row in truth.texts]
        kind = draw(st.sampled_from(["string", "large_string", "dictionary"] * 8 + ["binary", "null"]))
        if truth.task == "hatexplain":
            truth.texts = [(" ".join(text.split(" ")),) for text in column]
            table_columns[name] = pa.array([text.split(" ") for text in column])
        elif kind == "dictionary":
            table_columns[name] = pa.array(column).dictionary_encode()
        elif kind == "binary":
            truth.spoil()
            table_columns[name] = pa.array([text.encode() for text in column])
        elif kind == "null":
            truth.spoil()
            table_columns[name] = pa.array([None] * len(column), pa.string())
        else:
            table_columns[name] = pa.array(column, pa.type_for_alias(kind))
    table_columns[label] = label_array(draw, truth, numbers, named=named)
    return table_columns


def label_array(draw: Draw, truth: Truth, numbers: Sequence[int], *, named: bool) -> pa.Array:
    """A label column."""
    if truth.task == "stsb":
        return pa.array(truth.labels, draw(st.sampled_from([pa.float64(), pa.float32()])))
    stored = [numbers[int(label)] for label in truth.labels]
    if truth.task == "hatexplain":
        votes = [{"label": [number, (number + 1) % 3, number], "annotator_id": [1, 2, 3]} for number in stored]
        return pa.array(votes)
    kinds = ["int64", "int32", "int8", "float64"] * 8 + ["bool", "null"] + ([] if named else ["string", "digits"])
    kind = draw(st.sampled_from(kinds))
    if kind in ("bool", "null"):
        truth.spoil()
        return pa.array([bool(number) if kind == "bool" else None for number in stored])
    if kind == "string":
        return pa.array([truth.names[int(label)] for label in truth.labels])
    if kind == "digits":
        return pa.array([str(int(label)) for label in truth.labels])
    return pa.array(stored, pa.type_for_alias(kind))


def feature_of(truth: Truth, names: Sequence[str]) -> dict[str, object]:
    """Hugging Face's description of a label column with names."""
    feature: dict[str, object] = {"names": list(names), "_type": "ClassLabel"}
    if truth.task == "hatexplain":
        inner = {"label": feature, "annotator_id": {"dtype": "int32", "_type": "Value"}}
        feature = {"feature": inner, "_type": "Sequence"}
    return feature


def parquet(draw: Draw, truth: Truth, base: Path) -> None:
    """Hub-style shards, each with names and numbers of its own."""
    count = draw(st.integers(1, min(4, len(truth.texts))))
    cuts = [len(truth.texts) * part // count for part in range(count + 1)]
    below, files = shard_names(draw, truth, count)
    kept = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        part = Truth(truth.task, truth.texts[start:end], truth.labels[start:end])
        names, numbers = stored_names(draw, part)
        table = pa.table(arrays(draw, part, numbers, named=names is not None))
        if names is not None:
            features = {COLUMNS[truth.task].hub[-1]: feature_of(truth, names)}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        truth.sound = False if part.sound is False else truth.sound
        kept += part.texts
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        for name in [name for shard, name in files if shard == number]:
            (base / below / name).parent.mkdir(parents=True, exist_ok=True)
            whole = sink.getvalue().to_pybytes()
            (base / below / name).write_bytes(whole if "._" in name else replace(draw, truth, whole))
    truth.texts = kept


def shard_names(draw: Draw, truth: Truth, count: int) -> tuple[str, list[tuple[int, str]]]:
    """A folder, and (number of the shard, file name) of what is written there."""
    below = draw(st.sampled_from(["", "data"]))
    style = draw(st.sampled_from(["of", "hash", "folder", "folder of", "whole" if count == 1 else "of"]))
    form = {
        "of": f"train-{{:05d}}-of-{count:05d}.parquet",
        "hash": f"train-{{0:05d}}-of-{count:05d}-{{0:x}}f2e3d4c5b6a7988.parquet",
        "folder": "train/{:04d}.parquet",
        "folder of": f"train/train-{{:05d}}-of-{count:05d}.parquet",
        "whole": "train.parquet",
    }[style]
    files = [(number, form.format(number)) for number in range(count)]
    damage = draw(st.sampled_from(["", "hidden"] * 8 + ["lost", "copy", "twin", "leftover", "beyond", "hidden"]))
    stem = files[0][1].removesuffix(".parquet")
    head = stem.rpartition("/")[0] + "/" if "/" in stem else ""
    extra = {
        "copy": f"{stem} (1).parquet",
        "twin": "train-00000-of-00001-abcdef0123456789.parquet" if style == "whole" else f"{stem}-0a1b2c3d.parquet",
        "leftover": "train-00004-of-00009.parquet",
        "beyond": f"train-{count:05d}-of-{count:05d}.parquet",
    }
    if damage in extra:
        truth.spoil()
        files.append((0, extra[damage]))
    elif damage == "hidden":
        files.append((0, f"{head}._{stem.removeprefix(head)}.parquet"))
    elif damage == "lost" and count > 1:
        # Of files that are only counted, the last may go without a trace.
        truth.spoil(surely=style != "folder")
        lost = draw(st.integers(0, count - 1 - (style == "folder")))
        files = [each for each in files if each[0] != lost]
        truth.sound = False
    return below, files


def save_to_disk(draw: Draw, truth: Truth, base: Path) -> None:
    """A folder that save_to_disk wrote."""
    names, numbers = stored_names(draw, truth)
    columns = arrays(draw, truth, numbers, named=True)
    label = COLUMNS[truth.task].hub[-1]
    table = datasets.Dataset(pa.table(columns))
    if names is not None and pa.types.is_integer(columns[label].type):
        table = table.cast_column(label, datasets.ClassLabel(names=names))
    elif names is not None:
        truth.sound = None if truth.sound is False else truth.sound  # the names are not stored
        if numbers != sorted(numbers):
            truth.spoil(surely=False)
            truth.labels = [numbers[int(each)] for each in truth.labels]
    count = draw(st.integers(1, min(3, len(table))))
    table.save_to_disk(base / "train", num_shards=count)
    damage = draw(st.sampled_from(["", "hidden"] * 6 + ["lost", "copy", "state", "info", "hidden"]))
    first = base / "train" / f"data-00000-of-{count:05d}.arrow"
    if damage == "hidden":
        (base / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        return
    if damage:
        truth.spoil()
    if damage == "lost":
        first.unlink()
    elif damage == "copy":
        (base / "train" / "data-00001-of-00009.arrow").write_bytes(first.read_bytes())
    elif damage == "state":
        (base / "train" / "state.json").write_text(
            draw(st.sampled_from(["{}", "[]", "", "null", '{"_data_files": [1]}']))
        )
    elif damage == "info":
        (base / "train" / "dataset_info.json").unlink()
