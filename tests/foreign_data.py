"""Data folders as other people's programs leave them, made by Hypothesis together with what they truly hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from bench.registry import TASKS

SECRET = "SECRET"  # noqa: S105 - a word
"""In every text, so that a message that quotes one gives itself away."""

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0"), max_size=6)
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Columns:
    """A task's columns in each layout."""

    tsv: tuple[str, ...] = ()
    hub: tuple[str, ...] = ()


COLUMNS = {
    "sst2": Columns(("sentence", "label"), ("sentence", "label")),
    "mrpc": Columns(("#1 String", "#2 String", "Quality"), ("sentence1", "sentence2", "label")),
    "stsb": Columns(("sentence1", "sentence2", "score"), ("sentence1", "sentence2", "label")),
    "hatexplain": Columns(hub=("post_tokens", "annotators")),
}
"""Task -> its text, its second text, its label."""


@dataclass
class Truth:
    """What a folder holds: rows of texts, and of a label each; and whether it may be refused, must be, or must not."""

    task: str
    texts: list[tuple[str, ...]]
    labels: list[float]
    sound: bool | None = True

    def spoil(self, *, surely: bool = True) -> None:
        """Note a damage."""
        self.sound = False if surely or self.sound is False else None

    @property
    def names(self) -> Sequence[str]:
        """The task's classes."""
        return TASKS[self.task].labels


def rows(draw: Draw) -> Truth:
    """Rows with different texts."""
    task = draw(st.sampled_from(sorted(COLUMNS)))
    count = draw(st.integers(1, 12))
    parts = 2 if task in ("mrpc", "stsb") else 1
    texts = [tuple(f"{SECRET} a{row} {draw(PLAIN)}." for _ in range(parts)) for row in range(count)]
    if task == "stsb":
        return Truth(task, texts, [draw(st.integers(0, 20)) / 4 for _ in range(count)])
    classes = len(TASKS[task].labels)
    return Truth(task, texts, [draw(st.integers(0, classes - 1)) for _ in range(count)])


def folder(draw: Draw, base: Path) -> Truth:
    """Write a training split in some layout, sound or damaged."""
    truth = rows(draw)
    others = [parquet, save_to_disk] if truth.task != "hatexplain" else [json_lines, parquet]
    layout = draw(st.sampled_from([*others, *([tab_separated] if COLUMNS[truth.task].tsv else [])]))
    layout(draw, truth, base)
    if draw(st.integers(0, 24)) == 0:
        second_layout(draw, truth, base)
    return truth


def second_layout(draw: Draw, truth: Truth, base: Path) -> None:
    """The same split once more."""
    below = base / draw(st.sampled_from(["", "data", TASKS[truth.task].folder]))
    below.mkdir(parents=True, exist_ok=True)
    if not (below / "train.parquet").exists():
        truth.spoil()
        pq.write_table(pa.table({"sentence": ["x"]}), below / "train.parquet")


def write_label(draw: Draw, truth: Truth, label: float) -> str:
    """A label in words or digits; some are no label."""
    if truth.task == "stsb":
        forms = [str(label), f"{label:.3f}", f" {label}"]
        wrong = ["", "5.01", "-1", "nan", "inf", "1_0", "high", "9" * 5000, "True"]
    else:
        name = truth.names[int(label)]
        forms = [f"{label:g}", name, name.upper(), name.replace("_", " ").title(), f"{label:g} ", f"{label:.1f}"]
        wrong = [
            "",
            "-1",
            "3",
            "0.5",
            "nan",
            "True",
            "false",
            "9" * 5000,
            "nonesuch",
            f"{SECRET} in the wrong column of it",
        ]
    if draw(st.integers(0, 60)) == 0:
        truth.spoil()
        return str(draw(st.sampled_from(wrong)))
    return str(draw(st.sampled_from(forms)))


