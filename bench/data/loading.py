"""Load a task's split as a checked table; fingerprint it, hold rows out, cut texts into word pieces."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.layouts import Raw
from bench.data.rows import check_rows
from bench.data.sources import read_folder, read_hub
from bench.data.windows import windows as windows_of
from bench.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from bench.tasks import Task

NAMED = "rows have ids of their own"
"""The description of a loaded split whose ids come from its file."""

DATA_SEED = 0
"""Seed of synthetic data and of every limited draw of rows: runs of several seeds meet the same examples."""

PHRASE_WORDS = 3
"""Shorter phrases ("the film") occur everywhere and give nothing away; `hold_out` leaves them in training."""


def load_split(task: Task, split: str, *, data_dir: Path | None, seed: int, limit: int | None = None) -> Dataset:
    """Load one split: generated for a synthetic task, else from `data_dir` where given, else from the data hub.

    Returns:
        A table with columns example_id, text, pair (pair tasks only), label (int64, or float64 in a regression; -1 in a
        split without labels) and what a generator adds. With `limit`, a random draw of that many rows (fixed
        by `seed`), in the split's order.

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
        source, raw = _read(task, split, data_dir)
        named = datasets.DatasetInfo(description=NAMED if raw.example_id else "")
        table = datasets.Dataset.from_dict(check_rows(source, split, raw), info=named)
    if limit is None or limit >= len(table):
        return table
    return table.select(sorted(random.Random(seed).sample(range(len(table)), limit)))  # noqa: S311 - a draw, no secret


def locate_row(task: Task, split: str, example_id: str, *, data_dir: Path | None) -> str:
    """Say in which file and line a row of a split stands; the file is read again for it."""
    if task.generate is not None:
        return f"example {example_id!r} of task {task.name!r}"
    source, raw = _read(task, split, data_dir)
    return raw.locate(check_rows(source, split, raw)["example_id"].index(example_id))


def fingerprint(dataset: Dataset, *, names: bool = False) -> str:
    """Return 16 hex digits of SHA-256 over texts, pairs and labels in order; equal for equal data from any source.

    Args:
        names: take the ids of the rows too, where they come from the file: those made here say nothing.
    """
    kept = ("text", "pair", "label", *(["example_id"] if names and dataset.info.description == NAMED else []))
    columns = [dataset[name][:] for name in kept if name in dataset.column_names]
    return hashlib.sha256(json.dumps(columns, ensure_ascii=False).encode()).hexdigest()[:16]


def hold_out(
    train: Dataset, *, seed: int, fraction: float | None = None, most: int = 2000, phrases: bool = False
) -> tuple[Dataset, Dataset]:
    """Split off a slice of the training split, stratified by class, for model selection and calibration.

    Copies of held-out rows (the same words, of both texts where there is a pair) are dropped from what is left.

    With `phrases` (SST-2, whose training rows are phrases of the same sentences) a random slice would leak: whole
    sentences are held out, that is rows contained in no other row, and every training row of `PHRASE_WORDS` or more
    words that a held-out sentence contains is dropped. `fraction` is then a fraction of the sentences, and one half of
    the usual tenth by default, because each of them takes its phrases along.

    Returns:
        (what is left to train on, the held-out slice), each in the split's order.

    Raises:
        InputError: too few rows of some class to have it on both sides, or one class only.
    """
    from sklearn.model_selection import train_test_split

    columns = train.column_names
    texts, *others = ([" ".join(text.split()) for text in train[name]] for name in ("text", "pair") if name in columns)
    sizes = _sizes(texts) if phrases else []
    pool = _sentences(texts, sizes) if phrases else list(range(len(texts)))
    labels = list(train["label"])
    real = isinstance(labels[0], float)  # the scores of a regression have no classes to stratify by
    kinds = [0 if real else label for label in labels]
    strata = [kinds[row] for row in pool]
    classes = sorted(set(strata))
    scarce = [label for label in classes if strata.count(label) < 2]
    if scarce or len(pool) < 2 * len(classes):
        raise InputError(f"{len(texts)} training rows are too few to hold out some of every class; raise the limit")
    if len(set(labels)) < 2:
        raise InputError(
            f"all {len(texts)} training rows have the label {labels[0]}, but training needs two classes; "
            f"is the file complete?"
        )
    fraction = (0.05 if phrases else 0.1) if fraction is None else fraction
    size = max(len(classes), min(most, round(fraction * len(pool))))
    heldout = set(train_test_split(pool, test_size=size, stratify=strata, random_state=seed)[1])
    examples = list(zip(texts, *others, strict=True))
    copies = {examples[row] for row in heldout}
    copies |= {(phrase,) for row in heldout if phrases for phrase in _phrases(texts[row], sizes)}
    kept = [row for row in range(len(texts)) if row not in heldout and examples[row] not in copies]
    if len({kinds[row] for row in kept}) < len(classes):
        raise InputError(
            f"{len(texts)} training rows, of which many are copies, are too few to hold out some; give rows that differ"
        )
    return train.select(kept), train.select(sorted(heldout))


