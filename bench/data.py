"""Data: a task's split as a checked table, its fingerprint, the held-out slice and word pieces."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.sources import Raw, read_folder, read_hub

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from bench.tasks import Task

PHRASE_WORDS = 3
"""Shorter phrases ("the film") occur everywhere and give nothing away; `hold_out` leaves them in training."""


def load_split(task: Task, split: str, *, data_dir: Path | None, seed: int, limit: int | None = None) -> Dataset:
    """Load one split: generated for a synthetic task, else from `data_dir` where given, else from the data hub.

    Returns:
        A table with columns example_id, text, pair (pair tasks only), label (int64) and what a generator adds.
        With `limit`, a random draw of that many rows (fixed by `seed`), in the split's order.

    Raises:
        InputError: the data is missing, out of reach or malformed.
    """
    import datasets

    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} rows leaves nothing; pass a positive number of examples")
    if task.generate is not None:
        splits = task.generate(seed)
        if split not in splits:
            raise InputError(f"task {task.name!r} has no split {split!r}; there are: {', '.join(splits)}")
        table = datasets.Dataset.from_list(list(splits[split]))
    else:
        raw = read_hub(task, split) if data_dir is None else read_folder(task, split, data_dir)
        table = datasets.Dataset.from_dict(_checked(task, split, raw))
    if limit is None or limit >= len(table):
        return table
    return table.select(sorted(random.Random(seed).sample(range(len(table)), limit)))  # noqa: S311 - a draw, no secret


def fingerprint(dataset: Dataset) -> str:
    """The first 16 hex digits of SHA-256 over texts, pairs and labels in order: equal data, wherever it came from."""
    columns = [dataset[name][:] for name in ("text", "pair", "label") if name in dataset.column_names]
    return hashlib.sha256(json.dumps(columns, ensure_ascii=False).encode()).hexdigest()[:16]


def hold_out(
    train: Dataset, *, seed: int, fraction: float | None = None, most: int = 2000, phrases: bool = False
) -> tuple[Dataset, Dataset]:
    """Split off a stratified slice of the training split, for model selection and calibration.

    With `phrases` (SST-2, whose training rows are phrases of the same sentences) a random slice would leak: whole
    sentences are held out, that is rows contained in no other row, and every training row of `PHRASE_WORDS` or more
    words that a held-out sentence contains is dropped. `fraction` is then a fraction of the sentences, and one half of
    the usual tenth by default, because each of them takes its phrases along.

    Returns:
        (what is left to train on, the held-out slice), each in the split's order.

    Raises:
        InputError: too few rows of some class to have it on both sides.
    """
    from sklearn.model_selection import train_test_split

    texts = [" ".join(text.split()) for text in train["text"]]
    pool = _sentences(texts) if phrases else list(range(len(texts)))
    labels = list(train["label"])
    strata = [labels[row] for row in pool]
    classes = sorted(set(labels))
    scarce = [label for label in classes if strata.count(label) < 2]
    if scarce or len(pool) < 2 * len(classes):
        raise InputError(f"{len(texts)} training rows are too few to hold out some of every class; raise the limit")
    fraction = (0.05 if phrases else 0.1) if fraction is None else fraction
    size = max(len(classes), min(most, round(fraction * len(pool))))
    heldout = set(train_test_split(pool, test_size=size, stratify=strata, random_state=seed)[1])
    covered = {phrase for row in heldout for phrase in _phrases(texts[row])} if phrases else set()
    kept = [row for row in range(len(texts)) if row not in heldout and texts[row] not in covered]
    return train.select(kept), train.select(sorted(heldout))


def encode(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Dataset:
    """Cut every example into word pieces, truncating the longer text of a pair first.

    Returns:
        A table in memory with columns example_id, input_ids, token_type_ids, label and length (word pieces with
        [CLS] and [SEP], after truncation, without padding).
    """
    import datasets

    ids = datasets.List(datasets.Value("int32"))
    columns = {"example_id": datasets.Value("string"), "input_ids": ids, "token_type_ids": ids}
    features = datasets.Features({**columns, "label": datasets.Value("int64"), "length": datasets.Value("int64")})

    def batches() -> Iterator[Dataset]:
        for rows in dataset.iter(batch_size=1000):
            pieces = tokenizer(
                rows["text"],
                rows.get("pair"),
                max_length=max_length,
                truncation="longest_first",
                return_token_type_ids=True,
                return_attention_mask=False,
                verbose=False,
            )
            encoded = {name: pieces[name] for name in ("input_ids", "token_type_ids")}
            lengths = [len(row) for row in encoded["input_ids"]]
            given = {name: rows[name] for name in ("example_id", "label")}
            yield datasets.Dataset.from_dict({**given, **encoded, "length": lengths}, features=features)

    return datasets.concatenate_datasets(list(batches()))


def _checked(task: Task, split: str, raw: Raw) -> dict[str, list[Any]]:
    """The columns of a split, every value of its type and every label a class's number."""
    if not raw.text:
        raise InputError(
            f"the {split!r} split of task {task.name!r} has no rows ({raw.place(0)}); is the file complete?"
        )
    columns: dict[str, list[Any]] = {"example_id": [f"{split}-{row}" for row in range(len(raw.text))]}
    for name, values in (("text", raw.text), ("pair", raw.pair)):
        if values is None:
            continue
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise InputError(f"{raw.place(row)}: the {name} is {value!r}, but it must be a string")
        columns[name] = list(values)
    columns["label"] = [_class(task, value, raw.place(row)) for row, value in enumerate(raw.label)]
    return columns


def _class(task: Task, value: object, place: str) -> int:
    if value in task.labels:
        return task.labels.index(str(value))
    if str(value).isdecimal() and int(str(value)) < len(task.labels):
        return int(str(value))
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(task.labels))
    raise InputError(f"{place}: the label is {value!r}, but task {task.name!r} has the classes {known}")


def _phrases(text: str) -> Iterator[str]:
    """`text` and every run of at least `PHRASE_WORDS` of its words."""
    words = text.split()
    yield text
    for start in range(len(words)):
        for end in range(start + PHRASE_WORDS, len(words) + 1):
            yield " ".join(words[start:end])


def _sentences(texts: Sequence[str]) -> list[int]:
    """Rows of at least `PHRASE_WORDS` words whose text is contained in no other row's."""
    known = set(texts)
    contained = {phrase for text in known for phrase in _phrases(text) if phrase in known and phrase != text}
    return [row for row, text in enumerate(texts) if text not in contained and text.count(" ") >= PHRASE_WORDS - 1]