def tab_separated(draw: Draw, truth: Truth, base: Path) -> None:
    """GLUE's layout."""
    columns = list(COLUMNS[truth.task].tsv)
    lines = [[*texts, write_label(draw, truth, label)] for texts, label in zip(truth.texts, truth.labels, strict=True)]
    header = draw(
        st.sampled_from([columns] * 24 + [columns[:1], [*columns, columns[-1]], lines[0], [*columns, "more"]])
    )
    if header is not columns:
        truth.spoil()
    end = draw(st.sampled_from(["\n"] * 9 + ["\r\n", "\r\n", "\r\r\n", "\r"]))
    if end == "\r":
        truth.spoil()
    text = "".join("\t".join(line) + end for line in [header, *lines])
    text = disturb(draw, truth, text)
    encoding = draw(st.sampled_from(["utf-8"] * 15 + ["utf-8-sig", "utf-8-sig", "utf-16", "utf-16-le", "cp037"]))
    if not encoding.startswith("utf-8"):
        truth.spoil()
    data = text.encode(encoding, "replace")
    (base / "train.tsv").write_bytes(replace(draw, truth, data))


def disturb(draw: Draw, truth: Truth, text: str) -> str:
    """The same text, rarely with something in it that belongs nowhere."""
    kind = draw(st.sampled_from([""] * 24 + ["no end", "blank", "nul", "tab", "return", "cut"]))
    if kind == "no end":
        return text.rstrip("\r\n") if truth.sound else text
    if kind:
        truth.spoil()
    middle = text.find(SECRET)
    odd = {"blank": "\n\n", "nul": "\0", "tab": "\t", "return": "x\ty\r"}
    if kind == "cut":
        return text[:middle]
    return text[:middle] + odd.get(kind, "") + text[middle:]


def replace(draw: Draw, truth: Truth, data: bytes) -> bytes:
    """A file's bytes, rarely what lies in its place after a download that went wrong."""
    strange = {
        "gzip": gzip.compress(data),
        "page": b"<!DOCTYPE html>\n<html><title>SECRET 404</title></html>\n",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "empty": b"",
        "zip": b"PK\x03\x04" + data,
        "invalid": data[:-1] + b"\xff",
    }
    kind = draw(st.sampled_from([""] * 60 + sorted(strange)))
    if kind:
        truth.spoil()
    return strange.get(kind, data)


def json_lines(draw: Draw, truth: Truth, base: Path) -> None:
    """An object per line, some of which hold what a table cannot."""
    lines = []
    for row, (texts, label) in enumerate(zip(truth.texts, truth.labels, strict=True)):
        name: object = draw(st.sampled_from([f"p{row}", row, f"ü {row}"]))
        value = draw(st.sampled_from([int(label), truth.names[int(label)], truth.names[int(label)].title()]))
        line = json.dumps({"post_id": name, "text": texts[0], "label": value, "more": [row]}, ensure_ascii=False)
        lines.append(oddity(draw, truth, line) if draw(st.integers(0, 25)) == 0 else line)
    if len(lines) > 1 and draw(st.integers(0, 15)) == 0:
        truth.spoil()
        lines[-1] = lines[0]
    data = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
    strange = replace(draw, truth, data)
    if strange[:2] == b"\x1f\x8b":  # gzipped lines are read
        strange = data
        truth.sound = None
    (base / "train.jsonl").write_bytes(strange)


def oddity(draw: Draw, truth: Truth, line: str) -> str:
    """A line with something that is no JSON, no text, no id or no label."""
    truth.spoil()
    row = json.loads(line)
    ids: list[object] = [None, True, 1.5, [SECRET], {}, "", " ", "\0", "i" * 5000, float("nan")]
    texts: list[object] = [None, 3, [SECRET], {}, "", "\0", float("inf"), f"{SECRET} \ud800"]
    labels: list[object] = [None, True, -1, 3, 10**400, float("nan"), [SECRET], {}, SECRET * 9, "\udfff"]
    columns: dict[str, list[object]] = {"post_id": ids, "text": texts, "label": labels, "\ud83d": [1]}
    values = [(key, value) for key, column in columns.items() for value in column]
    key, value = draw(st.sampled_from(values))
    strange = [
        json.dumps({**row, key: value}),
        line[:-1] + ', "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        line[:-1] + ', "deep": ' + '{"a":' * 990,
        line[:-1] + ', "digits": ' + "9" * 5000 + "}",
        line[:-1] + ', "text": "twice"}',
        line[:-1],
        f"[{line}]",
        "null",
        line.replace('"text"', '"txt"'),
        line[:-1] + ', "half": "\ud83d"}',
        line + "\r" + line,
    ]
    return str(draw(st.sampled_from([strange[0]] * 12 + strange)))


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