def encode(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int, windows: bool = False) -> Dataset:
    """Cut every example into word pieces, truncating the longer text of a pair first.

    With `windows`, a longer text is not truncated but becomes several examples, with two columns more
    (`bench.data.windows`).

    Returns:
        A table in memory with columns example_id, input_ids, token_type_ids, label, length (word pieces with
        [CLS] and [SEP], after truncation, without padding) and cut (whether there were more).
    """
    import datasets

    ids = datasets.List(datasets.Value("int32"))
    columns = {"example_id": datasets.Value("string"), "input_ids": ids, "token_type_ids": ids}
    columns |= {"label": dataset.features["label"], "cut": datasets.Value("bool"), "length": datasets.Value("int64")}
    more = {"text_id": datasets.Value("string"), "words": ids} if windows else {}
    features = datasets.Features({**columns, **more})

    def batches() -> Iterator[Dataset]:
        for rows in dataset.iter(batch_size=1000):
            if windows:
                cut = list(windows_of(rows, tokenizer, max_length=max_length))
                encoded = {name: [row[name] for row in cut] for name in cut[0]}
            else:
                encoded = encode_truncated(rows, tokenizer, max_length)
            lengths = [len(row) for row in encoded["input_ids"]]
            yield datasets.Dataset.from_dict({**encoded, "length": lengths}, features=features)

    return datasets.concatenate_datasets(list(batches()))


def encode_truncated(rows: Any, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list[Any]]:
    """Encode a batch of rows, one example each, truncated where it is longer."""
    pieces = tokenizer(
        rows["text"],
        rows.get("pair"),
        max_length=max_length,
        truncation="longest_first",
        return_token_type_ids=True,
        return_attention_mask=False,
        verbose=False,
    )
    kept = {name: rows[name] for name in ("example_id", "label")}
    cut = [bool(encoding.overflowing) for encoding in pieces.encodings]
    return {**kept, **{name: pieces[name] for name in ("input_ids", "token_type_ids")}, "cut": cut}


def _read(task: Task, split: str, data_dir: Path | None) -> tuple[Task, Raw]:
    """Read a split unchecked; return the task whose data it is, and the columns."""
    source, part = task.elsewhere.get(split, (task, split))
    return source, read_hub(source, part) if data_dir is None else read_folder(source, part, data_dir)


def _sizes(texts: Sequence[str]) -> list[int]:
    """Return the numbers of words, `PHRASE_WORDS` or more, that any text has: no other run of words is a text."""
    return sorted({size for text in texts if (size := len(text.split())) >= PHRASE_WORDS})


def _phrases(text: str, sizes: Sequence[int]) -> Iterator[str]:
    """Yield `text` and every shorter run of its words that has one of these sizes, ascending."""
    words = text.split()
    yield text
    for size in itertools.takewhile(len(words).__gt__, sizes):
        for start in range(len(words) - size + 1):
            yield " ".join(words[start : start + size])


def _sentences(texts: Sequence[str], sizes: Sequence[int]) -> list[int]:
    """Return the rows of `PHRASE_WORDS` words or more whose text is in no other row's; `sizes` as from `_sizes`."""
    known = set(texts)
    contained = {phrase for text in known for phrase in _phrases(text, sizes) if phrase in known and phrase != text}
    return [row for row, text in enumerate(texts) if text not in contained and text.count(" ") >= PHRASE_WORDS - 1]
